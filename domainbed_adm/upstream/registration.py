"""Adds our algorithms, hparams, datasets and job commands to an imported DomainBed."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from domainbed_adm import hparams_registry
from domainbed_adm.algorithms import algorithm_class
from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.base import Environment, Item, MultipleDomainDataset
from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.errors import UserError
from domainbed_adm.method.grid import METHODS, Method
from domainbed_adm.registry import load_extensions
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.upstream.host import Host, find, lacks, open_host
from domainbed_adm.upstream.launchers import host_launcher
from domainbed_adm.upstream.methods import HostMethod
from domainbed_adm.upstream.run import Hparams, Run

#: The attribute of `domainbed.algorithms` that keeps its :class:`Registration`.
_KEPT_AS = "_domainbed_adm_registration"
#: How DomainBed's sweep begins a job's command.
_COMMAND = re.compile(r"\S*python[\d.]*((?: -[A-Za-z])*) -m domainbed\.scripts\.(\w+)")


def register(path: str | None = None, total_steps: int | None = None) -> Registration:
    """Add to DomainBed every method and dataset that it lacks; a second call changes nothing.

    ``get_algorithm_class``, ``ALGORITHMS``, ``default_hparams``, ``random_hparams``, ``DATASETS`` and every command
    launcher then know them, and so there are our launchers that it lacks. ERM, every dataset and every launcher that
    DomainBed has stay DomainBed's own.

    Args:
        path: folder of the checkout; None: see ``host.find``.
        total_steps: steps of the runs to come; needed where a curriculum is built outside of DomainBed's train script.

    Raises:
        UserError: there is no DomainBed, it lacks something that we use, or it has an algorithm of one of our names.
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
    """The names of ``methods`` and ``datasets`` added to one ``host``, and what is known of its ``run``."""

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
        algorithms = self.host.algorithms
        ours = [name for name, method in METHODS.items() if not isinstance(method, HostMethod)]
        new = [name for name in ours if name != "ERM" and name not in self.methods]
        for name in new:
            if hasattr(algorithms, name) or name in algorithms.ALGORITHMS:
                raise UserError(f"the DomainBed at {self.host.root} already has a {name} in domainbed.algorithms")
        if not self.methods:
            for name in ("default_hparams", "random_hparams"):
                theirs, ours = getattr(self.host.hparams_registry, name), getattr(hparams_registry, name)
                setattr(self.host.hparams_registry, name, self._with_ours(theirs, ours))
            launchers = self.host.command_launchers.REGISTRY
            launchers.update({name: host_launcher(card) for name, card in LAUNCHERS.items() if name not in launchers})
            launchers.update({name: functools.partial(self._launch, own) for name, own in launchers.items()})
        for name in new:
            setattr(algorithms, name, self._class(METHODS[name]))
            if not METHODS[name].only_by_name:
                algorithms.ALGORITHMS.append(name)
            self.methods.append(name)
        self._add_datasets()

    def watch_dataset(self, name: str) -> None:
        """From now on, the run knows each dataset of this very class, once it is built, and its hparams.

        DomainBed's contract of a dataset is ``cls(root, test_envs, hparams)``.
        """
        dataset_class, note = getattr(self.host.datasets, name, None), self.run.note_dataset
        if not isinstance(dataset_class, type) or hasattr(vars(dataset_class).get("__init__"), "watched"):
            return
        build = dataset_class.__init__  # type: ignore[misc]

        @functools.wraps(build)
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
            build(self, *args, **kwargs)
            if type(self) is dataset_class:
                note(self, next((value for value in (*args, *kwargs.values()) if isinstance(value, dict)), {}))

        __init__.watched = True  # type: ignore[attr-defined]
        dataset_class.__init__ = __init__  # type: ignore[misc]

    def _add_datasets(self) -> None:
        """Each dataset that DomainBed lacks, in the place among its own that it has among ours: the order of tables."""
        datasets, ours = self.host.datasets, list(CARDS)
        for name in ours:
            if not hasattr(datasets, name):
                setattr(datasets, name, _host_dataset(get_dataset_class(name)))
                after = [other for other in ours[ours.index(name) + 1 :] if other in datasets.DATASETS]
                place = datasets.DATASETS.index(after[0]) if after else len(datasets.DATASETS)
                datasets.DATASETS.insert(place, name)
                self.datasets.append(name)
        for name in datasets.DATASETS:
            self.watch_dataset(name)

    def _with_ours(self, theirs: Callable[..., Hparams], ours: Callable[..., Hparams]) -> Callable[..., Hparams]:
        """DomainBed's ``default_hparams`` or ``random_hparams``, with our methods' hparams beside its own.

        Of what the run sets only ``total_steps`` is there, where it is known.
        """

        @functools.wraps(theirs)
        def hparams(algorithm: str, dataset: str, *args: Any, **kwargs: Any) -> Hparams:
            # RotatedMNIST, which every DomainBed has, stands for those of our datasets that have small images, too.
            small = dataset in self.datasets and get_card(dataset).small_images
            host_hparams = theirs(algorithm, "RotatedMNIST" if small else dataset, *args, **kwargs)
            if algorithm not in self.methods:
                return host_hparams
            own, specs = ours(algorithm, dataset, *args, **kwargs), METHODS[algorithm].hparams
            added = {n: own[n] for n, spec in specs.items() if n not in host_hparams and not spec.set_by_run}
            if "total_steps" in specs and self.run.total_steps is not None:
                added["total_steps"] = self.run.total_steps
            return host_hparams | added

        return hparams

    def _class(self, method: Method) -> type[nn.Module]:
        """The method on top of DomainBed's ERM, which sees to it that it knows what it needs."""
        run, root = self.run, self.host.root

        class HostERM(self.host.algorithms.ERM):  # type: ignore[name-defined, misc, unused-ignore]
            def __init__(self, input_shape: Any, num_classes: int, num_domains: int, hparams: Hparams) -> None:
                run.complete(method, hparams)
                super().__init__(input_shape, num_classes, num_domains, hparams)
                for name in ("network", "optimizer"):
                    if not hasattr(self, name):
                        raise UserError(lacks(root, f"domainbed.algorithms.ERM().{name}"))

        return algorithm_class(method, HostERM)

    def _launch(self, launcher: Callable[[list[str]], Any], commands: Sequence[str]) -> Any:
        return launcher([through_us(command, self.host) for command in commands])


