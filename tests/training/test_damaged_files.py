"""A model or checkpoint that is damaged, another run's, or wants to run code: one line that names what is wrong."""

import contextlib
import copy
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.training import loop
from domainbed_adm.training.model_file import load_tensors, read_model, restore_algorithm, save_model


def command(folder):
    hparams = json.dumps({"cnn_width": 8, "batch_size": 3, "weighting": "memory"})
    flags = ["--algorithm", "FSAM_SPL_ADM", "--steps", "3", "--checkpoint_freq", "2", "--checkpoint_every", "2"]
    return ["train", "--dataset", "Debug28", *flags, "--hparams", hparams, "--output_dir", str(folder)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was killed when all was done but to say so: it has a checkpoint of step 2 of 3, and a model."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(loop, "_write_done", lambda _: None)
        assert main(command(folder)) == 0
    (folder / "images").mkdir()
    for i in range(2):
        Image.fromarray(np.full((30, 40, 3), 90 * i, np.uint8)).save(folder / f"images/{i}.png")
    return folder


def called(flags):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(flags)
    return code, out.getvalue(), err.getvalue()


def resumed(run, contents, folder):
    """Go on from a checkpoint of these contents; what train returned and said."""
    folder.mkdir(exist_ok=True)
    (folder / "results.jsonl").write_bytes((run / "results.jsonl").read_bytes())
    torch.save(contents, folder / "checkpoint.pkl")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err = called(command(folder))
    if code == 2:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    return code, out, err


def predicted(run, contents, folder):
    torch.save(contents, folder / "model.pkl")
    return called(["predict", "--model", str(folder / "model.pkl"), "--images", str(run / "images")])


GONE = object()


def replaced(contents, path, value):
    """A copy with another value, or none where it is GONE, at a path of keys."""
    new = copy.copy(contents) if isinstance(contents, dict) else list(contents)
    if path[1:]:
        new[path[0]] = replaced(contents[path[0]], path[1:], value)
    elif value is GONE:
        del new[path[0]]
    else:
        new[path[0]] = value
    return new


def test_both_are_taken_as_they_are(run, tmp_path):
    checkpoint = torch.load(run / "checkpoint.pkl", weights_only=True)
    assert checkpoint["position"]["next_step"] == 2
    assert {"step_state.difficulty_memory", "step_state.fsam_momentum_0"} <= checkpoint["algorithm"].keys()
    assert resumed(run, checkpoint, tmp_path / "again")[0] == 0
    assert (tmp_path / "again/results.jsonl").read_text().count("\n") == 2
    assert predicted(run, torch.load(run / "model.pkl", weights_only=True), tmp_path)[0] == 0


CHECKPOINTS = [
    (("identity", "--algorithm"), "a\nb", r"another run: --algorithm (a\nb there, FSAM_SPL_ADM here)"),
    (("random",), GONE, "it lacks random"),
    (("position",), {"step": 2}, "unexpected keyword argument 'step'"),
    (("algorithm", "classifier.weight"), torch.ones(3), "size mismatch for classifier.weight"),
    (("algorithm", "classifier.weight"), GONE, 'Missing key(s) in state_dict: "classifier.weight"'),
    (("algorithm", "step_state.update_count"), GONE, 'Missing key(s) in state_dict: "step_state.update_count"'),
    (("algorithm", "more"), torch.ones(3), 'Unexpected key(s) in state_dict: "more"'),
    (("optimizers",), {}, "KeyError 'optimizer'"),
    (("optimizers", "optimizer", "param_groups"), [], "different number of parameter groups"),
    (("random", "torch"), torch.ones(3), "RNG state must be a torch.ByteTensor"),
]


@pytest.mark.parametrize(("path", "value", "message"), CHECKPOINTS)
def test_a_checkpoint_of_something_else_is_refused(run, tmp_path, path, value, message):
    checkpoint = torch.load(run / "checkpoint.pkl", weights_only=True)
    code, _, error = resumed(run, replaced(checkpoint, path, value), tmp_path / "again")
    assert (code, error.count("\n")) == (2, 1)
    assert str(tmp_path / "again/checkpoint.pkl") in error
    assert message in error
    assert "--restart" in error


MODELS = [
    (("args", "algorithm"), "SAM_SPL_AMD", "unknown algorithm 'SAM_SPL_AMD'. Did you mean SAM_SPL_ADM"),
    (("model_hparams", "cnn_width"), 12, "hparam cnn_width must be a positive multiple of 8, not 12"),
    (("model_hparams", "cnn_width"), 16, "size mismatch for featurizer.network.0.weight"),
    (("model_dict", "classifier.weight"), torch.ones(2), "size mismatch for classifier.weight"),
    (("model_dict", "classifier.weight"), GONE, 'Missing key(s) in state_dict: "classifier.weight"'),
    (("model_input_shape",), (3, 28, 32), "no network for inputs of shape (3, 28, 32)"),
    (("model_dict",), GONE, "it lacks model_dict"),
]


@pytest.mark.parametrize(("path", "value", "message"), MODELS)
def test_a_model_of_something_else_is_refused(run, tmp_path, path, value, message):
    model = torch.load(run / "model.pkl", weights_only=True)
    code, out, error = predicted(run, replaced(model, path, value), tmp_path)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert str(tmp_path / "model.pkl") in error
    assert message in error


class Call:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def without_its_end(path):
    path.write_bytes(path.read_bytes()[:-300])


def with_code(path):
    torch.save({"args": Call()}, path)


def with_code_in_the_old_format(path):
    torch.save({"args": Call()}, path, _use_new_zipfile_serialization=False)


def a_bare_pickle(path):
    path.write_bytes(pickle.dumps(Call()))


def an_empty_archive(path):
    zipfile.ZipFile(path, "w").close()


@pytest.mark.parametrize(
    "spoil", [without_its_end, with_code, with_code_in_the_old_format, a_bare_pickle, an_empty_archive]
)
def test_nothing_in_a_file_is_run(tmp_path, monkeypatch, spoil):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pkl"
    save_model(path, {"args": 1, "weights": torch.ones(1000)})
    spoil(path)
    with pytest.raises(UserError, match=r"model.pkl is no file that domainbed-adm saved: it is damaged, or holds more"):
        load_tensors(path, ["args"])
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_not_finite_predict_nothing(run, tmp_path):
    model = torch.load(run / "model.pkl", weights_only=True)
    weights = {name: value * float("nan") if "bias" in name else value for name, value in model["model_dict"].items()}
    code, _, error = predicted(run, {**model, "model_dict": weights}, tmp_path)
    assert code == 3
    assert "not finite: the model's output" in error


def test_hparams_that_a_file_lacks_have_their_defaults(run, tmp_path):
    model = torch.load(run / "model.pkl", weights_only=True)
    lacking = {**model, "model_hparams": {"cnn_width": 8, "resnet50_augmix": True}}
    whole, without = predicted(run, model, tmp_path), predicted(run, lacking, tmp_path)
    assert whole == without
    assert whole[0] == 0


def test_a_path_may_be_text(run):
    assert not restore_algorithm(read_model(str(run / "model.pkl"))).training
