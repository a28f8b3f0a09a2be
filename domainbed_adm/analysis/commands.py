"""What ``analyze hessian`` and ``analyze landscape`` do with the runs found: measure, keep, print and draw."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from domainbed_adm.analysis.hessian_file import Flatness, save_flatness
from domainbed_adm.analysis.hessian_measuring import Effort, common_rho, measure_flatness
from domainbed_adm.analysis.landscape_file import save_landscape
from domainbed_adm.analysis.landscape_measuring import Grid, check_same_shapes, measure_landscape
from domainbed_adm.analysis.runs import Run, labels, with_checkpoint
from domainbed_adm.analysis.subject import Settings
from domainbed_adm.system import figures
from domainbed_adm.system.console import warn
from domainbed_adm.system.tables import show
from domainbed_adm.training.model_file import load_model


def analyze_hessian(
    runs: Sequence[Run], settings: Settings, effort: Effort, rho: float | None, output: Path | None, as_json: bool
) -> None:
    """Measure each run's flatness, keep it in the run's folder, and print all.

    Args:
        runs: those without the checkpoint are left out.
        settings: which model and sample.
        effort: how well.
        rho: radius of the sharpness; None as ``common_rho`` says.
        output: figure to draw, or None.
        as_json: whether to print what the files hold instead of a table.

    Raises:
        UserError: no run has the checkpoint, one cannot be opened, a file cannot be written.
        NonFiniteError: the loss at a model is not finite.
    """
    if output:
        figures.check_output(output)
    runs = with_checkpoint(runs, settings.checkpoint)
    radius = common_rho([run.hparams for run in runs], rho)
    for run in runs:
        load_model(run.folder / settings.checkpoint)  # a damaged one stops this before the others' minutes
    found, names = [], labels([run.args for run in runs])
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        start = time.perf_counter()
        found.append(measure_flatness(run, settings, effort, radius, name))
        _tell(f"[{i + 1}/{len(runs)}] {name}", save_flatness(found[-1], run.folder), start)
    if as_json:
        print(json.dumps([asdict(one) for one in found], indent=1))
    else:
        _show(found, names)
    for one, name in zip(found, names, strict=True):
        lacking = [domain.name for domain in one.domains if not domain.converged]
        if lacking:
            warn(
                f"{name}: eigenvalues of {', '.join(lacking)} not all converged: more --max_restarts, or a --tolerance"
            )
    if output:
        from domainbed_adm.analysis.hessian_figures import draw_flatness

        figures.save(draw_flatness(found), output)
        print(f"figure: {output}", file=sys.stderr)


def analyze_landscape(runs: Sequence[Run], settings: Settings, grid: Grid, output: Path) -> None:
    """Compute the loss around each run's model, keep it in the run's folder, and draw all.

    Args:
        runs: those without the checkpoint are left out.
        settings: which model and sample.
        grid: where.
        output: figure to draw.

    Raises:
        UserError: no run has the checkpoint, parameters differ in shape, a run cannot be opened, a file cannot be
            written.
    """
    figures.check_output(output)
    runs = with_checkpoint(runs, settings.checkpoint)
    check_same_shapes(runs, settings.checkpoint)
    found = []
    for i, (run, name) in enumerate(zip(runs, labels([run.args for run in runs]), strict=True)):
        start = time.perf_counter()
        found.append(measure_landscape(run, settings, grid, name))
        _tell(f"[{i + 1}/{len(runs)}] {name}", save_landscape(found[-1], run.folder), start)
    from domainbed_adm.analysis.landscape_figures import draw_landscape

    figures.save(draw_landscape(found), output)
    print(f"figure: {output}")


def _tell(name: str, path: Path, start: float) -> None:
    """How far it is, also where there is no bar."""
    print(f"{name}: {path} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)


def _show(found: Sequence[Flatness], names: Sequence[str]) -> None:
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
        for one, name in zip(found, names, strict=True)
        for domain in one.domains
    ]
    show(columns, rows)
    print(f"SAM step, random step: rise of the loss at rho = {found[0].rho:g}, in nats. Mean loss of mini-batches of")
    print(
        f"{found[0].batch_size} images a domain, {found[0].dtype}; {'; '.join(dict.fromkeys(f.mode for f in found))}."
    )
