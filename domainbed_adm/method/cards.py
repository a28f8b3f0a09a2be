"""The parts of methods as data: what each name means, where it comes from, what it costs, which hparams it reads.

Each part of a family (difficulty, curriculum, flatness) is registered by one :class:`Card`, here or by another package
(``extensions``); :mod:`domainbed_adm.method.grid` joins them to methods. A card names its class by import path, so that
listing and sweeping over methods loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from domainbed_adm.errors import UserError, import_object
from domainbed_adm.method import flatness_hparams as rules
from domainbed_adm.method.hparams import STEPS, Choice, Either, Hparam, Number, OneOf, Uniform


@dataclass(frozen=True)
class Cost:
    """What a part costs in a training step, in passes of the batch.

    Attributes:
        passes: forward-and-backward passes to the parameters, the first one included.
        input_gradient: whether it asks for the gradient in the inputs, a backward pass to the inputs alone.
        forwards: forward passes more.
    """

    passes: int = 1
    input_gradient: bool = False
    forwards: int = 0


@dataclass(frozen=True)
class Estimate:
    """A cheaper estimate of a difficulty: chosen where ``hparam`` has this value, not its default."""

    hparam: Hparam
    value: str
    cost: Cost


@dataclass(frozen=True)
class Card:
    """What a part of a method is, or an algorithm that is no part of the grid.

    Attributes:
        name: in the names of algorithms; letters and digits.
        summary: one line.
        paper: where it comes from, ``-`` for nowhere.
        path: ``module:Class``, imported when a method is built; see ``Difficulty``, ``Curriculum`` and ``Flatness``.
            Of an algorithm: ``module:function``, which makes its class from an ERM class.
        hparams: the hparams that it reads, each an argument of the class's constructor. An algorithm's class gets the
            dict of all, as DomainBed's do.
        cost: passes that it takes.
        estimate: of a difficulty: what stands in for it at a lower cost.
        refresh: of a difficulty: the hparam that says which share of a batch a step scores, with weighting "memory".
        unit: of a difficulty's scores; "" where they are a ratio.
        only_by_name: whether it stands behind the ADM paper's parts: its methods run where they are named, and are not
            among those of a sweep that names none.
    """

    name: str
    summary: str
    paper: str
    path: str
    hparams: tuple[Hparam, ...] = ()
    cost: Cost = Cost()
    estimate: Estimate | None = None
    refresh: Hparam | None = None
    unit: str = ""
    only_by_name: bool = False

    def build(self, hparams: Mapping[str, Any]) -> Any:
        """Construct the part.

        Args:
            hparams: values by name; those of other parts may be among them.

        Raises:
            UserError: it cannot be imported, or a value is out of its range.
        """
        part = import_object(self.path, self.name)
        return part(**{hparam.argument or hparam.name: hparams[hparam.name] for hparam in self.hparams})

    def check(self, part: object) -> None:
        """Check that the attributes of a part, which are its constructor's arguments, are in their valid ranges.

        Raises:
            UserError: one is not; the message names it and its range.
        """
        for hparam in self.hparams:
            argument = hparam.argument or hparam.name
            value = getattr(part, argument)
            if hparam.valid is not None and value not in hparam.valid:
                raise UserError(f"{self.name}'s {argument} must be {hparam.valid}, not {value!r}")


#: Set by the run: where progress reaches 1, and the ``std`` of the inputs' normalisation, one number per channel.
TOTAL_STEPS = Hparam("total_steps", None, STEPS, "set by the run: where progress reaches 1", set_by_run=True)
INPUT_STD = Hparam(
    "input_std", None, None, "set by the run: the dataset's normalisation, for ADM's step", set_by_run=True
)

#: Set by the run: its ``--seed``.
RUN_SEED = Hparam("run_seed", 0, Number(0, 2**63 - 1, integer=True), "set by the run: its --seed", set_by_run=True)

ADM_ALPHA = Hparam(
    "adm_alpha",
    8 / 255,
    Number(0),
    "FGSM step in units of [0, 1] pixels",
    OneOf((2 / 255, 4 / 255, 8 / 255, 16 / 255)),
    "alpha",
)
ADM_DELTA = Hparam(
    "adm_delta",
    1e-6,
    Either(Number(0, open_low=True), Choice(("batch_mean",))),
    "keeps ADM finite at loss 0; batch_mean: the mean loss of the batch, which keeps its scale as losses vanish",
    OneOf((1e-6, 1e-2, 1e-1, "batch_mean")),
    "delta",
)
ADM_GAP = Hparam(
    "adm_gap",
    "absolute",
    Choice(("absolute", "signed")),
    "ADM's loss gap: its size, or with its sign (1 is added, so that scores are >= 0)",
    OneOf(("absolute", "signed")),
    "gap",
)
ADM_ESTIMATOR = Hparam(
    "adm_estimator",
    "exact",
    Choice(("exact", "linear")),
    "FGSM forward pass, or its first-order value",
    argument="estimator",
)
ADM_REFRESH = Hparam(
    "adm_refresh",
    1.0,
    Number(0, 1, open_low=True),
    'weighting "memory": share of a batch that a step scores anew, those scored longest ago',
    argument="refresh",
)
RANDOM_SCORES = Hparam(
    "random_scores",
    "fresh",
    Choice(("fresh", "fixed")),
    "Random's scores: new ones at each step, or one of each sample",
    argument="scores",
)
SPL_START = Hparam(
    "spl_start", 0.1, Number(0, 1, open_low=True), "fraction of the batch kept at the start", Uniform(0.1, 0.5), "start"
)
SPL_MODE = Hparam("spl_mode", "quantile", Choice(("quantile", "threshold")), "what SPL's lambda is", argument="mode")
SPL_THRESHOLD = Hparam(
    "spl_threshold",
    1.0,
    Number(0, 1e30, open_low=True),
    "threshold mode: largest score kept at the end, in the score's units",
    argument="threshold",
)
SSPL_ETA = Hparam(
    "sspl_eta", 1.0, Number(0, 1), "spread of SSPL's weights: 0 uniform, 1 from 0 to 2", Uniform(0.25, 1.0), "eta"
)

WEIGHTINGS = ("both", "descent", "memory")
SCOPES = ("batch", "domain")
ORDERS = ("easy_first", "hard_first")
#: Where a flatness rule of several processes takes its first gradient.
ASCENTS = ("global", "local")
#: Of every method that has a curriculum, whatever its parts.
CURRICULUM_HPARAMS = (
    Hparam("curriculum_scope", "batch", Choice(SCOPES), "rank over the batch, or in each domain"),
    Hparam(
        "weighting",
        "both",
        Choice(WEIGHTINGS),
        "which gradient passes are weighted, and by scores of this batch or remembered ones",
    ),
    Hparam("curriculum_order", "easy_first", Choice(ORDERS), "hard_first is a control: the order turned around"),
    Hparam(
        "warmup_fraction",
        0.0,
        Number(0, 1, open_high=True),
        "share of the run in which all weights are 1; the curriculum's whole pace comes after it",
    ),
    Hparam(
        "difficulty_smoothing",
        0.0,
        Number(0, 1, open_high=True),
        'weighting "memory": share of a sample\'s older scores in its exponential mean',
    ),
    TOTAL_STEPS,
)
#: Of every method that has a flatness rule.
FLATNESS_HPARAMS = (
    Hparam("ascent", "global", Choice(ASCENTS), "of train --devices: one ball, or one for each device's share"),
    rules.FLATNESS_START,
    TOTAL_STEPS,
)


def _by_name(*cards: Card) -> dict[str, Card]:
    return {card.name: card for card in cards}


DIFFICULTIES = _by_name(
    Card(
        "Loss",
        "the sample's cross-entropy",
        "SPL: Kumar et al., NeurIPS 2010",
        "domainbed_adm.method.difficulty:Loss",
        unit="nats",
    ),
    Card(
        "GDM",
        "L2 norm of the loss's gradient in the sample's pixels",
        "SSPL: Zhao et al., AAAI 2024",
        "domainbed_adm.method.difficulty:GDM",
        cost=Cost(input_gradient=True),
        unit="nats / input unit",
    ),
    Card(
        "ADM",
        "normalised loss gap between the sample and its FGSM copy",
        "ADM: Aizawa and Hayashi, BMVC 2025, arXiv 2508.18726",
        "domainbed_adm.method.difficulty:ADM",
        (ADM_ALPHA, ADM_DELTA, ADM_GAP, ADM_ESTIMATOR, ADM_REFRESH, INPUT_STD),
        Cost(input_gradient=True, forwards=1),
        Estimate(ADM_ESTIMATOR, "linear", Cost(input_gradient=True)),
        ADM_REFRESH,
    ),
    Card(
        "Random",
        "a control: random scores, whose order means nothing",
        "-",
        "domainbed_adm.method.difficulty:Random",
        (RANDOM_SCORES, replace(RUN_SEED, argument="seed")),
        only_by_name=True,
    ),
)

CURRICULA = _by_name(
    Card(
        "SPL",
        "keep the easiest samples, more of them as training goes on",
        "SPL: Kumar et al., NeurIPS 2010",
        "domainbed_adm.method.curriculum:SPL",
        (SPL_START, SPL_MODE, SPL_THRESHOLD),
    ),
    Card(
        "SSPL",
        "weight samples by rank: easy ones first, hard ones at the end",
        "SSPL: Zhao et al., AAAI 2024",
        "domainbed_adm.method.curriculum:SSPL",
        (SSPL_ETA,),
    ),
)

FLATNESS = _by_name(
    Card(
        "SAM",
        "gradient at the worst point of a ball around the parameters",
        "SAM: Foret et al., ICLR 2021, arXiv 2010.01412",
        "domainbed_adm.method.flatness:SAM",
        (rules.RHO,),
        Cost(passes=2),
    ),
    Card(
        "SAGM",
        "mean of the gradient and of SAM's, with their directions matched",
        "SAGM: Wang et al., CVPR 2023, arXiv 2303.10353",
        "domainbed_adm.method.flatness:SAGM",
        (rules.RHO, rules.SAGM_ALPHA),
        Cost(passes=2),
    ),
    Card(
        "FSAM",
        "SAM along the minibatch noise only, the full gradient taken out",
        "F-SAM: Li et al., CVPR 2024, arXiv 2403.12350",
        "domainbed_adm.method.flatness:FSAM",
        (rules.RHO, rules.FSAM_SIGMA, rules.FSAM_LAMBDA),
        Cost(passes=2),
    ),
    Card(
        "ASAM",
        "SAM with a radius relative to each weight",
        "ASAM: Kwon et al., ICML 2021, arXiv 2102.11600",
        "domainbed_adm.method.further_flatness:ASAM",
        (rules.ASAM_RHO, rules.ASAM_ETA, rules.ASAM_BIASES),
        Cost(passes=2),
        only_by_name=True,
    ),
    Card(
        "GSAM",
        "SAM's gradient without a share of the gradient's part orthogonal to it",
        "GSAM: Zhuang et al., ICLR 2022, arXiv 2203.08065",
        "domainbed_adm.method.further_flatness:GSAM",
        (rules.RHO, rules.GSAM_ALPHA, rules.GSAM_RHO_MIN),
        Cost(passes=2),
        only_by_name=True,
    ),
)
