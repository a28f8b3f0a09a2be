"""Add a difficulty, curriculum, flatness rule, algorithm, dataset, launcher or logger, for both hosts, from your code.

Each has one card, which names its class by import path, as the built-in ones have. Call these functions in a script, or
name a function that calls them as an entry point of the group ``domainbed_adm.extensions``: then every command knows
what it adds, and so does every job of a sweep. Nothing here loads torch; the class is imported when it is needed.
Each raises ``UserError``, and adds nothing, where the card is incomplete or a name is taken.

>>> from domainbed_adm.extensions import Card, Hparam, Number, Uniform, add_difficulty
>>> power = Hparam("margin_power", 2.0, Number(0), "power of the loss", Uniform(1, 3), argument="power")
>>> card = Card("Margin", "loss to a power", "-", "my_package.difficulty:Margin", (power,))
>>> add_difficulty(card)  # doctest: +SKIP

Every method with the difficulty Margin then constructs ``my_package.difficulty.Margin(power=...)``.
``domainbed_adm.testing`` checks what you add.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from domainbed_adm.datasets.cards import CARDS, DatasetCard, Normalization, folder_card
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import every_hparam
from domainbed_adm.loggers import LOGGERS, LoggerCard
from domainbed_adm.method.cards import (
    CURRICULA,
    DIFFICULTIES,
    FLATNESS,
    INPUT_STD,
    TOTAL_STEPS,
    Card,
    Cost,
    Estimate,
)
from domainbed_adm.method.flatness_hparams import RHO
from domainbed_adm.method.grid import METHODS, Method, OwnMethod, grid
from domainbed_adm.method.hparams import Choice, Hparam, Log2Integer, LogUniform, Number, OneOf, Text, Uniform
from domainbed_adm.run_args import FLAGS
from domainbed_adm.sweeping.launchers import LAUNCHERS, LauncherCard, LauncherFlag

__all__ = ["add_algorithm", "add_curriculum", "add_dataset", "add_difficulty", "add_flatness", "add_launcher"]
__all__ += ["LoggerCard", "add_logger"]
__all__ += ["LauncherCard", "LauncherFlag", "folder_card"]
__all__ += ["INPUT_STD", "RHO", "TOTAL_STEPS", "Card", "Cost", "DatasetCard", "Estimate", "Hparam", "Normalization"]
__all__ += ["Choice", "Log2Integer", "LogUniform", "Number", "OneOf", "Text", "Uniform"]


def add_difficulty(card: Card) -> None:
    """Add a difficulty: the grid grows by its methods, one for each flatness rule and curriculum.

    The card's class is a ``difficulty.Difficulty``. One whose hparams hold :data:`INPUT_STD` gets the ``std`` of the
    inputs' normalisation.
    """
    _add_part("difficulty", DIFFICULTIES, card)


def add_curriculum(card: Card) -> None:
    """Add a ``curriculum.Curriculum``: the grid grows by a method for each flatness rule and difficulty."""
    _add_part("curriculum", CURRICULA, card)


def add_flatness(card: Card) -> None:
    """Add a flatness rule: the grid grows by its methods, alone and with each curriculum and difficulty.

    The card's class is a ``flatness.Flatness``; ``Cost(passes=2)`` where it takes two passes. :data:`RHO` may be among
    its hparams.
    """
    _add_part("flatness", FLATNESS, card)


def add_algorithm(card: Card) -> None:
    """Add an algorithm that is no method of the grid.

    The card's path is that of a function which gets an ERM class, this package's or DomainBed's, and returns the
    algorithm's class, a subclass of it. Its hparams are those that it reads beyond ERM's, :data:`TOTAL_STEPS` and
    :data:`INPUT_STD` among them where it needs them.
    """
    _check("algorithm", METHODS, card, r"[A-Za-z]\w*")
    METHODS[card.name] = OwnMethod(card=card)


def add_dataset(card: DatasetCard) -> None:
    """Add a dataset; the card's class is a subclass of ``datasets.base.MultipleDomainDataset``.

    ``folder_card("DomainNet", "domain_net", ("clipart", ...))`` is enough for folders of images.

    Raises:
        UserError: the name is taken.
    """
    if card.name in CARDS:
        raise UserError(_taken("dataset", card.name, card, CARDS[card.name]))
    CARDS[card.name] = card


_AnyCard = Card | DatasetCard | LauncherCard | LoggerCard

#: Flags of ``sweep`` beside those of ``train``, and what a launcher is told.
_SWEEPS = {"command", "folder", "sweep", "output_dir", "datasets", "algorithms", "n_hparams_from", "n_hparams"}
_SWEEPS |= {"n_trials", "single_test_envs", "command_launcher", "jobs", "retries", "dry_run", "plan_only", "help"}
_SWEEPS |= {"double_epochs", "images_per_second", "rate_from"}
_SWEEPS |= {
    "skip_confirmation",
    "time_limit",
    "max_jobs",
    "place",
    "commands",
    "labels",
    "skip",
    "on_end",
    "follow",
    "folder",
}


def add_launcher(card: LauncherCard) -> None:
    """Add a command launcher: ``sweep launch --command_launcher NAME`` starts jobs or workers by it, with its flags.

    DomainBed's sweep knows it as well; there its flags are words of the environment variable DOMAINBED_ADM_LAUNCHER.

    Raises:
        UserError: the card is incomplete, or its name or one of its flags' is taken.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", card.name):
        raise UserError(f"launcher {card.name!r}: its name must be letters, digits, _ and -")
    for path in filter(None, (card.path, card.check)):
        if not re.fullmatch(r"[\w.]+:[\w.]+", path):
            raise UserError(f"launcher {card.name!r}: its path must be 'module:function', not {path!r}")
    if card.name in LAUNCHERS:
        raise UserError(_taken("launcher", card.name, card, LAUNCHERS[card.name]))
    if card.takes not in ("jobs", "workers"):
        raise UserError(f"launcher {card.name!r}: it takes jobs or workers, not {card.takes!r}")
    for flag in card.flags:
        others = [other for other in LAUNCHERS.values() for one in other.flags if one.name == flag.name and one != flag]
        if flag.name in _SWEEPS | FLAGS.keys() or others:
            raise UserError(_taken("flag", flag.name, card, *others[:1]))
        if not re.fullmatch(r"[a-z]\w*", flag.name) or flag.kind not in (str, int, float, bool):
            raise UserError(
                f"launcher {card.name!r}: flag {flag.name!r} must be a str, int, float or bool of that name"
            )
    LAUNCHERS[card.name] = card


