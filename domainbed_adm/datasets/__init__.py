"""Datasets: several environments (domains) over one set of classes, under DomainBed's names.

``cards`` states what each one is without loading torch; ``folders`` and ``in_memory`` build them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.errors import import_object
from domainbed_adm.system.console import printable

if TYPE_CHECKING:
    from domainbed_adm.datasets.base import MultipleDomainDataset


def get_dataset_class(name: str) -> type[MultipleDomainDataset]:
    """Return the dataset class of this name; a name without a card is a folder dataset of the user's.

    Its constructor is DomainBed's: ``cls(data_dir, test_envs, hparams)``. DomainBed's class attributes are the card's.
    """
    card = get_card(name)
    base: type[MultipleDomainDataset] = import_object(card.path, card.name)
    class_name = printable(card.name)  # Python refuses classes whose names are not UTF-8
    attributes = {
        "__module__": base.__module__,
        "__doc__": f"{class_name}: {card.summary}.",
        "card": card,
        "ENVIRONMENTS": None if card.environments is None else list(card.environments),
        "environments": list(card.environments or ()),
        "input_shape": card.input_shape,
        "N_STEPS": card.n_steps,
        "CHECKPOINT_FREQ": card.checkpoint_freq,
        "N_WORKERS": card.n_workers,
    }
    return type(class_name, (base,), attributes)


__all__ = ["CARDS", "get_card", "get_dataset_class"]
