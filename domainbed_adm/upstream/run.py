"""What is known of one run of DomainBed, and handed to an algorithm through its hparams: its steps, its inputs' std."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from domainbed_adm import hparams_registry
from domainbed_adm.errors import UserError
from domainbed_adm.method.grid import Method

Hparams = dict[str, Any]
Std = list[float] | None


class NotStatedError(Exception):
    """The dataset does not state its normalisation; the message says why."""


class Run:
    """What is known of a run.

    ``total_steps`` is None where nobody has said; where ``as_dataset``, it is the ``N_STEPS`` of the run's dataset,
    which may set it when it is built.
    """

    def __init__(self) -> None:
        self.total_steps: int | None = None
        self.as_dataset = False
        self._dataset: Any = None
        self._hparams: Hparams | None = None

    def note_dataset(self, dataset: Any, hparams: Hparams) -> None:
        """Learn from a dataset that was built with these hparams."""
        self._dataset, self._hparams = dataset, hparams
        if self.as_dataset:
            self.total_steps = dataset.N_STEPS
            if "total_steps" in hparams:
                hparams["total_steps"] = dataset.N_STEPS

    def complete(self, method: Method, hparams: Hparams) -> None:
        """Put into ``hparams`` what the run knows, and check what the method reads.

        Raises:
            UserError: something is not known, or cannot work here.
        """
        read = {name: hparams[name] for name, spec in method.hparams.items() if name in hparams and not spec.set_by_run}
        hparams_registry.override({}, read, method.name, "Debug28")
        check_loop(hparams, method)
        if "total_steps" in method.hparams and "total_steps" not in hparams:
            if self.total_steps is None and (method.curriculum or hparams.get("flatness_start")):
                raise UserError(
                    f"{method.name} needs to know how many steps the run has: train by `domainbed-adm upstream train`, "
                    "or call upstream.register(total_steps=...), or put total_steps into its hparams"
                )
            hparams["total_steps"] = self.total_steps
        if "input_std" in method.hparams and "input_std" not in hparams:
            hparams["input_std"] = self._input_std(hparams, method)
        for name, spec in method.hparams.items():
            if spec.set_by_run:
                hparams.setdefault(name, spec.default)

    def _input_std(self, hparams: Hparams, method: Method) -> Std:
        name, reason = "the dataset", "no dataset was built with the hparams that it got"
        if self._hparams is hparams:  # the very dict, as DomainBed's scripts hand it on
            try:
                return input_std(self._dataset)
            except NotStatedError as error:
                name, reason = type(self._dataset).__name__, str(error)
        raise UserError(
            f"{method.name} needs to know how the inputs of {name} are normalised, but {reason}: give --hparams "
            """'{"input_std": [0.229, 0.224, 0.225]}', one std per channel, or null for pixels in [0, 1]"""
        )


def check_loop(hparams: Hparams, method: Method) -> None:
    """Refuse weighting "memory" and averaging of weights, which DomainBed's loop cannot serve.

    Raises:
        UserError: it is asked for.
    """
    if method.curriculum and hparams.get("weighting") == "memory":
        raise UserError(
            "weighting 'memory' needs to know which samples a minibatch holds, and DomainBed does not say: "
            "use 'both' or 'descent', or our own engine, `domainbed-adm train`"
        )
    if hparams.get("averaging", "none") != "none":
        raise UserError(
            f"averaging {hparams['averaging']!r} is done by our own engine, `domainbed-adm train`: DomainBed evaluates "
            "the last weights"
        )


def input_std(dataset: Any) -> Std:
    """The ``std`` by which a dataset's inputs are normalised, one per channel; None where they are pixels in [0, 1].

    It is never assumed, but read from a torchvision ``Normalize`` in the transform of every environment. A transform
    that has none and consists of torchvision's own steps, ``ToTensor`` among them, gives pixels; so do tensors within
    [0, 1]. Of random noise None makes ADM's step one in the inputs' own units.

    Raises:
        NotStatedError: it cannot be read, or differs between environments.
    """
    if hasattr(dataset, "normalization"):
        return list(dataset.normalization.std) if dataset.normalization else None
    if type(dataset).__name__ in ("Debug28", "Debug224"):  # random noise
        return None
    environments = getattr(dataset, "datasets", None) or [dataset[i] for i in range(len(dataset))]
    stated = {std for environment in environments for std in _stds(environment)}
    if len(stated) != 1:
        raise NotStatedError("its environments are normalised differently" if stated else "it has no environments")
    std = stated.pop()
    return None if std is None else list(std)


def _stds(part: Any) -> Iterator[tuple[float, ...] | None]:
    if getattr(part, "transform", None) is not None:
        yield _std_of_transform(part.transform)
    elif hasattr(part, "tensors"):
        if part.tensors[0].min() < 0 or part.tensors[0].max() > 1:
            raise NotStatedError("its tensors are not within [0, 1]")
        yield None
    elif hasattr(part, "datasets") or hasattr(part, "dataset"):
        for inner in getattr(part, "datasets", None) or [part.dataset]:
            yield from _stds(inner)
    else:
        raise NotStatedError(f"its {type(part).__name__} states no transform")


def _std_of_transform(transform: Any) -> tuple[float, ...] | None:
    steps = [(type(step).__name__, step) for step in _nested_steps(transform)]
    stds = [tuple(map(float, step.std)) for name, step in steps if name == "Normalize"]
    if stds:
        if len(stds) > 1:
            raise NotStatedError("its transform normalises twice")
        return stds[0]
    for name, step in steps:
        if not type(step).__module__.startswith("torchvision.") or name == "Lambda":  # arbitrary code
            raise NotStatedError(f"its transform has no Normalize, and a {name} of its own")
    if "ToTensor" not in dict(steps):
        raise NotStatedError("its transform has neither a Normalize nor a ToTensor")
    return None


def _nested_steps(transform: Any) -> Iterator[Any]:
    if not hasattr(transform, "transforms"):
        yield transform
        return
    for step in transform.transforms:
        yield from _nested_steps(step)
