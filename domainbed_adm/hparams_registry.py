"""DomainBed's contract of hyperparameters: the defaults and random draws of an algorithm on a dataset. Loads no torch.

A name's draw comes from its own ``RandomState(seed_hash(seed, name))``, so that adding a name or a method moves no
other draw. Names that DomainBed has keep its defaults and draws. Those of the parts stand on their cards
(``method/cards.py``); here are those of the network and the optimizer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.datasets.cards import get_card
from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.method.grid import METHODS
from domainbed_adm.method.hparams import (
    FLAG,
    Choice,
    Hparam,
    Log2Integer,
    LogUniform,
    Number,
    OneOf,
    Shares,
    Text,
    Uniform,
)
from domainbed_adm.registry import get_method, load_checkout
from domainbed_adm.system.seeding import seed_hash
from domainbed_adm.upstream.methods import HostMethod

#: Of the optimizer: far above any use, and below what single precision cannot hold, where torch ends in an error.
OPTIMIZERS = "adam", "adamw", "sgd"
AVERAGINGS = "none", "ema", "swad"
LR_SCHEDULES = "constant", "cosine", "steps"
_LEARNING_RATE, _DECAY = Number(0, 1e3, open_low=True), Number(0, 1e3)
_BATCH_SIZE = Number(1, 2**16, integer=True)
_DROPOUT, _DROPOUT_DRAW = Number(0, 1, open_high=True), OneOf((0.0, 0.1, 0.5))


def _host_only(name: str, default: Any) -> Hparam:
    """A name of newer DomainBed networks: accepted at its off value, so that shared sweeps run in both hosts."""
    return Hparam(name, default, Choice((default,)), "DomainBed's own networks; here use backbone")


_NETWORK = (
    Hparam("data_augmentation", True, FLAG, "random crop, flip, colour jitter, grey; of CIFAR crop, flip, Cutout"),
    Hparam("cutout", 0, Number(0, 32, integer=True), "side in px of Cutout's square, in half of the images (CIFAR)"),
    Hparam("resnet18", False, FLAG, "ResNet-18 in place of ResNet-50"),
    Hparam("resnet_dropout", 0.0, _DROPOUT, "dropout on features", _DROPOUT_DRAW),
    Hparam("class_balanced", False, FLAG, "draw minibatches with equal class probabilities"),
    Hparam("nonlinear_classifier", False, FLAG, "classifier of three layers in place of one"),
    Hparam("freeze_bn", False, FLAG, "BatchNorm normalises with its stored statistics, which stay fixed"),
    Hparam("backbone", None, Text(), "cifar_resnet18, wrn_28_10, wrn_16_8, any timm model; null: by input shape"),
    Hparam("pretrained", True, FLAG, "start from ImageNet weights (images over 32 px)"),
    Hparam("cnn_width", 64, Number(8, 2**16, integer=True, multiple_of=8), "channels of the 28 px network"),
    Hparam("image_size", 224, Choice((28, 32, 64, 224, 448)), "pixels a side (folder datasets)"),
    Hparam(
        "image_crop", None, Choice((None, "short_side", "square")), "resize that, crop image_size; null: DomainBed's"
    ),
    Hparam("resize_to", 0, Number(0, 2**12, integer=True), "px of what image_crop resizes; 0: 8/7 of image_size"),
    Hparam("image_channels", 3, Choice((1, 3)), "3 colour, 1 grey (folder datasets)"),
    _host_only("resnet50_augmix", False),
    _host_only("dinov2", False),
    _host_only("vit", False),
    _host_only("vit_attn_tune", False),
    Hparam("vit_dropout", 0.0, _DROPOUT, "DomainBed's own ViT; unused", _DROPOUT_DRAW),
    _host_only("lars", False),
    _host_only("linear_steps", 500),
)
_TRAINING = (
    Hparam("optimizer", "adam", Choice(OPTIMIZERS), "base optimizer"),
    Hparam("momentum", 0.9, Number(0, 1, open_high=True), "of optimizer sgd"),
    Hparam("nesterov", False, FLAG, "Nesterov's momentum, of optimizer sgd"),
    Hparam("lr_schedule", "constant", Choice(LR_SCHEDULES), "of the learning rate; cosine ends at 0"),
    Hparam("lr_milestones", [0.3, 0.6, 0.8], Shares(), "of lr_schedule steps: shares of the run after which lr drops"),
    Hparam("lr_gamma", 0.2, Number(0, 1, open_low=True), "of lr_schedule steps: factor of each drop"),
    Hparam("warmup_steps", 0, Number(0, 10**9, integer=True), "steps in which lr rises linearly at first"),
    Hparam("sampling", "replacement", Choice(("replacement", "epoch")), "of minibatches; epoch: each sample once"),
    Hparam("drop_last", False, FLAG, "of sampling epoch: leave out its last batch where it is smaller"),
    Hparam("label_smoothing", 0.0, Number(0, 1, open_high=True), "share of the target spread over all classes"),
    Hparam(
        "averaging",
        "none",
        Choice(AVERAGINGS),
        "of weights; what is evaluated and kept in model.pkl is the average. swad: its result, at the end, which "
        "tables report whatever the selection method, as its authors do",
    ),
    Hparam(
        "ema_decay",
        0.999,
        Number(0, 1, open_high=True),
        "of averaging ema: decay in a step (less at first)",
        OneOf((0.99, 0.999, 0.9999)),
    ),
    Hparam(
        "swad_n_converge",
        3,
        Number(1, 1000, integer=True),
        "of averaging swad: evaluations in which the source out-splits' loss must not fall for it to begin",
    ),
    Hparam(
        "swad_n_tolerance",
        6,
        Number(1, 1000, integer=True),
        "of averaging swad: evaluations that must all have too high a loss for it to end",
    ),
    Hparam(
        "swad_tolerance_ratio",
        0.3,
        Number(0, 1e3),
        "of averaging swad: by how much the loss may rise (its authors: 0.3, on VLCS 0.2)",
        OneOf((0.1, 0.2, 0.3)),
    ),
)


def _rates(
    rates: tuple[float, float, int], draws: tuple[Uniform, Uniform | None, Uniform]
) -> tuple[Hparam, Hparam, Hparam]:
    (lr, decay, batch), (lr_draw, decay_draw, batch_draw) = rates, draws
    return (
        Hparam("lr", lr, _LEARNING_RATE, "learning rate", lr_draw),
        Hparam("weight_decay", decay, _DECAY, "L2 penalty; of adamw: decoupled decay", decay_draw),
        Hparam("batch_size", batch, _BATCH_SIZE, "samples per source environment", batch_draw),
    )


#: Of our data and loop, which DomainBed's own algorithms have too.
_OF_ENGINE = (
    *("cutout", "image_size", "image_channels", "sampling", "drop_last", "averaging", "ema_decay"),
    *("swad_n_converge", "swad_n_tolerance", "swad_tolerance_ratio"),
)
#: The datasets whose images DomainBed's registry knows to be small.
_SMALL_OF_HOST = "Debug28", "RotatedMNIST", "ColoredMNIST"

#: By a dataset card's ``recipe``. The first two are DomainBed's; CIFAR's is that of Friendly-SAM's authors
#: (nblt/F-SAM 2e2f989). Draws of the last two, and the fine-grained defaults, are our choice.
_RECIPES = {
    "digits": _rates((1e-3, 0.0, 64), (LogUniform(-4.5, -2.5), None, Log2Integer(3, 9))),
    "photos": _rates((5e-5, 0.0, 32), (LogUniform(-5, -3.5), LogUniform(-6, -2), Log2Integer(3, 5.5))),
    "cifar": _rates((0.05, 1e-3, 128), (LogUniform(-2, -0.5), LogUniform(-4, -2.5), Log2Integer(6, 8))),
    "fine_grained": _rates((0.01, 5e-4, 32), (LogUniform(-3, -1), LogUniform(-4, -2.5), Log2Integer(4, 6))),
}
#: What a recipe changes of the other defaults.
_SGD = {"optimizer": "sgd", "lr_schedule": "cosine", "sampling": "epoch"}
_CHANGED: dict[str, dict[str, Any]] = {
    "cifar": {**_SGD, "backbone": "cifar_resnet18", "cutout": 16},
    "fine_grained": {**_SGD, "image_crop": "short_side"},
}


def hparams_of(algorithm: str, dataset: str) -> dict[str, Hparam]:
    """Every hparam that this algorithm reads on this dataset, by name; ``UserError`` where the algorithm is unknown."""
    method = get_method(algorithm)
    return _of_host(method, dataset) if isinstance(method, HostMethod) else _on(dataset, method.hparams)


def every_hparam(dataset: str = "Debug28") -> dict[str, Hparam]:
    """Every hparam of any method, by name, with the defaults of one dataset."""
    return _on(dataset, {name: hparam for method in METHODS.values() for name, hparam in method.hparams.items()})


def _of_host(method: HostMethod, dataset: str) -> dict[str, Hparam]:
    """DomainBed's hparams of its own algorithm, which it draws itself, and those of our data and loop."""
    ours = _on(dataset, {})
    theirs = {
        name: Hparam(name, default, _like(default, ours.get(name)), f"DomainBed's, of {method.own_name}")
        for name, default in method.default_hparams(_as_host_knows(dataset)).items()
    }
    return {name: ours[name] for name in _OF_ENGINE} | theirs


