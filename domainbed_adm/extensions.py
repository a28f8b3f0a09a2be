"""Add a difficulty, a curriculum, an algorithm or a dataset from another package or a script, for both hosts.

Call these functions in a script of your own, or name a function that calls them as an entry point of the group
``domainbed_adm.extensions``: then every command knows what it adds, and so does every job of a sweep. Nothing here
loads torch; ``build`` functions should import their code themselves, when they are called.

>>> from domainbed_adm.extensions import Card, Hparam, add_difficulty
>>> def build(hparams):
...     from my_package import Margin
...     return Margin(hparams["margin_scale"])
>>> card = Card("Margin", "gap between the two largest logits", "-", ("margin_scale",), build=build)
>>> add_difficulty(card, [Hparam("margin_scale", 1.0, None, "scale of the margin")])  # doctest: +SKIP

``domainbed_adm.testing`` checks what you add.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from domainbed_adm.datasets.cards import BUILDERS, CARDS, DatasetCard, Normalization, folder_card
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import ADDED, Choice, Hparam, Number, every_hparam
from domainbed_adm.method import cards as methods
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, METHODS, Card, Method, OwnMethod

__all__ = [
    "Card",
    "Choice",
    "DatasetCard",
    "Hparam",
    "Normalization",
    "Number",
    "add_algorithm",
    "add_curriculum",
    "add_dataset",
    "add_difficulty",
    "folder_card",
]

OURS = "domainbed_adm"


def add_difficulty(card: Card, hparams: Sequence[Hparam] = ()) -> None:
    """Add a difficulty: the grid grows by its methods, one for each flatness and curriculum.

    Args:
        card: its name (letters and digits), source and the names of its hparams; ``build(hparams)`` returns a
            ``difficulty.Difficulty``. A card that lists the hparam ``input_std`` gets the inputs' normalisation.
        hparams: those of its hparams that no method has yet.

    Raises:
        UserError: the card is incomplete, or a name is taken.
    """
    _add_part("difficulty", DIFFICULTIES, card, hparams)


def add_curriculum(card: Card, hparams: Sequence[Hparam] = ()) -> None:
    """Add a curriculum: the grid grows by its methods; as :func:`add_difficulty`.

    Raises:
        UserError: the card is incomplete, or a name is taken.
    """
    _add_part("curriculum", CURRICULA, card, hparams)


def add_algorithm(card: Card, hparams: Sequence[Hparam] = (), cost: int = 3) -> None:
    """Add an algorithm that is no cell of the grid.

    Args:
        card: its name, source and the names of the hparams it reads beyond ERM's, ``total_steps`` and ``input_std``
            among them where it needs them. ``build(erm)`` returns its class, a subclass of the class ``erm``: this
            package's ERM, or DomainBed's.
        hparams: those of its hparams that no method has yet.
        cost: one step in units of F, one forward pass of the batch; ERM's is 3.

    Raises:
        UserError: the card is incomplete, or a name is taken.
    """
    _check_card("algorithm", card, hparams, r"[A-Za-z]\w*")
    if card.name in METHODS:
        raise UserError(_taken("algorithm", card.name, _source(card), _source_of(METHODS[card.name])))
    METHODS[card.name] = OwnMethod(card=card, cost=cost)
    ADDED.update({hparam.name: hparam for hparam in hparams})


def add_dataset(card: DatasetCard, build: Callable[[DatasetCard], type[Any]] | None = None) -> None:
    """Add a dataset.

    Args:
        card: its facts; ``folder_card("DomainNet", "domain_net", ("clipart", ...))`` is enough for folders of images.
        build: returns its class, a subclass of ``datasets.base.MultipleDomainDataset`` (see ``class_of_card`` there);
            None where ``card.module`` builds it.

    Raises:
        UserError: the name is taken.
    """
    if card.name in CARDS:
        raise UserError(_taken("dataset", card.name, _module(build), _module(BUILDERS.get(card.name))))
    CARDS[card.name] = card
    if build is not None:
        BUILDERS[card.name] = build


def _add_part(family: str, table: dict[str, Card], card: Card, hparams: Sequence[Hparam]) -> None:
    _check_card(family, card, hparams, "[A-Za-z][A-Za-z0-9]*")
    if card.name in table:
        raise UserError(_taken(family, card.name, _source(card), _source(table[card.name])))
    table[card.name] = card
    grown = {name: method for name, method in methods.grid().items() if card in method.cards}
    twice = [name for name in grown if name in METHODS]
    if twice:
        del table[card.name]
        raise UserError(_taken("algorithm", twice[0], _source(card), _source_of(METHODS[twice[0]])))
    METHODS.update(grown)
    ADDED.update({hparam.name: hparam for hparam in hparams})


def _check_card(family: str, card: Card, hparams: Sequence[Hparam], pattern: str) -> None:
    """Check what can be known before anything changes.

    Raises:
        UserError: the name is no name, ``build`` is missing, or an hparam is unknown or taken.
    """
    what = f"{family} {card.name!r}"
    if not re.fullmatch(pattern, card.name):
        raise UserError(f"{what}: its name must match {pattern}")
    if card.build is None:
        raise UserError(f"{what}: its card needs build, the function that makes it")
    known = every_hparam()
    for hparam in hparams:
        if hparam.name in known and known[hparam.name] is not hparam:
            users = (_source_of(method) for method in METHODS.values() if hparam.name in method.hparams)
            raise UserError(_taken("hparam", hparam.name, _source(card), next(users, OURS)))
        if hparam.name not in card.hparams:
            raise UserError(f"{what}: its card does not list the hparam {hparam.name!r} that comes with it")
    missing = [name for name in card.hparams if name not in known | {hparam.name: hparam for hparam in hparams}]
    if missing:
        raise UserError(f"{what}: no Hparam is given for {', '.join(missing)}")


def _taken(kind: str, name: str, new: str, old: str) -> str:
    return f"{kind} {name!r} of {new} cannot be added: {old} has that name already"


def _module(build: Callable[..., Any] | None) -> str:
    return build.__module__ if build else OURS


def _source(card: Card) -> str:
    """The module that added a part."""
    return _module(card.build)


def _source_of(method: Method) -> str:
    """The module that added a method: that of its first part from elsewhere."""
    return next((_source(card) for card in method.cards if card.build), OURS)
