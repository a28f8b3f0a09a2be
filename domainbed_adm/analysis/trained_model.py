"""A run's model and a sample of its data: in the mode training used, and moved by nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import domainbed_adm
from domainbed_adm.analysis.mean_loss import MeanLoss, exact_arithmetic
from domainbed_adm.analysis.samples import Sample, Samples, draw_samples
from domainbed_adm.analysis.settings import Settings
from domainbed_adm.datasets import get_card, get_dataset_class
from domainbed_adm.datasets.base import MultipleDomainDataset
from domainbed_adm.errors import UserError
from domainbed_adm.method.side_effects import as_trained, has_moving_batch_norm
from domainbed_adm.recorded_run import IDENTITY, Run
from domainbed_adm.training.batches import split_environments
from domainbed_adm.training.model_file import load_model, restore_algorithm
from domainbed_adm.training.setup import check_test_envs

#: Hparams that decide what the images of our datasets are, beside augmentation, which no analysis sees.
_READ = ("image_size", "image_channels")


class TrainedModel(NamedTuple):
    """A model on the device, beside a sample of its data.

    Attributes:
        folder: of its run.
        algorithm: it, in the mode training used.
        params: those that require a gradient.
        samples: of its environments.
        about: the fields of ``result_files.Origin``.
    """

    folder: Path
    algorithm: Any
    params: list[Tensor]
    samples: Samples
    about: dict[str, Any]

    def loss(self, sample: Sample) -> MeanLoss:
        """The mean loss over a sample.

        Raises:
            UserError: BatchNorm in training mode cannot normalise its smallest mini-batch.
        """
        if sample.smallest_batch < 2 and has_moving_batch_norm(self.algorithm):
            raise UserError(
                f"BatchNorm needs mini-batches of 2 images or more, {sample.name} has one of 1: --batch_size"
            )
        return MeanLoss(self.algorithm.predict, self.params, sample, len(sample))


class TrainedModels:
    """The models of several runs, opened one at a time. Each file is read once, each dataset built once.

    Args:
        runs: whose models.
        settings: which models and samples.

    Raises:
        UserError: a model is not there, damaged, or another run's.
    """

    def __init__(self, runs: Sequence[Run], settings: Settings) -> None:
        self.runs, self.settings = runs, settings
        # mapped: the tensors stay on the disk until they are copied into a network
        self._contents = [load_model(run.folder / settings.checkpoint, mapped=True) for run in runs]
        self._datasets: dict[str, MultipleDomainDataset] = {}
        for run, contents in zip(runs, self._contents, strict=True):
            own = contents["args"]
            unlike = [name for name in IDENTITY if own.get(name) != run.args.get(name)]
            if unlike:
                told = [f"{name} {own.get(name)} in the model, {run.args.get(name)} in the records" for name in unlike]
                raise UserError(f"{contents['path']} is another run's: {'; '.join(told)}")

    def check_same_shapes(self) -> None:
        """Refuse to compare models that have no common directions.

        Raises:
            UserError: two models' parameters differ in shape.
        """
        shapes = [
            {name: value.shape for name, value in contents["model_dict"].items() if not name.startswith("step_state.")}
            for contents in self._contents
        ]
        for run, own in zip(self.runs, shapes, strict=True):
            if own != shapes[0]:
                raise UserError(
                    f"the models of {self.runs[0].folder} and {run.folder} have parameters of different shapes: "
                    "directions are the same only where shapes are. Compare runs of one network"
                )

    @contextmanager
    def open(self, index: int) -> Iterator[TrainedModel]:
        """Within the block, the model of ``runs[index]``, and its sample.

        Raises:
            UserError: the data are not there, of another shape or fewer than asked for, or the algorithm cannot be
                made.
        """
        run, contents, settings = self.runs[index], self._contents[index], self.settings
        args, hparams = contents["args"], contents["model_hparams"]
        dataset = self._dataset(args, hparams)
        _check_same_data(run, contents, dataset)
        split_flags = [args[name] for name in ("test_envs", "trial_seed", "holdout_fraction", "uda_holdout_fraction")]
        splits = split_environments([len(environment) for environment in dataset.datasets], *split_flags)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        algorithm = restore_algorithm(contents).to(device, torch.float64 if settings.double else torch.float32)
        with as_trained(algorithm), exact_arithmetic():
            least = 0 if has_moving_batch_norm(algorithm) else 64
            batch_size = settings.batch_size or max(int(hparams["batch_size"]), least)
            with draw_samples(dataset, splits, args["test_envs"], settings.samples, batch_size, settings.seed) as drawn:
                params = [param for param in algorithm.parameters() if param.requires_grad]
                about = _about(args, algorithm, settings, batch_size, device)
                yield TrainedModel(run.folder, algorithm, params, drawn, about)

    def _dataset(self, args: Mapping[str, Any], hparams: dict[str, Any]) -> MultipleDomainDataset:
        """The run's dataset, as evaluation sees it: only an extension's may depend on more than images' size."""
        name, given = args["dataset"], self.settings.data_dir
        place = given if given is not None else args.get("data_dir")
        is_ours = get_card(name).path.startswith("domainbed_adm.")
        read = [hparams.get(hparam) for hparam in _READ] if is_ours else (args["test_envs"], hparams)
        key = repr((name, place, read))
        if key not in self._datasets:
            self._datasets[key] = get_dataset_class(name)(place, args["test_envs"], hparams)
        check_test_envs(args["test_envs"], self._datasets[key].environments)
        return self._datasets[key]


