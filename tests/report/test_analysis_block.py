"""Flatness, landscapes and difficulty traces on the page."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from domainbed_adm.analysis.result_files import (
    DomainFlatness,
    Flatness,
    Landscape,
    save_flatness,
    save_landscape,
)
from domainbed_adm.report.section_analyses import charts, difficulty, flatness, landscape
from domainbed_adm.report.tables import Table
from domainbed_adm.training.difficulty_trace import Trace
from tests.report.sweeps import HOSTILE
from tests.runs import record, write

ALL = (flatness, landscape, difficulty)
ORDER = ["ERM", "SAM", "SAM_ADM"]
RUN = {"dataset": "Mine", "test_envs": [0], "trial_seed": 0}


def domain(role: str, eigenvalues: list[float], name: str = "", **more: Any) -> DomainFlatness:
    values = {"loss": 1.0, "accuracy": 0.5, "converged": True, "trace": 9.0, "trace_sem": 0.1, "trace_vectors": 10}
    values |= {"sharpness": 0.5, "random_rise": 0.1, "random_rise_sem": 0.01}
    return DomainFlatness(name=name or role, role=role, n=8, eigenvalues=eigenvalues, **values | more)


def flat(folder: Path, algorithm: str, eigenvalue: float, tested: str = "ink", **more: Any) -> None:
    how = {"model": "model.pkl", "hparams_seed": 0, "samples": None, "batch_size": 8, "seed": 0, "dtype": "float32"}
    how |= {"device": "cpu", "mode": "as trained", "versions": {}, "rho": 0.05, "tolerance": 0.1}
    domains = [domain("source", []), domain("pooled", [eigenvalue]), domain("test", [2 * eigenvalue], tested)]
    how |= {"domains": domains}
    folder.mkdir(parents=True, exist_ok=True)
    save_flatness(Flatness(**RUN | how | more, algorithm=algorithm, trace_tolerance=0.1), folder)


def shown(table: Table | None) -> list[list[str]]:
    return [[*row.labels, *(cell.text for cell in row.cells)] for row in table.rows] if table else []


def test_flatness_is_the_mean_over_runs_on_source_and_test_domains(tmp_path: Path) -> None:
    flat(tmp_path / "a", "SAM", 3.0)
    flat(tmp_path / "b", HOSTILE, 5.0)
    flat(tmp_path / "c", "SAM", 4.0, trial_seed=1)
    flat(tmp_path / "d", "SAM", 4.0, dataset="Zoo")
    mine, zoo = flatness(tmp_path, [HOSTILE, "SAM"])
    assert (mine.title, zoo.title) == ("Mine", "Zoo")
    assert shown(mine.table) == [
        [HOSTILE, "source", "ink (1)", "1", "5", "9", "0.5", "0.1", "1"],
        [HOSTILE, "test", "ink (1)", "1", "10", "9", "0.5", "0.1", "1"],
        ["SAM", "source", "ink (2)", "2", "3.5", "9", "0.5", "0.1", "1"],
        ["SAM", "test", "ink (2)", "2", "7", "9", "0.5", "0.1", "1"],
    ]
    assert mine.note.startswith("rho: 0.05; images of each environment: 256 at most; batch size: 8; seed: 0;")
    assert len(mine.charts) == 3
    assert all("<script" not in chart.svg for chart in mine.charts)
    assert "largest Hessian eigenvalue" in mine.charts[0].spoken


@pytest.mark.parametrize(
    "other", [{"rho": 0.5}, {"seed": 1}, {"samples": 64}, {"batch_size": 16}, {"dtype": "float64"}], ids=str
)
def test_flatness_measured_otherwise_stands_apart(tmp_path: Path, other: dict[str, Any]) -> None:
    flat(tmp_path / "a", "ERM", 3.0)
    flat(tmp_path / "b", "SAM", 5.0, **other)
    flat(tmp_path / "c", "SAM", 4.0, device="Some GPU")
    first, second = flatness(tmp_path, ORDER)
    assert (first.title, second.title) == ("Mine, settings 1 of 2", "Mine, settings 2 of 2")
    assert [[row[0], row[3]] for row in shown(first.table)] == [["ERM", "3"], ["ERM", "6"], ["SAM", "4"], ["SAM", "8"]]
    assert [[row[0], row[3]] for row in shown(second.table)] == [["SAM", "5"], ["SAM", "10"]]
    assert str(*other.values()) in second.note
    assert second.table.caption == "Mine, settings 2 of 2, means over runs"


def test_means_over_unlike_test_environments_are_told(tmp_path: Path) -> None:
    for i, (algorithm, env, name) in enumerate(
        [("ERM", 1, "oil"), ("ERM", 0, "ink"), ("ERM", 0, "ink"), ("SAM", 1, "oil")]
    ):
        flat(tmp_path / f"{i}", algorithm, 3.0, name, test_envs=[env], trial_seed=i)
    (found,) = flatness(tmp_path, ORDER)
    assert [row[2] for row in shown(found.table)] == ["ink (2), oil (1)"] * 2 + ["oil (1)"] * 2
    assert "hold out test environments in different shares" in found.table.note
    for i, (env, name) in enumerate([(0, "ink")] * 4 + [(1, "oil")]):
        flat(tmp_path / f"z{i}", "SAM", 3.0, name, test_envs=[env], trial_seed=i)
    (found,) = flatness(tmp_path, ORDER)
    assert [row[2] for row in shown(found.table)] == ["ink (2), oil (1)"] * 2 + ["ink (4), oil (2)"] * 2
    assert found.table.note == ""


def test_environments_held_out_equally_often_are_counted_together(tmp_path: Path) -> None:
    for i, name in enumerate(("ink", "oil", "wax")):
        flat(tmp_path / name, "ERM", 3.0, name, test_envs=[i])
    flat(
        tmp_path / "pair",
        "ERM",
        3.0,
        domains=[domain("pooled", [1.0]), domain("test", [1.0], "a"), domain("test", [2.0], "b")],
    )
    (found,) = flatness(tmp_path, ORDER)
    assert found.table.note == "Test environments of each method (runs): ink, a and b, oil, wax (1 each)."
    assert found.table.labels == ["Method", "Domains"]


def test_eigenvalues_that_did_not_converge_are_marked_and_not_counted(tmp_path: Path) -> None:
    flat(tmp_path / "a", "SAM", 3.0)
    for i, left in enumerate(([], [100.0])):
        unknown = [domain("pooled", left, converged=False, trace=3.0), domain("test", [8.0], "ink")]
        flat(tmp_path / f"{i}", "SAM", 0, trial_seed=1 + i, domains=unknown)
    flat(tmp_path / "e", "ERM", 0, domains=[domain("pooled", [], converged=False), domain("test", [8.0], "ink")])
    (found,) = flatness(tmp_path, ORDER)
    assert [row[2:6] for row in shown(found.table)] == [
        ["ink (1)", "0", "– *", "9"],
        ["ink (1)", "1", "8", "9"],
        ["ink (3)", "1", "3 *", "5"],
        ["ink (3)", "3", "7.333", "9"],
    ]
    assert found.table.note.startswith("* not over the runs whose eigenvalues did not converge")
    assert found.table.rows[2].cells[1].value == 3


def test_figures_that_cannot_be_drawn_are_left_out_with_one_warning(capsys: pytest.CaptureFixture[str]) -> None:
    def panels() -> list[Any]:
        warnings.warn("overflow", RuntimeWarning, stacklevel=1)
        raise ValueError("Axis limits cannot be NaN\nor Inf")

    assert charts("Mine", panels) == []
    said = "warning: Mine: figures left out, they cannot be drawn (Axis limits cannot be NaN or Inf)\n"
    assert capsys.readouterr() == ("", said)


def around(folder: Path, algorithm: str, radius: float = 1.0, **more: Any) -> None:
    line, plane = np.linspace(-radius, radius, 5), np.ones((3, 3)) * np.arange(3)
    how = {"model": "model.pkl", "hparams_seed": 0, "samples": None, "batch_size": 8, "seed": 0, "dtype": "float32"}
    how |= {"device": "cpu", "mode": "as trained", "versions": {}, "test_name": HOSTILE}
    how |= {"algorithm": algorithm, "alphas": line, "source_1d": line**2, "test_1d": line**2}
    how |= {"alphas_2d": np.linspace(-1, 1, 3), "source_2d": plane, "test_2d": plane}
    folder.mkdir(parents=True, exist_ok=True)
    save_landscape(Landscape(**RUN | how | more), folder)


def test_landscapes_of_adam_and_sam_on_the_same_environment_are_drawn(tmp_path: Path) -> None:
    for i, algorithm in enumerate(("SAM_ADM", "SAM", "ERM")):
        around(tmp_path / f"{i}", algorithm)
    around(tmp_path / "9", "ERM", trial_seed=1)
    (found,) = landscape(tmp_path, ORDER)
    assert found.note == f"Drawn: ERM and SAM. With test environment {HOSTILE}, trial 0."
    assert len(found.charts) == 2 + 2 * 2
    assert all("<script" not in chart.svg for chart in found.charts)
    (tmp_path / "2" / "landscape.npz").unlink()
    assert landscape(tmp_path, ORDER)[0].note.startswith("Drawn: SAM and SAM_ADM.")


@pytest.mark.parametrize(
    "other", [{"radius": 2.0}, {"seed": 1}, {"samples": 64}, {"batch_size": 16}, {"dtype": "float64"}], ids=str
)
def test_landscapes_made_otherwise_are_not_drawn_together(tmp_path: Path, other: dict[str, Any]) -> None:
    around(tmp_path / "a", "ERM")
    around(tmp_path / "b", "SAM", **other)
    around(tmp_path / "c", "SAM_ADM")
    first, second = landscape(tmp_path, ORDER)
    assert (first.title, second.title) == ("Mine, settings 1 of 2", "Mine, settings 2 of 2")
    assert first.note == (
        f"Drawn: ERM and SAM_ADM. With test environment {HOSTILE}, trial 0. seed: 0; images of each environment: 256 "
        "at most; batch size: 8; precision: float32; points: 5 and 3 squared; radius: 1 along the line, 1 over the "
        "plane."
    )
    assert second.note.startswith("Drawn: SAM. ")
    (value,) = other.values()
    assert f": {value:{'' if isinstance(value, str) else 'g'}}" in second.note


def test_landscapes_of_unlike_hyperparameters_are_not_drawn_together(tmp_path: Path) -> None:
    around(tmp_path / "a", "ERM", hparams_seed=3)
    around(tmp_path / "b", "SAM")
    around(tmp_path / "c", "SAM", hparams_seed=3)
    (found,) = landscape(tmp_path, ORDER)
    assert found.note == f"Drawn: ERM and SAM. With test environment {HOSTILE}, trial 0, hparams 3."


MEASURES = ("Loss", "GDM", "ADM", "ADM_linear")


def traced(folder: Path, algorithm: str, steps: int = 3) -> None:
    write(folder, *(record((0.5, 0.5), algorithm=algorithm, dataset="Mine", step=step) for step in range(steps)))
    trace, random = Trace.begin([(1, i) for i in range(6)], MEASURES), np.random.default_rng(0)
    for step in range(steps):
        scores = {name: random.random(6).astype(np.float32) for name in MEASURES}
        trace = trace.with_checkpoint(step, scores, random.random(6) < 0.5)
    trace.save(folder / "difficulty.npz")


def test_traces_have_a_row_for_each_measure_and_method_at_the_last_checkpoint(tmp_path: Path) -> None:
    traced(tmp_path / "a", "SAM")
    traced(tmp_path / "b", "ERM")
    traced(tmp_path / "c", "SAM_ADM", steps=2)
    (found,) = difficulty(tmp_path, ORDER)
    assert found.note == "Drawn: ERM and SAM."
    assert len(found.charts) == 2 * 3 + 4
    assert [row[:3] for row in shown(found.table)] == [
        [measure, algorithm, "1"] for algorithm in ("ERM", "SAM", "SAM_ADM") for measure in MEASURES[:3]
    ]


def test_a_difficulty_that_ranks_backwards_is_told_in_words(tmp_path: Path) -> None:
    """Of 40 images the half that ends right has the higher ADM, the lower GDM, and a Loss that chance made."""
    for algorithm in ("SAM", "ERM"):
        folder = tmp_path / algorithm
        write(folder, record((0.5, 0.5), algorithm=algorithm, dataset="Mine", step=0))
        right, chance = np.arange(40) < 20, np.random.default_rng(0).random(40)
        scores = {"Loss": chance, "GDM": 2 - right + chance, "ADM": 1 + right + chance, "ADM_linear": chance}
        trace = Trace.begin([(1, i) for i in range(40)], MEASURES).with_checkpoint(0, scores, right)
        trace.save(folder / "difficulty.npz")
    (found,) = difficulty(tmp_path, ORDER)
    words = "ADM ranks backwards here (ERM, SAM): images called hard are the ones the model gets right."
    assert found.table.note == words


def test_where_nothing_was_analysed_there_is_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a", record((0.5, 0.5)))
    assert [analysis(tmp_path, ORDER) for analysis in ALL] == [[], [], []]


def test_damaged_files_are_left_out_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "a", record((0.5, 0.5)))
    (folder / "hessian.json").write_text(json.dumps({"domains": HOSTILE}))
    for name in ("landscape.npz", "difficulty.npz"):
        (folder / name).write_bytes(b"PK")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "difficulty.npz").write_bytes(b"PK")
    assert [analysis(tmp_path, ORDER) for analysis in ALL] == [[], [], []]
    assert capsys.readouterr().err.count("left out") == 4
