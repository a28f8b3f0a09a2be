"""A run broken off anywhere ends in the records and weights of one that never stopped, bit for bit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.cli import main
from domainbed_adm.method.cards import WEIGHTINGS
from domainbed_adm.training import loop
from domainbed_adm.training.model_file import read_model
from tests.cases import TRAINED

STEPS = 5
EVERY = [(name, weighting) for name, m in TRAINED.items() for weighting in (WEIGHTINGS if m.curriculum else ("both",))]
#: Weighting "descent" keeps what "both" keeps: SSPL by ADM stands for it.
QUICK = {(name, weighting) for name, weighting in EVERY if weighting != "descent" or name.endswith("SSPL_ADM")}
#: What two equal runs may differ in.
NOISE = ("step_time", "wall_time", "mem_gb", "args")


class Killed(BaseException):
    """Stands for the process's end: nothing catches it."""


def train(folder, algorithm, *flags, **hparams):
    given = json.dumps({"cnn_width": 8, "batch_size": 3} | hparams)
    common = ["--dataset", "Debug28", "--algorithm", algorithm, "--output_dir", str(folder), "--hparams", given]
    return main(["train", *common, "--steps", str(STEPS), "--checkpoint_freq", "2", *flags])


def train_killed(monkeypatch, step, folder, algorithm, *flags, where="step", **hparams):
    """Train, and be killed at the ``step``-th call of a part of the loop."""
    name = {"step": "_step", "record": "evaluate", "checkpoint": "save_position"}[where]
    original, calls = getattr(loop, name), []

    def kill(*args, **kwargs):
        calls.append(1)
        if len(calls) == step:
            raise Killed
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop, name, kill)
        with pytest.raises(Killed):
            train(folder, algorithm, *flags, **hparams)


def outcome(folder):
    lines = (folder / "results.jsonl").read_text().splitlines()
    records = [{k: v for k, v in json.loads(line).items() if k not in NOISE} for line in lines]
    return records, read_model(folder / "model.pkl")["model_dict"]


def assert_same(a, b):
    (records_a, weights_a), (records_b, weights_b) = outcome(a), outcome(b)
    assert records_a == records_b
    assert weights_a.keys() == weights_b.keys()
    assert all(torch.equal(weights_a[key], weights_b[key]) for key in weights_a)
    assert (b / "done").exists()
    assert not (b / "checkpoint.pkl").exists()


@pytest.mark.parametrize(
    ("name", "weighting"), [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in EVERY]
)
def test_every_method_resumes_exactly(tmp_path, monkeypatch, name, weighting):
    options = {"weighting": weighting, "resnet_dropout": 0.1}
    assert train(tmp_path / "whole", name, **options) == 0
    train_killed(monkeypatch, 5, tmp_path / "broken", name, "--checkpoint_every", "1", **options)
    assert train(tmp_path / "broken", name, "--checkpoint_every", "1", **options) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("name", ["ERM", "SAM_SSPL_ADM"])
def test_a_run_from_the_cache_resumes_exactly(tmp_path, image_folder, monkeypatch, name):
    Image.new("RGB", (330, 400), "red").save(image_folder / "Shapes" / "light" / "circle" / "large.png")
    flags = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--cache", "--checkpoint_every", "1"]
    assert train(tmp_path / "whole", name, *flags, image_size=28) == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", name, *flags, image_size=28)
    assert train(tmp_path / "broken", name, *flags, "--workers", "1", image_size=28) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")
    assert outcome(tmp_path / "broken")[0][0]["provenance"]["reduced_images"] == [0, 1, 0]


FEW = [("ERM", {}), ("SAM_SSPL_GDM", {}), ("FSAM_SPL_Loss", {"weighting": "descent"})]
FEW += [("SAGM_SSPL_ADM", {"weighting": "memory", "adm_refresh": 0.5})]


