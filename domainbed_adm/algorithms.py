"""The grid of 28 methods as DomainBed ``Algorithm`` classes: ERM, and 27 that wire the three families around it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from domainbed_adm import networks
from domainbed_adm.errors import UserError, import_object
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, FLATNESS
from domainbed_adm.method.grid import METHODS, Method, OwnMethod
from domainbed_adm.method.passes import LossFunction, cross_entropy
from domainbed_adm.method.state import StepState
from domainbed_adm.method.step import TrainingStep
from domainbed_adm.registry import get_method, load_extensions
from domainbed_adm.upstream.hosted import hosted_class
from domainbed_adm.upstream.methods import HostMethod

Hparams = dict[str, Any]


class Minibatch(tuple[Tensor, Tensor]):
    """A pair (x, y), as DomainBed gives, that also knows which samples of the training set it holds.

    ``sample_index`` is int64 on the CPU, shape (B,), unique over all environments.
    """

    sample_index: Tensor

    def __new__(cls, x: Tensor, y: Tensor, sample_index: Tensor) -> Minibatch:  # noqa: D102
        pair = super().__new__(cls, (x, y))
        pair.sample_index = sample_index
        return pair


class Algorithm(nn.Module):
    """DomainBed's contract: what a method of domain generalization must offer.

    Args:
        input_shape: of one input, (channels, height, width).
        num_classes: number of classes.
        num_domains: number of source domains.
        hparams: as ``hparams_registry.default_hparams`` gives.
    """

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: Hparams) -> None:
        super().__init__()
        self.hparams = hparams

    def update(self, minibatches: Sequence[Any], unlabeled: Sequence[Tensor] | None = None) -> dict[str, float]:
        """Do one training step.

        Args:
            minibatches: one (x, y) per source domain, on the device.
            unlabeled: inputs of the test domains, for domain adaptation.

        Returns:
            Figures of the step by name, ``loss`` among them.

        Raises:
            NotImplementedError: the subclass must offer it.
        """
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        """Logits of shape (B, num_classes) for inputs of shape (B, *input_shape).

        Raises:
            NotImplementedError: the subclass must offer it.
        """
        raise NotImplementedError


def base_optimizer(network: nn.Module, hparams: Hparams) -> torch.optim.Optimizer:
    """The optimizer that hparam ``optimizer`` names, Adam where it is missing, for all parameters of a network."""
    rates = {name: hparams[name] for name in ("lr", "weight_decay")}
    if hparams.get("optimizer") == "sgd":
        return torch.optim.SGD(
            network.parameters(), **rates, **{name: hparams[name] for name in ("momentum", "nesterov")}
        )
    kind = torch.optim.AdamW if hparams.get("optimizer") == "adamw" else torch.optim.Adam
    return kind(network.parameters(), **rates)


def loss_of(hparams: Hparams) -> LossFunction:
    """The per-sample loss: cross-entropy, smoothed as hparam ``label_smoothing`` says."""
    return partial(cross_entropy, label_smoothing=hparams.get("label_smoothing", 0.0))


class ERM(Algorithm):
    """Empirical risk minimization: the mean cross-entropy over all source domains, by ``base_optimizer``. Cost: 3 F."""

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: Hparams) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)
        self.featurizer = networks.Featurizer(input_shape, hparams)
        self.classifier = networks.Classifier(self.featurizer.n_outputs, num_classes, hparams["nonlinear_classifier"])
        self.network = nn.Sequential(self.featurizer, self.classifier)
        self.optimizer = base_optimizer(self.network, hparams)
        self.step = TrainingStep(self.network, self.optimizer, loss=loss_of(hparams))

    def update(self, minibatches: Sequence[Any], unlabeled: Sequence[Tensor] | None = None) -> dict[str, float]:
        """One step on the mean loss; see :meth:`Algorithm.update`."""
        x, y = map(torch.cat, zip(*minibatches, strict=True))
        return self.step(x, y)

    def predict(self, x: Tensor) -> Tensor:  # noqa: D102
        logits: Tensor = self.network(x)
        return logits


class GridMethod:
    """Turns an ERM class into a method of the grid: to be mixed in before it, with ``method`` set.

    It asks of the ERM class only what DomainBed's has too: ``network``, ``optimizer`` and the constructor's arguments.
    """

    method: ClassVar[Method]
    network: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: Hparams) -> None:
        super().__init__(input_shape, num_classes, num_domains, hparams)  # type: ignore[call-arg]
        self.step_state = StepState()
        self.step = training_step(self.method, self.network, self.optimizer, hparams, self.step_state)

    def update(self, minibatches: Sequence[Any], unlabeled: Sequence[Tensor] | None = None) -> dict[str, float]:
        """One step of the method; see :meth:`Algorithm.update` and ``TrainingStep``."""
        x, y = map(torch.cat, zip(*minibatches, strict=True))
        known = [batch.sample_index for batch in minibatches if isinstance(batch, Minibatch)]
        index = torch.cat(known) if len(known) == len(minibatches) else None
        return self.step(x, y, [len(y) for _, y in minibatches], index)


def training_step(
    method: Method, network: nn.Module, optimizer: torch.optim.Optimizer, hparams: Hparams, state: StepState
) -> TrainingStep:
    """Build the training step of a method from hparams.

    Raises:
        UserError: an hparam that the method reads is missing.
    """
    missing = [name for name in method.hparams if name not in hparams]
    if missing:
        raise UserError(f"{method.name} needs the hparams {', '.join(missing)}; default_hparams gives them")
    families = ((FLATNESS, method.flatness), (CURRICULA, method.curriculum), (DIFFICULTIES, method.difficulty))
    return TrainingStep(
        network,
        optimizer,
        *(cards[name].build(hparams) if name else None for cards, name in families),
        total_steps=hparams.get("total_steps"),
        weighting=hparams.get("weighting", "both"),
        flatness_start=hparams.get("flatness_start", 0.0),
        scope=hparams.get("curriculum_scope", "batch"),
        order=hparams.get("curriculum_order", "easy_first"),
        warmup=hparams.get("warmup_fraction", 0.0),
        smoothing=hparams.get("difficulty_smoothing", 0.0),
        loss=loss_of(hparams),
        state=state,
        ascent=hparams.get("ascent", "global"),
    )


def algorithm_class(method: Method, erm: type[nn.Module] = ERM) -> type[nn.Module]:
    """The class of this method on top of an ERM class, ours or a host's own."""
    if isinstance(method, OwnMethod):
        found: type[nn.Module] = import_object(method.card.path, method.name)(erm)
        return found
    doc = f"{method.name}: {method.summary}. Source: {method.papers}. Cost: {method.passes()} F."
    return type(method.name, (GridMethod, erm), {"method": method, "__doc__": doc, "__module__": __name__})


_classes: dict[str, type[Any]] = {"ERM": ERM}


def get_algorithm_class(algorithm_name: str) -> type[Any]:
    """DomainBed's contract: the class of this name; an unknown name is a ``UserError`` with the nearest match."""
    method = get_method(algorithm_name)
    if isinstance(method, HostMethod):
        return hosted_class(method)
    if algorithm_name not in _classes:
        _classes[algorithm_name] = algorithm_class(method)
    return _classes[algorithm_name]


def __getattr__(name: str) -> Any:
    """``ALGORITHMS``, the names of all; and each class of the grid is an attribute of the module, as in DomainBed.

    Raises:
        AttributeError: there is no such method.
    """
    if not name.startswith("_"):
        load_extensions()
    if name == "ALGORITHMS":
        return list(METHODS)
    if name not in METHODS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return get_algorithm_class(name)
