"""A run's model and a sample of its data, ready to be measured: in the mode training used, and moved by nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import domainbed_adm
from domainbed_adm.analysis.mean_loss import MeanLoss, exact_arithmetic
from domainbed_adm.analysis.runs import MODEL, OpenRun, Run, open_run
from domainbed_adm.analysis.sample import Sample, Samples, draw_samples
from domainbed_adm.errors import UserError
from domainbed_adm.method.side_effects import as_trained, has_moving_batch_norm


@dataclass(frozen=True)
class Settings:
    """What every analysis of a model asks.

    Attributes:
        checkpoint: the model's file in the run's folder.
        data_dir: where the data lie; None: where they lay in training.
        samples: images of each environment; None: 256, or all where there are fewer.
        batch_size: images of each domain in a mini-batch; None: the run's, but at least 64 where no BatchNorm in
            training mode makes the loss depend on it.
        seed: of the sample, the directions and the vectors.
        double: whether to compute in float64.
    """

    checkpoint: str = MODEL
    data_dir: str | None = None
    samples: int | None = None
    batch_size: int | None = None
    seed: int = 0
    double: bool = False


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        run: whose model it is.
        samples: of its environments.
        params: those that require a gradient.
        about: what a result says of itself, values of JSON's types.
    """

    run: OpenRun
    samples: Samples
    params: list[Tensor]
    about: dict[str, Any]

    def loss(self, sample: Sample) -> MeanLoss:
        """The mean loss over a sample.

        Raises:
            UserError: BatchNorm in training mode cannot normalise its smallest mini-batch.
        """
        if sample.smallest_batch < 2 and has_moving_batch_norm(self.run.algorithm):
            raise UserError(
                f"BatchNorm needs mini-batches of 2 images or more, {sample.name} has one of 1: --batch_size"
            )
        return MeanLoss(self.run.algorithm.predict, self.params, sample, len(sample))


@contextmanager
def open_subject(run: Run, settings: Settings) -> Iterator[Subject]:
    """Within the block, the run's model in the mode training used (``side_effects.as_trained``), and its sample.

    Raises:
        UserError: as :func:`analysis.runs.open_run` and :func:`analysis.sample.draw_samples` say.
    """
    opened = open_run(run, settings.checkpoint, settings.data_dir)
    dtype = torch.float64 if settings.double else torch.float32
    algorithm = opened.algorithm.to(dtype)
    batch_size = settings.batch_size or _batch_size(opened)
    with (
        as_trained(algorithm),
        exact_arithmetic(),
        draw_samples(opened, settings.samples, batch_size, settings.seed) as samples,
    ):
        params = [param for param in algorithm.parameters() if param.requires_grad]
        yield Subject(opened, samples, params, _about(opened, settings, batch_size))


def _batch_size(run: OpenRun) -> int:
    own = int(run.hparams["batch_size"])
    run.algorithm.train()
    depends = has_moving_batch_norm(run.algorithm)
    run.algorithm.eval()
    return own if depends else max(own, 64)


def _about(run: OpenRun, settings: Settings, batch_size: int) -> dict[str, Any]:
    flags = {name: run.args[name] for name in ("algorithm", "dataset", "test_envs", "trial_seed", "hparams_seed")}
    return {
        "model": settings.checkpoint,
        **flags,
        "samples": settings.samples,
        "batch_size": batch_size,
        "seed": settings.seed,
        "dtype": "float64" if settings.double else "float32",
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else run.device.type,
        "mode": _mode(run.algorithm),
        "versions": {
            "domainbed_adm": domainbed_adm.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
    }


def _mode(algorithm: nn.Module) -> str:
    """In words, of an algorithm within ``as_trained``."""
    norms = [module.training for module in algorithm.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        batch_norm = "the network has no BatchNorm"
    elif all(norms):
        batch_norm = "BatchNorm by the statistics of each mini-batch, as in training"
    elif any(norms):
        batch_norm = "BatchNorm as in training: by the statistics of each mini-batch, where frozen by the stored ones"
    else:
        batch_norm = "BatchNorm frozen, by its stored statistics, as in training"
    return f"{batch_norm}; no dropout, no augmentation"
