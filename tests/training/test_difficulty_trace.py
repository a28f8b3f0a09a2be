import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from domainbed_adm.errors import UserError
from domainbed_adm.scripts import train
from domainbed_adm.training.difficulty_trace import DifficultyTracer, Trace, choose_sample, load_trace
from domainbed_adm.training.setup import set_up

MEASURES = ("Loss", "GDM", "ADM", "ADM_linear")
STEPS = 5
FLAGS = ["--dataset", "RotatedDigits", "--checkpoint_freq", "2", "--steps", str(STEPS), "--test_envs", "1"]
HPARAMS = {"cnn_width": 8, "batch_size": 4}


def _train(folder: Path, *flags: str, algorithm: str = "SAM_SSPL_ADM", hparams: dict = HPARAMS) -> Path:
    own = ["--algorithm", algorithm, "--hparams", json.dumps(hparams), "--output_dir", str(folder)]
    assert train.main([*FLAGS, *own, *flags]) == 0
    return folder


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    return _train(tmp_path_factory.mktemp("traced"), "--trace_difficulty", "40", "--save_model_every_checkpoint")


def _records(folder: Path) -> list[dict]:
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for record in records:
        del record["step_time"], record["wall_time"], record["mem_gb"], record["args"]["output_dir"]
    return records


def _weights(folder: Path) -> dict:
    return torch.load(folder / "model.pkl", weights_only=True)["model_dict"]


@pytest.mark.parametrize("hparams", [HPARAMS, HPARAMS | {"weighting": "memory"}])
def test_a_traced_run_has_the_records_and_weights_of_one_that_is_not(tmp_path, hparams):
    plain = _train(tmp_path / "plain", "--save_model_every_checkpoint", hparams=hparams)
    traced = _train(tmp_path / "traced", "--trace_difficulty", "--save_model_every_checkpoint", hparams=hparams)
    assert _records(plain) == _records(traced)
    ours, theirs = _weights(plain), _weights(traced)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_trace_scores_distinct_training_images_of_every_source_in_equal_shares(traced):
    trace = load_trace(traced / "difficulty.npz")
    assert trace.step.tolist() == [0, 2, 4]
    assert all(trace.scores[name].shape == (3, 40) for name in MEASURES)
    assert np.unique(trace.environment, return_counts=True)[1].tolist() == [8] * 5
    assert 1 not in trace.environment
    assert len(set(zip(trace.environment, trace.sample, strict=True))) == 40


def test_scores_are_those_of_the_model_at_the_checkpoint(traced):
    from domainbed_adm.datasets import get_dataset_class
    from domainbed_adm.training.model_file import read_model, restore_algorithm

    trace = load_trace(traced / "difficulty.npz")
    contents = read_model(traced / "model_step2.pkl")
    algorithm = restore_algorithm(contents).double()
    dataset = get_dataset_class("RotatedDigits")(None, [1], contents["model_hparams"])
    for place in range(0, 40, 7):
        x, y = dataset[trace.environment[place]][trace.sample[place]]
        x, y = x[None].double().requires_grad_(), torch.tensor([int(y)])
        loss = F.cross_entropy(algorithm.predict(x), y)
        gradient = torch.autograd.grad(loss, x)[0]
        moved = F.cross_entropy(algorithm.predict(x + 8 / 255 * gradient.sign()), y)
        expected = {
            "Loss": loss,
            "GDM": gradient.norm(),
            "ADM": (moved - loss).abs() / (loss + 1e-6),
            "ADM_linear": 8 / 255 * gradient.abs().sum() / (loss + 1e-6),
        }
        for name, value in expected.items():
            assert trace.scores[name][1, place] == pytest.approx(value.item(), rel=1e-3), name
        assert trace.correct[1, place] == (algorithm.predict(x).argmax(1) == y).item()


