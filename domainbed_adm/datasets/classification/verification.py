"""What ``verify_data`` finds in the files of CIFAR and of its corrupted versions; loads no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec

import numpy as np
import yaml

from domainbed_adm.datasets.cards import SEVERITIES, DatasetCard
from domainbed_adm.datasets.classification import cifar
from domainbed_adm.datasets.layout import Problem
from domainbed_adm.errors import T, UserError
from domainbed_adm.system.console import ProgressBar

P = ParamSpec("P")
#: Number of images by environment and class.
Counts = dict[str, dict[str, int]]
_CHECKSUMS = Path(__file__).with_name("checksums.yaml")


def verify_arrays(card: DatasetCard, root: Path, workers: int = 1) -> tuple[Counts, list[Problem]]:
    """Read every file of CIFAR-10, CIFAR-100 or a corrupted version of one; returns counts and what is wrong.

    Of a corrupted version the files' MD5 are compared with the published ones, and its test images are counted alone.
    """
    return _verify_corrupted(card, root, workers) if card.train_of else _verify_clean(card, root)


def _verify_clean(card: DatasetCard, root: Path) -> tuple[Counts, list[Problem]]:
    files, problems = cifar.CIFAR[card.name], list[Problem]()
    names = _or_problem(problems, root, cifar.read_classes, root, files) or _numbers(files.classes)
    counts = {}
    for split in files.splits:
        images = _or_problem(problems, root, cifar.read_split, root, files, split)
        counts[split] = _counted(() if images is None else images.targets, names)
    return counts, problems


def _verify_corrupted(card: DatasetCard, root: Path, workers: int) -> tuple[Counts, list[Problem]]:
    classes, problems = card.num_classes or 0, list[Problem]()
    labels = _or_problem(problems, root, cifar.read_corrupted_labels, root, classes)
    readable = [] if labels is None else ["labels"]
    counts = {}
    for name in dict.fromkeys(name.rpartition("-")[0] for name in (card.environments or ())[1:]):
        array = _or_problem(problems, root, cifar.open_corrupted, root, name)
        readable += [] if array is None else [name]
        for i in range(SEVERITIES):
            known = () if labels is None or array is None else labels[i]
            counts[f"{name}-{i + 1}"] = _counted(known, _numbers(classes))
    published = yaml.safe_load(_CHECKSUMS.read_text(encoding="utf-8"))[card.directory]
    paths = [root / f"{name}.npy" for name in readable]
    with ThreadPoolExecutor(workers) as threads, ProgressBar(f"verify {card.name}", len(paths)) as bar:
        for path, found in zip(paths, threads.map(_md5, paths), strict=True):
            bar.advance()
            if found != published[path.stem]:
                reason = f"MD5 {found}, {published[path.stem]} is published: get the file anew"
                problems.append(Problem(path, "broken", reason))
    return counts, problems


def _or_problem(
    problems: list[Problem], root: Path, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T | None:
    """What ``read`` gives for these arguments; None, and one more problem, where it raises UserError."""
    try:
        return read(*args, **kwargs)
    except UserError as error:
        problems.append(Problem(root, "broken", str(error).replace(f"{root}/", "")))
        return None


def _counted(targets: Iterable[int], names: list[str]) -> dict[str, int]:
    numbers = np.bincount(np.asarray(targets, dtype=np.int64), minlength=len(names))
    return dict(zip(names, numbers.tolist(), strict=True))


def _numbers(classes: int) -> list[str]:
    return list(map(str, range(classes)))


def _md5(path: Path) -> str:
    """MD5 of a file, or why it cannot be read."""
    digest = hashlib.md5()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        return f"unknown ({error.strerror})"
    return digest.hexdigest()
