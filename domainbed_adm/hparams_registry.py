"""Hyperparameters: default, random draw, valid range and meaning of every name. Loads no torch.

The contract is DomainBed's: a name's draw comes from its own ``RandomState(seed_hash(seed, name))``, so that adding a
name or a method moves no other draw. Names that DomainBed has keep its defaults and draws.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from domainbed_adm.datasets.cards import IMAGENET, DatasetCard, get_card
from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.method.cards import METHODS, WEIGHTINGS, Method, get_method
from domainbed_adm.system.seeding import seed_hash

Draw = Callable[[np.random.RandomState], Any]


@dataclass(frozen=True)
class Number:
    """A valid range: reals from ``low`` to ``high``, the ends excluded where ``open_`` says so; or integers."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    integer: bool = False
    multiple_of: int = 1

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a number"
        kind = f"a multiple of {self.multiple_of}" if self.multiple_of > 1 else kind
        left, right = "(" if self.open_low or self.low == -math.inf else "[", ")" if self.open_high else "]"
        right = ")" if self.high == math.inf else right
        return f"{kind} in {left}{self.low:g}, {self.high:g}{right}"

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.integer else (int, float)):
            return False
        if self.multiple_of > 1 and value % self.multiple_of:
            return False
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and abs(value) <= sys.float_info.max