@pytest.mark.parametrize(("name", "options"), FEW, ids=[name for name, _ in FEW])
def test_a_run_with_all_that_makes_it_fast_resumes_exactly(tmp_path, image_folder, monkeypatch, name, options):
    """Every method in ``make torture``."""
    flags = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--checkpoint_every", "1"]
    flags += ["--cache", "--augment_on", "device", "--precision", "bf16"]
    assert train(tmp_path / "whole", name, *flags, image_size=28, **options) == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", name, *flags, image_size=28, **options)
    assert train(tmp_path / "broken", name, *flags, image_size=28, **options) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")
    train(tmp_path / "other", name, *flags, "--seed", "1", image_size=28, **options)
    assert outcome(tmp_path / "other")[0] != outcome(tmp_path / "whole")[0]


@pytest.mark.parametrize("where", ["step", "record", "checkpoint"])
@pytest.mark.parametrize("every", [None, "1", "2", "3", "9"])
def test_wherever_it_is_killed(tmp_path, monkeypatch, where, every):
    flags = ["--checkpoint_every", every] if every else []
    assert train(tmp_path / "whole", "FSAM_SPL_ADM") == 0
    for call in (1, 2, 3):
        folder = tmp_path / f"{where}{call}"
        if where == "checkpoint" and (every, call) in {("2", 3), ("3", 2), ("3", 3)} | {("9", c) for c in (1, 2, 3)}:
            continue  # so many checkpoints are not written
        train_killed(monkeypatch, call, folder, "FSAM_SPL_ADM", *flags, where=where)
        assert not (folder / "done").exists()
        assert train(folder, "FSAM_SPL_ADM", *flags) == 0
        assert_same(tmp_path / "whole", folder)


@pytest.mark.parametrize("refresh", [1, 0.4])
def test_killed_again_and_again(tmp_path, monkeypatch, refresh):
    given = {"weighting": "memory", "adm_refresh": refresh}
    assert train(tmp_path / "whole", "SAM_SSPL_ADM", **given) == 0
    flags = ["--checkpoint_every", "1"]
    for _ in range(STEPS):
        train_killed(monkeypatch, 2, tmp_path / "broken", "SAM_SSPL_ADM", *flags, **given) if _ < 4 else None
    assert train(tmp_path / "broken", "SAM_SSPL_ADM", *flags, **given) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_says_where_it_goes_on_and_restart_begins_anew(tmp_path, monkeypatch, capsys):
    train_killed(monkeypatch, 4, tmp_path, "SAM")
    capsys.readouterr()
    assert train(tmp_path, "SAM", "--restart") == 0
    assert "resumed" not in capsys.readouterr().out
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 3


