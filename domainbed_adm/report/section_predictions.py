"""What ``analyze predictions`` left: confusions, accuracy by class and by difficulty, easiest and hardest images."""

from __future__ import annotations

import base64
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

import numpy as np

from domainbed_adm.analysis.prediction_files import Predictions, load_predictions
from domainbed_adm.leaderboard import Board
from domainbed_adm.report.tables import Cell, Row, Table, number, text

#: Of more classes than this the worst are told, and of their confusions the most frequent.
MOST_CLASSES = 20
_FIFTHS = ("easiest fifth", "second", "third", "fourth", "hardest fifth")
#: Images of a row of the gallery, and environments of a dataset that have one.
_IN_A_ROW, _MOST_ENVIRONMENTS = 8, 8


class Picture(NamedTuple):
    """One image of the gallery."""

    source: str  # data URI
    caption: str


class Gallery(NamedTuple):
    """The images at one end of one difficulty in one environment."""

    title: str
    pictures: list[Picture]


class PredictionBlock(NamedTuple):
    """What the page shows of a dataset."""

    title: str
    note: str
    tables: list[Table]
    galleries: list[Gallery]


def predictions(board: Board) -> list[PredictionBlock]:
    """For each dataset with predictions, those of each run that holds out one environment."""
    found: dict[str, dict[str, list[Predictions]]] = {}
    for run in board.runs:
        if run.alone and (one := load_predictions(run)) is not None:
            found.setdefault(run.dataset, {}).setdefault(run.algorithm, []).append(one)
    return [_block(dataset, found[dataset], board.algorithms) for dataset in board.environments if dataset in found]


def _block(dataset: str, unordered: dict[str, list[Predictions]], algorithms: Sequence[str]) -> PredictionBlock:
    methods = {name: unordered[name] for name in algorithms if name in unordered}
    classes = next(iter(methods.values()))[0].about.classes
    methods = {name: [one for one in own if one.about.classes == classes] for name, own in methods.items()}
    methods = {name: own for name, own in methods.items() if own}
    best = max(methods, key=lambda name: mean(float(one.correct.mean()) for one in methods[name]))
    counts = ", ".join(f"{name} {len(own)}" for name, own in methods.items())
    note = (
        f"Of whole environments held out, by the last model of each run ({counts}); means over runs. Confusions and "
        f"images are of {best}, the most accurate here."
    )
    tables = [_by_class(dataset, methods, classes), _confusions(dataset, best, methods[best], classes)]
    tables.append(_by_difficulty(dataset, methods))
    return PredictionBlock(dataset, note, tables, _galleries(methods[best]))


def _by_class(dataset: str, methods: dict[str, list[Predictions]], classes: Sequence[str]) -> Table:
    """Accuracy in % of each class, mean over runs; of many classes those on which the methods do worst."""
    by_method = {name: np.nanmean([_class_accuracy(one) for one in own], axis=0) for name, own in methods.items()}
    hardness = np.nan_to_num(np.nanmean(list(by_method.values()), axis=0), nan=2.0)
    few = len(classes) <= MOST_CLASSES
    shown = range(len(classes)) if few else np.argsort(hardness, kind="stable")[:MOST_CLASSES].tolist()
    rows = [Row([name], [_share(float(values[k])) for k in shown]) for name, values in by_method.items()]
    which = "" if few else f", the {MOST_CLASSES} lowest of {len(classes)}"
    return Table(f"{dataset}: accuracy by class, %{which}", ["Method"], [classes[k] for k in shown], rows)


def _class_accuracy(one: Predictions) -> np.ndarray:
    n = len(one.about.classes)
    right = np.bincount(one.label[one.correct], minlength=n).astype(float)
    counts = np.bincount(one.label, minlength=n)
    found: np.ndarray = np.where(counts > 0, right / np.maximum(counts, 1), np.nan)
    return found


