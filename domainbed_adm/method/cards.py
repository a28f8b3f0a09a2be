"""The grid of methods as data: what each name means, where it comes from, what it costs.

A method is one choice from each of three families, ``flatness x curriculum x difficulty``. This module knows their
names and no tensors, so that listing and sweeping over methods loads no torch. The code of each part stands in
``difficulty.py``, ``curriculum.py`` and ``flatness.py`` under the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from domainbed_adm.errors import lookup
from domainbed_adm.system.entry_points import load_extensions


@dataclass(frozen=True)
class Card:
    """What one part of a method is: its name, one line, its source, the hparams it reads.

    Attributes:
        input_gradient: of a difficulty: whether its score asks for the gradient in the inputs.
        forwards: of a difficulty: forward passes that its score costs.
        build: of a part from another package: makes it from hparams. An algorithm's makes its class from an ERM class.
    """

    name: str
    summary: str
    paper: str
    hparams: tuple[str, ...] = ()
    input_gradient: bool = False
    forwards: int = 0
    build: Callable[[Any], Any] | None = None


def _by_name(*cards: Card) -> dict[str, Card]:
    return {card.name: card for card in cards}


DIFFICULTIES = _by_name(
    Card("Loss", "the sample's cross-entropy", "SPL: Kumar et al., NeurIPS 2010"),
    Card(
        "GDM",
        "L2 norm of the loss's gradient in the sample's pixels",
        "SSPL: Zhao et al., AAAI 2024",
        input_gradient=True,
    ),
    Card(
        "ADM",
        "normalised loss gap between the sample and its FGSM copy",
        "ADM: Aizawa and Hayashi, BMVC 2025, arXiv 2508.18726",
        ("adm_alpha", "adm_delta", "adm_estimator"),
        input_gradient=True,
        forwards=1,
    ),
)

CURRICULA = _by_name(
    Card(
        "SPL",
        "keep the easiest samples, more of them as training goes on",
        "SPL: Kumar et al., NeurIPS 2010",
        ("spl_start", "spl_mode", "spl_threshold"),
    ),
    Card(
        "SSPL",
        "weight samples by rank: easy ones first, hard ones at the end",
        "SSPL: Zhao et al., AAAI 2024",
        ("sspl_eta",),
    ),
)

FLATNESS = _by_name(
    Card(
        "SAM",
        "gradient at the worst point of a ball around the parameters",
        "SAM: Foret et al., ICLR 2021, arXiv 2010.01412",
        ("rho",),
    ),
    Card(
        "SAGM",
        "mean of the gradient and of SAM's, with their directions matched",
        "SAGM: Wang et al., CVPR 2023, arXiv 2303.10353",
        ("rho", "sagm_alpha"),
    ),
    Card(
        "FSAM",
        "SAM along the minibatch noise only, the full gradient taken out",
        "F-SAM: Li et al., CVPR 2024, arXiv 2403.12350",
        ("rho", "fsam_sigma", "fsam_lambda"),
    ),
)

#: hparams of every method that has a curriculum, whatever its parts.
CURRICULUM_HPARAMS = ("curriculum_scope", "weighting", "total_steps")
WEIGHTINGS = ("both", "descent", "memory")


@dataclass(frozen=True)
class Method:
    """One cell of the grid; ``None`` means that the part is absent. ``Method()`` is ERM."""

    flatness: str | None = None
    curriculum: str | None = None
    difficulty: str | None = None

    @property
    def name(self) -> str:
        """DomainBed's algorithm name: the parts that are there, joined by ``_``; ``ERM`` where there is none."""
        return "_".join(part for part in (self.flatness, self.curriculum, self.difficulty) if part) or "ERM"

    @property
    def cards(self) -> list[Card]:
        """The cards of its parts."""
        chosen = ((FLATNESS, self.flatness), (CURRICULA, self.curriculum), (DIFFICULTIES, self.difficulty))
        return [table[name] for table, name in chosen if name]

    @property
    def hparams(self) -> tuple[str, ...]:
        """Names of the hparams that this method reads beyond ERM's."""
        names = [name for card in self.cards for name in card.hparams]
        if self.curriculum:
            names += CURRICULUM_HPARAMS
        if self.difficulty == "ADM":
            names.append("input_std")
        return tuple(dict.fromkeys(names))

    @property
    def summary(self) -> str:
        """One line for listings."""
        return "; ".join(card.summary for card in self.cards) or "empirical risk minimization: the mean loss"

    @property
    def papers(self) -> str:
        """Sources of its parts, oldest idea last."""
        return "; ".join(card.paper for card in self.cards) or "ERM: Vapnik, 1998"

    def passes(self, weighting: str = "both", estimator: str = "exact") -> int:
        """Cost of one step in units of F, one forward pass of the batch.

        A backward pass to the parameters is 2 F, one to the inputs alone 1 F. Two-pass flatness doubles the 3 F of a
        plain step. The input gradient is free where an unweighted or remembered first pass runs anyway; "memory" with
        BatchNorm in training mode is the exception and costs 1 F more than told here.

        Args:
            weighting: "both", "descent" or "memory" (method.md, "Putting them together").
            estimator: "exact" or "linear", for ADM.

        Raises:
            UserError: ``weighting`` is unknown.
        """
        lookup(dict.fromkeys(WEIGHTINGS), weighting, "weighting")
        cost = 6 if self.flatness else 3
        if self.difficulty is None:
            return cost
        card = DIFFICULTIES[self.difficulty]
        cost += card.input_gradient and not self._free_input_gradient(weighting)
        return cost + card.forwards - (self.difficulty == "ADM" and estimator == "linear")

    def _free_input_gradient(self, weighting: str) -> bool:
        return weighting == "memory" or (weighting == "descent" and self.flatness is not None)


