"""Well-formed files that hold what they must not: one line names the place, nothing is written, nothing half-loaded."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from domainbed_adm.cli import main
from domainbed_adm.training import loop, provenance
from tests.fuzzing import repeatable

bounded = repeatable(60)


@pytest.fixture(autouse=True)
def no_git(monkeypatch):
    monkeypatch.setattr(provenance, "git_commit", lambda _: None)


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
    images = folder / "images"
    images.mkdir()
    for i in range(2):
        Image.fromarray(np.full((30, 40, 3), 90 * i, np.uint8)).save(images / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def checkpoint(run):
    contents = torch.load(run / "checkpoint.pkl", weights_only=True)
    assert contents["position"]["next_step"] == 2
    assert contents["position"]["since_record"].keys() >= {"loss", "kept_fraction"}
    assert {"step_state.difficulty_memory", "step_state.fsam_momentum_0"} <= contents["algorithm"].keys()
    return contents


@pytest.fixture(scope="module")
def model(run):
    return torch.load(run / "model.pkl", weights_only=True)


def called(flags):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(flags)
    return code, out.getvalue(), err.getvalue()


def resumed(run, contents, folder):
    """Go on from a checkpoint of these contents; what train returned and said."""
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    (folder / "results.jsonl").write_bytes((run / "results.jsonl").read_bytes())
    torch.save(contents, folder / "checkpoint.pkl")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err = called(command(folder))
    if code == 2:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    return code, out, err


def predicted(run, contents, folder):
    """Predict by a model of these contents; what predict returned and said."""
    torch.save(contents, folder / "model.pkl")
    return called(["predict", "--model", str(folder / "model.pkl"), "--images", str(run / "images")])


GONE = object()


def replaced(contents, path, value):
    """A copy with another value, or none where it is GONE, at a path of keys; the tensors are shared."""
    if not path:
        return value
    new = copy.copy(contents) if isinstance(contents, dict) else list(contents)
    if path[1:] or value is not GONE:
        new[path[0]] = replaced(contents[path[0]] if path[1:] else None, path[1:], value)
    else:
        del new[path[0]]
    return new if isinstance(contents, (dict, list)) else tuple(new)


def test_both_are_taken_as_they_are(run, checkpoint, model, tmp_path):
    assert resumed(run, checkpoint, tmp_path / "again")[0] == 0
    assert (tmp_path / "again/results.jsonl").read_text().count("\n") == 2
    assert predicted(run, model, tmp_path)[0] == 0


GROUP = ("optimizers", "optimizer", "param_groups", 0)
STATE = ("optimizers", "optimizer", "state", 0)
HUGE = torch.ones(1).expand(10**12)
CHECKPOINTS = [
    (("identity",), [1], "identity must be a dict of names, not [1]"),
    (("identity",), torch.ones(2), "identity must be a dict of names, not a tensor of torch.float32 and shape (2,)"),
    (("identity",), {1: 2}, "identity must be a dict of names"),
    (("identity",), {"--seed": torch.ones(2)}, "identity.--seed must be a plain value"),
    (("identity", "--algorithm"), "a\nb", "another run: --algorithm (a b there, FSAM_SPL_ADM here)"),
    *(
        (("position", "next_step"), value, f"position.next_step must be an integer in [0, 3], not {value!r}")
        for value in ("a", -3, 99999, 1.5, True)
    ),
    (("position", "since_record"), 3, "position.since_record must be a dict of names, not 3"),
    (("position", "since_record", "loss"), ["a"], "position.since_record.loss[0] must be a float, not 'a'"),
    (("algorithm",), [1], "algorithm must be a dict of names"),
    (
        ("algorithm", "classifier.weight"),
        torch.ones(3),
        "algorithm.classifier.weight must be a tensor of torch.float32",
    ),
    *(
        (("algorithm", "classifier.weight"), torch.ones(2, 16).to(dtype), f"shape (2, 16), not a tensor of {dtype}")
        for dtype in (torch.int64, torch.bool, torch.float16, torch.float64, torch.complex64)
    ),
    *((("algorithm", name), GONE, "tensors are lost") for name in ("classifier.weight", "step_state.update_count")),
    *(
        (("algorithm", f"step_state.{name}"), GONE, "tensors are lost")
        for name in ("difficulty_memory", "fsam_momentum_0")
    ),
    (("algorithm", "more"), torch.ones(3), "there are too many"),
    (("algorithm", "classifier.weight"), 1, "algorithm.classifier.weight must be a dense tensor, not 1"),
    (("algorithm", "step_state.update_count"), torch.tensor(-1), "update_count must be an integer in [0, "),
    (("algorithm", "step_state.update_count"), torch.tensor(float("inf")), "OverflowError"),
    (("algorithm", "step_state.fsam_momentum_0"), torch.ones(3), "fsam_momentum_0 must be a tensor of torch.float32"),
    (("algorithm", "step_state.difficulty_memory"), torch.ones(2, 2), "difficulty_memory must be a tensor"),
    (("algorithm", "step_state.difficulty_memory"), torch.ones(97), "difficulty_memory must be a tensor"),
    (("algorithm", "step_state.difficulty_memory"), HUGE, "difficulty_memory must be a dense tensor"),
    (("optimizers",), {}, "optimizers lacks optimizer"),
    (("optimizers",), {"optimizer": 5}, "optimizers.optimizer must be a dict of names, not 5"),
    ((*GROUP, "lr"), "0.1", "param_groups[0].lr must be a number in [0, 1), not '0.1'"),
    ((*GROUP, "lr"), 1e38, "param_groups[0].lr must be a number in [0, 1), not 1e+38"),
    ((*GROUP, "betas"), (1.0, 0.999), "param_groups[0].betas[0] must be a number in [0, 1), not 1.0"),
    ((*GROUP, "amsgrad"), True, "param_groups[0].amsgrad must be one of False, not True"),
    (STATE, {}, "optimizers.optimizer.state.0 lacks step"),
    (STATE, GONE, "tensors are lost"),
    ((*STATE, "exp_avg"), GONE, "optimizers.optimizer.state.0 lacks exp_avg"),
    ((*STATE, "exp_avg"), torch.ones(8, 3, 3, 3).long(), "state.0.exp_avg must be a tensor of torch.float32 and shape"),
    (("optimizers", "another"), {"state": {}, "param_groups": []}, "there are too many"),
    (("names",), torch.ones(2), "names must be a plain value"),
    (("names", "algorithm"), [], "tensors are lost"),
    ((*STATE, "step"), torch.tensor(-1.0), "state.0.step must be a finite tensor"),
    ((*STATE, "exp_avg"), torch.ones(3), "state.0.exp_avg must be a tensor of torch.float32 and shape (8, 3, 3, 3)"),
    (("random",), 0, "random must be a dict of names, not 0"),
    (("random", "torch"), torch.ones(3), "RNG state must be a torch.ByteTensor"),
    (("random", "python"), (3, (1, 2), None), "random.python[1] must be a list of 625"),
    (("random", "numpy", 2), 10**6, "random.numpy[2] must be an integer in [0, 624], not 1000000"),
    (("random", "numpy", 1, 0), -1, "random.numpy[1][0] must be an integer in [0, "),
]


@pytest.mark.parametrize(("path", "value", "message"), CHECKPOINTS)
def test_a_checkpoint_is_refused(run, checkpoint, tmp_path, path, value, message):
    code, _, error = resumed(run, replaced(checkpoint, path, value), tmp_path / "again")
    assert (code, error.count("\n")) == (2, 1)
    assert str(tmp_path / "again/checkpoint.pkl") in error
    assert message in error
    assert "--restart" in error


MODELS = [
    (("args",), [], "args must be a dict of names, not []"),
    (("args", "algorithm"), 5, "args.algorithm must be a text, not 5"),
    (("args", "algorithm"), "SAM_SPL_AMD", "unknown algorithm 'SAM_SPL_AMD'. Did you mean SAM_SPL_ADM"),
    (("model_hparams",), {}, "the weights do not fit FSAM_SPL_ADM: "),
    (("model_hparams", "cnn_width"), 10**12, "model_hparams.cnn_width must be a multiple of 8 in [8, 65536]"),
    (("model_hparams", "cnn_width"), 2**16, "size mismatch for featurizer.network.0.weight"),
    (("model_hparams", "lr"), "a", "model_hparams.lr must be a number in (0, 1000], not 'a'"),
    (("model_hparams", "lr"), torch.ones(2), "model_hparams.lr must be a plain value"),
    (("model_hparams", "input_std"), [1.0], "model_hparams.input_std must be a list of 3, not [1.0]"),
    (("model_dict",), [1], "model_dict must be a dict of names, not [1]"),
    (("model_dict", "classifier.weight"), 1.0, "model_dict.classifier.weight must be a dense tensor, not 1.0"),
    (("model_dict", "classifier.weight"), torch.ones(2), "size mismatch for classifier.weight"),
    (("model_dict", "classifier.weight"), GONE, 'Missing key(s) in state_dict: "classifier.weight"'),
    (("model_dict", "classifier.weight"), torch.ones(2, 16).long(), "classifier.weight is of torch.int64, not torch."),
    (("model_dict", "classifier.weight"), HUGE, "model_dict.classifier.weight must be a dense tensor"),
    (("model_input_shape",), (3, 28), "model_input_shape must be a list of 3, not (3, 28)"),
    (("model_input_shape",), (3, 10**6, 10**6), "model_input_shape[1] must be an integer in [1, 1024], not 1000000"),
    (("model_input_shape",), (3, 28, 32), "no network for inputs of shape (3, 28, 32)"),
    (("model_num_classes",), 10**12, "model_num_classes must be an integer in [1, 1e+06], not 1000000000000"),
    (("model_num_classes",), 10**6, "classes must be a list of 1000000, not ['0', '1']"),
    (("model_num_classes",), "2", "model_num_classes must be an integer"),
    (("classes",), 2, "classes must be a list, not 2"),
    (("classes",), ["0"], "classes must be a list of 2, not ['0']"),
    (("normalization",), [[0.5], [0.5]], "normalization[0] must be a list of 3, not [0.5]"),
    (("normalization",), [[0.5] * 3, [0.0] * 3], "normalization[1][0] must be a number in (0, inf), not 0.0"),
]


@pytest.mark.parametrize(("path", "value", "message"), MODELS)
def test_a_model_is_refused(run, model, tmp_path, path, value, message):
    code, out, error = predicted(run, replaced(model, path, value), tmp_path)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert str(tmp_path / "model.pkl") in error
    assert message in error


def test_sizes_that_are_not_the_weights_take_no_memory(run, model, tmp_path):
    """Built with numbers, this network would take 400 GB."""
    wide = {**model["model_hparams"], "cnn_width": 2**14}
    many = {**model, "classes": None, "model_num_classes": 10**6, "model_hparams": wide}
    code, _, error = predicted(run, many, tmp_path)
    assert code == 2
    assert "the weights do not fit" in error


def test_a_model_that_lacks_what_domainbed_does_not_write(run, model, tmp_path):
    """DomainBed's has neither classes nor normalization, and not our hparams."""
    lacking = {name: value for name, value in model.items() if name not in ("classes", "normalization")}
    lacking["model_hparams"] = {"cnn_width": 8, "resnet50_augmix": True}
    whole, without = predicted(run, model, tmp_path), predicted(run, lacking, tmp_path)
    assert whole == without
    assert whole[0] == 0


