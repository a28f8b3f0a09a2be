"""What ``analyze`` does: measures each run's model or reads its trace, keeps, prints and draws what it found."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from domainbed_adm.analysis import difficulty_drawings, drawings
from domainbed_adm.analysis.difficulty import backwards, load_traces, rows
from domainbed_adm.analysis.flatness import measure_flatness
from domainbed_adm.analysis.landscape import measure_landscape
from domainbed_adm.analysis.result_files import Flatness, save_flatness, save_landscape
from domainbed_adm.analysis.runs import HessianSettings, LandscapeSettings, Settings, labels, with_checkpoint
from domainbed_adm.analysis.trained_model import TrainedModel, TrainedModels
from domainbed_adm.errors import UserError
from domainbed_adm.recorded_run import Run
from domainbed_adm.run_files import DIFFICULTY
from domainbed_adm.system import figures
from domainbed_adm.system.console import show, warn

Result = TypeVar("Result")
DEFAULT_RHO = 0.05
#: Of a checkpoint's difficulty: name in a row, heading.
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


def analyze_hessian(
    runs: Sequence[Run], settings: Settings, how: HessianSettings, output: Path | None, as_json: bool
) -> None:
    """Measure the flatness of each run that has the checkpoint, keep it in the run's folder, print and draw all.

    Raises:
        UserError: no run has the checkpoint, a model or its data cannot be read, a file cannot be written.
        NonFiniteError: the loss at a model is not finite.
    """
    if output:
        figures.check_output(output)
    runs = with_checkpoint(runs, settings.checkpoint)
    rho = common_rho([run.hparams for run in runs], how.rho)
    models = TrainedModels(runs, settings)
    names, results = _of_each(
        models, lambda model, title: measure_flatness(model, how, rho, settings.seed, title), save_flatness
    )
    if as_json:
        print(json.dumps(msgspec.to_builtins(results), indent=1))
    else:
        _show(results, names)
    for flatness, name in zip(results, names, strict=True):
        lacking = ", ".join(domain.name for domain in flatness.domains if not domain.converged)
        if lacking:
            warn(f"{name}: eigenvalues of {lacking} not all converged: more --max_restarts, or a --tolerance")
    if output:
        figures.save(drawings.draw_flatness(results), output)
        print(f"figure: {output}", file=sys.stderr)


def analyze_landscape(runs: Sequence[Run], settings: Settings, where: LandscapeSettings, output: Path) -> None:
    """Compute the loss around each run's model, keep it in the run's folder, and draw all.

    Raises:
        UserError: no run has the checkpoint, a model or its data cannot be read, parameters differ in shape, a file
            cannot be written.
    """
    figures.check_output(output)
    models = TrainedModels(with_checkpoint(runs, settings.checkpoint), settings)
    models.check_same_shapes()
    _, landscapes = _of_each(
        models, lambda model, title: measure_landscape(model, where, settings.seed, title), save_landscape
    )
    figures.save(drawings.draw_landscape(landscapes), output)
    print(f"figure: {output}")


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
    figures.save(difficulty_drawings.draw_difficulty(methods), output)
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


def common_rho(hparams: Sequence[Mapping[str, Any]], given: float | None) -> float:
    """One radius for all runs: the one given, or the one that those with an hparam ``rho`` share, or 0.05.

    A warning says so where they differ.
    """
    if given is not None:
        return given
    own = sorted({float(rho) for each in hparams if isinstance(rho := each.get("rho"), int | float)})
    if len(own) > 1:
        named = ", ".join(map(str, own))
        warn(f"the runs' rho differ ({named}): sharpness of all at {DEFAULT_RHO}; --rho names another")
    return own[0] if len(own) == 1 else DEFAULT_RHO


def _of_each(
    models: TrainedModels, measure: Callable[[TrainedModel, str], Result], save: Callable[[Result, Path], Path]
) -> tuple[list[str], list[Result]]:
    """The runs' names, and what was measured of each; it is kept as soon as it is there."""
    names, results = labels([run.args for run in models.runs]), []
    for i, name in enumerate(names):
        start = time.perf_counter()
        with models.open(i) as model:
            results.append(measure(model, name))
        path = save(results[-1], models.runs[i].folder)
        seconds = time.perf_counter() - start
        print(f"[{i + 1}/{len(names)}] {name}: {path} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    return names, results


def _show(results: Sequence[Flatness], names: Sequence[str]) -> None:
    columns = ("run", "domain", "n", "loss", "accuracy", "largest eigenvalues", "trace", "SAM step", "random step")
    rows = [
        [
            name,
            domain.name if domain.role == "pooled" else f"{domain.name} ({domain.role})",
            str(domain.n),
            f"{domain.loss:.4f}",
            f"{domain.accuracy:.3f}",
            " ".join(f"{value:.4g}" for value in domain.eigenvalues) + ("" if domain.converged else " (not converged)"),
            f"{domain.trace:.4g} +/- {domain.trace_sem:.2g}",
            f"{domain.sharpness:.4g}",
            f"{domain.random_rise:.3g} +/- {domain.random_rise_sem:.1g}",
        ]
        for flatness, name in zip(results, names, strict=True)
        for domain in flatness.domains
    ]
    show(columns, rows)
    first, modes = results[0], dict.fromkeys(flatness.mode for flatness in results)
    print(f"SAM step, random step: rise of the loss at rho = {first.rho:g}, in nats. Mean loss of mini-batches of")
    print(f"{first.batch_size} images a domain, {first.dtype}; {'; '.join(modes)}.")


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row[name]
    cell = "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    if name == "correctness_correlation" and 0 < row["correctness_runs"] < row["runs"]:
        cell += f" ({row['correctness_runs']} runs)"
    return cell
