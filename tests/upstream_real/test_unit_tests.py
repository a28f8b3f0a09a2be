"""DomainBed's own unit tests for algorithms and hparams, over our names."""

import importlib
import unittest

import pytest
import torchvision
from torch import nn

from domainbed_adm import upstream
from domainbed_adm.method.grid import METHODS, unnamed_methods
from domainbed_adm.registry import DOMAINBED_ALGORITHMS
from tests.upstream_real.conftest import REAL

pytestmark = REAL
OURS = [name for name in METHODS if name != "ERM"]


def run(name):
    """Run a test module of DomainBed's; how many tests there were, and what failed."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(name))
    result = unittest.TestResult()
    suite.run(result)
    return result.testsRun, [f"{test}\n{text}" for test, text in (*result.errors, *result.failures)]


class Shallow(nn.Module):
    """In place of the pretrained ResNet-50, whose weights cannot be fetched offline: as wide, and shallow."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 32)
        self.bn1, self.wide = nn.BatchNorm2d(64), nn.Conv2d(64, 2048, 1)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x):
        return self.fc(self.wide(self.bn1(self.conv1(x)).relu()).mean((2, 3)))


def test_the_names_that_our_tables_put_first(host):
    assert [*DOMAINBED_ALGORITHMS, *unnamed_methods()[1:]] == host.host.algorithms.ALGORITHMS
    digits, mnist = (host.host.datasets.DATASETS.index(name) for name in ("RotatedDigits", "ColoredMNIST"))
    assert digits < mnist


def test_hparams(host, monkeypatch):
    monkeypatch.setattr(host.host.algorithms, "ALGORITHMS", OURS)
    count, failed = run("domainbed.test.test_hparams_registry")
    assert not failed, failed[0]
    assert count == len(OURS) * len(host.host.datasets.DATASETS)


@pytest.mark.parametrize("name", OURS)
def test_algorithms(host, monkeypatch, no_cuda_needed, name):
    upstream.register(total_steps=3)
    monkeypatch.setattr(host.host.algorithms, "ALGORITHMS", [name])
    monkeypatch.setattr(importlib.import_module("timm"), "create_model", Shallow)
    monkeypatch.setattr(torchvision.models, "resnet50", Shallow)
    count, failed = run("domainbed.test.test_models")
    assert not failed, failed[0]
    assert count == 2  # Debug28 and Debug224
