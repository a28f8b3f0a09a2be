"""Puts our algorithms, hparams, datasets and job commands behind DomainBed's doors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from domainbed_adm import hparams_registry as registry
from domainbed_adm.algorithms import algorithm_class
from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import METHODS, Method
from domainbed_adm.method.hparams import Hparam
from domainbed_adm.registry import load_extensions
from domainbed_adm.upstream import jobs
from domainbed_adm.upstream.facts import watch
from domainbed_adm.upstream.host import Host, find, missing_door, open_host
from domainbed_adm.upstream.run import Run
from domainbed_adm.upstream.views import host_dataset

Hparams = dict[str, Any]
#: The attribute of `domainbed.algorithms` that keeps its :class:`Registration`.
_KEPT_AS = "_domainbed_adm_registration"
#: A small-image dataset of every DomainBed, whose hparams those of our small-image datasets are.
_SMALL = "RotatedMNIST"


def register(path: str | None = None, total_steps: int | None = None) -> Registration:
    """Add to DomainBed every method and dataset that it lacks; a second call changes nothing.

    ``get_algorithm_class``, ``ALGORITHMS``, ``default_hparams``, ``random_hparams``, ``DATASETS`` and every command
    launcher then know them. ERM, and every dataset that DomainBed has, stay DomainBed's own.

    Args:
        path: folder of the checkout; None: see ``host.find``.
        total_steps: steps of the runs to come; needed where a curriculum is built outside of DomainBed's train script.

    Raises:
        UserError: there is no DomainBed, a door of it is missing, or it has an algorithm of one of our names.
    """
    load_extensions()
    host = open_host(find(path))
    kept: Registration = getattr(host.algorithms, _KEPT_AS, None) or Registration(host)
    kept.complete()
    setattr(host.algorithms, _KEPT_AS, kept)
    if total_steps is not None:
        kept.run.total_steps = total_steps
    return kept


class Registration:
    """What has been added to one DomainBed, and what is known of its run.

    Attributes:
        host: the DomainBed.
        methods: names of the algorithms added.
        datasets: names of the datasets added.
        run: what is known of the run.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.methods: list[str] = []
        self.datasets: list[str] = []
        self.run = Run()

    def complete(self) -> None:
        """Add what is not there yet.

        Raises:
            UserError: DomainBed has an algorithm of one of our names; nothing has been added.
        """
        doors, new = self.host.algorithms, [n for n in METHODS if n != "ERM" and n not in self.methods]
        for name in new:
            if hasattr(doors, name) or name in doors.ALGORITHMS:
                raise UserError(f"the DomainBed at {self.host.root} already has a {name} in domainbed.algorithms")
        if not self.methods:
            self._extend_hparams()
            jobs.redirect(self.host)
        for name in new:
            setattr(doors, name, self._class(METHODS[name]))
            doors.ALGORITHMS.append(name)
            self.methods.append(name)
        self._add_datasets()

    def reads(self, algorithm: str) -> dict[str, Hparam]:
        """The hparams that one of our methods reads, by name; none for DomainBed's own algorithms."""
        return METHODS[algorithm].hparams if algorithm in self.methods else {}

    def watch_dataset(self, name: str) -> None:
        """From now on, know the normalisation that a dataset of this class states."""
        found = getattr(self.host.datasets, name, None)
        if isinstance(found, type):
            watch(found, self.run.note_dataset)

    def _add_datasets(self) -> None:
        """Each dataset that DomainBed lacks, in the place among its own that it has among ours: the order of tables."""
        doors = self.host.datasets
        for name in CARDS:
            if not hasattr(doors, name):
                setattr(doors, name, host_dataset(get_dataset_class(name)))
                after = list(CARDS)[list(CARDS).index(name) + 1 :]
                place = next((doors.DATASETS.index(one) for one in after if one in doors.DATASETS), None)
                doors.DATASETS.insert(len(doors.DATASETS) if place is None else place, name)
                self.datasets.append(name)
        for name in doors.DATASETS:
            self.watch_dataset(name)

    def _extend_hparams(self) -> None:
        doors = self.host.hparams_registry
        default, drawn = doors.default_hparams, doors.random_hparams

        def default_hparams(algorithm: str, dataset: str) -> Hparams:
            theirs = default(algorithm, self._known_to_host(dataset))
            return theirs | self._ours(registry.default_hparams, theirs, algorithm, dataset)

        def random_hparams(algorithm: str, dataset: str, seed: int) -> Hparams:
            theirs = drawn(algorithm, self._known_to_host(dataset), seed)
            return theirs | self._ours(registry.random_hparams, theirs, algorithm, dataset, seed)

        vars(doors).update(default_hparams=default_hparams, random_hparams=random_hparams)

    def _known_to_host(self, dataset: str) -> str:
        return _SMALL if dataset in self.datasets and get_card(dataset).small_images else dataset

    def _ours(self, source: Callable[..., Hparams], theirs: Hparams, algorithm: str, *rest: Any) -> Hparams:
        """Our method's hparams, beside ``theirs``; of the run's facts ``total_steps``, where it is known."""
        read = {name: hparam for name, hparam in self.reads(algorithm).items() if name not in theirs}
        if not read:
            return {}
        ours = source(algorithm, *rest) | {"total_steps": self.run.total_steps}
        known = {name for name, hparam in read.items() if not hparam.set_by_run}
        known |= {"total_steps"} if self.run.total_steps is not None else set()
        return {name: ours[name] for name in read if name in known}

    def _class(self, method: Method) -> type[Any]:
        """The method on top of DomainBed's ERM, which sees to it that it knows what it needs."""
        run, root = self.run, self.host.root

        class Doors(self.host.algorithms.ERM):  # type: ignore[name-defined]
            """DomainBed's ERM, once it is known to have what a method trains."""

            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                for door in ("network", "optimizer"):
                    if not hasattr(self, door):
                        raise UserError(missing_door(root, f"domainbed.algorithms.ERM().{door}"))

        ours = algorithm_class(method, Doors)

        def __init__(
            self: Any, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: Hparams
        ) -> None:
            run.complete(method, hparams)
            ours.__init__(self, input_shape, num_classes, num_domains, hparams)

        return type(method.name, (ours,), {"__init__": __init__, "__doc__": ours.__doc__, "__module__": __name__})
