"""A sweep as one HTML file that asks nothing of a network; the template escapes all text it is given."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from markupsafe import Markup

from domainbed_adm.leaderboard import Board, domainbed_sheets, paper_sheets
from domainbed_adm.leaderboard.hessian import eigenvalues, hessian_sheet
from domainbed_adm.leaderboard.last_models import last_model_sheets
from domainbed_adm.leaderboard.notes import missing_line, missing_runs, trouble_lines
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import is_official
from domainbed_adm.report import section_learning, section_search, section_tables, section_verdict
from domainbed_adm.report.section_analyses import difficulty, flatness, landscape, of_checkpoints
from domainbed_adm.report.section_evaluations import evaluations
from domainbed_adm.report.section_predictions import predictions
from domainbed_adm.report.section_warnings import warned
from domainbed_adm.report.sweep_folder import PRUNED, SweepFolder, kept_warnings
from domainbed_adm.report.tables import of_sheet, with_heat
from domainbed_adm.report.templates import FOLDER, template
from domainbed_adm.sweeping.failures import failure_lines
from domainbed_adm.sweeping.jobs import DONE, FAILED
from domainbed_adm.sweeping.plan import planned_runs


def page(sweep: SweepFolder, selections: Sequence[SelectionMethod], title: str, command: str, now: datetime) -> str:
    """The whole page; the same sweep gives the same text, but for ``now``.

    The main selection method is the first with a number. ``command`` is the command line that makes the page.
    """
    runs, board = sweep.recorded, Board(sweep.recorded, selections)
    main = next((selection for selection in selections if board.scores[selection.key]), selections[0])
    analyses = {"flatness": flatness, "landscape": landscape, "difficulty": difficulty}
    with kept_warnings(sweep.warnings):
        blocks = {name: section(sweep.root, board.algorithms) for name, section in analyses.items()}
        blocks["evaluations"] = evaluations(board)
        predicted = predictions(board)
        found = eigenvalues(board)
        searched = section_search.search(sweep.root)
    css, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    failed = [(run.label, run.folder) for run in sweep.runs if run.state == FAILED]
    unfinished = [run for run in sweep.runs if run.state not in {FAILED, DONE, PRUNED}]
    curves, untrusted = section_learning.section(board, main), trouble_lines(runs)
    comparisons, absent = section_tables.comparison_tables(board, main, found)
    return template("report.html.j2").render(
        title=title,
        command=command,
        now=now,
        css=Markup(css),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        sweep=sweep,
        board=board,
        tasks={is_official(dataset) for dataset in board.environments} or {False},
        boards=[_leaderboard(board, selection) for selection in selections],
        beside=[of_sheet(sheet) for sheet in last_model_sheets(board)],
        hessian=of_sheet(hessian_sheet(board, found)) if found.trials else None,
        domains=[_domains(board, selection) for selection in selections if board.scores[selection.key]],
        trials=len({run.trial_seed for run in runs}),
        curves=curves,
        verdicts=section_verdict.verdicts(board, main),
        passes=section_verdict.against_passes(board, main),
        warned=warned(sweep, board, untrusted, curves.note, blocks["difficulty"]),
        costs=section_tables.cost_tables(board),
        baselines=section_verdict.BASELINES,
        **blocks,
        search=searched,
        predicted=predicted,
        checkpoints=of_checkpoints(sweep.root),
        main=main.name,
        comparisons=comparisons,
        absent=absent,
        failed=[line.replace(f"{sweep.root}/", "") for line in failure_lines(failed)],
        unfinished=[f"{run.label}: {run.state} ({run.folder.name})" for run in unfinished],
        missing=_missing(sweep, selections),
        untrusted=untrusted,
        all_runs=section_tables.runs_table(sweep),
        origin=section_tables.origin(runs),
        shared={kind: section_tables.shared_settings(runs, kind) for kind in ("args", "hparams")},
        differing=section_tables.differing_settings(runs),
    )


def _leaderboard(board: Board, selection: SelectionMethod) -> dict[str, Any]:
    """One selection method: its tables, unless nothing has a number under it, and what it lacks."""
    everywhere = len({is_official(dataset) for dataset in board.environments}) < 2
    tables = [
        # the page says once how the sweep was made
        of_sheet(replace(sheet, note=sheet.note.replace(board.sweep_line, "").replace("  ", " ").strip()))
        for sheet in paper_sheets(board, selection, everywhere)
        if sheet.is_known
    ]
    return {"tables": tables, "missing": missing_line(board, selection)}


def _domains(board: Board, selection: SelectionMethod) -> dict[str, Any]:
    """One selection method: a table for each dataset, a column for each of its test environments."""
    sheets = zip(board.environments, domainbed_sheets(board, selection), strict=False)
    return {
        "name": selection.name,
        "tables": [with_heat(of_sheet(replace(sheet, title=dataset, note=""))) for dataset, sheet in sheets],
    }


def _missing(sweep: SweepFolder, selections: Sequence[SelectionMethod]) -> list[str]:
    """What the sweep lacks; pairs of test environments are needed where it has some."""
    pairs = any(len(run.test_envs) == 2 for run in sweep.recorded)
    needed = [selection for selection in selections if pairs or selection.key != "leave-one-domain-out"]
    return missing_runs(sweep.recorded, needed, planned_runs(sweep.root))
