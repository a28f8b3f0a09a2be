"""Environments by name: ``--test_envs sketch`` in place of ``--test_envs 3``. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from domainbed_adm.datasets.cards import FOLDERS, get_card
from domainbed_adm.datasets.layout import dataset_root, environments, subfolders
from domainbed_adm.errors import UserError, did_you_mean

_WHOLE = re.compile(r"-?[0-9]+")


def number_or_name(word: str) -> int | str:
    """A whole number is an environment's, as in DomainBed, whatever the names are; anything else is a name."""
    return int(word) if _WHOLE.fullmatch(word.strip()) else word


def numbers_of(
    given: Sequence[int | str], dataset: str, data_dir: str | Path | None, recorded: Sequence[str] = ()
) -> list[int]:
    """The numbers of these environments; a number stays as it is, whether there is one or not.

    Names are the card's or, where it has none, those ``recorded`` of a run; and of folders in ``data_dir`` theirs ("S"
    and "sketch"), in upper or lower case.

    Raises:
        UserError: a name is no environment's, or only the folder knows them and it is not there; lists all.
    """
    if not any(isinstance(one, str) for one in given):
        return [int(one) for one in given]
    card = get_card(dataset)
    known = list(card.environments or recorded or environments(card, dataset_root(card, data_dir)))
    folders: list[str] = []
    if card.path == FOLDERS:
        with suppress(UserError):  # not there, or no data_dir: the card's names are known still
            folders = subfolders(dataset_root(card, data_dir))
    return [one if isinstance(one, int) else _number(one, dataset, known, folders) for one in given]


def _number(name: str, dataset: str, known: list[str], folders: list[str]) -> int:
    tables = (known, folders if len(folders) == len(known) else [])
    for same in (str, str.lower):  # as it is written goes before another case
        for names in tables:
            found = [i for i, one in enumerate(names) if same(one) == same(name)]
            if len(found) == 1:
                return found[0]
    near = did_you_mean([*known, *folders], name)
    raise UserError(f"{name!r} is no environment of {dataset}: {numbered(known)}.{near}")


def numbered(names: Sequence[str]) -> str:
    """Every environment, its number before its name: "0 A, 1 C"."""
    return ", ".join(f"{i} {name}" for i, name in enumerate(names))


def named(numbers: Sequence[int], names: Sequence[str], most: int = 3) -> str:
    """Some environments by name; of more than ``most`` their number: "A, C", "15 environments"."""
    return ", ".join(names[i] for i in numbers) if len(numbers) <= most else f"{len(numbers)} environments"
