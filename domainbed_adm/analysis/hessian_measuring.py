"""Flatness of the loss at a run's model: eigenvalues, trace and sharpness on every domain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from domainbed_adm.analysis.hessian import HessianOperator, hutchinson_trace, largest_eigenvalues
from domainbed_adm.analysis.hessian_file import DomainFlatness, Flatness
from domainbed_adm.analysis.runs import Run
from domainbed_adm.analysis.sample import Sample
from domainbed_adm.analysis.sharpness import random_rise, sam_rise
from domainbed_adm.analysis.subject import Settings, Subject, open_subject
from domainbed_adm.errors import NonFiniteError
from domainbed_adm.system.console import ProgressBar, warn

DEFAULT_RHO = 0.05


@dataclass(frozen=True)
class Effort:
    """How well to measure: the arguments of ``largest_eigenvalues``, ``hutchinson_trace`` and ``random_rise``."""

    eigenvalues: int = 5
    tolerance: float = 1e-3
    max_restarts: int = 100
    trace_tolerance: float = 0.05
    max_vectors: int = 100
    directions: int = 10


def common_rho(hparams: Sequence[Mapping[str, Any]], given: float | None) -> float:
    """One radius for all runs: the one given, or the one that those with an hparam ``rho`` share, or 0.05.

    A warning says so where they differ.
    """
    if given is not None:
        return given
    own = sorted({float(one["rho"]) for one in hparams if isinstance(one.get("rho"), int | float)})
    if len(own) > 1:
        named = ", ".join(map(str, own))
        warn(f"the runs' rho differ ({named}): sharpness of all at {DEFAULT_RHO}; --rho names another")
    return own[0] if len(own) == 1 else DEFAULT_RHO


def measure_flatness(run: Run, settings: Settings, effort: Effort, rho: float, title: str) -> Flatness:
    """Measure at each source domain, all of them pooled, and each test domain.

    Args:
        run: whose model.
        settings: which model and sample.
        effort: how well.
        rho: radius of the sharpness.
        title: of the progress bar.

    Raises:
        UserError: the run cannot be opened or BatchNorm has too small a mini-batch.
        NonFiniteError: the loss at the model is not finite.
    """
    with open_subject(run, settings) as subject:
        samples = [*subject.samples.sources, subject.samples.pooled, *subject.samples.tests]
        with ProgressBar(title, 3 * len(samples)) as bar:
            domains = [_measure(subject, sample, effort, rho, settings.seed, bar) for sample in samples]
    return Flatness(
        **subject.about, rho=rho, tolerance=effort.tolerance, trace_tolerance=effort.trace_tolerance, domains=domains
    )


def _measure(
    subject: Subject, sample: Sample, effort: Effort, rho: float, seed: int, bar: ProgressBar
) -> DomainFlatness:
    loss = subject.loss(sample)
    value, accuracy = loss.value_and_accuracy()
    if not math.isfinite(value):
        raise NonFiniteError(f"the loss of {subject.run.folder} on {sample.name} is {value}")
    products = _Counter(bar, f"{sample.name}: Hessian-vector products")
    operator = HessianOperator(loss, products)
    pairs = largest_eigenvalues(operator, effort.eigenvalues, effort.tolerance, effort.max_restarts, seed)
    bar.advance()
    trace = hutchinson_trace(operator, pairs, effort.trace_tolerance, effort.max_vectors, seed)
    bar.advance()
    sharpness = sam_rise(loss, value, rho)
    around = random_rise(loss, value, rho, effort.directions, seed, _Counter(bar, f"{sample.name}: directions"))
    bar.advance()
    rises = (sharpness, around.mean, around.sem)
    return DomainFlatness(
        sample.name, sample.role, len(sample), value, accuracy, pairs.values, pairs.converged,
        trace.value, trace.sem, trace.vectors, *rises,
    )  # fmt: skip


class _Counter:
    """Counts calls behind a progress bar."""

    def __init__(self, bar: ProgressBar, what: str) -> None:
        self._bar, self._what, self._count = bar, what, 0

    def __call__(self) -> None:
        self._count += 1
        self._bar.advance(0, f"{self._what} {self._count}")