def test_records_beyond_the_checkpoint_and_a_torn_line_are_dropped(tmp_path, monkeypatch, capsys):
    train_killed(monkeypatch, 4, tmp_path / "broken", "SAM")
    path = tmp_path / "broken/results.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *lines, lines[-1], lines[-1][:40]]))  # doubles before and behind
    assert train(tmp_path / "broken", "SAM") == 0
    assert "resumed at step 3" in capsys.readouterr().out
    assert train(tmp_path / "whole", "SAM") == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize(
    ("flags", "options", "message"),
    [
        (["--seed", "1"], {}, "--seed (0 there, 1 here)"),
        (["--test_envs", "2"], {}, "--test_envs ([0] there, [2] here)"),
        ([], {"rho": 0.1}, "hparam rho (0.05 there, 0.1 here)"),
        (["--steps", "9"], {}, "--steps (5 there, 9 here)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, monkeypatch, capsys, flags, options, message):
    train_killed(monkeypatch, 4, tmp_path, "SAM_SPL_Loss")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert train(tmp_path, "SAM_SPL_Loss", *flags, **options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Give another --output_dir, or --restart" in error
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("contents", [b"", b"no checkpoint", b"PK\x03\x04 torn"])
def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch, capsys, contents):
    train_killed(monkeypatch, 4, tmp_path, "SAM")
    (tmp_path / "checkpoint.pkl").write_bytes(contents)
    assert train(tmp_path, "SAM") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "checkpoint.pkl is no file that domainbed-adm saved" in error
    assert train(tmp_path, "SAM", "--restart") == 0


@pytest.mark.parametrize("lost", ["all", "one"])
def test_lost_records_are_not_passed_over(tmp_path, monkeypatch, capsys, lost):
    train_killed(monkeypatch, 4, tmp_path, "SAM")
    path = tmp_path / "results.jsonl"
    whole = path.read_text()
    path.write_text("torn\n" + whole.split("\n", 1)[1])
    if lost == "all":
        path.unlink()
    assert train(tmp_path, "SAM") == 2
    assert f"has {0 if lost == 'all' else 1} of the 2 records that the checkpoint counts" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.tensor])
def test_figures_that_are_no_floats_are_kept(tmp_path, monkeypatch, kind):
    """DomainBed's algorithms return what ``.item()`` gives; others may not."""
    erm = get_algorithm_class("ERM")
    update = erm.update
    monkeypatch.setattr(erm, "update", lambda *args: {name: kind(value) for name, value in update(*args).items()})
    assert train(tmp_path / "whole", "ERM") == 0
    train_killed(monkeypatch, 5, tmp_path / "broken", "ERM", "--checkpoint_every", "1")
    assert train(tmp_path / "broken", "ERM", "--checkpoint_every", "1") == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_every_optimizer_and_random_state_is_kept(tmp_path, monkeypatch):
    """An algorithm of several optimizers that draws from every generator resumes as well."""
    erm = get_algorithm_class("ERM")
    update = erm.update

    def noisy(self, minibatches, unlabeled=None):
        import random

        figures = update(self, minibatches, unlabeled)
        return {**figures, "noise": torch.rand(1).item() + random.random() + np.random.rand()}

    monkeypatch.setattr(erm, "update", noisy)
    assert train(tmp_path / "whole", "ERM") == 0
    train_killed(monkeypatch, 5, tmp_path / "broken", "ERM")
    assert train(tmp_path / "broken", "ERM") == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("step", [2, 3, 5])
@pytest.mark.parametrize("name", ["FSAM", "GSAM_SSPL_ADM"])
def test_a_run_whose_flatness_starts_late_resumes_exactly(tmp_path, monkeypatch, name, step):
    options = {"flatness_start": 0.5, "lr_schedule": "cosine"}
    assert train(tmp_path / "whole", name, **options) == 0
    train_killed(monkeypatch, step, tmp_path / "broken", name, "--checkpoint_every", "1", **options)
    assert train(tmp_path / "broken", name, "--checkpoint_every", "1", **options) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")
    shares = [record["flatness_share"] for record in outcome(tmp_path / "whole")[0]]
    assert shares == [0, 0, 1]  # of step 0, of 1 and 2, of 3 and 4


def test_a_checkpoint_from_before_an_hparam_that_the_run_sets_goes_on(tmp_path, monkeypatch):
    """SAM's hparams had no total_steps; records and checkpoints of then are of the same run."""
    assert train(tmp_path / "whole", "SAM") == 0
    train_killed(monkeypatch, 4, tmp_path / "broken", "SAM")
    contents = torch.load(tmp_path / "broken" / "checkpoint.pkl", weights_only=False)
    for lacked in ("total_steps", "flatness_start", "averaging"):
        del contents["identity"][f"hparam {lacked}"]
    del contents["averaging"]
    torch.save(contents, tmp_path / "broken" / "checkpoint.pkl")
    path = tmp_path / "broken" / "results.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        for lacked in ("total_steps", "flatness_start", "averaging"):
            del record["hparams"][lacked]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert train(tmp_path / "broken", "SAM") == 0
    assert read_model(tmp_path / "broken" / "model.pkl")["model_dict"].keys() == outcome(tmp_path / "whole")[1].keys()
    assert all(
        torch.equal(a, b)
        for a, b in zip(*(outcome(tmp_path / n)[1].values() for n in ("whole", "broken")), strict=True)
    )
