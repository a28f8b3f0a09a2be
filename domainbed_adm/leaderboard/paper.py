"""The paper's tables, one for each task: rows optimizer x curriculum x difficulty, columns datasets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.layouts import Sheet, sheet_of
from domainbed_adm.method.grid import METHODS, OwnMethod
from domainbed_adm.model_selection import LAST_EPOCH, SelectionMethod
from domainbed_adm.recipes import base_optimizer, recipe
from domainbed_adm.recorded_run import is_official, without_length

#: How the published tables name the flatness part; without one, the base optimizer is what runs.
OPTIMIZERS = {"SAM": "SAM", "SAGM": "SAGM", "FSAM": "F-SAM"}
#: Titles of the tables by the recipe of a set for classification.
_TASKS = {"cifar": "CIFAR", "fine_grained": "Fine-grained recognition", None: "Classification"}


def paper_sheets(board: Board, selection: SelectionMethod, everywhere: bool = True) -> list[Sheet]:
    """The paper's tables under one selection method: domain generalization, CIFAR, fine-grained recognition, others.

    Trials that lack an environment of a dataset are left out of its column. Unless ``everywhere``, sets for
    classification are told by their last epoch alone, and no others are.
    """
    groups: dict[str, list[str]] = {}
    for dataset in board.environments:
        if everywhere or is_official(dataset) == (selection == LAST_EPOCH):
            groups.setdefault(task(dataset), []).append(dataset)
    return [_sheet(board, selection, *group) for group in groups.items()]


def task(dataset: str) -> str:
    """The title of the table that a dataset belongs to; "" for domain generalization."""
    return _TASKS.get(CARDS[dataset].recipe, "Classification") if is_official(dataset) else ""


def paper_labels(board: Board, algorithm: str, datasets: Iterable[str]) -> tuple[str, str, str, str]:
    """Method, optimizer, curriculum and difficulty of a row, whose base optimizer its runs on the datasets say."""
    method = METHODS.get(without_length(algorithm))
    if method is None or isinstance(method, OwnMethod):
        return algorithm, "-", "-", "-"
    runs = (run for run in board.runs if run.algorithm == algorithm and run.dataset in set(datasets))
    optimizer = OPTIMIZERS.get(method.flatness, method.flatness) if method.flatness else base_optimizer(runs)
    return algorithm, optimizer, method.curriculum or "-", method.difficulty or "-"


def _sheet(board: Board, selection: SelectionMethod, title: str, datasets: list[str]) -> Sheet:
    runs = [run for run in board.runs if run.dataset in datasets]
    present = {run.algorithm for run in runs}
    algorithms = [name for name in board.algorithms if name in present or not title]
    grid = [
        [board.over_environments(selection, dataset, name, whole_trials=True) for dataset in datasets]
        for name in algorithms
    ]
    labels = [paper_labels(board, name, datasets) for name in algorithms]
    sheet = sheet_of(
        board,
        selection,
        f"{title}, model selection: {selection.name}" if title else f"Model selection: {selection.name}",
        ("Method", "Opt.", "Curr.", "Diff."),
        datasets,
        labels,
        grid,
    )
    return replace(sheet, note=f"{sheet.note} {recipe(runs)}".strip()) if title and sheet.is_known else sheet
