"""``predictions.npz``: what a run's model says of each image of the environments held out. Loads no torch.

===================  ========================================================================================
``about``            JSON: which run and model, classes, names and fingerprints of the environments
``environment``      (N,) int64: index of the environment
``sample``           (N,) int64: position in it
``label``            (N,) int64: class index
``predicted``        (N,) int64: the class with the highest output
``probability``      (N,) float32: the predicted class's softmax
``score_<name>``     (N,) float32: by each difficulty: ``Loss``, ``GDM``, ``ADM``; higher is harder
``shown``            (K,) int64: which of the N images have a thumbnail
``thumbnails``       (K, height, width, 1 or 3) uint8: those images, small
===================  ========================================================================================
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from domainbed_adm.errors import one_line
from domainbed_adm.recorded_run import IDENTITY, Run
from domainbed_adm.run_files import PREDICTIONS
from domainbed_adm.system.console import warn
from domainbed_adm.system.disk import replacing

_ARRAYS = ("environment", "sample", "label", "predicted", "probability", "shown", "thumbnails")
_SCORE = "score_"


class About(msgspec.Struct, kw_only=True):
    """Which run and model they are of."""

    dataset: str
    algorithm: str
    test_envs: list[int]
    trial_seed: int
    hparams_seed: int
    model_digest: str  # of the bytes of model.pkl
    classes: list[str]
    environments: dict[str, str]  # of those measured: index, as text, to name
    fingerprints: dict[str, str]  # likewise, of their images and labels
    per_end: int  # images with a thumbnail of each environment, difficulty and end
    size: int  # longest side of a thumbnail in pixels
    versions: dict[str, str]  # of domainbed_adm and torch


@dataclass(frozen=True)
class Predictions:
    """One run's predictions; see the module's docstring."""

    about: About
    environment: np.ndarray
    sample: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    scores: dict[str, np.ndarray]
    shown: np.ndarray
    thumbnails: np.ndarray

    def __post_init__(self) -> None:
        n, classes = self.label.shape, len(self.about.classes)
        columns = [self.environment, self.sample, self.predicted, self.probability, *self.scores.values()]
        if self.label.ndim != 1 or any(column.shape != n for column in columns):
            raise ValueError("the columns do not fit each other")
        if self.thumbnails.ndim != 4 or len(self.thumbnails) != len(self.shown):
            raise ValueError("the thumbnails do not fit")
        indices = ((self.label, classes), (self.predicted, classes), (self.shown, len(self.label)))
        if any(len(values) and not 0 <= values.min() <= values.max() < most for values, most in indices):
            raise ValueError("an index is out of its range")

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool: whether the predicted class is the label."""
        right: np.ndarray = self.predicted == self.label
        return right

    def save(self, folder: Path) -> Path:
        """Write the file into a run's folder, whole or not at all; returns it."""
        path = folder / PREDICTIONS
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"{_SCORE}{name}": values for name, values in self.scores.items()}
        with replacing(path) as file:
            np.savez_compressed(file, about=np.array(json.dumps(msgspec.to_builtins(self.about))), **arrays)
        return path


def load_predictions(run: Run) -> Predictions | None:
    """A run's predictions; None where there are none, or, with a warning, where they are damaged or another run's."""
    path = run.folder / PREDICTIONS
    if not path.is_file():
        return None
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            contents = {name: file[name] for name in file.files}
        about = msgspec.convert(json.loads(str(contents.pop("about"))), About)
        arrays = {name: contents.pop(name) for name in _ARRAYS}
        scores = {name.removeprefix(_SCORE): values for name, values in contents.items() if name.startswith(_SCORE)}
        found = Predictions(about, scores=scores, **arrays)
    except (OSError, ValueError, KeyError, EOFError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        warn(f"{path} left out: no result of analyze predictions ({one_line(error, 100)})")
        return None
    if [getattr(about, name) for name in IDENTITY] != [run.args[name] for name in IDENTITY]:
        warn(f"{path} left out: it is another run's")
        return None
    return found
