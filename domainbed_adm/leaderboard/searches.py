"""What a table has to say of runs whose hparams were searched: how, and that some were stopped early."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from domainbed_adm.recorded_run import Run
from domainbed_adm.run_files import is_pruned
from domainbed_adm.sweeping.search import Search, read_search


def search_lines(runs: Iterable[Run]) -> list[str]:
    """A sentence for each search that some of the runs are of, and for those of its runs that it stopped early."""
    by_folder: dict[Path, list[Run]] = {}
    for run in runs:
        by_folder.setdefault(run.folder.parent, []).append(run)
    lines = []
    for folder, own in by_folder.items():
        search = read_search(folder)
        if search:
            trials = len({run.hparams_seed for run in own})
            lines.append(f"{described(search, trials)}.")
            pruned = [run for run in own if is_pruned(run.folder)]
            if pruned:
                lines.append(
                    f"{len(pruned)} of its {len(own)} runs were stopped early (--prune), unlike DomainBed's: they "
                    "count with the checkpoints that they have."
                )
    return lines


def described(search: Search, trials: int) -> str:
    """How the hparams were chosen."""
    drawn = "" if search.sampler == "random" else ", not drawn at random as in DomainBed's sweeps"
    return (
        f"Hparams of {search.algorithm} on {search.dataset} were searched{drawn}: {search.sampler}, {trials} trials, "
        f"seed {search.seed}; objective: {search.objective_line}"
    )
