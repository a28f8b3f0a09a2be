"""Predictions by image: from models to a file to the page."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from domainbed_adm.analysis.prediction_files import Predictions, load_predictions
from domainbed_adm.cli import main
from domainbed_adm.leaderboard import Board
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.records import load_runs
from domainbed_adm.report.section_predictions import PredictionBlock, png, predictions
from domainbed_adm.run_files import PREDICTIONS


@pytest.fixture(scope="module")
def predicted(trained: Path) -> Path:
    assert main(["analyze", "predictions", str(trained), "--thumbnails", "3", "--thumbnail_size", "12"]) == 0
    return trained


def block(folder: Path) -> PredictionBlock:
    (found,) = predictions(Board(load_runs(folder), list(SELECTION_METHODS.values())))
    return found


def of(folder: Path, algorithm: str) -> Predictions:
    (run,) = load_runs(folder / algorithm)
    found = load_predictions(run)
    assert found is not None
    return found


def test_they_are_what_evaluate_counts(predicted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(predicted / "ERM"), "--json"]) == 0
    (measured,) = json.loads(capsys.readouterr().out)
    (environment,) = measured["environments"]
    found = of(predicted, "ERM")
    assert len(found.label) == environment["n"]
    assert found.correct.mean() == pytest.approx(environment["accuracy"])
    assert found.scores["Loss"].mean() == pytest.approx(environment["nll"], rel=1e-4)
    assert found.sample.tolist() == list(range(environment["n"]))
    assert {"Loss", "GDM", "ADM"} == set(found.scores)
    right = found.correct
    assert np.allclose(found.scores["Loss"][right], -np.log(found.probability[right]), rtol=1e-4)


def test_the_thumbnails_are_of_the_ends(predicted: Path) -> None:
    found = of(predicted, "SAM")
    order = np.argsort(found.scores["ADM"], kind="stable")
    assert set(order[:3]) | set(order[-3:]) <= set(found.shown)
    assert found.thumbnails.shape == (len(found.shown), 12, 12, 1)
    assert found.thumbnails.max() > 100


def test_what_is_there_is_not_made_again(predicted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (predicted / "ERM" / PREDICTIONS).stat().st_mtime_ns
    command = ["analyze", "predictions", str(predicted / "ERM"), "--thumbnails", "3", "--thumbnail_size", "12"]
    assert main(command) == 0
    assert (predicted / "ERM" / PREDICTIONS).stat().st_mtime_ns == before
    assert main([*command, "--again"]) == 0
    assert (predicted / "ERM" / PREDICTIONS).stat().st_mtime_ns > before
    assert main([*command[:3], "--thumbnails", "-1"]) == 2
    assert "--thumbnails must be at least 0" in capsys.readouterr().err


def test_the_page_has_classes_confusions_fifths_and_images(predicted: Path) -> None:
    found = block(predicted)
    by_class, confusions, fifths = found.tables
    own = of(predicted, "ERM")
    right = [100 * own.correct[own.label == k].mean() for k in range(10)]
    assert [cell.value for cell in by_class.rows[0].cells] == pytest.approx(right)
    for row in confusions.rows:
        assert sum(cell.value or 0 for cell in row.cells) == pytest.approx(100)
    assert [row.labels for row in fifths.rows][:2] == [["Loss", "ERM"], ["Loss", "SAM"]]
    assert [gallery.title for gallery in found.galleries][:2] == ["0, easiest by Loss", "0, hardest by Loss"]
    assert [len(gallery.pictures) for gallery in found.galleries] == [3] * 6
    easiest, hardest = (gallery.pictures[0].caption for gallery in found.galleries[:2])
    assert "rightly" in easiest
    assert "taken for" in hardest


def test_damaged_files_and_those_of_other_runs_are_left_out(
    predicted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("a", b"x"), ("b", (predicted / "SAM" / PREDICTIONS).read_bytes())):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_bytes((predicted / "ERM" / "results.jsonl").read_bytes())
        (tmp_path / name / PREDICTIONS).write_bytes(content)
        (run,) = load_runs(tmp_path / name)
        assert load_predictions(run) is None
    told = capsys.readouterr().err
    assert "no result of analyze predictions" in told
    assert "another run's" in told


def test_a_png_is_read_back() -> None:
    for channels in (1, 3):
        image = np.random.RandomState(0).randint(0, 256, (5, 7, channels)).astype(np.uint8)
        read = np.asarray(Image.open(io.BytesIO(png(image))))
        assert np.array_equal(read.reshape(image.shape), image)
