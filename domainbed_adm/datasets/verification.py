"""Verify a dataset folder: every file decoded, duplicates found, images counted against the published sizes."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from domainbed_adm.datasets.cards import DatasetCard
from domainbed_adm.datasets.images import load_image
from domainbed_adm.datasets.inventory import Problem, take_inventory
from domainbed_adm.errors import UserError
from domainbed_adm.system.machine import cpu_count

#: Below so many images worker processes cost more than they save.
FEW = 200
_CHUNK = 1 << 20
#: How the kinds of problems are counted.
_PLURALS = {
    "broken": "unreadable",
    "duplicate": "duplicates",
    "empty": "empty",
    "misplaced": "misplaced",
    "count": "wrong counts",
}


@dataclass
class Report:
    """The state of one dataset folder.

    Attributes:
        dataset: its name.
        root: its folder.
        counts: number of image files by domain and class, broken ones included.
        published: images of each domain as published, one tuple for each version; empty where nothing is.
        problems: what is wrong, by path.
        notes: what is worth knowing and not wrong.
        hidden: number of hidden files and folders, which are ignored.
    """

    dataset: str
    root: Path
    counts: dict[str, dict[str, int]]
    published: tuple[tuple[int, ...], ...]
    problems: list[Problem]
    notes: list[str]
    hidden: int

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of images of each domain."""
        return tuple(sum(classes.values()) for classes in self.counts.values())

    def as_json(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        return {
            **asdict(self),
            "root": str(self.root),
            "images": sum(self.sizes),
            "published": [sum(sizes) for sizes in self.published],
            "problems": [{**asdict(problem), "path": str(problem.path)} for problem in self.problems],
        }

    def verdict(self) -> str:
        """What is wrong in a few words, such as "0 unreadable, 83 duplicates"; "nothing wrong" where nothing is."""
        if not self.problems:
            return "nothing wrong"
        kinds = Counter(_PLURALS[problem.kind] for problem in self.problems)
        always = {"unreadable": kinds.pop("unreadable", 0), "duplicates": kinds.pop("duplicates", 0)}
        return ", ".join(f"{number} {kind}" for kind, number in {**always, **kinds}.items())


def verify(card: DatasetCard, root: Path, workers: int = 1, tick: Callable[[], object] = lambda: None) -> Report:
    """Look at every file of a dataset folder.

    Args:
        card: the dataset; its published sizes are compared where it has some.
        root: the dataset folder.
        workers: processes that decode; never more than there are CPUs.
        tick: called after each image.

    Raises:
        UserError: the folder holds no folder, or a worker process was killed.
    """
    inventory = take_inventory(root)
    if not inventory.images:
        raise UserError(f"dataset folder {root} holds no domain folder (<domain>/<class>/<image>)")
    counts = {domain: {name: len(paths) for name, paths in of.items()} for domain, of in inventory.images.items()}
    report = Report(card.name, root, counts, card.sizes, inventory.problems, inventory.notes, inventory.hidden)
    paths = [path for classes in inventory.images.values() for images in classes.values() for path in images]
    first: dict[str, Path] = {}
    duplicates: list[Problem] = []
    for path, (digest, problem) in zip(paths, _inspected(paths, workers), strict=True):
        tick()
        if problem is not None:
            report.problems.append(problem)
        elif digest in first:
            duplicates.append(Problem(path, "duplicate", f"same content as {first[digest]}"))
        else:
            first[digest] = path
    _count(report, card)
    _judge_duplicates(report, duplicates)
    report.problems.sort(key=lambda problem: str(problem.path))
    return report


def _count(report: Report, card: DatasetCard) -> None:
    """Compare the number of domains with what training needs, and the sizes with the published ones."""
    domains, known = len(report.counts), card.environments
    if known is not None and domains != len(known):
        wrong = f"{domains} domain folders, {card.name} has {len(known)}: {', '.join(known)}"
        report.problems.append(Problem(report.root, "count", wrong))
    elif domains < 2:
        report.problems.append(Problem(report.root, "count", f"{domains} domain folder, training needs two or more"))
    if not card.sizes or report.sizes in card.sizes:
        return
    totals = " or ".join(f"{sum(sizes):,}" for sizes in card.sizes)
    report.problems.append(Problem(report.root, "count", f"{sum(report.sizes):,} images, {totals} are published"))
    nearest = min(card.sizes, key=lambda sizes: abs(sum(sizes) - sum(report.sizes)))
    if domains == len(nearest):
        for domain, size, expected in zip(report.counts, report.sizes, nearest, strict=True):
            if size != expected:
                wrong = f"{size:,} images, {expected:,} are published"
                report.problems.append(Problem(report.root / domain, "count", wrong))


def _judge_duplicates(report: Report, duplicates: list[Problem]) -> None:
    """Duplicates are wrong, except in a dataset that is as published: there they are part of what all compare on."""
    if report.sizes in report.published:
        report.notes += [f"{duplicate.path}: {duplicate.reason}, as published" for duplicate in duplicates]
    else:
        report.problems += duplicates


def _inspected(paths: Sequence[Path], workers: int) -> Iterator[tuple[str, Problem | None]]:
    """The result of :func:`inspect_image` for each path, in order.

    Raises:
        UserError: a worker process was killed.
    """
    workers = min(workers, cpu_count())
    if workers <= 1 or len(paths) < FEW:
        yield from map(inspect_image, paths)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_obey)
    try:
        yield from pool.map(inspect_image, paths, chunksize=16)
    except BrokenProcessPool as error:
        raise UserError(
            "a process that decoded images was killed, perhaps for want of memory: use --workers 1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _obey() -> None:
    """Leave an interruption from the keyboard to the main process, and end when that has ended, however it did."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main = parent_process()
    if main is not None:
        threading.Thread(target=_end_with, args=(main,), daemon=True).start()


def _end_with(main: BaseProcess) -> None:
    main.join()
    os._exit(1)


def inspect_image(path: Path) -> tuple[str, Problem | None]:
    """Read and decode one file.

    Returns:
        The SHA-256 of its content, and what is wrong with it or None.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return "", Problem(path, "empty", "file of 0 bytes: remove it or get it anew")
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Pillow mends, such as EXIF data
            load_image(path)
    except OSError as error:
        return "", Problem(path, "broken", f"cannot be read: {error.strerror}")
    except UserError as error:
        return "", Problem(path, "broken", str(error).replace(f" {path}:", ":"))
    return digest.hexdigest(), None