def _as_host_knows(dataset: str) -> str:
    """The dataset whose defaults DomainBed gives: of ours with small images that which every DomainBed has."""
    return "RotatedMNIST" if get_card(dataset).small_images and dataset not in _SMALL_OF_HOST else dataset


def _like(default: Any, ours: Hparam | None) -> Container[Any] | None:
    """What is valid for an hparam of DomainBed's: as ours of that name, where it has a range, else of the same kind."""
    if ours and isinstance(ours.valid, Number):
        return ours.valid
    if isinstance(default, bool):
        return FLAG
    return Number() if isinstance(default, int | float) else Text() if isinstance(default, str) else None


def _of_any_host(dataset: str) -> set[str]:
    """Names of the hparams of all of DomainBed's algorithms; none where no checkout is named."""
    load_checkout()
    hosts = [method for method in METHODS.values() if isinstance(method, HostMethod)]
    return {name for method in hosts for name in method.default_hparams(_as_host_knows(dataset))}


def _on(dataset: str, of_method: dict[str, Hparam]) -> dict[str, Hparam]:
    card = get_card(dataset)
    std = list(card.normalization.std) if card.normalization else None
    recipe = card.recipe or ("digits" if card.small_images else "photos")
    defaults = {"total_steps": card.n_steps, "input_std": std, **_CHANGED.get(recipe, {})}
    every = (*_NETWORK, *_RECIPES[recipe], *_TRAINING, *of_method.values())
    return {hparam.name: replace(hparam, default=defaults.get(hparam.name, hparam.default)) for hparam in every}


