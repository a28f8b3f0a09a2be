"""The grid of methods, as data: one choice from each of three families, ``flatness x curriculum x difficulty``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from domainbed_adm.errors import lookup
from domainbed_adm.method.cards import (
    CURRICULA,
    CURRICULUM_HPARAMS,
    DIFFICULTIES,
    FLATNESS,
    FLATNESS_HPARAMS,
    WEIGHTINGS,
    Card,
    Cost,
)
from domainbed_adm.method.hparams import Hparam


@dataclass(frozen=True)
class Method:
    """One method of the grid; ``None`` means that the part is absent. ``Method()`` is ERM."""

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
        parts = ((FLATNESS, self.flatness), (CURRICULA, self.curriculum), (DIFFICULTIES, self.difficulty))
        return [table[name] for table, name in parts if name]

    @property
    def only_by_name(self) -> bool:
        """Whether it runs only where it is named: one of its parts is not the ADM paper's."""
        return any(card.only_by_name for card in self.cards)

    @property
    def hparams(self) -> dict[str, Hparam]:
        """The hparams that this method reads beyond ERM's, by name."""
        every = [hparam for card in self.cards for hparam in card.hparams]
        every += [*(CURRICULUM_HPARAMS if self.curriculum else ()), *(FLATNESS_HPARAMS if self.flatness else ())]
        return {hparam.name: hparam for hparam in every}

    @property
    def summary(self) -> str:
        """One line for listings."""
        return "; ".join(card.summary for card in self.cards) or "empirical risk minimization: the mean loss"

    @property
    def papers(self) -> str:
        """Sources of its parts, oldest idea last."""
        return "; ".join(card.paper for card in self.cards) or "ERM: Vapnik, 1998"

    def passes(self, weighting: str = "both", **hparams: Any) -> float:
        """Cost of one step in units of F, one forward pass of the batch.

        A backward pass to the parameters is 2 F, one to the inputs alone 1 F. Two-pass flatness doubles the 3 F of a
        plain step. The input gradient is free where an unweighted or remembered first pass runs anyway; "memory" with
        BatchNorm in training mode is the exception and costs 1 F more than told here; with a refreshed share r below 1
        it costs 2 r F more (see ``first_pass.Weighting``). An algorithm that is no method of
        the grid costs what its card says, whatever the weighting. With a ``warmup_fraction`` or ``flatness_start`` it
        is the mean over the run: until the first no sample is scored, unless it is to be remembered; until the second
        a step is that of the method without its flatness rule.

        Args:
            weighting: "both", "descent" or "memory"; see ``step.TrainingStep``.
            **hparams: values by which a difficulty's estimate is chosen, such as ``adm_estimator="linear"``, the
                share that it refreshes, ``adm_refresh``, ``warmup_fraction`` and ``flatness_start``; others are not
                looked at.

        Raises:
            UserError: ``weighting`` is unknown.
        """
        lookup(dict.fromkeys(WEIGHTINGS), weighting, "weighting")
        costs: list[Cost] = []
        forwards: float = 0
        for card in self.cards:
            estimated = card.estimate and hparams.get(card.estimate.hparam.name) == card.estimate.value
            costs.append(card.estimate.cost if card.estimate and estimated else card.cost)
            refreshed = hparams.get(card.refresh.name, 1) if card.refresh and weighting == "memory" else 1
            forwards += costs[-1].forwards * refreshed
        passes = max((cost.passes for cost in costs), default=1)
        asks = any(cost.input_gradient for cost in costs)
        warm = 0 if weighting == "memory" else hparams.get("warmup_fraction", 0)
        plain = hparams.get("flatness_start", 0) if self.flatness else 0

        def step(passes: int, share: float, scored: float) -> float:
            """Of steps with so many gradients, which are this share of the run; this share scores."""
            free = self.difficulty is not None and (weighting == "memory" or (weighting == "descent" and passes > 1))
            return share * 3 * passes + scored * (forwards + (asks and not free))

        ruled = step(passes, 1 - plain, 1 - max(plain, warm))
        return ruled + step(1, plain, max(plain - warm, 0)) if plain else ruled


@dataclass(frozen=True)
class OwnMethod(Method):
    """An algorithm of another package that is no method of the grid: one card."""

    card: Card = Card("", "", "", "")

    @property
    def name(self) -> str:
        """Its card's name."""
        return self.card.name

    @property
    def cards(self) -> list[Card]:
        """Its card alone."""
        return [self.card]


def grid() -> dict[str, Method]:
    """Every method that the cards span, by name; those that run only by name stand behind the others."""
    pairs = [(None, None), *((curriculum, difficulty) for curriculum in CURRICULA for difficulty in DIFFICULTIES)]
    methods = [Method(flatness, *pair) for flatness in (None, *FLATNESS) for pair in pairs]
    return {method.name: method for method in sorted(methods, key=lambda method: method.only_by_name)}


#: All methods by DomainBed's algorithm name: the paper's 28, ERM first, those that run only by name, and extensions'.
METHODS = grid()


def unnamed_methods() -> list[str]:
    """The methods that run where nobody names any: the paper's 28 and those of extensions."""
    return [name for name, method in METHODS.items() if not method.only_by_name]
