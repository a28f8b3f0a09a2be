"""A sweep as one HTML file that asks nothing of a network; the template escapes all text it is given."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from domainbed_adm.leaderboard import Board, domainbed_sheets, paper_sheet
from domainbed_adm.leaderboard.footnotes import missing_line, trouble_lines
from domainbed_adm.leaderboard.missing import missing_runs
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.report import section_comparison as statistics
from domainbed_adm.report import section_cost as cost
from domainbed_adm.report import section_difficulty as difficulty
from domainbed_adm.report import section_flatness as flatness
from domainbed_adm.report import section_landscape as landscape
from domainbed_adm.report import section_leaderboard as tables
from domainbed_adm.report import section_learning as learning
from domainbed_adm.report import section_provenance as making
from domainbed_adm.report.analyses import of_checkpoints
from domainbed_adm.report.baseline import BASELINES
from domainbed_adm.report.reading import Reading, heard
from domainbed_adm.sweeping.failures import failure_lines
from domainbed_adm.sweeping.jobs import DONE, FAILED
from domainbed_adm.sweeping.plan import planned_runs

_HERE = Path(__file__).parent


def page(reading: Reading, selections: Sequence[SelectionMethod], title: str, command: str, now: datetime) -> str:
    """The whole page; the same sweep gives the same text, but for ``now``.

    Args:
        reading: the sweep.
        selections: the selection methods shown, the main one first.
        title: heading of the page.
        command: the command line that makes it.
        now: when.
    """
    board = Board(reading.recorded, selections)
    main = next((selection for selection in selections if board.scores[selection.key]), selections[0])
    with heard(reading.warnings):
        found = {
            "flatness": flatness.flatness(reading.root, board.algorithms),
            "landscape": landscape.landscape(reading.root, board.algorithms),
            "difficulty": difficulty.difficulty(reading.root, board.algorithms),
        }
    script = _file("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        title=title,
        command=command,
        now=now,
        css=Markup(_file("report.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        reading=reading,
        board=board,
        boards=[_leaderboard(board, selection) for selection in selections],
        domains=[_domains(board, selection) for selection in selections if board.scores[selection.key]],
        curves=learning.section(board, main),
        costs=cost.cost_tables(board),
        baselines=BASELINES,
        **found,
        checkpoints=of_checkpoints(reading.root),
        main=main.name,
        statistics=statistics.section(board, main),
        troubles=_troubles(reading, board, selections),
        origin=making.origin(reading.recorded),
        shared={kind: making.shared_settings(reading.recorded, kind) for kind in ("args", "hparams")},
        differing=making.differing_settings(reading.recorded),
    )


def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


def _file(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _leaderboard(board: Board, selection: SelectionMethod) -> dict[str, Any]:
    """One selection method: its table, unless nothing has a number under it, and what it lacks."""
    sheet = paper_sheet(board, selection)
    known = any(entry.mean is not None for row in sheet.rows for entry in row.entries)
    table = tables.of_sheet(sheet, sheet.title, sheet.note) if known else None
    return {"name": selection.name, "table": table, "missing": missing_line(board, selection)}


def _domains(board: Board, selection: SelectionMethod) -> dict[str, Any]:
    """One selection method: a table for each dataset, a column for each of its test environments."""
    sheets = domainbed_sheets(board, selection)[: len(board.environments)]
    return {
        "name": selection.name,
        "tables": [tables.of_sheet(sheet, dataset) for dataset, sheet in zip(board.environments, sheets, strict=True)],
    }


def _troubles(reading: Reading, board: Board, selections: Sequence[SelectionMethod]) -> dict[str, Any]:
    """What failed, what is not done, what is missing, which runs exploded or are at chance, what reading warned of."""
    pairs = any(len(run.test_envs) == 2 for run in reading.recorded)
    needed = [selection for selection in selections if pairs or selection.key != "leave-one-domain-out"]
    failed = [(run.label, run.folder) for run in reading.runs if run.state == FAILED]
    return {
        "failed": [line.replace(f"{reading.root}/", "") for line in failure_lines(failed)],
        "open": [run for run in reading.runs if run.state not in {FAILED, DONE}],
        "missing": missing_runs(reading.recorded, needed, planned_runs(reading.root)),
        "untrusted": trouble_lines(reading.recorded),
        "warnings": reading.warnings,
    }
