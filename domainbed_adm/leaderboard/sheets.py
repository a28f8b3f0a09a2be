"""Two layouts of a board: DomainBed's tables, and the paper's optimizer x curriculum x difficulty."""

from __future__ import annotations

from dataclasses import dataclass

from domainbed_adm.leaderboard.board import Board, Entry
from domainbed_adm.leaderboard.footnotes import provenance_line
from domainbed_adm.method.cards import METHODS, OwnMethod
from domainbed_adm.model_selection import SelectionMethod

#: How the published tables name the flatness part; without one, the base optimizer is what runs.
OPTIMIZERS = {None: "Adam", "SAM": "SAM", "SAGM": "SAGM", "FSAM": "F-SAM"}


@dataclass(frozen=True)
class Row:
    """One line of a table: its labels, then its numbers."""

    labels: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Sheet:
    """One table, not yet written in any format.

    Attributes:
        title: what it shows.
        label_columns: headings of the labels.
        columns: headings of the numbers.
        rows: the lines.
        digits: decimals of a number.
        width: characters of a column in DomainBed's text.
        note: which selection method, splits, trials, seeds and versions made it.
    """

    title: str
    label_columns: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    digits: int
    width: int
    note: str

    @property
    def has_numbers(self) -> bool:
        """Whether there is a number in it."""
        return any(entry.mean is not None for row in self.rows for entry in row.entries)

    def best(self) -> set[tuple[int, int]]:
        """(row, number) of the highest mean of each column, ties in the printed digits included; none for one row."""
        best = set()
        for column in range(len(self.columns)):
            means = [row.entries[column].mean for row in self.rows]
            shown = {i: round(mean, self.digits) for i, mean in enumerate(means) if mean is not None}
            if len(self.rows) > 1 and shown:
                best |= {(i, column) for i, mean in shown.items() if mean == max(shown.values())}
        return best


@dataclass(frozen=True)
class Listing:
    """One table whose cells are written already; the attributes are those of a ``Sheet``.

    Attributes:
        prose: headings of the columns that may wrap on a narrow terminal.
    """

    title: str
    label_columns: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    prose: tuple[str, ...] = ()
    has_numbers = True


def domainbed_sheets(board: Board, selection: SelectionMethod) -> list[Sheet]:
    """DomainBed's tables under one selection method: one for each dataset, then the averages."""
    sheets = []
    for dataset, names in board.environments.items():
        grid = [
            [board.cell(selection, dataset, algorithm, env) for env in range(len(names))]
            for algorithm in board.algorithms
        ]
        sheets.append(_domainbed_sheet(board, selection, f"Dataset: {dataset}", names, grid, 20))
    grid = [
        [board.over_environments(selection, dataset, algorithm) for dataset in board.environments]
        for algorithm in board.algorithms
    ]
    return [*sheets, _domainbed_sheet(board, selection, "Averages", list(board.environments), grid, 25)]


def _domainbed_sheet(
    board: Board, selection: SelectionMethod, what: str, names: list[str], grid: list[list[Entry]], width: int
) -> Sheet:
    rows = [
        Row((name,), (*entries, Entry.average(entries))) for name, entries in zip(board.algorithms, grid, strict=True)
    ]
    return Sheet(
        f"{what}, model selection method: {selection.name}",
        ("Algorithm",),
        (*names, "Avg"),
        tuple(rows),
        1,
        width,
        provenance_line(board, selection, (entry.n for entries in grid for entry in entries)),
    )


def paper_sheet(board: Board, selection: SelectionMethod) -> Sheet:
    """The paper's table: a row for each optimizer x curriculum x difficulty, datasets as columns.

    Trials that lack an environment of a dataset are left out of its column.
    """
    rows = []
    for algorithm in board.algorithms:
        entries = [
            board.over_environments(selection, dataset, algorithm, whole_trials=True) for dataset in board.environments
        ]
        rows.append(Row(_paper_labels(algorithm), (*entries, Entry.average(entries))))
    return Sheet(
        f"Model selection: {selection.name}",
        ("Method", "Opt.", "Curr.", "Diff."),
        (*board.environments, "Avg"),
        tuple(rows),
        2,
        0,
        provenance_line(board, selection, (entry.n for row in rows for entry in row.entries)),
    )


def _paper_labels(algorithm: str) -> tuple[str, str, str, str]:
    method = METHODS.get(algorithm)
    if method is None or isinstance(method, OwnMethod):
        return algorithm, "-", "-", "-"
    optimizer = OPTIMIZERS.get(method.flatness, str(method.flatness))
    return algorithm, optimizer, method.curriculum or "-", method.difficulty or "-"
