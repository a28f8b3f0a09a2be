"""Our datasets as DomainBed's loop wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainbed_adm.datasets.base import Environment, Item, MultipleDomainDataset


class _Training(Environment):
    """An environment that is always seen as training sees it, as DomainBed sees its own source environments."""

    def __init__(self, environment: Environment) -> None:
        self.environment, self.targets = environment, environment.targets

    def __getitem__(self, index: int) -> Item:
        return self.environment.train_item(index)


def host_dataset(dataset_class: type[MultipleDomainDataset]) -> type[MultipleDomainDataset]:
    """The class of one of our datasets for DomainBed, which augments a source environment wherever it reads it."""

    class HostDataset(dataset_class):  # type: ignore[valid-type, misc]
        def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
            super().__init__(data_dir, test_envs, hparams)
            self.datasets: list[Environment] = [_Training(one) if one.augmented else one for one in self.datasets]

    HostDataset.__name__ = HostDataset.__qualname__ = dataset_class.__name__
    HostDataset.__doc__ = dataset_class.__doc__
    return HostDataset
