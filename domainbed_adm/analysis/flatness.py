"""How flat a loss is: the largest eigenvalues and the trace of its Hessian, and its rise at a distance rho.

All from Hessian-vector products, gradients and values: the Hessian is never there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count as counter
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from domainbed_adm.analysis.cost import Cost, announce, timed
from domainbed_adm.analysis.mean_loss import MeanLoss
from domainbed_adm.analysis.result_files import DomainFlatness, Flatness
from domainbed_adm.analysis.runs import HessianSettings
from domainbed_adm.analysis.trained_model import Sample, TrainedModel
from domainbed_adm.errors import NonFiniteError, UserError
from domainbed_adm.method.flatness import NORM_EPSILON, displaced
from domainbed_adm.method.gradients import Gradients, joint_norm
from domainbed_adm.system.console import ProgressBar
from domainbed_adm.system.seeding import seed_hash

#: Vectors that decide how many the trace takes, and how many it takes at least.
_PILOT = 5
#: Vectors that Lanczos keeps at least.
_BASIS = 12


def measure_flatness(model: TrainedModel, how: HessianSettings, rho: float, seed: int, title: str) -> Flatness:
    """Measure at each source domain, all of them pooled, and each test domain, behind a progress bar.

    Raises:
        UserError: BatchNorm has too small a mini-batch.
        NonFiniteError: the loss at the model is not finite.
    """
    samples = [*model.samples.sources, model.samples.pooled, *model.samples.tests]
    cost = cost_of([len(sample) for sample in samples], sum(param.numel() for param in model.params), how)
    announce(title, timed(cost, model.loss(samples[0])), ("--samples", "--max_vectors", "--eigenvalues"))
    with ProgressBar(title, 3 * len(samples), lines=True) as bar:
        domains = [_domain(model, sample, how, rho, seed, bar) for sample in samples]
    tolerance, of_trace = how.tolerance, how.trace_tolerance
    return Flatness(**model.about, rho=rho, tolerance=tolerance, trace_tolerance=of_trace, domains=domains)


def cost_of(sizes: Sequence[int], parameters: int, how: HessianSettings) -> Cost:
    """What :func:`measure_flatness` does with samples of these sizes, not timed; a gradient counts as two passes.

    A Hessian that is zero takes one product more.
    """
    lanczos = lanczos_products(how.eigenvalues, parameters, how.max_restarts)
    products = lanczos[0] + min(2 * _PILOT, how.max_vectors), lanczos[1] + how.max_vectors
    return Cost(len(sizes), sum(sizes), products, 1 + 3 + 2 * how.directions)


def _domain(
    model: TrainedModel, sample: Sample, how: HessianSettings, rho: float, seed: int, bar: ProgressBar
) -> DomainFlatness:
    loss = model.loss(sample)
    value, accuracy = loss.value_and_accuracy()
    if not math.isfinite(value):
        raise NonFiniteError(f"the loss of {model.folder} on {sample.name} is {value}")
    operator = HessianOperator(loss, _counting(bar, f"{sample.name}: Hessian-vector products"))
    with loss.at_rest():
        pairs = largest_eigenvalues(operator, how.eigenvalues, how.tolerance, how.max_restarts, seed)
        bar.advance()
        trace = hutchinson_trace(operator, pairs, how.trace_tolerance, how.max_vectors, seed)
        bar.advance()
    sharpness = sam_rise(loss, value, rho)
    around = random_rise(loss, value, rho, how.directions, seed, _counting(bar, f"{sample.name}: directions"))
    bar.advance()
    return DomainFlatness(
        name=sample.name, role=sample.role, n=len(sample), loss=value, accuracy=accuracy, eigenvalues=pairs.values,
        converged=pairs.converged, trace=trace.mean, trace_sem=trace.sem, trace_vectors=trace.vectors,
        sharpness=sharpness, random_rise=around.mean, random_rise_sem=around.sem,
    )  # fmt: skip


def _counting(bar: ProgressBar, what: str) -> Callable[[], None]:
    """A function that counts its calls behind a progress bar."""
    numbers = counter(1)
    return lambda: bar.advance(0, f"{what} {next(numbers)}")


class HessianOperator(LinearOperator):  # type: ignore[misc, unused-ignore]  # SciPy has no types
    """The Hessian of a mean loss, shape (P, P), as SciPy's solvers read it; symmetric, dtype of the parameters.

    The parameters must not move meanwhile. ``on_product`` is called after each product.
    """

    def __init__(self, loss: MeanLoss, on_product: Callable[[], None] = lambda: None) -> None:
        dtype = torch.empty(0, dtype=loss.params[0].dtype).numpy().dtype
        size = sum(param.numel() for param in loss.params)
        super().__init__(dtype, (size, size))
        self._loss, self._on_product = loss, on_product

    def _matvec(self, x: np.ndarray) -> np.ndarray:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _matmat(self, x: np.ndarray) -> np.ndarray:
        params, products = self._loss.params, []
        for start in range(0, x.shape[1], _PILOT):  # so many vectors at once in memory
            block = np.ascontiguousarray(x[:, start : start + _PILOT].T, self.dtype)
            vectors = [
                [
                    part.view_as(param)
                    for part, param in zip(flat.split([p.numel() for p in params]), params, strict=True)
                ]
                for flat in torch.from_numpy(block).to(params[0].device)
            ]
            for product in self._loss.hessian_products(vectors):
                self._on_product()
                products.append(torch.cat([part.flatten() for part in product]).cpu().numpy())
        return np.stack(products, axis=1)

    def _rmatvec(self, x: np.ndarray) -> np.ndarray:
        return self._matvec(x)


class Eigenpairs(NamedTuple):
    """The largest eigenvalues; fewer than asked where Lanczos had not ``converged`` when it was stopped."""

    values: list[float]  # largest first
    vectors: np.ndarray  # as columns, shape (P, count)
    converged: bool


def largest_eigenvalues(
    operator: LinearOperator, count: int, tolerance: float, max_restarts: int, seed: int
) -> Eigenpairs:
    """The largest eigenvalues (of the algebraic order, not by magnitude) by ARPACK's restarted Lanczos.

    Cost: as :func:`lanczos_products` says; memory of as many vectors on the host as the least products.

    A pair counts as converged at a residual ``norm(H v - theta v) <= tolerance * abs(theta)``. So an eigenvalue of H
    lies within that distance of theta. Where eigenvalues lie apart, the error is far smaller, about the residual
    squared over the distance to the next eigenvalue.

    Raises:
        UserError: ``count`` is not at least 1 and below the operator's size.
    """
    size = operator.shape[0]
    if not 1 <= count < size:
        raise UserError(f"--eigenvalues must be at least 1 and below the {size} parameters, not {count}")
    start = np.random.RandomState(seed_hash("lanczos", seed)).standard_normal(size).astype(operator.dtype)
    converged = True
    try:
        values, vectors = eigsh(
            operator, count, which="LA", v0=start, ncv=_basis(count, size), tol=tolerance, maxiter=max_restarts
        )
    except ArpackError as error:
        vectors = getattr(error, "eigenvectors", np.empty((size, 0), operator.dtype))
        values = getattr(error, "eigenvalues", np.empty(0))
        converged = False
        if not operator.matvec(start).any():  # Lanczos cannot begin at a Hessian that is zero
            values, vectors, converged = np.zeros(count), np.zeros((size, count), operator.dtype), True
    order = np.argsort(values)[::-1]
    return Eigenpairs([float(values[i]) for i in order], vectors[:, order], converged)


def _basis(count: int, size: int) -> int:
    """Vectors that ARPACK keeps: fewer than SciPy's 20, since it stops only when all are there."""
    return min(size, max(_BASIS, 2 * count + 2))


