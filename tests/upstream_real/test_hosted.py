"""DomainBed's own algorithms in our engine: each trains, goes on exactly, and trains as its own class does."""

import math
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from domainbed_adm import hparams_registry, upstream
from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.registry import DOMAINBED_ALGORITHMS, load_checkout
from domainbed_adm.training.model_file import read_model, restore_algorithm
from domainbed_adm.upstream.host import import_part
from domainbed_adm.upstream.methods import PREFIX
from tests.runs import read_records
from tests.upstream.conftest import own_process  # noqa: F401
from tests.upstream.hosting import assert_as_in_the_host, assert_same_run, train, train_killed, weights
from tests.upstream_real.conftest import CHECKOUT, REAL
from tests.upstream_real.test_unit_tests import Shallow

pytestmark = REAL
NAMES = [f"{PREFIX}ERM", *DOMAINBED_ALGORITHMS[1:]]
#: So that what an algorithm changes in the course of a run changes in these few steps.
EARLY = ("iters", "irm_penalty_anneal_iters", "vrex_penalty_anneal_iters", "penalty_anneal_iters", "eqrm_burnin_iters")
EARLY += ("ib_penalty_anneal_iters", "rdm_penalty_anneal_iters", "linear_steps", "n_meta_test")
HPARAMS = "{" + ", ".join(f'"{name}": 1' for name in EARLY) + ', "batch_size": 4}'


class Small(nn.Module):
    """In place of the network for 28 px, to be quick, and to have BatchNorm and dropout."""

    n_outputs = 16

    def __init__(self, input_shape):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(input_shape[0], 8, 5, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.Dropout(0.1)
        )
        self.activation = nn.Identity()

    def forward(self, x):
        return self.activation(self.layers(x).mean((2, 3)))


@pytest.fixture
def host(own_process, monkeypatch):  # noqa: F811
    """What our engine needs of DomainBed."""
    monkeypatch.setenv(upstream.VARIABLE, CHECKOUT)
    root = load_checkout()
    return SimpleNamespace(**{part: import_part(root, part) for part in ("algorithms", "hparams_registry")})


@pytest.fixture
def small(host, monkeypatch):
    """DomainBed with that network."""
    monkeypatch.setattr(host.algorithms.networks, "MNIST_CNN", Small)
    return host


def skip_where_the_host_cannot(host, name, monkeypatch):
    """Fishr does not work with every backpack and torch; what moves to a GPU stays where it is, as in our engine."""
    given = host.hparams_registry.default_hparams(name, "Debug28") | {"n_meta_test": 1}
    batches = [(torch.rand(4, 3, 28, 28), torch.tensor([0, 1, 0, 1])) for _ in range(2)]
    with monkeypatch.context() as patch:
        for kind in () if torch.cuda.is_available() else (torch.Tensor, nn.Module):
            patch.setattr(kind, "cuda", lambda self: self)
        try:
            host.algorithms.get_algorithm_class(name)((3, 28, 28), 2, 2, given).update(batches)
        except Exception as error:
            pytest.skip(f"DomainBed's own {name} fails here: {type(error).__name__}: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_each_trains_and_goes_on_exactly(small, tmp_path, monkeypatch, capsys, name):
    skip_where_the_host_cannot(small, name.removeprefix(PREFIX), monkeypatch)
    assert train(tmp_path / "whole", name, hparams=HPARAMS) == 0
    records = read_records(tmp_path / "whole")
    assert [record["step"] for record in records] == [0, 2, 3]
    assert all(math.isfinite(record["env1_out_acc"]) for record in records)
    assert "no checkpoint can keep" not in capsys.readouterr().err
    for saves in (1, 2):
        train_killed(tmp_path / f"parts{saves}", monkeypatch, saves, name, hparams=HPARAMS)
        assert train(tmp_path / f"parts{saves}", name, hparams=HPARAMS) == 0
        assert "resumed at step" in capsys.readouterr().out
        assert_same_run(tmp_path / "whole", tmp_path / f"parts{saves}")
    algorithm, saved = restore_algorithm(read_model(tmp_path / "whole/model.pkl")), weights(tmp_path / "whole")
    assert all(torch.equal(value, saved[key]) for key, value in algorithm.state_dict().items())
    assert algorithm.predict(torch.rand(8, 3, 28, 28)).shape == (8, 2)


@pytest.mark.parametrize("name", ["CORAL", "Mixup", "GroupDRO", "SagNet", "RSC", "VREx", "IRM", "MMD", "ERMPlusPlus"])
def test_records_and_weights_are_the_hosts_own(host, tmp_path, name):
    assert_as_in_the_host(tmp_path, name, host.algorithms.get_algorithm_class(name))


@pytest.mark.parametrize("seed", range(4))
def test_hparams_are_domainbeds_bit_for_bit(host, seed):
    registry = host.hparams_registry
    for name in NAMES:
        own = name.removeprefix(PREFIX)
        for dataset in ("Debug28", "ColoredMNIST", "PACS", "DomainNet", "TerraIncognita"):
            if dataset not in CARDS:
                continue
            theirs = registry.random_hparams(own, dataset, seed) if seed else registry.default_hparams(own, dataset)
            ours = (
                hparams_registry.random_hparams(name, dataset, seed)
                if seed
                else hparams_registry.default_hparams(name, dataset)
            )
            assert {key: ours[key] for key in theirs} == theirs


def test_a_model_of_images_is_loaded_without_fetching_weights(host, tmp_path, monkeypatch):
    """Training begins at pretrained weights, and needs them; a model that is loaded does not."""
    fetched = []

    def shallow(*args, pretrained=False, **kwargs):
        fetched.append(pretrained)
        return Shallow()

    monkeypatch.setattr(sys.modules["timm"], "create_model", shallow)
    monkeypatch.setattr(torchvision.models, "resnet50", shallow)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert train(tmp_path, "CORAL", "--dataset", "Debug224", steps=1) == 0
    assert all(fetched)
    fetched.clear()
    restore_algorithm(read_model(tmp_path / "model.pkl"))
    assert fetched
    assert not any(fetched)