@dataclass(frozen=True)
class OwnMethod(Method):
    """A method of another package that is no cell of the grid: one card, whose ``build`` makes its class."""

    card: Card = Card("", "", "")
    cost: int = 3

    @property
    def name(self) -> str:
        """Its card's name."""
        return self.card.name

    @property
    def cards(self) -> list[Card]:
        """Its card alone."""
        return [self.card]

    def passes(self, weighting: str = "both", estimator: str = "exact") -> int:
        """Cost of one step in units of F as its author states it, whatever the weighting."""
        return self.cost


def grid() -> dict[str, Method]:
    """Every cell that the cards span, by name."""
    pairs = [(None, None), *((curriculum, difficulty) for curriculum in CURRICULA for difficulty in DIFFICULTIES)]
    methods = [Method(flatness, *pair) for flatness in (None, *FLATNESS) for pair in pairs]
    return {method.name: method for method in methods}


#: All 28 methods by DomainBed's algorithm name, ERM first; then those of extensions.
METHODS = grid()


def get_method(name: str) -> Method:
    """Return the method of this algorithm name.

    Raises:
        UserError: there is none; the message lists the names and the nearest match.
    """
    load_extensions()
    return lookup(METHODS, name, "algorithm")


#: DomainBed's own algorithms at b93c22a, in the order of its tables, where they stand before ours.
DOMAINBED_ALGORITHMS = (
    *("ERM", "ERMPlusPlus", "Fish", "IRM", "GroupDRO", "Mixup", "MLDG", "CORAL", "MMD", "DANN", "CDANN", "MTL"),
    *("SagNet", "ARM", "VREx", "RSC", "SD", "ANDMask", "SANDMask", "IGA", "SelfReg", "Fishr", "TRM", "IB_ERM"),
    *("IB_IRM", "CAD", "CondCAD", "Transfer", "CausIRL_CORAL", "CausIRL_MMD", "EQRM", "RDM", "ADRMX", "URM"),
)