def add_logger(card: LoggerCard) -> None:
    """Add a logger for ``train --logger NAME``; the card's class is a ``loggers.interface.Logger``.

    Raises:
        UserError: the card is incomplete, or its name is taken.
    """
    if not re.fullmatch(r"[A-Za-z][\w-]*", card.name):
        raise UserError(f"logger {card.name!r}: its name must be letters, digits, _ and -")
    if not re.fullmatch(r"[\w.]+:[\w.]+", card.path):
        raise UserError(f"logger {card.name!r}: its path must be 'module:Class', not {card.path!r}")
    if card.name in LOGGERS:
        raise UserError(_taken("logger", card.name, card, LOGGERS[card.name]))
    LOGGERS[card.name] = card


def _add_part(family: str, table: dict[str, Card], card: Card) -> None:
    _check(family, table, card, "[A-Za-z][A-Za-z0-9]*")
    table[card.name] = card
    grown = {name: method for name, method in grid().items() if card in method.cards}
    for name in grown:
        if name in METHODS:
            del table[card.name]
            raise UserError(_taken("algorithm", name, card, METHODS[name]))
    METHODS.update(grown)


def _check(kind: str, table: Mapping[str, Card | Method], card: Card, pattern: str) -> None:
    if not re.fullmatch(pattern, card.name):
        raise UserError(f"{kind} {card.name!r}: its name must match {pattern}")
    if not re.fullmatch(r"[\w.]+:[\w.]+", card.path):
        raise UserError(f"{kind} {card.name!r}: its path must be 'module:Class', not {card.path!r}")
    every = every_hparam()
    for hparam in card.hparams:
        users = [method for method in METHODS.values() if hparam.name in method.hparams]
        if hparam.name in every and not any(method.hparams[hparam.name] == hparam for method in users):
            raise UserError(_taken("hparam", hparam.name, card, *users[:1]))
    if card.name in table:
        raise UserError(_taken(kind, card.name, card, table[card.name]))


def _taken(kind: str, name: str, new: _AnyCard, *old: _AnyCard | Method) -> str:
    return f"{kind} {name!r} of {_package(new)} cannot be added: {_package(*old)} has that name already"


def _package(*added: Any) -> str:
    """The package that added this: of a method, that of its first part from elsewhere."""
    cards = [card for one in added for card in (one.cards if isinstance(one, Method) else [one])]
    packages = [card.path.partition(":")[0].partition(".")[0] for card in cards]
    return next((name for name in packages if name != "domainbed_adm"), "domainbed_adm")