def _check_same_data(run: Run, contents: Mapping[str, Any], dataset: MultipleDomainDataset) -> None:
    """Refuse data that the model was not trained on.

    Raises:
        UserError: the message names what differs.
    """
    sizes = [len(environment) for environment in dataset.datasets]
    trained_and_here = {
        "inputs": (tuple(contents["model_input_shape"]), tuple(dataset.input_shape)),
        "classes": (contents["model_num_classes"], dataset.num_classes),
        "source domains": (contents["model_num_domains"], len(dataset) - len(contents["args"]["test_envs"])),
        "images of each environment": (run.provenance.get("samples", sizes), sizes),
    }
    unlike = [f"{name} {there}, here {here}" for name, (there, here) in trained_and_here.items() if there != here]
    names = zip(contents["classes"] or dataset.classes, dataset.classes, strict=False)
    unlike = unlike or [f"class {there}, here {here}" for there, here in names if there != here][:1]
    if unlike:
        raise UserError(
            f"{run.folder} was trained on other data: {'; '.join(unlike)}. --data_dir names the data's folder"
        )


def _about(
    args: Mapping[str, Any], algorithm: nn.Module, settings: Settings, batch_size: int, device: torch.device
) -> dict[str, Any]:
    return {name: args[name] for name in IDENTITY} | {
        "model": settings.checkpoint,
        "samples": settings.samples,
        "batch_size": batch_size,
        "seed": settings.seed,
        "dtype": "float64" if settings.double else "float32",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "mode": _mode(algorithm),
        "versions": {module.__name__: str(module.__version__) for module in (domainbed_adm, torch, np, scipy)},
    }


def _mode(algorithm: nn.Module) -> str:
    """In words, of an algorithm within ``as_trained``."""
    in_training = {module.training for module in algorithm.modules() if isinstance(module, _BatchNorm)}
    batch_norm = {
        frozenset(): "the network has no BatchNorm",
        frozenset({True}): "BatchNorm by the statistics of each mini-batch, as in training",
        frozenset({False}): "BatchNorm frozen, by its stored statistics, as in training",
    }
    mixed = "BatchNorm as in training: by the statistics of each mini-batch, where frozen by the stored ones"
    return f"{batch_norm.get(frozenset(in_training), mixed)}; no dropout, no augmentation"
