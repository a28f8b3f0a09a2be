"""What to bear in mind before a number of the page is believed, a sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.notes import data_lines
from domainbed_adm.recorded_run import is_official
from domainbed_adm.report.section_analyses import AnalysisBlock
from domainbed_adm.report.sweep_folder import PRUNED, SweepFolder
from domainbed_adm.sweeping.jobs import DONE

#: Below so many test environments an interval leans on the differences being normal.
_FEW = 4


class Warned(NamedTuple):
    """A sentence, and the id of the section that has more."""

    words: str
    section: str


def warned(
    sweep: SweepFolder, board: Board, untrusted: Sequence[str], undrawn: str, difficulty: Sequence[AnalysisBlock]
) -> list[Warned]:
    """Those that apply to this sweep."""
    runs = sweep.recorded
    found = []
    trials = {run.trial_seed for run in runs}
    if runs and len(trials) == 1:
        found.append(
            Warned(
                "One trial (n = 1): another seed may turn any difference around. --n_trials 3 is the custom.", "made"
            )
        )
    if untrusted:
        one = len(untrusted) == 1
        count = "One run has" if one else f"{len(untrusted)} runs have"
        told = f"{count} exploded or ended no better than chance, and {'counts' if one else 'count'} in every mean."
        found.append(Warned(told, "missing"))
    open_runs = sum(run.state not in {DONE, PRUNED} for run in sweep.runs)
    if open_runs and runs:
        found.append(
            Warned(
                f"{open_runs} of {len(sweep.runs)} runs have failed or are not finished: numbers may change.", "missing"
            )
        )
    found += [Warned(sentence, "difficulty") for block in difficulty for sentence in block.warnings]
    if undrawn:
        found.append(Warned(undrawn, "curves"))
    few = [name for name, names in board.environments.items() if not is_official(name) and 1 < len(names) < _FEW]
    if few:
        found.append(
            Warned(
                f"{', '.join(few)}: fewer than {_FEW} test environments, so that intervals say little.", "statistics"
            )
        )
    found += [Warned(f"The {line}.", "made") for line in data_lines(runs)]
    found += [Warned(line, "made") for line in board.differences]
    return found
