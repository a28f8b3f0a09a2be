"""``landscape.npz``: the loss around a run's model, as ``analyze landscape`` found it. Loads no torch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.analysis.runs import MODEL, load_results, result_path
from domainbed_adm.run_files import LANDSCAPE
from domainbed_adm.system.disk import replacing

_FACTS = {"model": str, "algorithm": str, "dataset": str, "test_envs": list, "trial_seed": int, "test_name": str}


@dataclass(frozen=True)
class Landscape:
    """Mean losses in nats along one random direction and over two; see ``directions``.

    Attributes:
        alphas: positions along the first direction, shape (A,).
        source_1d: loss of all source domains there, shape (A,).
        test_1d: of all test domains.
        alphas_2d: positions along the first and along the second direction, shape (B,).
        source_2d: shape (B, B), the first axis along the first direction.
        test_2d: of all test domains.
        about: how it was made (``subject.Settings``), of which run, and ``test_name``.
    """

    alphas: np.ndarray
    source_1d: np.ndarray
    test_1d: np.ndarray
    alphas_2d: np.ndarray
    source_2d: np.ndarray
    test_2d: np.ndarray
    about: Mapping[str, Any]

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.about["dataset"])

    @property
    def algorithm(self) -> str:
        """Name of the method."""
        return str(self.about["algorithm"])


_ARRAYS = ("alphas", "source_1d", "test_1d", "alphas_2d", "source_2d", "test_2d")


def save_landscape(found: Landscape, folder: Path) -> Path:
    """Write it into a run's folder, over an older one; returns the file.

    Raises:
        UserError: the system refuses.
    """
    path = result_path(folder, found.about["model"], *LANDSCAPE)
    arrays = {name: getattr(found, name) for name in _ARRAYS}
    with replacing(path) as file:
        np.savez_compressed(file, about=np.array(json.dumps(found.about)), **arrays)
    return path


def load_landscapes(folder: Path, checkpoint: str = MODEL) -> list[Landscape]:
    """The landscape at this checkpoint of the run in ``folder``, or of the runs of the sweep there, by folder.

    A file that is damaged or another's gets a warning and is left out.
    """
    faults = (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile)
    return load_results(folder, checkpoint, *LANDSCAPE, _read, faults)


def _read(file: Path) -> Landscape:
    """Read one file; no code in it is run.

    Raises:
        ValueError: it does not hold a landscape.
    """
    with np.load(file, allow_pickle=False) as contents:
        arrays = {name: contents[name] for name in _ARRAYS}
        about = json.loads(str(contents["about"]))
    line, plane = arrays["alphas"].shape, arrays["alphas_2d"].shape
    shapes = dict(zip(_ARRAYS, (line, line, line, plane, plane * 2, plane * 2), strict=True))
    if len(line) != 1 or len(plane) != 1 or any(arrays[name].shape != shapes[name] for name in _ARRAYS):
        raise ValueError("arrays do not fit each other")
    if min(*line, *plane) < 2:
        raise ValueError("a single point is no landscape")
    if any(array.dtype.kind != "f" for array in arrays.values()):
        raise ValueError("arrays are not of numbers")
    if not isinstance(about, dict) or not all(isinstance(about.get(name), kind) for name, kind in _FACTS.items()):
        raise ValueError("it does not say which run it is of")
    if not all(str(about[name]).isprintable() for name in _FACTS):
        raise ValueError("its names cannot be printed")
    arrays = {name: array.astype(np.float64) for name, array in arrays.items()}
    if not all(np.abs(arrays[name]).max() < 1e100 for name in ("alphas", "alphas_2d")):
        raise ValueError("positions are no numbers that can be drawn")
    return Landscape(**arrays, about=about)
