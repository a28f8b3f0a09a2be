"""Networks: widths by input shape, BatchNorm frozen or not, and what is said where weights cannot be had."""

from __future__ import annotations

import importlib.util
import sys
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import _api, get_model

from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.networks import Classifier, Featurizer

SCRATCH = {"pretrained": False}
RESNET18 = {"pretrained": False, "resnet18": True}
needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


@pytest.fixture(autouse=True)
def _own_generator():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def batch_norms(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize(
    ("shape", "hparams", "width", "parameters"),
    [
        ((1, 28, 28), {}, 128, 370_560),  # this and the next three as counted in DomainBed's
        ((2, 28, 28), {}, 128, 371_136),
        ((3, 32, 32), {}, 128, 691_520),
        ((1, 32, 32), {}, 128, 691_232),
        ((2, 28, 28), {"cnn_width": 16}, 32, 304 + 4_640 + 2 * 9_248 + 2 * (16 + 3 * 32)),
        ((3, 64, 64), RESNET18, 512, 11_176_512),
        ((1, 64, 64), RESNET18, 512, 11_176_512 - 2 * 64 * 49),
        ((3, 64, 64), SCRATCH, 2048, 23_508_032),
    ],
)
def test_features_have_the_stated_width(shape, hparams, width, parameters):
    network = Featurizer(shape, hparams)
    assert network.n_outputs == width
    assert network(torch.rand(2, *shape)).shape == (2, width)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_missing_hparams_are_the_registrys(monkeypatch):
    seen = []
    monkeypatch.setattr("domainbed_adm.networks.resnet", lambda *given: seen.append(given) or nn.Identity())
    defaults = default_hparams("ERM", "PACS")
    Featurizer(get_card("PACS").input_shape, {})
    Featurizer(get_card("PACS").input_shape, defaults)
    assert seen == [("resnet50", 3, True)] * 2
    assert Featurizer((1, 28, 28), {}).n_outputs == 2 * defaults["cnn_width"]


@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 28, 32), (10,)])
def test_a_shape_that_no_network_reads(shape):
    with pytest.raises(UserError, match=r"no network for inputs of shape \(.*28, 32 or over 32"):
        Featurizer(shape, SCRATCH)


def test_a_width_that_is_no_multiple_of_eight():
    with pytest.raises(UserError, match="cnn_width must be a positive multiple of 8, not 12"):
        Featurizer((1, 28, 28), {"cnn_width": 12})


@pytest.mark.parametrize(("shape", "hparams"), [((3, 32, 32), {}), ((3, 64, 64), RESNET18)])
def test_frozen_batch_norm_stays_so(shape, hparams):
    network = Featurizer(shape, {**hparams, "freeze_bn": True})
    before = [module.running_mean.clone() for module in batch_norms(network)]
    assert before
    for mode in (network, network.eval().train()):
        assert mode is network
        assert network.training
        assert network.network.training
        assert not any(module.training for module in batch_norms(network))
        network(torch.rand(2, *shape))
    assert all(torch.equal(old, module.running_mean) for old, module in zip(before, batch_norms(network), strict=True))
    assert all(module.weight.requires_grad for module in batch_norms(network))


def test_batch_norm_that_is_not_frozen_moves():
    network = Featurizer((3, 32, 32), {})
    assert all(module.training for module in batch_norms(network))
    network(torch.rand(2, 3, 32, 32))
    assert all(module.running_mean.abs().sum() > 0 for module in batch_norms(network))
    assert not any(module.training for module in batch_norms(network.eval()))


def test_the_wide_resnet_ends_in_a_fast_batch_norm_as_in_domainbed():
    assert [module.momentum for module in batch_norms(Featurizer((3, 32, 32), {}))] == [0.1] * 12 + [0.9]


def test_dropout_is_for_the_resnets_as_in_domainbed():
    hparams = {**RESNET18, "resnet_dropout": 0.5}
    x = torch.rand(2, 3, 64, 64)
    resnet = Featurizer((3, 64, 64), hparams)
    assert 0.3 < (resnet(x) == 0).float().mean() - (resnet.network(x) == 0).float().mean() < 0.7
    resnet.eval()
    assert torch.equal(resnet(x), resnet(x))
    for shape in ((1, 28, 28), (3, 32, 32)):
        small = Featurizer(shape, hparams)
        x = torch.rand(4, *shape)
        assert torch.equal(small(x), small(x))


