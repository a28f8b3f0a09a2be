"""What is known of one run of DomainBed, and handed to an algorithm through its hparams."""

from __future__ import annotations

from typing import Any

from domainbed_adm import hparams_registry
from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import Method
from domainbed_adm.upstream.normalisation import NotStatedError, Std, input_std

Hparams = dict[str, Any]


class Run:
    """What is known of a run.

    Attributes:
        total_steps: None where nobody has said.
        as_dataset: whether ``total_steps`` is the ``N_STEPS`` of the run's dataset, which may set it when it is built.
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
            hparams.update({name: dataset.N_STEPS for name in hparams if name == "total_steps"})

    def complete(self, method: Method, hparams: Hparams) -> None:
        """Put into ``hparams`` what the run knows, and check what the method reads.

        Raises:
            UserError: something is not known, or cannot work here.
        """
        read = {name: hparams[name] for name, spec in method.hparams.items() if name in hparams and not spec.set_by_run}
        hparams_registry.override({}, read, method.name, "Debug28")
        check_weighting(hparams, method)
        if "total_steps" in method.hparams and "total_steps" not in hparams:
            if self.total_steps is None:
                raise UserError(
                    f"{method.name} needs to know how many steps the run has: train by `domainbed-adm upstream train`, "
                    "or call upstream.register(total_steps=...), or put total_steps into its hparams"
                )
            hparams["total_steps"] = self.total_steps
        if "input_std" in method.hparams and "input_std" not in hparams:
            hparams["input_std"] = self._input_std(hparams, method)

    def _input_std(self, hparams: Hparams, method: Method) -> Std:
        """What the dataset states that was built with the very dict ``hparams``, as DomainBed's scripts do.

        Raises:
            UserError: there is none, or it does not state it.
        """
        name, reason = "the dataset", "no dataset was built with the hparams that it got"
        if self._hparams is hparams:
            try:
                return input_std(self._dataset)
            except NotStatedError as error:
                name, reason = type(self._dataset).__name__, str(error)
        raise UserError(
            f"{method.name} needs to know how the inputs of {name} are normalised, but {reason}: give --hparams "
            """'{"input_std": [0.229, 0.224, 0.225]}', one std per channel, or null for pixels in [0, 1]"""
        )


def check_weighting(hparams: Hparams, method: Method) -> None:
    """Refuse weighting "memory", which DomainBed's loop cannot serve.

    Raises:
        UserError: it is asked for.
    """
    if method.curriculum and hparams.get("weighting") == "memory":
        raise UserError(
            "weighting 'memory' needs to know which samples a minibatch holds, and DomainBed does not say: "
            "use 'both' or 'descent', or our own engine, `domainbed-adm train`"
        )
