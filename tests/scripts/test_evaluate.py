"""Finished models measured anew: against the run's own record, plain PyTorch, and files of every kind of damage."""

import json
import re
import shutil
from statistics import mean

import pytest
import torch

from domainbed_adm.analysis import evaluation as measuring
from domainbed_adm.analysis.evaluation_files import Attack, load_evaluation, load_evaluations
from domainbed_adm.analysis.runs import find_runs
from domainbed_adm.cli import main
from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.run_files import files_of_run
from domainbed_adm.training.batches import EVALUATION_BATCH
from domainbed_adm.training.model_file import read_model, restore_algorithm
from tests.runs import read_records

HPARAMS = '{"cnn_width": 8, "batch_size": 16}'


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "run"
    flags = ["--dataset", "Digits", "--steps", "8", "--hparams", HPARAMS]
    assert main(["train", *flags, "--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def evaluated(capsys, *flags):
    """What the command prints as JSON, and what it says."""
    assert main(["evaluate", *map(str, flags), "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def by_plain_torch(run, dataset, i):
    """Accuracy and NLL of all images at once, in float64."""
    algorithm = restore_algorithm(read_model(run / "model.pkl")).double()
    environment = get_dataset_class(dataset)(None, [1], {}).datasets[i]
    x, y = torch.stack([environment[k][0] for k in range(len(environment))]), torch.from_numpy(environment.targets)
    with torch.no_grad():
        logits = algorithm.predict(x.double())
    return (logits.argmax(1) == y).double().mean().item(), torch.nn.functional.cross_entropy(logits, y).item()


def test_the_test_set_is_what_the_last_record_says(run, capsys):
    (found,), _ = evaluated(capsys, run)
    (figures,), last = found["environments"], read_records(run)[-1]
    assert figures["accuracy"] == last["env1_in_acc"]
    assert [figures["nll"], figures["ece"]] == pytest.approx([last["env1_in_nll"], last["env1_in_ece"]], rel=1e-6)
    assert (figures["name"], figures["n"], found["dataset"], found["attack"]) == ("test", 449, "Digits", None)
    assert {path.name for path in run.glob("evaluation*")} == {"evaluation_Digits.json"}
    assert run / "evaluation_Digits.json" in files_of_run(run)  # --restart removes it


def test_a_corrupted_set_has_its_plain_mean_over_corruptions_and_severities(run, capsys):
    (found,), _ = evaluated(capsys, run, "--dataset", "DigitsC")
    errors = [1 - one["accuracy"] for one in found["environments"]]
    assert len(errors) == 25
    assert found["mean_corruption_error"] == pytest.approx(mean(errors), abs=1e-12)
    assert found["error_by_corruption"]["blur"] == pytest.approx(mean(errors[5:10]), abs=1e-12)
    names = get_dataset_class("DigitsC").ENVIRONMENTS
    assert [one["name"] for one in found["environments"]] == names[1:]
    figures = found["environments"][names.index("contrast-4") - 1]
    accuracy, nll = by_plain_torch(run, "DigitsC", names.index("contrast-4"))
    assert figures["accuracy"] == pytest.approx(accuracy, abs=1 / 449)
    assert figures["nll"] == pytest.approx(nll, rel=1e-5)


def test_what_is_there_of_this_model_is_not_measured_again(run, capsys):
    two = ["--dataset", "DigitsC", "--environments"]
    _, err = evaluated(capsys, run, *two, "noise-1", "blur-2")
    assert "(898 images)" in err
    (found,), err = evaluated(capsys, run, *two, "blur-2", "blur-3")
    assert "(449 images)" in err
    assert [one["name"] for one in found["environments"]] == ["noise-1", "blur-2", "blur-3"]
    assert found["mean_corruption_error"] is None
    before = (run / "evaluation_DigitsC.json").read_bytes()
    assert "there already" in evaluated(capsys, run, *two, "noise-1")[1]
    assert "(449 images)" in evaluated(capsys, run, *two, "noise-1", "--again")[1]
    assert (run / "evaluation_DigitsC.json").read_bytes() == before
    contents = torch.load(run / "model.pkl")
    contents["model_dict"]["classifier.bias"] += 1 + torch.arange(10)
    torch.save(contents, run / "model.pkl")
    (found,), err = evaluated(capsys, run, *two, "noise-1")
    assert "(449 images)" in err
    assert [one["name"] for one in found["environments"]] == ["noise-1"]


def test_a_command_that_is_broken_off_keeps_what_it_measured(run, capsys, monkeypatch):
    seen, evaluate = [], measuring.evaluate

    def interrupted(*args):
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return evaluate(*args)

    monkeypatch.setattr(measuring, "evaluate", interrupted)
    assert main(["evaluate", str(run), "--dataset", "DigitsC"]) == 130
    assert len(load_evaluation(run / "evaluation_DigitsC.json").environments) == 2
    monkeypatch.setattr(measuring, "evaluate", evaluate)
    (found,), err = evaluated(capsys, run, "--dataset", "DigitsC")
    assert f"({23 * 449:,} images)" in err
    assert len(found["environments"]) == 25


def test_an_attack_lowers_accuracy_in_evaluation_mode_whatever_the_batches(run, capsys, monkeypatch):
    modes = set()

    def watched(contents):
        algorithm = restore_algorithm(contents)
        predict = algorithm.predict
        algorithm.predict = lambda x: (modes.add((algorithm.training, x.requires_grad)), predict(x))[1]
        return algorithm

    monkeypatch.setattr(measuring, "restore_algorithm", watched)
    attack = [run, "--attack", "pgd", "--epsilon", "8/255", "--attack_steps", "2"]
    (found,), _ = evaluated(capsys, *attack)
    assert found["attack"] == {"name": "pgd", "epsilon": 8 / 255, "steps": 2, "seed": 0}
    assert modes == {(False, True), (False, False)}
    (clean,), _ = evaluated(capsys, run)
    assert found["environments"][0]["accuracy"] < clean["environments"][0]["accuracy"]
    assert found["environments"][0]["nll"] > clean["environments"][0]["nll"]
    monkeypatch.setitem(EVALUATION_BATCH, "cpu", 449)
    monkeypatch.setitem(EVALUATION_BATCH, "cuda", 449)
    (other,), _ = evaluated(capsys, *attack, "--again")
    assert other["environments"][0]["nll"] == pytest.approx(found["environments"][0]["nll"], rel=1e-4)
    (seeded,), _ = evaluated(capsys, *attack, "--seed", "1")
    assert seeded["environments"][0]["nll"] != found["environments"][0]["nll"]
    assert len(list(run.glob("evaluation*pgd*"))) == 1


def test_batch_norm_stands_still_and_normalised_inputs_are_attacked(tmp_path, image_folder, capsys):
    flags = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--workers", "0", "--steps", "2"]
    hparams = '{"image_size": 32, "image_channels": 1, "batch_size": 2}'
    run = tmp_path / "run"
    assert main(["train", *flags, "--hparams", hparams, "--output_dir", str(run)]) == 0
    capsys.readouterr()
    (found,), _ = evaluated(capsys, run, "--attack", "pgd", "--epsilon", "1e-6", "--environments", "dark", "light")
    (clean,), _ = evaluated(capsys, run, "--environments", "dark", "light")
    for attacked, figures in zip(found["environments"], clean["environments"], strict=True):
        assert attacked["nll"] == pytest.approx(figures["nll"], rel=1e-3)
        assert (figures["n"], attacked["fingerprint"]) == (10, figures["fingerprint"])


def test_a_sweep_is_measured_run_by_run_and_as_a_table(run, capsys):
    second = shutil.copytree(run, run.parent / "second")
    assert main(["evaluate", str(run.parent), "--environments", "test", "train", "--dataset", "Digits"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[-6:-4] for line in out.splitlines()[3:7]] == [["train", "1348"], ["test", "449"]] * 2
    assert err.count("(1,797 images)") == 2
    assert (second / "evaluation_Digits.json").is_file()


def test_runs_that_the_dataset_does_not_fit_are_left_out(run, tmp_path, capsys):
    flags = ["--dataset", "Debug28", "--steps", "1", "--hparams", HPARAMS]
    assert main(["train", *flags, "--output_dir", str(tmp_path / "other")]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path), "--dataset", "DigitsC", "--environments", "blur-1"]) == 0
    err = capsys.readouterr().err
    assert f"warning: 1 of 2 runs left out: DigitsC does not fit the model of {tmp_path}/other: inputs (3, 28" in err
    assert not list((tmp_path / "other").glob("evaluation*"))
    assert len(list(run.glob("evaluation*"))) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dataset", "ColoredDigits"), "inputs (1, 28, 28) in training, here (2, 28, 28); classes 10"),
        (("--environments", "tset"), "unknown environment of Digits 'tset'. Did you mean test? Valid: train, test"),
        (("--epsilon", "1/255"), "--epsilon is of an attack: add --attack pgd"),
        (("--attack", "pgd", "--precision", "bf16"), "--attack is computed in fp32"),
        (("--attack", "pgd", "--epsilon", "8"), "a number in (0, 1] such as 1/255, not 8"),
        (("--attack", "pgd", "--epsilon", "1/0"), "a number in (0, 1] such as 1/255, not 1/0"),
        (("--attack", "pgd", "--epsilon", "nan"), "a number in (0, 1] such as 1/255, not nan"),
        (("--attack", "pgd", "--attack_steps", "0"), "--attack_steps must be at least 1, not 0"),
        (("--threads", "0"), "--threads must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_measured_is_one_line(run, capsys, flags, message):
    assert main(["evaluate", str(run), *flags]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(run.glob("evaluation*"))


def test_inputs_that_are_no_pixels_are_not_attacked(tmp_path, capsys):
    flags = ["--dataset", "Debug28", "--steps", "1", "--hparams", HPARAMS, "--output_dir", str(tmp_path)]
    assert main(["train", *flags]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path), "--attack", "pgd"]) == 2
    assert "no attack on 0: its inputs are not pixels in [0, 1]" in capsys.readouterr().err


def test_a_model_that_exploded_is_told(run, capsys):
    contents = torch.load(run / "model.pkl")
    contents["model_dict"]["classifier.bias"] *= torch.nan
    torch.save(contents, run / "model.pkl")
    assert main(["evaluate", str(run)]) == 3
    assert "not finite: an output of the model of" in capsys.readouterr().err
    assert not list(run.glob("evaluation*"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"n": 449', '"n": "449"'),
        lambda text: text.replace('"n": 449', '"n": 0'),
        lambda text: text.replace('"n": 449', '"n": 449, "more": 1'),
        lambda text: text.replace('"nll": ', '"nll": -'),
        lambda text: text.replace('"accuracy": 0.', '"accuracy": 1.'),
        lambda text: re.sub(r'"nll": [^,]*', '"nll": NaN', text),
        lambda text: "[" * 100_000,
        lambda text: text.replace('"name": "test"', '"name": "train"'),
        lambda text: "",
    ],
)
def test_a_damaged_file_is_one_line_and_measured_anew(run, capsys, damage):
    assert main(["evaluate", str(run), "--environments", "train", "test"]) == 0
    path = run / "evaluation_Digits.json"
    whole = path.read_text()
    path.write_text(damage(whole))
    assert path.read_text() != whole
    capsys.readouterr()
    assert load_evaluations(find_runs([run])[0]) == []
    err = capsys.readouterr().err
    assert err.startswith(f"warning: {path} left out: no result of evaluate (")
    assert err.count("\n") == 1
    assert main(["evaluate", str(run), "--environments", "train", "test"]) == 0
    assert path.read_text() == whole


def test_another_runs_file_is_left_out(run, capsys):
    assert main(["evaluate", str(run)]) == 0
    path = run / "evaluation_Digits.json"
    path.write_text(path.read_text().replace('"algorithm": "ERM"', '"algorithm": "SAM"'))
    capsys.readouterr()
    assert load_evaluations(find_runs([run])[0]) == []
    assert capsys.readouterr().err == f"warning: {path} left out: it is another run's\n"


def test_an_attack_is_told_in_levels_of_a_pixel():
    assert str(Attack(1 / 255, 10, 0)) == "PGD 1/255, 10 steps"
    assert str(Attack(0.01, 1, 0)) == "PGD 2.55/255, 1 step"