@dataclass(frozen=True)
class Choice:
    """A valid range: one of some values, type and all (True is not 1)."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.values))

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(valid) and value == valid for valid in self.values)


@dataclass(frozen=True)
class Text:
    """A valid range: a string that is not empty, or None."""

    def __str__(self) -> str:
        return "a name or null"

    def __contains__(self, value: object) -> bool:
        return value is None or (isinstance(value, str) and bool(value))


@dataclass(frozen=True)
class Hparam:
    """One hyperparameter. ``draw`` None keeps the default in a random search."""

    name: str
    default: Any
    valid: Number | Choice | Text | None
    help: str
    draw: Draw | None = None


FLAG = Choice((False, True))
POSITIVE = Number(0, open_low=True)
NON_NEGATIVE = Number(0)
UNIT = Number(0, 1)
#: Of the optimizer: far above any use, and below what single precision cannot hold, where torch ends in an error.
LEARNING_RATE, DECAY = Number(0, 1e3, open_low=True), Number(0, 1e3)
#: Of a run; far above any use.
STEPS = Number(1, 10**9, integer=True)
#: Names whose value the run knows (its steps, its dataset's normalisation); a user cannot give them.
RUN_FACTS = ("total_steps", "input_std")
#: Hparams of methods that other packages add, by name (``extensions``).
ADDED: dict[str, Hparam] = {}


def _host_only(name: str, default: Any) -> Hparam:
    """A name of newer DomainBed networks: accepted at its off value, so that shared sweeps run in both hosts."""
    return Hparam(name, default, Choice((default,)), "DomainBed's own networks; here use backbone")


def _network_hparams() -> list[Hparam]:
    return [
        Hparam("data_augmentation", True, FLAG, "random crop, flip, colour jitter, grey (folder datasets)"),
        Hparam("resnet18", False, FLAG, "ResNet-18 in place of ResNet-50"),
        Hparam("resnet_dropout", 0.0, Number(0, 1, open_high=True), "dropout on features", _choice(0.0, 0.1, 0.5)),
        Hparam("class_balanced", False, FLAG, "draw minibatches with equal class probabilities"),
        Hparam("nonlinear_classifier", False, FLAG, "classifier of three layers in place of one"),
        Hparam("freeze_bn", False, FLAG, "BatchNorm normalises with its stored statistics, which stay fixed"),
        Hparam("backbone", None, Text(), "any timm model (needs timm); null: by input shape"),
        Hparam("pretrained", True, FLAG, "start from ImageNet weights (images over 32 px)"),
        Hparam("cnn_width", 64, Number(8, 2**16, integer=True, multiple_of=8), "channels of the 28 px network"),
        Hparam("image_size", 224, Choice((28, 32, 64, 224)), "pixels a side (folder datasets)"),
        Hparam("image_channels", 3, Choice((1, 3)), "3 colour, 1 grey (folder datasets)"),
        _host_only("resnet50_augmix", False),
        _host_only("dinov2", False),
        _host_only("vit", False),
        _host_only("vit_attn_tune", False),
        Hparam("vit_dropout", 0.0, Number(0, 1, open_high=True), "DomainBed's own ViT; unused", _choice(0.0, 0.1, 0.5)),
        _host_only("lars", False),
        _host_only("linear_steps", 500),
    ]


def _optimizer_hparams(small_images: bool) -> list[Hparam]:
    size = Number(1, 2**16, integer=True)
    if small_images:
        return [
            Hparam("lr", 1e-3, LEARNING_RATE, "Adam's learning rate", _log10(-4.5, -2.5)),
            Hparam("weight_decay", 0.0, DECAY, "Adam's L2 penalty"),
            Hparam("batch_size", 64, size, "samples per source environment", _log2_integer(3, 9)),
        ]
    return [
        Hparam("lr", 5e-5, LEARNING_RATE, "Adam's learning rate", _log10(-5, -3.5)),
        Hparam("weight_decay", 0.0, DECAY, "Adam's L2 penalty", _log10(-6, -2)),
        Hparam("batch_size", 32, size, "samples per source environment", _log2_integer(3, 5.5)),
    ]


def _method_hparams(card: DatasetCard) -> list[Hparam]:
    std = list(IMAGENET.std) if card.module == "folders" else None
    return [
        Hparam("rho", 0.05, NON_NEGATIVE, "radius of the perturbation of the parameters", _log10(-2, -0.7)),
        Hparam("sagm_alpha", 1e-3, NON_NEGATIVE, "SAGM's alpha_s, the step against the gradient", _log10(-4, -2)),
        Hparam("fsam_sigma", 1.0, NON_NEGATIVE, "share of the mean gradient F-SAM takes out", _uniform(0.5, 1.0)),
        Hparam("fsam_lambda", 0.9, Number(0, 1, open_high=True), "momentum of F-SAM's mean", _choice(0.6, 0.9, 0.95)),
        Hparam(
            "adm_alpha",
            8 / 255,
            NON_NEGATIVE,
            "FGSM step in units of [0, 1] pixels",
            _choice(2 / 255, 4 / 255, 8 / 255, 16 / 255),
        ),
        Hparam("adm_delta", 1e-6, POSITIVE, "keeps ADM finite at loss 0"),
        Hparam("adm_estimator", "exact", Choice(("exact", "linear")), "FGSM forward pass, or its first-order value"),
        Hparam(
            "spl_start", 0.1, Number(0, 1, open_low=True), "fraction of the batch kept at the start", _uniform(0.1, 0.5)
        ),
        Hparam("spl_mode", "quantile", Choice(("quantile", "threshold")), "what SPL's lambda is"),
        Hparam(
            "spl_threshold",
            1.0,
            Number(0, 1e30, open_low=True),
            "threshold mode: largest score kept at the end, in the score's units",
        ),
        Hparam("sspl_eta", 1.0, UNIT, "spread of SSPL's weights: 0 uniform, 1 from 0 to 2", _uniform(0.25, 1.0)),
        Hparam("curriculum_scope", "batch", Choice(("batch", "domain")), "rank over the batch, or in each domain"),
        Hparam("weighting", "both", Choice(WEIGHTINGS), "which passes are weighted, by scores from when"),
        Hparam("total_steps", card.n_steps, STEPS, "set by the run: where progress reaches 1"),
        Hparam("input_std", std, None, "set by the run: the dataset's normalisation, for ADM's step"),
        *ADDED.values(),
    ]


def _choice(*values: float) -> Draw:
    return lambda random: random.choice(values)


def _uniform(low: float, high: float) -> Draw:
    return lambda random: random.uniform(low, high)


def _log10(low: float, high: float) -> Draw:
    return lambda random: 10 ** random.uniform(low, high)


def _log2_integer(low: float, high: float) -> Draw:
    return lambda random: int(2 ** random.uniform(low, high))


def hparams_of(algorithm: str, dataset: str) -> dict[str, Hparam]:
    """Every hparam that this algorithm reads on this dataset, by name.

    Raises:
        UserError: the algorithm is unknown.
    """
    return _specs(get_method(algorithm), get_card(dataset))


def _specs(method: Method, card: DatasetCard) -> dict[str, Hparam]:
    own = [hparam for hparam in _method_hparams(card) if hparam.name in method.hparams]
    every = [*_network_hparams(), *_optimizer_hparams(card.small_images), *own]
    return {hparam.name: hparam for hparam in every}


def every_hparam() -> dict[str, Hparam]:
    """Every hparam of any method, by name, with the defaults of one dataset."""
    card = get_card("Debug28")
    every = [*_network_hparams(), *_optimizer_hparams(card.small_images), *_method_hparams(card)]
    return {hparam.name: hparam for hparam in every}


def default_hparams(algorithm: str, dataset: str) -> dict[str, Any]:
    """DomainBed's contract: the default of every hparam of this algorithm on this dataset.

    Raises:
        UserError: the algorithm is unknown.
    """
    return {name: hparam.default for name, hparam in hparams_of(algorithm, dataset).items()}


def random_hparams(algorithm: str, dataset: str, seed: int) -> dict[str, Any]:
    """DomainBed's contract: one random draw of every hparam; see the module's docstring.

    Args:
        algorithm: name of the method.
        dataset: name of the dataset.
        seed: DomainBed gives ``seed_hash(hparams_seed, trial_seed)``.

    Raises:
        UserError: the algorithm is unknown.
    """
    return {name: _drawn(hparam, seed) for name, hparam in hparams_of(algorithm, dataset).items()}


def _drawn(hparam: Hparam, seed: int) -> Any:
    if hparam.draw is None:
        return hparam.default
    value = hparam.draw(np.random.RandomState(seed_hash(seed, hparam.name)))
    return value.item() if isinstance(value, np.generic) else value


def override(hparams: dict[str, Any], given: dict[str, Any], algorithm: str, dataset: str) -> list[str]:
    """Put a user's values into ``hparams``, each checked against its valid range.

    Args:
        hparams: as from :func:`default_hparams`; changed in place.
        given: the user's names and values.
        algorithm: name of the method.
        dataset: name of the dataset.

    Returns:
        Names that belong to other methods only: they were left out, so that one set serves a sweep over methods.

    Raises:
        UserError: a name is unknown to every method, is the run's to set, or its value is out of range.
    """
    specs = hparams_of(algorithm, dataset)
    of_any_method = {name: spec for other in METHODS for name, spec in hparams_of(other, dataset).items()}
    unused = []
    for name, value in given.items():
        if name in RUN_FACTS:
            raise UserError(f"hparam {name} is set by the run and cannot be given")
        if name not in of_any_method:
            raise UserError(unknown_name([known for known in specs if known not in RUN_FACTS], name, "hparam"))
        spec = of_any_method[name]
        if spec.valid is not None and value not in spec.valid:
            raise UserError(f"hparam {name} must be {spec.valid}, not {value!r}: {spec.help}")
        if name in specs:
            hparams[name] = value
        else:
            unused.append(name)
    return unused


def parse(text: str) -> dict[str, Any]:
    """Read ``--hparams``.

    Raises:
        UserError: it is no JSON object.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"--hparams is not JSON ({error}): write it as '{{\"rho\": 0.1}}', not {text[:200]!r}"
        ) from error
    if not isinstance(given, dict):
        raise UserError(f"--hparams must be a JSON object such as '{{\"rho\": 0.1}}', not {text!r}")
    return given