def lanczos_products(count: int, size: int, max_restarts: int) -> tuple[int, int]:
    """The least and the most products of :func:`largest_eigenvalues`; one more at a Hessian that is zero."""
    basis = _basis(count, size)
    return basis, basis + max_restarts * max(basis - count, 1)


class Estimate(NamedTuple):
    """A mean over random vectors, its standard error, and how many vectors it is over."""

    mean: float
    sem: float
    vectors: int


def _estimate(values: np.ndarray) -> Estimate:
    return Estimate(float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))), len(values))


def hutchinson_trace(
    operator: LinearOperator, known: Eigenpairs, tolerance: float, max_vectors: int, seed: int
) -> Estimate:
    """The trace of H: its known eigenvalues, and of the rest the mean of w^T H w (Hutchinson, 1990).

    w = v - Q Q^T v, v random signs, Q the known eigenvectors. Without the large eigenvalues the spread is far smaller
    (Meyer et al., 2021, arXiv 2010.09649); with none known this is Hutchinson's estimator as it is.

    Two stages: 5 vectors say how many more the standard error asked for takes, and are thrown away; the mean is over
    those that follow. So the estimate is unbiased. One that stops when its own standard error is small is not: it stops
    early where the vectors so far happened to miss the large eigenvalues (4.6 % low in the tests' simulation).
    Cost: one product for each vector, 10 at least and ``max_vectors`` at most; fewer than 10 are all in the mean.

    ``tolerance`` is the standard error to aim at, relative to the trace; the one that came out is in the result.
    ``max_vectors`` is at least 2.
    """
    total = sum(known.values)

    def products(start: int, count: int) -> np.ndarray:
        forms: list[float] = []
        while len(forms) < count:
            numbers = range(start + len(forms), start + min(count, len(forms) + _PILOT))
            forms += _quadratic_forms(operator, known.vectors, seed, numbers)
        return np.array(forms)

    pilot, count = products(0, 0), max_vectors
    if max_vectors >= 2 * _PILOT:
        pilot = products(0, _PILOT)
        aim = tolerance * abs(total + pilot.mean())
        wanted = (pilot.std(ddof=1) / aim) ** 2 if aim else math.inf
        count = max(_PILOT, math.ceil(min(wanted, max_vectors - _PILOT)))
    rest = _estimate(products(len(pilot), count))
    return rest._replace(mean=total + rest.mean)


