"""What ``analyze hessian`` does: measures flatness at each run's model, keeps it beside the model, prints and draws."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from domainbed_adm.analysis.hessian import HessianOperator, hutchinson_trace, largest_eigenvalues
from domainbed_adm.analysis.result_files import DomainFlatness, Flatness, save_flatness
from domainbed_adm.analysis.runs import labels, with_checkpoint
from domainbed_adm.analysis.samples import Sample
from domainbed_adm.analysis.settings import HessianSettings, Settings
from domainbed_adm.analysis.sharpness import random_rise, sam_rise
from domainbed_adm.analysis.trained_model import TrainedModel, TrainedModels
from domainbed_adm.errors import NonFiniteError
from domainbed_adm.recorded_run import Run
from domainbed_adm.system import figures
from domainbed_adm.system.console import ProgressBar, show, warn

DEFAULT_RHO = 0.05


def analyze_hessian(
    runs: Sequence[Run], settings: Settings, how: HessianSettings, output: Path | None, as_json: bool
) -> None:
    """Measure the flatness of each run that has the checkpoint, keep it in the run's folder, print and draw all.

    Args:
        runs: those without the checkpoint are left out.
        settings: which model and sample.
        how: how well.
        output: figure to draw, or None.
        as_json: whether to print what the files hold instead of a table.

    Raises:
        UserError: no run has the checkpoint, a model or its data cannot be read, a file cannot be written.
        NonFiniteError: the loss at a model is not finite.
    """
    if output:
        figures.check_output(output)
    runs = with_checkpoint(runs, settings.checkpoint)
    how = replace(how, rho=common_rho([run.hparams for run in runs], how.rho))
    models, names, results = TrainedModels(runs, settings), labels([run.args for run in runs]), []
    for i, (run, name) in enumerate(zip(runs, names, strict=True)):
        start = time.perf_counter()
        with models.open(i) as model:
            results.append(measure_flatness(model, how, settings.seed, name))
        path = save_flatness(results[-1], run.folder)
        print(
            f"[{i + 1}/{len(runs)}] {name}: {path} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True
        )
    if as_json:
        print(json.dumps(msgspec.to_builtins(results), indent=1))
    else:
        _show(results, names)
    for flatness, name in zip(results, names, strict=True):
        lacking = [domain.name for domain in flatness.domains if not domain.converged]
        if lacking:
            domains = ", ".join(lacking)
            warn(f"{name}: eigenvalues of {domains} not all converged: more --max_restarts, or a --tolerance")
    if output:
        from domainbed_adm.analysis.hessian_figures import draw_flatness

        figures.save(draw_flatness(results), output)
        print(f"figure: {output}", file=sys.stderr)


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


def measure_flatness(model: TrainedModel, how: HessianSettings, seed: int, title: str) -> Flatness:
    """Measure at each source domain, all of them pooled, and each test domain.

    Args:
        model: whose loss.
        how: how well, and at which rho.
        seed: of the random vectors.
        title: of the progress bar.

    Raises:
        UserError: BatchNorm has too small a mini-batch.
        NonFiniteError: the loss at the model is not finite.
    """
    samples = [*model.samples.sources, model.samples.pooled, *model.samples.tests]
    rho = DEFAULT_RHO if how.rho is None else how.rho
    with ProgressBar(title, 3 * len(samples)) as bar:
        domains = [_domain(model, sample, how, rho, seed, bar) for sample in samples]
    tolerance, of_trace = how.tolerance, how.trace_tolerance
    return Flatness(**model.about, rho=rho, tolerance=tolerance, trace_tolerance=of_trace, domains=domains)


def _domain(
    model: TrainedModel, sample: Sample, how: HessianSettings, rho: float, seed: int, bar: ProgressBar
) -> DomainFlatness:
    loss = model.loss(sample)
    value, accuracy = loss.value_and_accuracy()
    if not math.isfinite(value):
        raise NonFiniteError(f"the loss of {model.folder} on {sample.name} is {value}")
    operator = HessianOperator(loss, _counting(bar, f"{sample.name}: Hessian-vector products"))
    pairs = largest_eigenvalues(operator, how.eigenvalues, how.tolerance, how.max_restarts, seed)
    bar.advance()
    trace = hutchinson_trace(operator, pairs, how.trace_tolerance, how.max_vectors, seed)
    bar.advance()
    sharpness = sam_rise(loss, value, rho)
    around = random_rise(loss, value, rho, how.directions, seed, _counting(bar, f"{sample.name}: directions"))
    bar.advance()
    return DomainFlatness(
        name=sample.name, role=sample.role, n=len(sample), loss=value, accuracy=accuracy, eigenvalues=pairs.values,
        converged=pairs.converged, trace=trace.value, trace_sem=trace.sem, trace_vectors=trace.vectors,
        sharpness=sharpness, random_rise=around.mean, random_rise_sem=around.sem,
    )  # fmt: skip


def _counting(bar: ProgressBar, what: str) -> Callable[[], None]:
    """A function that counts its calls behind a progress bar."""
    numbers = count(1)
    return lambda: bar.advance(0, f"{what} {next(numbers)}")


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
