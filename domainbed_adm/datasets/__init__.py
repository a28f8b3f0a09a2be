"""Datasets: several environments (domains) over one set of classes, under DomainBed's names.

``cards`` states what each one is without loading torch; ``folders``, ``digits``, ``mnist`` and ``debug`` build them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.errors import import_object
from domainbed_adm.registry import load_extensions

if TYPE_CHECKING:
    from domainbed_adm.datasets.base import MultipleDomainDataset


def get_dataset_class(name: str) -> type[MultipleDomainDataset]:
    """Return the dataset class of this name; a name without a card is a folder dataset of the user's.

    Its constructor is DomainBed's: ``cls(data_dir, test_envs, hparams)``.
    """
    card = get_card(name)
    builder = import_object(card.path, card.name)
    if not isinstance(builder, type):
        dataset_class: type[MultipleDomainDataset] = builder(card)
        return dataset_class
    from domainbed_adm.datasets.base import class_of_card  # here, so that names and cards load no torch

    return class_of_card(builder, card)


def __getattr__(name: str) -> list[str]:
    """``DATASETS``: names of those that need no ``<data_dir>/<Name>`` of the user's own making, DomainBed's order.

    Raises:
        AttributeError: any other name.
    """
    if name != "DATASETS":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load_extensions()
    return list(CARDS)


__all__ = ["CARDS", "DATASETS", "get_card", "get_dataset_class"]  # noqa: F822