def test_correctness_is_that_of_evaluation_and_training_goes_on_as_before(tmp_path):
    """With BatchNorm and dropout, which the digits' network has not, the modes differ."""
    flags = ["--algorithm", "ERM", "--dataset", "Debug28", "--hparams", json.dumps(HPARAMS), "--trace_difficulty"]
    run = set_up(train.parse(flags))
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm1d(run.algorithm.featurizer.n_outputs)
    torch.nn.init.normal_(norm.running_mean)
    middle = torch.nn.Sequential(norm, torch.nn.Dropout(0.5))
    run.algorithm.network = torch.nn.Sequential(run.algorithm.featurizer, middle, run.algorithm.classifier).train()
    before = {name: value.clone() for name, value in run.algorithm.state_dict().items()}
    tracer = DifficultyTracer(run, tmp_path / "difficulty.npz", choose_sample(run), 0)
    tracer.observe(0)
    assert all(module.training for module in run.algorithm.modules())
    after = run.algorithm.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    images = [run.dataset.datasets[environment][position] for environment, position in tracer.trace.images]
    x, y = torch.stack([x for x, _ in images]), torch.tensor([int(y) for _, y in images])

    def correct():
        with torch.no_grad():
            return (run.algorithm.predict(x).argmax(1) == y).tolist()

    assert tracer.trace.correct[0].tolist() != correct()
    run.algorithm.eval()
    assert tracer.trace.correct[0].tolist() == correct()


def test_runs_of_one_trial_score_the_same_images_and_another_trial_others(traced, tmp_path):
    same = load_trace(_train(tmp_path / "same", "--trace_difficulty", "40", algorithm="ERM") / "difficulty.npz")
    other = _train(tmp_path / "other", "--trace_difficulty", "40", "--trial_seed", "1", algorithm="ERM")
    ours = load_trace(traced / "difficulty.npz")
    assert np.array_equal(same.sample, ours.sample)
    assert not np.array_equal(load_trace(other / "difficulty.npz").sample, ours.sample)


def test_a_run_that_was_broken_off_ends_in_the_trace_of_one_that_was_not(traced, tmp_path, monkeypatch):
    from domainbed_adm.training import loop

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        real, calls = loop.save_position, []

        def second_fails(*args):
            calls.append(args)
            return real(*args) if len(calls) < 2 else killed()

        broken.setattr(loop, "save_position", second_fails)
        with pytest.raises(KeyboardInterrupt):
            _train(tmp_path / "a", "--trace_difficulty", "40")
    assert load_trace(tmp_path / "a" / "difficulty.npz").step.tolist() == [0, 2]
    _train(tmp_path / "a", "--trace_difficulty", "40")
    ours, twin = load_trace(tmp_path / "a" / "difficulty.npz"), load_trace(traced / "difficulty.npz")
    assert ours.step.tolist() == [0, 2, 4]
    assert all(np.array_equal(ours.scores[name], twin.scores[name]) for name in MEASURES)


def test_a_trace_of_other_images_is_refused_where_a_run_goes_on(tmp_path, monkeypatch):
    from domainbed_adm.training import loop

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(loop, "save_model", killed)
        with pytest.raises(KeyboardInterrupt):
            _train(tmp_path, "--trace_difficulty", "40")
    with pytest.raises(UserError, match="traces other images: give the --trace_difficulty it began with, or --restart"):
        _train(tmp_path, "--trace_difficulty", "20")
    _train(tmp_path, "--trace_difficulty", "20", "--restart")
    assert load_trace(tmp_path / "difficulty.npz").sample.shape == (20,)


@pytest.mark.parametrize("size", ["0", "1", "100000", "-3"])
def test_a_sample_that_cannot_be_had_is_refused(tmp_path, size):
    with pytest.raises(UserError, match=rf"--trace_difficulty must be in \[2, \d+\], .*, not {size}$"):
        _train(tmp_path, "--trace_difficulty", size)
    assert not (tmp_path / "results.jsonl").exists()


@pytest.mark.parametrize("wrong", ["--trace_difficulty 1", "--trace_difficulty 100000", "--tensorboard", "full disk"])
@pytest.mark.parametrize("restart", [["--restart"], []])
def test_what_cannot_be_had_costs_no_finished_run(traced, tmp_path, monkeypatch, wrong, restart):
    run = Path(shutil.copytree(traced, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    flags = wrong.split() if wrong.startswith("--") else []
    if not flags:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**19))
    with pytest.raises(UserError, match=r"must be in \[2, |needs tensorboard|the disk is full"):
        _train(run, "--save_model_every_checkpoint", *flags, *restart)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_finished_run_without_a_trace_says_how_to_get_one(tmp_path, capsys):
    _train(tmp_path)
    capsys.readouterr()
    _train(tmp_path, "--trace_difficulty")
    error = "warning: it was trained without --trace_difficulty; --restart redoes the run with the trace asked for\n"
    assert capsys.readouterr().err == error


