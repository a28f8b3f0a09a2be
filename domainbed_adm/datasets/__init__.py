"""Datasets: several environments (domains) over one set of classes, under DomainBed's names.

``cards`` states what each one is without loading torch; ``folders``, ``digits``, ``mnist`` and ``debug`` build them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from domainbed_adm.datasets.cards import CARDS, get_card

if TYPE_CHECKING:
    from domainbed_adm.datasets.base import MultipleDomainDataset

#: Names of the datasets that need no ``<data_dir>/<Name>`` folder of the user's own making, DomainBed's order.
DATASETS = list(CARDS)


def get_dataset_class(name: str) -> type[MultipleDomainDataset]:
    """Return the dataset class of this name; a name without a card is a folder dataset of the user's.

    Its constructor is DomainBed's: ``cls(data_dir, test_envs, hparams)``.
    """
    card = get_card(name)
    builder = importlib.import_module(f"domainbed_adm.datasets.{card.module}")
    return builder.dataset_class(card)


__all__ = ["CARDS", "DATASETS", "get_card", "get_dataset_class"]
