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
    """Which model a result is of, and how it was measured."""

    model: str  # name of its file
    algorithm: str
    dataset: str
    test_envs: list[int]  # indices of the environments held out
    trial_seed: int
    hparams_seed: int
    samples: int | None  # images of each environment at most; None in files of older versions: 256
    batch_size: int  # images of each domain in a mini-batch
    seed: int  # of the sample and of all random vectors
    dtype: str  # "float32" or "float64"
    device: str  # "cpu", or the GPU's name
    mode: str  # how BatchNorm and dropout were treated, in words
    versions: dict[str, str]  # of domainbed_adm, torch, numpy and scipy


class DomainFlatness(msgspec.Struct, kw_only=True):
    """One sample's flatness; losses in nats."""

    name: str  # of the environment, or "pooled"
    role: str  # "source", "pooled" (all source domains) or "test"
    n: int  # images
    loss: float  # mean cross-entropy, in the mode training used
    accuracy: float  # fraction right, in the same mode
    eigenvalues: list[float]  # of the Hessian, largest first
    converged: bool  # whether all eigenvalues that were asked for are there
    trace: float  # of the Hessian, estimated
    trace_sem: float  # its standard error
    trace_vectors: int  # how many vectors it took
    sharpness: float  # rise of the loss by one SAM step of radius rho
    random_rise: float  # mean rise at distance rho
    random_rise_sem: float  # its standard error

    @property
    def largest_eigenvalue(self) -> float:
        """NaN where not all converged: those that did need not be the largest."""
        return self.eigenvalues[0] if self.converged and self.eigenvalues else math.nan


class Flatness(Origin, kw_only=True):
    """What ``hessian.json`` holds."""

    rho: float  # radius of the sharpness
    tolerance: float  # of the eigenvalues
    trace_tolerance: float  # standard error that the trace was to have, relative to it
    domains: list[DomainFlatness]  # each source domain, all of them pooled, and each test domain

    def __post_init__(self) -> None:
        if len(self.of("pooled")) != 1 or not self.of("test"):
            raise ValueError("it needs one pooled and some test domains")

    def of(self, role: str) -> list[DomainFlatness]:
        """The domains of this role."""
        return [domain for domain in self.domains if domain.role == role]


class Landscape(Origin, kw_only=True):
    """What ``landscape.npz`` holds: mean losses in nats along one random direction and over two, in float64."""

    test_name: str  # names of the test environments
    alphas: np.ndarray  # positions along the first direction, shape (A,)
    source_1d: np.ndarray  # loss of all source domains there, shape (A,)
    test_1d: np.ndarray  # of all test domains
    alphas_2d: np.ndarray  # positions along the first and along the second direction, shape (B,)
    source_2d: np.ndarray  # shape (B, B), the first axis along the first direction
    test_2d: np.ndarray

    def __post_init__(self) -> None:
        line, plane = (len(self.alphas),), (len(self.alphas_2d),)
        if [getattr(self, name).shape for name in _ARRAYS] != [line, line, line, plane, plane * 2, plane * 2]:
            raise ValueError("the arrays do not fit each other")


def save_flatness(flatness: Flatness, folder: Path) -> Path:
    """Write ``hessian.json`` into a run's folder, over an older one; returns the file."""
    path = result_path(folder, flatness.model, *HESSIAN)
    with replacing(path) as file:
        file.write(json.dumps(msgspec.to_builtins(flatness), indent=1, allow_nan=False).encode() + b"\n")
    return path


def save_landscape(landscape: Landscape, folder: Path) -> Path:
    """Write ``landscape.npz`` into a run's folder, over an older one; returns the file."""
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
    """Where a model's result lies: ``hessian.json`` of model.pkl, ``hessian_step300.json`` of model_step300.pkl."""
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