def _confusions(dataset: str, method: str, own: Sequence[Predictions], classes: Sequence[str]) -> Table:
    """Rows are classes, columns what they are taken for, in % of the row; of many classes the most frequent pairs."""
    n = len(classes)
    pairs = sum(np.bincount(one.label * n + one.predicted, minlength=n * n) for one in own)
    matrix = np.asarray(pairs).reshape(n, n)
    totals = matrix.sum(axis=1)
    if n <= MOST_CLASSES:
        rows = [
            Row([classes[i]], [_share(matrix[i, j] / totals[i] if totals[i] else np.nan) for j in range(n)])
            for i in range(n)
        ]
        return Table(f"{dataset}: what {method} takes each class for, % of the class", ["Class"], list(classes), rows)
    wrong = Counter({(i, j): int(matrix[i, j]) for i, j in np.argwhere(matrix) if i != j})
    rows = [
        Row([classes[i]], [text(classes[j]), number(count, "d"), _share(count / totals[i])])
        for (i, j), count in wrong.most_common(MOST_CLASSES)
    ]
    return Table(
        f"{dataset}: most frequent confusions of {method}", ["Class"], ["taken for", "images", "% of the class"], rows
    )


def _by_difficulty(dataset: str, methods: dict[str, list[Predictions]]) -> Table:
    """Accuracy in % among the images of each fifth of a run's scores."""
    rows = []
    for measure in next(iter(methods.values()))[0].scores:
        for name, own in methods.items():
            fifths = [_fifths(one.scores[measure], one.correct) for one in own if measure in one.scores]
            values = np.nanmean(fifths, axis=0)
            rows.append(Row([measure, name], [_share(float(value)) for value in values]))
    return Table(
        f"{dataset}: accuracy by difficulty of the image, %",
        ["Difficulty", "Method"],
        _FIFTHS,
        rows,
        "A difficulty that orders well falls from left to right; one that rises calls hard what the model gets right.",
    )


def _fifths(scores: np.ndarray, correct: np.ndarray) -> list[float]:
    order = np.argsort(scores, kind="stable")
    return [float(correct[part].mean()) if len(part) else np.nan for part in np.array_split(order, len(_FIFTHS))]


def _share(value: float) -> Cell:
    unknown = bool(np.isnan(value))
    return number(None if unknown else 100 * value, ".0f", heat=None if unknown else value)


def _galleries(own: Sequence[Predictions]) -> list[Gallery]:
    """Of each environment, by its first run with thumbnails: both ends of each difficulty."""
    found, seen = [], set[str]()
    for one in own:
        for index, name in one.about.environments.items():
            if name in seen or not len(one.shown) or len(seen) >= _MOST_ENVIRONMENTS:
                continue
            seen.add(name)
            places = [i for i, k in enumerate(one.shown) if one.environment[k] == int(index)]
            for measure, scores in one.scores.items():
                order = sorted(places, key=lambda i: float(scores[one.shown[i]]))
                for end, chosen in (("easiest", order), ("hardest", order[::-1])):
                    pictures = [_picture(one, i, measure) for i in chosen[: min(_IN_A_ROW, one.about.per_end)]]
                    found.append(Gallery(f"{name}, {end} by {measure}", pictures))
    return found


def _picture(one: Predictions, i: int, measure: str) -> Picture:
    k, classes = int(one.shown[i]), one.about.classes
    truth, taken = classes[one.label[k]], classes[one.predicted[k]]
    said = f"{truth}, rightly" if one.correct[k] else f"{truth}, taken for {taken}"
    caption = f"{said} ({100 * float(one.probability[k]):.0f} %); {measure} {float(one.scores[measure][k]):.3g}"
    return Picture("data:image/png;base64," + base64.b64encode(png(one.thumbnails[i])).decode(), caption)


def png(image: np.ndarray) -> bytes:
    """A PNG of uint8 (height, width, 1 or 3), as its specification (ISO/IEC 15948) has it; no filter, no metadata."""
    height, width, channels = image.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    lines = b"".join(b"\0" + np.ascontiguousarray(line).tobytes() for line in image)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
