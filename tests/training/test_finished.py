"""A folder counts as this run, finished or begun, only where its records, its model and its data are this run's."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_adm.cli import main
from tests.training.test_resume import assert_same, train, train_killed


def records_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_model_that_was_not_saved_is_told(tmp_path, capsys):
    assert train(tmp_path, "SAM", "--skip_model_save") == 0
    before = contents(tmp_path)
    assert train(tmp_path, "SAM", "--skip_model_save") == 0
    assert "holds this run, finished; --restart redoes it" in capsys.readouterr().out
    assert train(tmp_path, "SAM") == 2
    told = capsys.readouterr()
    assert "holds this run, finished, but no model.pkl" in told.err
    assert "--restart redoes the run" in told.err
    assert "finished" not in told.out
    assert contents(tmp_path) == before
    assert train(tmp_path, "SAM", "--restart") == 0
    assert train(tmp_path, "SAM") == 0


@pytest.mark.parametrize("kept", [None, 0, 1, 2])
@pytest.mark.parametrize("flags", [[], ["--seed", "1"]], ids=["same", "other seed"])
def test_records_that_are_lost_are_told(tmp_path, capsys, kept, flags):
    """Steps 0, 2 and 4 were recorded; without a record nothing says whose run it was."""
    assert train(tmp_path, "SAM") == 0
    path = tmp_path / "results.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[len(lines) - (kept or 0) :]))
    if kept is None:
        path.unlink()
    before = contents(tmp_path)
    capsys.readouterr()
    assert train(tmp_path, "SAM", *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    if flags and kept:
        assert "holds another run: --seed (0 there, 1 here)" in error
    else:
        assert f"has {kept or 0} of the 3 records that the finished run had: put the file back, or --restart" in error
    assert contents(tmp_path) == before


def test_restart_removes_what_was_measured_at_the_models_it_replaces_and_nothing_of_the_users(tmp_path):
    """The report would show it beside the new run's accuracies."""
    measured = ["hessian.json", "hessian_step2.json", "landscape.npz", "landscape_step300.npz"]
    others = ["hessian.svg", "hessian_mine.json", "hessian.json.txt", "my_hessian.json", "landscape_step.npz", "a.npz"]
    assert train(tmp_path, "SAM", "--skip_model_save") == 0
    left = set(contents(tmp_path)) | set(others)
    for name in (*measured, *others):
        (tmp_path / name).touch()
    assert train(tmp_path, "SAM", "--skip_model_save") == 0
    assert set(contents(tmp_path)) == left | set(measured)
    assert train(tmp_path, "SAM", "--skip_model_save", "--restart") == 0
    assert set(contents(tmp_path)) == left


def shapes(tmp_path, image_folder, *flags):
    hparams = json.dumps({"cnn_width": 8, "batch_size": 3, "image_size": 28, "data_augmentation": False})
    common = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--hparams", hparams, "--workers", "0"]
    return main(["train", *common, "--output_dir", str(tmp_path / "run"), "--checkpoint_freq", "2", *flags])


@pytest.mark.parametrize("change", ["more", "renamed"])
@pytest.mark.parametrize("state", ["done", "records alone"])
def test_other_data_are_refused(tmp_path, image_folder, capsys, change, state):
    """An image that came to it moves every split; a domain of another name is another domain."""
    assert shapes(tmp_path, image_folder, "--steps", "3") == 0
    run = tmp_path / "run"
    if state != "done":
        (run / "done").unlink()
    if change == "more":
        Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(image_folder / "Shapes/light/circle/new.png")
        unlike = "samples ([10, 10, 10] there, [10, 11, 10] here)"
    else:
        (image_folder / "Shapes/tinted").rename(image_folder / "Shapes/toned")
        unlike = "environments (['dark', 'light', 'tinted'] there, ['dark', 'light', 'toned'] here)"
    before = contents(run)
    capsys.readouterr()
    assert shapes(tmp_path, image_folder, "--steps", "3") == 2
    assert f"holds another run: {unlike}. Give another --output_dir, or --restart" in capsys.readouterr().err
    assert contents(run) == before
    assert shapes(tmp_path, image_folder, "--steps", "3", "--restart") == 0


