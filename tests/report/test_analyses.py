"""Flatness, landscapes and difficulty traces on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from domainbed_adm.analysis.flatness import DomainFlatness, Flatness, save_flatness
from domainbed_adm.analysis.landscape import Landscape, save_landscape
from domainbed_adm.report import difficulty, flatness
from domainbed_adm.report.tables import Table
from domainbed_adm.training.difficulty_trace import FILE_NAME, MEASURES, Trace
from tests.report.sweeps import HOSTILE
from tests.runs import record, write

ALL = (flatness.flatness, flatness.landscape, difficulty.difficulty)
ORDER = ["ERM", "SAM", "SAM_ADM"]
RUN = {"dataset": "Mine", "test_envs": [0], "trial_seed": 0}


def domain(role: str, eigenvalues: list[float]) -> DomainFlatness:
    rise = {"sharpness": 0.5, "random_rise": 0.1, "random_rise_sem": 0.01}
    return DomainFlatness(role, role, 8, 1.0, 0.5, eigenvalues, True, 9.0, 0.1, 10, **rise)


def flat(folder: Path, algorithm: str, eigenvalue: float, **more: Any) -> None:
    how = {"model": "model.pkl", "hparams_seed": 0, "samples": None, "batch_size": 8, "seed": 0, "dtype": "float32"}
    how |= {"device": "cpu", "mode": "as trained", "versions": {}, "rho": 0.05, "tolerance": 0.1}
    domains = [domain("source", []), domain("pooled", [eigenvalue]), domain("test", [2 * eigenvalue])]
    folder.mkdir(parents=True)
    save_flatness(Flatness(**RUN | how | more, algorithm=algorithm, trace_tolerance=0.1, domains=domains), folder)


def shown(table: Table | None) -> list[list[str]]:
    return [[*row.labels, *(cell.text for cell in row.cells)] for row in table.rows] if table else []


def test_flatness_is_the_mean_over_runs_on_source_and_test_domains(tmp_path: Path) -> None:
    flat(tmp_path / "a", "SAM", 3.0)
    flat(tmp_path / "b", HOSTILE, 5.0)
    flat(tmp_path / "c", "SAM", 4.0, rho=0.1)
    flat(tmp_path / "d", "SAM", 4.0, dataset="Zoo")
    mine, zoo = flatness.flatness(tmp_path, [HOSTILE, "SAM"])
    assert (mine.dataset, zoo.dataset) == ("Mine", "Zoo")
    assert shown(mine.table) == [
        [HOSTILE, "source", "1", "5", "9", "0.5", "0.1", "1"],
        [HOSTILE, "test", "1", "10", "9", "0.5", "0.1", "1"],
        ["SAM", "source", "2", "3.5", "9", "0.5", "0.1", "1"],
        ["SAM", "test", "2", "7", "9", "0.5", "0.1", "1"],
    ]
    assert mine.note.startswith("rho: 0.05, 0.1; images of each environment: 256 at most; seed: 0;")
    assert len(mine.charts) == 3
    assert all("<script" not in chart.svg for chart in mine.charts)
    assert "largest Hessian eigenvalue" in mine.charts[0].spoken


def around(folder: Path, algorithm: str, **more: Any) -> None:
    line, plane = np.linspace(-1, 1, 5), np.ones((3, 3)) * np.arange(3)
    about = RUN | {"model": "model.pkl", "algorithm": algorithm, "test_name": HOSTILE, "hparams_seed": 0} | more
    folder.mkdir(parents=True)
    save_landscape(Landscape(line, line**2, line**2, np.linspace(-1, 1, 3), plane, plane, about), folder)


def test_landscapes_of_adam_and_sam_on_the_same_environment_are_drawn(tmp_path: Path) -> None:
    for i, algorithm in enumerate(("SAM_ADM", "SAM", "ERM")):
        around(tmp_path / f"{i}", algorithm)
    around(tmp_path / "9", "ERM", trial_seed=1)
    (found,) = flatness.landscape(tmp_path, ORDER)
    assert found.note == f"Drawn: ERM and SAM. With test environment {HOSTILE}, trial 0."
    assert len(found.charts) == 2 + 2 * 2
    assert all("<script" not in chart.svg for chart in found.charts)
    (tmp_path / "2" / "landscape.npz").unlink()
    assert flatness.landscape(tmp_path, ORDER)[0].note.startswith("Drawn: SAM and SAM_ADM.")


def traced(folder: Path, algorithm: str, steps: int = 3) -> None:
    write(folder, record((0.5, 0.5), algorithm=algorithm, dataset="Mine"))
    trace, random = Trace.begin([(1, i) for i in range(6)]), np.random.default_rng(0)
    for step in range(steps):
        scores = {name: random.random(6).astype(np.float32) for name in MEASURES}
        trace = trace.with_checkpoint(step, scores, random.random(6) < 0.5)
    trace.save(folder / FILE_NAME)


def test_traces_have_a_row_for_each_measure_and_method_at_the_last_checkpoint(tmp_path: Path) -> None:
    traced(tmp_path / "a", "SAM")
    traced(tmp_path / "b", "ERM")
    traced(tmp_path / "c", "SAM_ADM", steps=2)
    (found,) = difficulty.difficulty(tmp_path, ORDER)
    assert found.note == "Drawn: ERM and SAM."
    assert len(found.charts) == 2 * 3 + 4
    assert [row[:3] for row in shown(found.table)] == [
        [measure, algorithm, "1"] for algorithm in ("ERM", "SAM", "SAM_ADM") for measure in MEASURES[:3]
    ]


def test_the_name_of_the_traces_file() -> None:
    assert difficulty.FILE_NAME == FILE_NAME


def test_where_nothing_was_analysed_there_is_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a", record((0.5, 0.5)))
    assert [analysis(tmp_path, ORDER) for analysis in ALL] == [[], [], []]


def test_damaged_files_are_left_out_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "a", record((0.5, 0.5)))
    (folder / "hessian.json").write_text(json.dumps({"domains": HOSTILE}))
    for name in ("landscape.npz", FILE_NAME):
        (folder / name).write_bytes(b"PK")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / FILE_NAME).write_bytes(b"PK")
    assert [analysis(tmp_path, ORDER) for analysis in ALL] == [[], [], []]
    assert capsys.readouterr().err.count("left out") == 4