def _quadratic_forms(operator: LinearOperator, basis: np.ndarray, seed: int, numbers: range) -> list[float]:
    """w^T H w of these random vectors, each without its part along ``basis``, in one pass."""
    drawn = [np.random.RandomState(seed_hash("hutchinson", seed, number)) for number in numbers]
    signs = np.stack([random.randint(0, 2, operator.shape[0]) for random in drawn], 1).astype(operator.dtype) * 2 - 1
    rest = signs - basis @ (basis.T @ signs)
    return [float(np.dot(w.astype(np.float64), h)) for w, h in zip(rest.T, operator.matmat(rest).T, strict=True)]


def sam_rise(loss: MeanLoss, value: float, rho: float) -> float:
    """L(theta + rho g / ||g||_2) - L(theta), g the gradient of the whole sample (SAM: Foret et al., ICLR 2021, eq. 2).

    The first-order guess at the highest rise in the ball of radius rho; no more than a guess, and it can be negative.
    The parameters are put back bit for bit. Cost: 2 forward and 1 backward pass.

    ``value`` is L(theta), and rho >= 0.

    Raises:
        NonFiniteError: the gradient or the loss there is not finite.
    """
    gradient = loss.gradient()
    scale = rho / (joint_norm(gradient) + NORM_EPSILON)
    return _rise(loss, value, [part * scale for part in gradient])


def random_rise(
    loss: MeanLoss, value: float, rho: float, directions: int, seed: int, on_each: Callable[[], None] = lambda: None
) -> Estimate:
    """The mean of L(theta + rho u) - L(theta) over directions u, uniform on the unit sphere.

    Each direction is taken both ways, which removes the slope's part of the spread. To second order the mean is
    rho^2 tr H / (2 P), P the number of parameters. The parameters are put back bit for bit.
    Cost: 2 forward passes for each direction.

    ``value`` is L(theta), rho >= 0, ``directions`` at least 2; those of equally shaped parameters are the same.

    Raises:
        NonFiniteError: the loss there is not finite.
    """
    rises = []
    for i in range(directions):
        random = torch.Generator().manual_seed(seed_hash("random rise", seed, i))  # the CPU's: the same on all devices
        direction = [torch.randn(param.shape, generator=random).to(param) for param in loss.params]
        scale = rho / joint_norm(direction)
        both = [_rise(loss, value, [part * sign * scale for part in direction]) for sign in (1, -1)]
        rises.append(sum(both) / 2)
        on_each()
    return _estimate(np.array(rises))


def _rise(loss: MeanLoss, value: float, offset: Gradients) -> float:
    with displaced(loss.params, offset):
        there = loss.value()
    if not math.isfinite(there):
        raise NonFiniteError(f"the loss is {there} at a distance of rho from the model: give a smaller --rho")
    return there - value