@pytest.mark.parametrize(
    ("size", "change", "told"),
    [
        ("40", None, None),
        ("20", None, "traces 40 images, other ones than asked for; --restart"),
        ("40", "gap", "lacks checkpoints, and analyze difficulty and report leave it out; --restart"),
        ("40", "torn", "is no difficulty trace, or damaged; --restart"),
    ],
)
def test_a_finished_run_with_another_trace_says_so(traced, tmp_path, capsys, size, change, told):
    run = Path(shutil.copytree(traced, tmp_path / "run"))
    if change == "gap":
        load_trace(run / "difficulty.npz").before(3).save(run / "difficulty.npz")
    elif change:
        (run / "difficulty.npz").write_bytes(b"PK")
    _train(run, "--trace_difficulty", size, "--save_model_every_checkpoint")
    error = capsys.readouterr().err
    assert error.startswith(f"warning: {run}/difficulty.npz {told}") if told else not error


def _break_off(monkeypatch, folder, *flags, call=4):
    """Train, and be killed in a step: with the fourth, the checkpoints of steps 0 and 2 are there."""
    from domainbed_adm.training import loop

    original, calls = loop._step, []

    def kill(*args):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as broken:
        broken.setattr(loop, "_step", kill)
        with pytest.raises(KeyboardInterrupt):
            _train(folder, *flags)


def test_a_run_that_goes_on_without_its_trace_says_so(tmp_path, monkeypatch, capsys):
    _break_off(monkeypatch, tmp_path, "--trace_difficulty", "40")
    capsys.readouterr()
    _train(tmp_path)
    assert "difficulty.npz ends, as the run goes on without --trace_difficulty" in capsys.readouterr().err
    assert load_trace(tmp_path / "difficulty.npz").step.tolist() == [0, 2]


def test_a_trace_that_begins_late_says_so(tmp_path, monkeypatch, capsys):
    _break_off(monkeypatch, tmp_path)
    capsys.readouterr()
    _train(tmp_path, "--trace_difficulty", "40")
    assert "lacks checkpoints before step 3, and analyze difficulty and report leave" in capsys.readouterr().err
    assert load_trace(tmp_path / "difficulty.npz").step.tolist() == [4]


def test_steps_of_the_trace_that_are_done_again_are_dropped_with_their_records(tmp_path, monkeypatch, capsys):
    """Readers want equal steps in both, also before the next checkpoint."""
    flags = ["--trace_difficulty", "40", "--checkpoint_every", "2"]
    _break_off(monkeypatch, tmp_path, *flags, call=4)
    assert load_trace(tmp_path / "difficulty.npz").step.tolist() == [0, 2]
    capsys.readouterr()
    _break_off(monkeypatch, tmp_path, *flags, call=1)
    assert [record["step"] for record in _records(tmp_path)] == [0]
    assert load_trace(tmp_path / "difficulty.npz").step.tolist() == [0]
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04 torn", b"\x80\x04."])
def test_a_damaged_trace_is_one_line(tmp_path, contents):
    path = tmp_path / "difficulty.npz"
    path.write_bytes(contents)
    with pytest.raises(UserError, match="is no difficulty trace, or damaged"):
        load_trace(path)


def test_a_trace_of_wrong_shapes_or_of_objects_is_refused(tmp_path):
    path = tmp_path / "difficulty.npz"
    trace = Trace.begin([(0, 1), (0, 2)], MEASURES)
    trace.scores["GDM"] = np.zeros((1, 2), np.float32)
    trace.save(path)
    with pytest.raises(UserError, match="wrong shape of GDM"):
        load_trace(path)
    trace.scores["GDM"] = np.array([[None, None]])
    trace.save(path)
    with pytest.raises(UserError, match="no difficulty trace, or damaged"):
        load_trace(path)


def test_the_file_is_small(traced):
    assert (traced / "difficulty.npz").stat().st_size < 10_000