@pytest.fixture
def some_weights(monkeypatch):
    """The "ImageNet" weights of ResNet-18 without a download: random ones."""
    state = get_model("resnet18", weights=None).state_dict()
    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda url, **options: state)
    return state


def test_pretrained_weights_are_used(some_weights):
    network = Featurizer((3, 64, 64), {"resnet18": True})
    assert all(torch.equal(value, some_weights[name]) for name, value in network.network.state_dict().items())
    assert set(some_weights) - set(network.network.state_dict()) == {"fc.weight", "fc.bias"}


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('the file ran')",))


def test_a_weights_file_runs_no_code(tmp_path, monkeypatch):
    """A file that lies in the cache already is read without executing anything."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(Evil(), tmp_path / "checkpoints/resnet18-f37072fd.pth")
    with pytest.raises(UserError, match="no ImageNet weights for resnet18"):
        Featurizer((3, 64, 64), {"resnet18": True})


def test_one_channel_sees_what_three_equal_ones_show(some_weights):
    grey, color = (Featurizer((n, 64, 64), {"resnet18": True}).eval() for n in (1, 3))
    x = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(grey(x), color(x.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


def test_other_channels_repeat_the_kernels(some_weights):
    network = Featurizer((5, 64, 64), {"resnet18": True}).network
    assert torch.equal(network.conv1.weight, some_weights["conv1.weight"][:, [0, 1, 2, 0, 1]])
    assert network.conv1.weight.requires_grad


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError('invalid hash value\n(expected "f37072fd")')])
def test_weights_that_cannot_be_fetched(monkeypatch, tmp_path, error):
    def fail(url, **options):
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(_api, "load_state_dict_from_url", fail)
    with pytest.raises(UserError) as caught:
        Featurizer((3, 64, 64), {"resnet18": True})
    message = str(caught.value)
    assert "\n" not in message
    assert "put resnet18-f37072fd.pth of https://download.pytorch.org/models/resnet18-f37072fd.pth in" in message
    assert str(tmp_path / "hub" / "checkpoints") in message
    assert """--hparams '{"pretrained": false}'""" in message


def test_a_backbone_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="needs timm: pip install timm"):
        Featurizer((3, 64, 64), {"backbone": "resnet18"})


@needs_timm
@pytest.mark.filterwarnings("default")  # timm's own imports may warn
@pytest.mark.parametrize(("name", "width"), [("resnet10t", 512), ("mobilenetv3_small_050", 1024)])
def test_timm_backbones(name, width):
    hparams = {**SCRATCH, "backbone": name, "freeze_bn": True, "resnet_dropout": 0.5}
    network = Featurizer((1, 64, 64), hparams)
    assert network.n_outputs == width
    assert network(torch.rand(2, 1, 64, 64)).shape == (2, width)
    assert batch_norms(network)
    assert not any(module.training for module in batch_norms(network))
    assert network.network.training
    assert network.dropout.p == 0.5


@needs_timm
@pytest.mark.filterwarnings("default")
def test_timm_errors(monkeypatch):
    import timm

    with pytest.raises(UserError, match=r"unknown backbone 'resnet_18': .*nearest: resnet18"):
        Featurizer((3, 64, 64), {**SCRATCH, "backbone": "resnet_18"})
    with pytest.raises(
        UserError, match=r"'deit_tiny_patch16_224' cannot read inputs of shape \(3, 8, 8\): .*ernel size"
    ):
        Featurizer((3, 8, 8), {**SCRATCH, "backbone": "deit_tiny_patch16_224"})
    with pytest.raises(UserError, match=r"cannot make backbone 'resnet18.none' \(RuntimeError: Invalid pretrained tag"):
        Featurizer((3, 64, 64), {**SCRATCH, "backbone": "resnet18.none"})

    def fail(*args, **options):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(UserError) as caught:
        Featurizer((3, 64, 64), {"backbone": "resnet18"})
    assert "ConnectionError: no network at all" in str(caught.value)
    assert "put timm/resnet18.a1_in1k of huggingface.co in the Hugging Face cache" in str(caught.value)
    assert """--hparams '{"pretrained": false}'""" in str(caught.value)


def test_classifiers():
    linear, deep = Classifier(128, 7), Classifier(128, 7, is_nonlinear=True)
    assert isinstance(linear, nn.Linear)
    layers = [(layer.in_features, layer.out_features) for layer in deep if isinstance(layer, nn.Linear)]
    assert layers == [(128, 64), (64, 32), (32, 7)]
    assert linear(torch.rand(3, 128)).shape == deep(torch.rand(3, 128)).shape == (3, 7)


@pytest.mark.parametrize(
    ("name", "width", "parameters"),
    [("cifar_resnet18", 512, 11_168_832), ("wrn_28_10", 640, 36_472_784), ("wrn_16_8", 512, 10_956_240)],
)
def test_networks_of_the_cifar_recipes(name, width, parameters):
    """Parameters as published with ten classes (11,173,962, 36,479,194 and 10,961,370), less the classifier's."""
    featurizer = Featurizer((3, 32, 32), {"backbone": name})
    assert sum(parameter.numel() for parameter in featurizer.parameters()) == parameters
    sizes = []
    for module in featurizer.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: sizes.append(output.shape[-1]))
    with torch.no_grad():
        assert featurizer(torch.randn(2, 3, 32, 32)).shape == (2, width)
    assert (sizes[0], min(sizes)) == (32, 4 if name == "cifar_resnet18" else 8)


