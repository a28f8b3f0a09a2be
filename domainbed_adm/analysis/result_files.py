"""What ``analyze`` leaves beside a run's model: ``hessian.json`` and ``landscape.npz``. Loads no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from domainbed_adm.run_files import HESSIAN, LANDSCAPE, MODEL, model_suffix
from domainbed_adm.system.console import warn
from domainbed_adm.system.disk import replacing

Result = TypeVar("Result")
_ARRAYS = ("alphas", "source_1d", "test_1d", "alphas_2d", "source_2d", "test_2d")


class Origin(msgspec.Struct, kw_only=True):
    """Which model a result is of, and how it was measured.

    Attributes:
        model: name of the model's file.
        algorithm: name of the method.
        dataset: name of the dataset.
        test_envs: indices of the environments held out.
        trial_seed: of the run.
        hparams_seed: of the run.
        samples: images of each environment that were asked for; None: 256, or all where there are fewer.
        batch_size: images of each domain in a mini-batch.
        seed: of the sample and of all random vectors.
        dtype: "float32" or "float64".
        device: "cpu", or the GPU's name.
        mode: how BatchNorm and dropout were treated, in words.
        versions: of domainbed_adm, torch, numpy and scipy.
    """

    model: str
    algorithm: str
    dataset: str
    test_envs: list[int]
    trial_seed: int
    hparams_seed: int
    samples: int | None
    batch_size: int
    seed: int
    dtype: str
    device: str
    mode: str
    versions: dict[str, str]


class DomainFlatness(msgspec.Struct, kw_only=True):
    """One sample's flatness; losses in nats.

    Attributes:
        name: of the environment, or "pooled".
        role: "source", "pooled" (all source domains) or "test".
        n: images.
        loss: mean cross-entropy, in the mode training used.
        accuracy: fraction right, in the same mode.
        eigenvalues: of the Hessian, largest first.
        converged: whether all that were asked for are there.
        trace: of the Hessian, estimated.
        trace_sem: its standard error.
        trace_vectors: how many vectors it took.
        sharpness: rise of the loss by one SAM step of radius rho.
        random_rise: mean rise at distance rho.
        random_rise_sem: its standard error.
    """

    name: str
    role: str
    n: int
    loss: float
    accuracy: float
    eigenvalues: list[float]
    converged: bool
    trace: float
    trace_sem: float
    trace_vectors: int
    sharpness: float
    random_rise: float
    random_rise_sem: float

    @property
    def largest_eigenvalue(self) -> float:
        """NaN where not all converged: those that did need not be the largest."""
        return self.eigenvalues[0] if self.converged and self.eigenvalues else math.nan


class Flatness(Origin, kw_only=True):
    """What ``hessian.json`` holds.

    Attributes are those of :class:`Origin`, and

    Attributes:
        rho: radius of the sharpness.
        tolerance: of the eigenvalues.
        trace_tolerance: standard error that the trace was to have, relative to it.
        domains: each source domain, all of them pooled, and each test domain.
    """

    rho: float
    tolerance: float
    trace_tolerance: float
    domains: list[DomainFlatness]

    def __post_init__(self) -> None:
        if len(self.of("pooled")) != 1 or not self.of("test"):
            raise ValueError("it needs one pooled and some test domains")

    def of(self, role: str) -> list[DomainFlatness]:
        """The domains of this role."""
        return [domain for domain in self.domains if domain.role == role]


class Landscape(Origin, kw_only=True):
    """What ``landscape.npz`` holds: mean losses in nats along one random direction and over two (see ``landscape``).

    Attributes are those of :class:`Origin`, and

    Attributes:
        test_name: names of the test environments.
        alphas: positions along the first direction, float64 of shape (A,).
        source_1d: loss of all source domains there, shape (A,).
        test_1d: of all test domains.
        alphas_2d: positions along the first and along the second direction, shape (B,).
        source_2d: shape (B, B), the first axis along the first direction.
        test_2d: of all test domains.
    """

    test_name: str
    alphas: np.ndarray
    source_1d: np.ndarray
    test_1d: np.ndarray
    alphas_2d: np.ndarray
    source_2d: np.ndarray
    test_2d: np.ndarray

    def __post_init__(self) -> None:
        line, plane = (len(self.alphas),), (len(self.alphas_2d),)
        if [getattr(self, name).shape for name in _ARRAYS] != [line, line, line, plane, plane * 2, plane * 2]:
            raise ValueError("the arrays do not fit each other")


def save_flatness(flatness: Flatness, folder: Path) -> Path:
    """Write ``hessian.json`` into a run's folder, over an older one; returns the file.

    Raises:
        UserError: the system refuses.
    """
    path = result_path(folder, flatness.model, *HESSIAN)
    with replacing(path) as file:
        file.write(json.dumps(msgspec.to_builtins(flatness), indent=1, allow_nan=False).encode() + b"\n")
    return path


def save_landscape(landscape: Landscape, folder: Path) -> Path:
    """Write ``landscape.npz`` into a run's folder, over an older one; returns the file.

    Raises:
        UserError: the system refuses.
    """
    path, about = result_path(folder, landscape.model, *LANDSCAPE), msgspec.structs.asdict(landscape)
    arrays = {name: about.pop(name) for name in _ARRAYS}
    with replacing(path) as file:
        np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
    return path


def load_flatness(folder: Path, checkpoint: str = MODEL) -> list[Flatness]:
    """What was measured at this checkpoint of the run in ``folder``, or of the runs of the sweep there, by folder.

    A file that is damaged gets a warning and is left out.
    """
    return _load(folder, checkpoint, HESSIAN, lambda file: msgspec.json.decode(file.read_bytes(), type=Flatness))


def load_landscapes(folder: Path, checkpoint: str = MODEL) -> list[Landscape]:
    """The landscapes, as :func:`load_flatness`; no code in a file is run."""
    return _load(folder, checkpoint, LANDSCAPE, _landscape)


def result_path(folder: Path, checkpoint: str, kind: str, ending: str) -> Path:
    """Where a model's result lies: ``hessian.json`` of model.pkl, ``hessian_step300.json`` of model_step300.pkl.

    Raises:
        UserError: ``checkpoint`` is no name of a model's file.
    """
    return folder / f"{kind}{model_suffix(checkpoint)}.{ending}"


def _load(folder: Path, checkpoint: str, name: tuple[str, str], read: Callable[[Path], Result]) -> list[Result]:
    results = []
    for file in (result_path(place, checkpoint, *name) for place in (folder, *sorted(folder.glob("*/")))):
        if file.is_file():
            try:
                results.append(read(file))
            except Exception as error:  # NumPy, zipfile and msgspec raise many types for damaged bytes
                warn(f"{file} left out: no result of analyze {name[0]} ({' '.join(str(error).split())[:100]})")
    return results


def _landscape(file: Path) -> Landscape:
    with np.load(file, allow_pickle=False) as contents:
        arrays = {name: contents[name].astype(np.float64) for name in _ARRAYS}
        return msgspec.convert(json.loads(str(contents["about"])) | arrays, Landscape)
