"""``analyze difficulty``: draw the traces of runs, and print their figures at the first and the last checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domainbed_adm.analysis.difficulty import backwards, load_traces, rows
from domainbed_adm.analysis.difficulty_figures import draw_difficulty
from domainbed_adm.errors import UserError
from domainbed_adm.recorded_run import Run
from domainbed_adm.run_files import DIFFICULTY
from domainbed_adm.system import figures
from domainbed_adm.system.console import show

#: What is printed, by its name in a row.
_COLUMNS = {
    "algorithm": "algorithm",
    "measure": "difficulty",
    "step": "step",
    "runs": "runs",
    "median": "median",
    "variation": "variation",
    "self_correlation": "corr. previous",
    "correctness_correlation": "corr. correct",
    "linear_share": "pairs linear keeps",
    "linear_rank_correlation": "corr. linear",
}


def analyze_difficulty(runs: Sequence[Run], output: Path, as_json: bool) -> None:
    """Draw the difficulty traces of these runs into ``output``, and print their figures.

    Raises:
        UserError: no run has a trace, or the figure cannot be drawn or written.
    """
    figures.check_output(output)
    methods = load_traces(runs)
    if not methods:
        where = str(runs[0].folder) if len(runs) == 1 else f"any of the {len(runs)} runs"
        raise UserError(
            f"no {DIFFICULTY} in {where}: train (or sweep launch) with --trace_difficulty, and --restart where the "
            "runs are finished"
        )
    if len({method.dataset for method in methods}) > 1:
        raise UserError(f"the runs are on {', '.join(sorted({m.dataset for m in methods}))}: choose one by --dataset")
    figures.save(draw_difficulty(methods), output)
    found, steps = rows(methods), {method.algorithm: method.step for method in methods}
    if as_json:
        print(json.dumps(found, indent=1))
        return
    ends = [row for row in found if row["step"] in (steps[row["algorithm"]][0], steps[row["algorithm"]][-1])]
    show(tuple(_COLUMNS.values()), [[_cell(row, name) for name in _COLUMNS] for row in ends])
    for line in backwards([row for row in found if row["step"] == steps[row["algorithm"]][-1]]):
        print(line)
    for method in methods:
        if method.left_out:
            print(f"{method.algorithm}: {method.left_out} runs scored at other steps are left out")
    print(f"figure: {output}")


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    cell = "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    if name == "correctness_correlation" and 0 < row["correctness_runs"] < row["runs"]:
        cell += f" ({row['correctness_runs']} runs)"
    return cell