@needs_timm
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_patch16_224"])
def test_networks_made_for_one_size_read_another(monkeypatch, name):
    """From scratch, and with weights of their own size, whose position embeddings are stretched."""
    import timm
    from timm.models import _builder

    own = timm.create_model(name, num_classes=0)
    side = own.patch_embed.img_size[0]
    network = Featurizer((3, 64, 64), {**SCRATCH, "backbone": name})
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, network.n_outputs)
    monkeypatch.setattr(_builder, "load_state_dict_from_hf", lambda *args, **options: own.state_dict())
    for size in (side, 2 * side):
        state = Featurizer((3, size, size), {"backbone": name}).network.state_dict()
        stretched = {key for key, value in own.state_dict().items() if not torch.equal(value, state[key])}
        assert stretched == (set() if size == side else {"pos_embed"})
    parts = (
        state["pos_embed"][:, 1:].unflatten(1, (2 * (side // 16), -1)),
        own.pos_embed[:, 1:].unflatten(1, (side // 16, -1)),
    )
    assert torch.equal(state["pos_embed"][:, :1], own.pos_embed[:, :1])
    pooled = torch.nn.functional.avg_pool2d(parts[0].movedim(3, 1), 2)
    seen = torch.corrcoef(torch.stack([pooled.flatten(), parts[1].movedim(3, 1).flatten()]))[0, 1]
    assert seen > 0.9


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize(
    ("size", "hparams"),
    [
        (64, {"resnet18": True}),
        (32, {"backbone": "cifar_resnet18"}),
        (32, {"backbone": "wrn_16_8"}),
        pytest.param(64, {"backbone": "resnet10t"}, marks=needs_timm),
        # timm's own BatchNorm, with the activation in it
        pytest.param(64, {"backbone": "mobilenetv3_small_050"}, marks=needs_timm),
    ],
)
def test_statistics_move_once_a_step_unless_they_are_frozen(size, hparams, frozen):
    hparams = (
        default_hparams("SAM_SSPL_ADM", "StanfordCars") | SCRATCH | hparams | {"freeze_bn": frozen, "total_steps": 2}
    )
    algorithm = get_algorithm_class("SAM_SSPL_ADM")((3, size, size), 3, 1, hparams)
    before = {name: value.clone() for name, value in algorithm.state_dict().items()}
    algorithm.update([(torch.rand(4, 3, size, size), torch.tensor([0, 1, 2, 0]))])
    after = algorithm.state_dict()
    counts = [
        after[name].item() for name in after if name.startswith("featurizer.") and name.endswith("num_batches_tracked")
    ]
    assert set(counts) == {0 if frozen else 1}
    running = [name for name in after if name.endswith(("running_mean", "running_var"))]
    assert all(torch.equal(before[name], after[name]) == frozen for name in running)
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])