def default_hparams(algorithm: str, dataset: str) -> dict[str, Any]:
    """DomainBed's contract: the default of every hparam of this algorithm on this dataset."""
    return {name: hparam.default for name, hparam in hparams_of(algorithm, dataset).items()}


def random_hparams(algorithm: str, dataset: str, seed: int) -> dict[str, Any]:
    """DomainBed's contract: one random draw of every hparam; see the module's docstring.

    DomainBed gives ``seed_hash(hparams_seed, trial_seed)`` as the seed.
    """
    method = get_method(algorithm)
    of_host = method.random_hparams(_as_host_knows(dataset), seed) if isinstance(method, HostMethod) else {}
    return {
        name: hparam.draw.draw(np.random.RandomState(seed_hash(seed, name))) if hparam.draw else hparam.default
        for name, hparam in hparams_of(algorithm, dataset).items()
    } | of_host


def override(hparams: dict[str, Any], given: dict[str, Any], algorithm: str, dataset: str) -> list[str]:
    """Put a user's values into ``hparams``, in place, each checked against its valid range.

    Returns:
        Names that belong to other methods only: they were left out, so that one set serves a sweep over methods.

    Raises:
        UserError: a name is unknown to every method, is the run's to set, or its value is out of range.
    """
    specs = hparams_of(algorithm, dataset)
    of_any_method = every_hparam(dataset) | specs
    for name, value in given.items():
        if name not in of_any_method:
            if name in _of_any_host(dataset):
                continue
            raise UserError(unknown_name([n for n, spec in specs.items() if not spec.set_by_run], name, "hparam"))
        spec = of_any_method[name]
        if spec.set_by_run:
            raise UserError(f"hparam {name} is set by the run and cannot be given: leave it out")
        if spec.valid is not None and value not in spec.valid:
            raise UserError(f"hparam {name} must be {spec.valid}, not {json.dumps(value)}: {spec.help}")
        if name in specs:
            hparams[name] = value
    return [name for name in given if name not in specs]


def read_top(path: str, algorithm: str, dataset: str, test_envs: Collection[int], trial_seed: int) -> dict[str, Any]:
    """Of a file that ``list_top_hparams --out`` wrote, the hparams for a run.

    They are those of its algorithm and dataset that were chosen for its test environments and, where the file has
    several such, for its trial seed.

    Raises:
        UserError: the file cannot be read, or has no hparams for the run, or several.
    """
    run = f"{algorithm} on {dataset}, test_envs {' '.join(map(str, test_envs))}"
    try:
        top = json.loads(Path(path).read_bytes())["top_hparams"]
        own = [one for one in top if (one["algorithm"], one["dataset"]) == (algorithm, dataset)]
        fit = [one for one in own if set(test_envs) <= set(one["test_envs"])]
        fit = [one for one in fit if trial_seed in one["trial_seeds"]] or fit
        there = [
            f"{one['algorithm']} on {one['dataset']}, test_envs {' '.join(map(str, one['test_envs']))}" for one in top
        ]
        found = [dict(one["hparams"]) for one in fit]
    except OSError as error:
        raise UserError(f"--hparams_from {path} cannot be read: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"--hparams_from {path} is no file of list_top_hparams --out ({type(error).__name__})"
        ) from None
    if not found:
        known = "; ".join(dict.fromkeys(there)) or "nothing"
        raise UserError(f"--hparams_from {path} has no hparams for {run}, but for {known}")
    if any(one != found[0] for one in found):
        raise UserError(f"--hparams_from {path} has several hparams for {run}: list_top_hparams --trial_seed picks one")
    return found[0]


def parse(text: str) -> dict[str, Any]:
    """Read ``--hparams``.

    Raises:
        UserError: it is no JSON object.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"--hparams is not JSON ({error}): write it as '{{\"rho\": 0.1}}', not {text[:200]!r}"
        raise UserError(message) from error
    if not isinstance(given, dict):
        raise UserError(f"--hparams must be a JSON object such as '{{\"rho\": 0.1}}', not {text!r}")
    return given