def through_us(command: str, host: Host) -> str:
    """The command of a job, run through us by this Python and on this checkout; flags stay as they are.

    So the jobs that DomainBed launches in new processes know our methods, with its users' own launchers, too.

    Raises:
        UserError: it is not the command of a script of DomainBed's.
    """
    match = _COMMAND.match(command)
    if not match:
        raise UserError(lacks(host.root, "job command of the form `python -m domainbed.scripts.train ...`"))
    options, script = match.groups()
    words = [sys.executable, *options.split(), "-m", "domainbed_adm.upstream", script, "--domainbed", str(host.root)]
    return shlex.join(words) + command[match.end() :]


class _AsTrained(Environment):
    def __init__(self, environment: Environment) -> None:
        self.environment, self.targets = environment, environment.targets

    def __getitem__(self, index: int) -> Item:
        return self.environment.train_item(index)


def _host_dataset(dataset_class: type[MultipleDomainDataset]) -> type[MultipleDomainDataset]:
    """One of our datasets for DomainBed, which sees source environments augmented, in training and evaluation."""

    def __init__(self: Any, data_dir: str | None, test_envs: Sequence[int], hparams: Hparams) -> None:
        dataset_class.__init__(self, data_dir, test_envs, hparams)
        self.datasets = [_AsTrained(one) if one.augmented else one for one in self.datasets]

    members = {"__init__": __init__, "__doc__": dataset_class.__doc__, "__module__": __name__}
    return type(dataset_class.__name__, (dataset_class,), members)
