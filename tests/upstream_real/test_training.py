"""DomainBed's train script runs every method, and trains as our engine does."""

import json
import math

import pytest
import torch
from torch import nn

from domainbed_adm import algorithms
from domainbed_adm.cli import main
from domainbed_adm.hparams_registry import default_hparams, random_hparams
from domainbed_adm.method.grid import METHODS
from tests.extending import install
from tests.upstream.conftest import own_process  # noqa: F401
from tests.upstream_real.conftest import CHECKOUT, REAL

pytestmark = REAL
SHAPE = (3, 28, 28)


@pytest.mark.parametrize("name", METHODS)
def test_three_steps_of_every_method_on_debug28(host, tmp_path, name):
    flags = ["--dataset", "Debug28", "--algorithm", name, "--steps", "3", "--hparams", '{"batch_size": 8}']
    assert main(["upstream", "train", *flags, "--output_dir", str(tmp_path)]) == 0
    (first, last) = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert (first["step"], last["step"]) == (0, 2)
    assert math.isfinite(last["loss"])
    assert last["hparams"].get("total_steps") == (3 if "total_steps" in METHODS[name].hparams else None)
    assert (tmp_path / "done").read_text() == "done"


@pytest.mark.parametrize("name", ["Reverse_Capped_Margin", "Centred"])
def test_an_extensions_parts_train_on_its_dataset(own_process, monkeypatch, tmp_path, name):  # noqa: F811
    """A difficulty, a curriculum and a flatness rule in one method; an algorithm; both on the extension's dataset."""
    install(monkeypatch, tmp_path / "site")
    flags = ["--domainbed", CHECKOUT, "--dataset", "Stripes", "--algorithm", name, "--hparams", '{"batch_size": 4}']
    assert main(["upstream", "train", *flags, "--output_dir", str(tmp_path / "run")]) == 0
    last = json.loads((tmp_path / "run/results.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 5
    assert math.isfinite(last["loss"])
    own = {"margin_power", "capped_at", "rho"} if name != "Centred" else {"centring"}
    assert own <= last["hparams"].keys()


def copy_weights(ours, theirs):
    """Both networks have the same layers under other names: copy kind by kind, in order."""
    for kind in (nn.Conv2d, nn.GroupNorm, nn.Linear):
        pairs = zip(*([m for m in one.network.modules() if isinstance(m, kind)] for one in (ours, theirs)), strict=True)
        for mine, other in pairs:
            mine.load_state_dict(other.state_dict())


def weights(algorithm):
    kinds = (nn.Conv2d, nn.GroupNorm, nn.Linear)
    layers = [m for kind in kinds for m in algorithm.network.modules() if isinstance(m, kind)]
    return torch.cat([value.flatten() for layer in layers for value in layer.state_dict().values()])


@pytest.mark.parametrize("name", METHODS)
def test_both_hosts_train_the_same(host, name):
    """From the same weights and minibatches, five steps, each host with its own network, in float64.

    The order of parameters differs, and with it the rounding of the norm over all of them that a flatness rule takes.
    """
    host.run.total_steps = 5
    given = host.host.hparams_registry.default_hparams(name, "Debug28") | {"input_std": None}
    torch.manual_seed(0)
    theirs = host.host.algorithms.get_algorithm_class(name)(SHAPE, 2, 2, given)
    ours = algorithms.get_algorithm_class(name)(SHAPE, 2, 2, given)
    copy_weights(ours.double(), theirs.double())
    start = weights(ours)
    for step in range(5):
        random = torch.Generator().manual_seed(step)
        batches = [
            (torch.rand(4, *SHAPE, generator=random, dtype=torch.float64), torch.tensor([0, 1, 1, 0])) for _ in range(2)
        ]
        for algorithm in (ours, theirs):
            algorithm.update(batches)
    assert not torch.equal(start, weights(ours))
    if METHODS[name].flatness is None:
        assert torch.equal(weights(theirs), weights(ours))
    torch.testing.assert_close(weights(theirs), weights(ours), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 12345])
@pytest.mark.parametrize("dataset", ["Debug28", "PACS", "DomainNet"])
def test_draws_are_domainbeds_and_ours(host, dataset, seed):
    registry = host.host.hparams_registry

    def draw(source, name):
        return source.random_hparams(name, dataset, seed) if seed else source.default_hparams(name, dataset)

    for name, method in METHODS.items():
        found = draw(registry, name)
        engine = random_hparams(name, dataset, seed) if seed else default_hparams(name, dataset)
        erm = draw(registry, "ERM")
        assert {key: found[key] for key in erm} == erm
        own = {key for key, hparam in method.hparams.items() if not hparam.set_by_run}
        assert found.keys() - erm.keys() == own
        assert {key: found[key] for key in own} == {key: engine[key] for key in own}
