"""Algorithms of the small host in our engine: they train, go on exactly, and are refused what they cannot do."""

import json

import numpy as np
import pytest
import torch

from domainbed_adm import hparams_registry, upstream
from tests.runs import read_records
from tests.upstream.hosting import assert_as_in_the_host, assert_same_run, fails, figures, train, train_killed


@pytest.mark.parametrize("name", ["Smoothed", "Hoarder", "DomainBed_ERM"])
def test_a_killed_run_ends_as_if_it_had_never_stopped(checkout, tmp_path, monkeypatch, capsys, name):
    assert train(tmp_path / "whole", name) == 0
    train_killed(tmp_path / "parts", monkeypatch, 1, name)
    assert train(tmp_path / "parts", name) == 0
    assert "resumed at step 1" in capsys.readouterr().out
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("averaging", ["ema", "swad"])
def test_averaged_weights_go_on_exactly(checkout, tmp_path, monkeypatch, averaging):
    hparams = json.dumps({"batch_size": 4, "averaging": averaging, "ema_decay": 0.5})
    assert train(tmp_path / "whole", "Hoarder", hparams=hparams) == 0
    train_killed(tmp_path / "parts", monkeypatch, 2, "Hoarder", hparams=hparams)
    assert train(tmp_path / "parts", "Hoarder", hparams=hparams) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert read_records(tmp_path / "whole")[-1]["averaged_weights"] == 1


@pytest.mark.parametrize("name", ["Smoothed", "DomainBed_ERM"])
def test_records_and_weights_are_the_hosts_own(checkout, tmp_path, name):
    host = upstream.register().host
    make = host.algorithms.get_algorithm_class(name.removeprefix("DomainBed_"))
    assert_as_in_the_host(tmp_path, name, make)


def test_erm_stays_ours(checkout, tmp_path):
    assert train(tmp_path, "ERM", hparams='{"batch_size": 4, "cnn_width": 8}') == 0
    assert "cnn_width" in read_records(tmp_path)[0]["hparams"]


def test_tracing_changes_nothing(checkout, tmp_path):
    assert train(tmp_path / "plain", "Hoarder") == 0
    assert train(tmp_path / "traced", "Hoarder", "--trace_difficulty", "8") == 0
    assert figures(tmp_path / "plain") == figures(tmp_path / "traced")
    assert (tmp_path / "traced/difficulty.npz").exists()


def test_what_no_checkpoint_can_keep_is_said_at_the_start(checkout, tmp_path, monkeypatch, capsys):
    train_killed(tmp_path, monkeypatch, 2, "Looper")
    told = capsys.readouterr().err
    assert told.count("Looper holds self.rates, a itertools.cycle, which no checkpoint can keep") == 1
    assert not (tmp_path / "checkpoint.pkl").exists()
    assert train(tmp_path, "Looper") == 0
    assert "resumed" not in capsys.readouterr().out
    assert [record["step"] for record in read_records(tmp_path)] == [0, 2, 3]


def test_what_comes_later_leaves_the_checkpoint_before(checkout, tmp_path, monkeypatch, capsys):
    train_killed(tmp_path / "parts", monkeypatch, 2, "LateLooper")
    assert "LateLooper holds self.rates" in capsys.readouterr().err
    assert train(tmp_path / "parts", "LateLooper") == 0
    assert "resumed at step 1" in capsys.readouterr().out
    assert train(tmp_path / "whole", "LateLooper") == 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_hparams_are_the_hosts(checkout):
    host = upstream.register().host.hparams_registry
    for dataset, theirs in (("Debug28", "Debug28"), ("RotatedDigits", "RotatedMNIST"), ("PACS", "PACS")):
        for seed in range(3):
            for made, known in (
                (
                    hparams_registry.random_hparams("Smoothed", dataset, seed),
                    host.random_hparams("Smoothed", theirs, seed),
                ),
                (hparams_registry.default_hparams("Smoothed", dataset), host.default_hparams("Smoothed", theirs)),
            ):
                assert {name: made[name] for name in known} == known
                assert not any(isinstance(value, np.generic) for value in made.values())
                assert {"sampling", "averaging"} <= made.keys()
                assert not {"optimizer", "rho", "backbone"} & made.keys()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ('{"smothing": 0.1}', "unknown hparam 'smothing'. Did you mean smoothing?"),
        ('{"smoothing": "much"}', "hparam smoothing must be a number in"),
        ('{"batch_size": 0}', "hparam batch_size must be an integer"),
        ('{"class_balanced": 1}', "hparam class_balanced must be one of false, true"),
    ],
)
def test_hparams_are_checked(checkout, tmp_path, capsys, given, message):
    assert message in fails(capsys, lambda: train(tmp_path / "run", "Smoothed", hparams=given))
    assert not (tmp_path / "run").exists()


def test_one_set_of_hparams_serves_both_kinds(checkout, tmp_path, capsys):
    both = '{"rho": 0.1, "smoothing": 0.2, "batch_size": 4}'
    assert train(tmp_path / "theirs", "Smoothed", hparams=both) == 0
    assert "Smoothed does not read the hparams rho" in capsys.readouterr().err
    assert train(tmp_path / "ours", "SAM", hparams=both[:-1] + ', "cnn_width": 8}') == 0
    assert "SAM does not read the hparams smoothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--precision", "bf16"], "--precision bf16 is for our own methods: Smoothed is DomainBed's"),
        (["--compile"], "--compile is for our own methods"),
        (["--match_passes", "SAM"], "how many passes Smoothed spends is not known"),
    ],
)
def test_what_the_host_does_not_know_is_refused(checkout, tmp_path, capsys, flags, message):
    assert message in fails(capsys, lambda: train(tmp_path / "run", "Smoothed", *flags))
    assert not (tmp_path / "run").exists()


def test_errors_of_the_hosts_code_are_one_line(checkout, tmp_path, capsys):
    error = fails(capsys, lambda: train(tmp_path / "run", "Broken"))
    assert "DomainBed's code failed: AttributeError" in error
    assert f"{checkout / 'domainbed/algorithms.py'}, line" in error
    assert "has no domainbed.algorithms.Absent" in fails(capsys, lambda: train(tmp_path / "run", "Absent"))


@pytest.mark.parametrize("kind", ["subprocess:Popen", "torch.nn.modules.linear:Linear", "domainbed.nowhere:Mean"])
def test_a_checkpoint_makes_no_class_but_those_it_may(checkout, tmp_path, monkeypatch, capsys, kind):
    """What a file names is never called: a class it may not have is refused, another is given its attributes alone."""
    train_killed(tmp_path, monkeypatch, 1, "Hoarder")
    path = tmp_path / "checkpoint.pkl"
    contents = torch.load(path, weights_only=True)
    contents["algorithm"][3]["added"] = ("object", 10**6, kind, {"args": "touch hacked"})
    torch.save(contents, path)
    if kind.startswith("torch"):
        assert train(tmp_path, "Hoarder") == 0
    else:
        told = f"does not fit this run: it holds a {kind}, which is not imported"
        assert told in fails(capsys, lambda: train(tmp_path, "Hoarder"))


def test_another_classes_state_is_refused(checkout, tmp_path, monkeypatch, capsys):
    train_killed(tmp_path, monkeypatch, 1, "Hoarder")
    path = tmp_path / "checkpoint.pkl"
    contents = torch.load(path, weights_only=True)
    contents["algorithm"] = ("object", 0, "torch.nn.modules.linear:Linear", {})
    torch.save(contents, path)
    assert "it is the state of another algorithm" in fails(capsys, lambda: train(tmp_path, "Hoarder"))
