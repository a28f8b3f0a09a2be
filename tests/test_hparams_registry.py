"""Defaults, draws and valid ranges."""

import json
import math
from pathlib import Path

import pytest

from domainbed_adm import hparams_registry as registry
from domainbed_adm.errors import UserError
from domainbed_adm.method.grid import METHODS
from domainbed_adm.system.seeding import seed_hash

# Printed by DomainBed's random_hparams("ERM", ...) at commit b93c22a.
DOMAINBED = {
    ("PACS", 1): (2.1013712179831686e-05, 32, 0.00464042443007805, 0.5, 0.0),
    ("PACS", seed_hash(3, 1)): (0.0002383446436179699, 10, 6.431270010222042e-05, 0.1, 0.1),
    ("RotatedMNIST", 1): (8.511453013879485e-05, 228, 0.0, 0.5, 0.0),
    ("RotatedMNIST", seed_hash(3, 1)): (0.0021690714686971317, 14, 0.0, 0.1, 0.1),
}
SHARED = ("lr", "batch_size", "weight_decay", "resnet_dropout", "vit_dropout")
PINNED = json.loads((Path(__file__).parent / "data/hparams_draws.json").read_text())


@pytest.mark.parametrize(("dataset", "seed"), DOMAINBED)
def test_draws_equal_domainbeds(dataset, seed):
    drawn = registry.random_hparams("SAM_SSPL_ADM", dataset, seed)
    assert tuple(drawn[name] for name in SHARED) == pytest.approx(DOMAINBED[dataset, seed], rel=1e-12)


def test_every_draw_is_pinned():
    """Adding a method or a name must not move a draw that exists: old values stay in this file, new ones are added."""
    for key, pinned in PINNED.items():
        algorithm, dataset, seed = key.split()
        drawn = registry.random_hparams(algorithm, dataset, int(seed))
        for name, value in pinned.items():
            assert drawn[name] == value, f"{key}: {name} moved"


def test_the_pins_cover_every_method():
    assert {key.split()[0] for key in PINNED} == set(METHODS)


@pytest.mark.parametrize("algorithm", METHODS)
@pytest.mark.parametrize("dataset", ["RotatedDigits", "PACS", "MyOwnFolder"])
def test_defaults_and_draws_are_valid_and_survive_json(algorithm, dataset):
    specs = registry.hparams_of(algorithm, dataset)
    for seed in range(20):
        hparams = registry.default_hparams(algorithm, dataset) if seed == 0 else None
        hparams = hparams or registry.random_hparams(algorithm, dataset, seed)
        assert hparams.keys() == specs.keys()
        for name, value in hparams.items():
            assert specs[name].valid is None or value in specs[name].valid, f"{name} = {value!r}"
        assert json.loads(json.dumps(hparams)) == hparams


def test_a_method_has_the_hparams_of_its_parts():
    assert "rho" not in registry.default_hparams("ERM", "PACS")
    assert "rho" in registry.default_hparams("SAM", "PACS")
    full = registry.default_hparams("FSAM_SPL_ADM", "PACS")
    assert {"rho", "fsam_sigma", "fsam_lambda", "spl_start", "spl_mode", "adm_alpha", "adm_delta"} <= full.keys()
    assert {"adm_estimator", "curriculum_scope", "weighting", "total_steps", "input_std"} <= full.keys()
    assert "sspl_eta" not in full


def override(given, algorithm="SAM_SPL_ADM", dataset="RotatedDigits"):
    hparams = registry.default_hparams(algorithm, dataset)
    unused = registry.override(hparams, given, algorithm, dataset)
    return hparams, unused


def test_a_value_of_another_method_is_checked_too():
    with pytest.raises(UserError, match="rho must be .* not -1"):
        override({"rho": -1}, "ERM")


def test_values_are_put_in():
    hparams, unused = override({"rho": 0.1, "batch_size": 8})
    assert (hparams["rho"], hparams["batch_size"], unused) == (0.1, 8, [])


def test_a_name_of_another_method_is_reported_and_left_out():
    hparams, unused = override({"rho": 0.1, "lr": 1e-3}, "ERM")
    assert unused == ["rho"]
    assert "rho" not in hparams


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"roh": 0.1}, "unknown hparam 'roh'. Did you mean rho"),
        ({"rho": -1}, r"rho must be a number in \[0, inf\), not -1"),
        ({"rho": math.nan}, "rho must be .* not NaN"),
        ({"rho": math.inf}, "rho must be .* not Infinity"),
        ({"rho": "0.1"}, 'rho must be .* not "0.1"'),
        ({"rho": True}, "rho must be .* not true"),
        ({"adm_alpha": -0.1}, "adm_alpha must be .* not -0.1"),
        ({"adm_delta": 0}, r"adm_delta must be a number in \(0, inf\), or one of .batch_mean., not 0"),
        ({"batch_size": 0}, r"batch_size must be an integer in \[1, 65536\], not 0"),
        ({"batch_size": 1.5}, "batch_size must be an integer .* not 1.5"),
        ({"spl_start": 0}, r"spl_start must be a number in \(0, 1\], not 0"),
        ({"spl_start": 1.01}, "spl_start must be .* not 1.01"),
        ({"spl_mode": "quantiles"}, 'spl_mode must be one of "quantile", "threshold", not "quantiles"'),
        ({"data_augmentation": 1}, "data_augmentation must be one of false, true, not 1"),
        ({"image_size": 100}, "image_size must be one of 28, 32, 64, 224, 448, not 100"),
        ({"cnn_width": 12}, "cnn_width must be a multiple of 8 in .* not 12"),
        ({"vit": True}, "vit must be one of false, not true: DomainBed's own networks; here use backbone"),
        ({"total_steps": 5}, "total_steps is set by the run"),
        ({"input_std": [1]}, "input_std is set by the run"),
    ],
)
def test_bad_values_are_named(given, message):
    with pytest.raises(UserError, match=message) as caught:
        override(given)
    assert "\n" not in str(caught.value)


def test_an_unknown_hparam_lists_the_valid_ones():
    with pytest.raises(UserError) as caught:
        override({"zzz": 1})
    assert all(name in str(caught.value) for name in ("lr", "rho", "spl_start"))


def test_an_unknown_algorithm_lists_the_valid_ones_and_the_nearest():
    with pytest.raises(UserError, match="unknown algorithm 'SAM_SSPL_AMD'. Did you mean SAM_SSPL_ADM") as caught:
        registry.default_hparams("SAM_SSPL_AMD", "PACS")
    assert all(name in str(caught.value) for name in METHODS)


@pytest.mark.parametrize("text", ["{", "[1]", "3", "rho=0.1", ""])
def test_what_is_no_json_object_is_named(text):
    with pytest.raises(UserError, match="--hparams (is not JSON|must be a JSON object)"):
        registry.parse(text)