def test_weights_that_are_not_finite_predict_nothing(run, model, tmp_path):
    weights = {name: value * float("nan") if "bias" in name else value for name, value in model["model_dict"].items()}
    code, _, error = predicted(run, {**model, "model_dict": weights}, tmp_path)
    assert code == 3
    assert "not finite: the model's output" in error


numbers = st.integers(-3, 3) | st.integers() | st.floats()
scalars = st.none() | st.booleans() | numbers | st.text(max_size=8)
tensors = st.builds(torch.full, st.sampled_from([(), (0,), (2,), (8, 3), (8, 3, 3, 3)]), st.floats(width=32))
values = st.recursive(
    scalars | tensors, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=4), one, max_size=3)
)


def spoilt(data, contents):
    """Another value at a random place: one of the whole, or of its parts, or of theirs."""
    path, here = [], contents
    while isinstance(here, (dict, list, tuple)) and here and (not path or data.draw(st.integers(0, 3))):
        path.append(data.draw(st.sampled_from(list(here) if isinstance(here, dict) else range(len(here)))))
        here = here[path[-1]]
    return replaced(contents, path, data.draw(values))


@bounded
@given(st.data())
def test_any_checkpoint(run, checkpoint, tmp_path, data):
    code, _, error = resumed(run, spoilt(data, checkpoint), tmp_path / "again")
    assert (code, error.count("\n")) in ((0, 0), (2, 1), (3, 1)), error


@bounded
@given(st.data())
def test_any_model(run, model, tmp_path, data):
    code, _, error = predicted(run, spoilt(data, model), tmp_path)
    assert (code, error.count("\n")) in ((0, 0), (2, 1), (3, 1)), error