def test_a_checkpoint_on_other_data_is_refused(tmp_path, monkeypatch, capsys):
    """Also where no record was written yet."""
    from domainbed_adm.datasets import in_memory

    train_killed(monkeypatch, 2, tmp_path / "broken", "SAM", "--checkpoint_every", "1")
    (tmp_path / "broken/results.jsonl").unlink()
    monkeypatch.setattr(in_memory, "_IMAGES", 15)
    assert train(tmp_path / "broken", "SAM") == 2
    assert "samples ([16, 16, 16] there, [15, 15, 15] here)" in capsys.readouterr().err


def test_records_of_an_earlier_version_say_less_and_are_taken(tmp_path, monkeypatch):
    """They tell the environments' names, not their sizes; DomainBed's tell nothing of the data."""
    assert train(tmp_path / "whole", "SAM") == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", "SAM")
    lost = [{"samples", "fingerprints"}, {"samples", "environments", "fingerprints"}]
    lines = [
        {**record, "provenance": {k: v for k, v in record["provenance"].items() if k not in names}}
        for record, names in zip(records_of(tmp_path / "broken"), lost, strict=True)
    ]
    (tmp_path / "broken/results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert train(tmp_path / "broken", "SAM") == 0
    monkeypatch.setattr("tests.training.test_resume.NOISE", ("step_time", "wall_time", "mem_gb", "args", "provenance"))
    assert_same(tmp_path / "whole", tmp_path / "broken")


def relabelled(folder):
    """A circle becomes a square and a square a circle: no count changes."""
    a, b = folder / "Shapes/light/circle/0.jpg", folder / "Shapes/light/square/0.jpg"
    circle, square = a.read_bytes(), b.read_bytes()
    a.write_bytes(square)
    b.write_bytes(circle)


def other_pixels(folder):
    Image.fromarray(np.zeros((41, 53, 3), np.uint8)).save(folder / "Shapes/light/circle/0.jpg")


@pytest.mark.parametrize("change", [relabelled, other_pixels])
@pytest.mark.parametrize("state", ["done", "records alone", "checkpoint alone"])
def test_data_that_changed_where_no_count_did_are_refused(tmp_path, image_folder, monkeypatch, capsys, change, state):
    run = tmp_path / "run"
    if state == "checkpoint alone":
        monkeypatch.setattr("domainbed_adm.training.loop._write_done", lambda _: None)
    assert shapes(tmp_path, image_folder, "--steps", "3") == 0
    monkeypatch.undo()
    if state == "records alone":
        (run / "done").unlink()
    change(image_folder)
    before = contents(run)
    capsys.readouterr()
    assert shapes(tmp_path, image_folder, "--steps", "3") == 2
    error = capsys.readouterr().err
    assert "another run: the images or labels of light have changed. Give another --output_dir, or --restart" in error
    assert error.count("\n") == 1
    assert contents(run) == before
    assert shapes(tmp_path, image_folder, "--steps", "3", "--restart") == 0


def test_data_that_moved_are_the_same_data(tmp_path, image_folder):
    assert shapes(tmp_path, image_folder, "--steps", "3") == 0
    image_folder.rename(tmp_path / "elsewhere")
    assert shapes(tmp_path, tmp_path / "elsewhere", "--steps", "3") == 0


def test_a_checkpoint_of_a_version_without_fingerprints_goes_on(tmp_path, monkeypatch):
    """Those of earlier commits lack them; the records written from then on have them."""
    assert train(tmp_path / "whole", "SAM") == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", "SAM")
    checkpoint = torch.load(tmp_path / "broken/checkpoint.pkl", weights_only=True)
    assert len(checkpoint["identity"].pop("fingerprints")) == 3
    torch.save(checkpoint, tmp_path / "broken/checkpoint.pkl")
    records = records_of(tmp_path / "broken")
    for record in records:
        del record["provenance"]["fingerprints"]
    (tmp_path / "broken/results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert train(tmp_path / "broken", "SAM") == 0
    kept = [len(record["provenance"].get("fingerprints", ())) for record in records_of(tmp_path / "broken")]
    assert kept == [0, 0, 3]
    monkeypatch.setattr("tests.training.test_resume.NOISE", ("step_time", "wall_time", "mem_gb", "args", "provenance"))
    assert_same(tmp_path / "whole", tmp_path / "broken")
