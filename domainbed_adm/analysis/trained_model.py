"""A run's model, in the mode training used and moved by nothing, and a sample of its data.

Images are as evaluation sees them (no augmentation), from in-splits: those of the source domains are the training
images. They are decoded once into temporary files, so that memory is that of one mini-batch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import domainbed_adm
from domainbed_adm.analysis.mean_loss import MeanLoss, exact_arithmetic
from domainbed_adm.analysis.run_data import RunDatasets, load_run_model
from domainbed_adm.analysis.runs import Settings
from domainbed_adm.datasets.base import Environment, MultipleDomainDataset
from domainbed_adm.errors import UserError
from domainbed_adm.method.side_effects import as_trained, has_moving_batch_norm
from domainbed_adm.recorded_run import IDENTITY, Run
from domainbed_adm.system.disk import writing
from domainbed_adm.system.seeding import seed_hash
from domainbed_adm.training.batches import Splits, split_environments
from domainbed_adm.training.model_file import restore_algorithm
from domainbed_adm.training.setup import check_test_envs

#: Images of each domain where the user does not say.
DEFAULT_SIZE = 48
SOURCE, POOLED, TEST = "source", "pooled", "test"


class Sample:
    """Images of one domain or of several together; iterating yields its mini-batches (x, y), the same every time.

    Several domains have an equal share in each mini-batch, as in training: as many images of each as the smallest has.
    Mini-batches are as equal in size as they can be.

    Args:
        name: of the environment or environments.
        role: ``SOURCE``, ``POOLED`` (all source domains) or ``TEST``.
        parts: of each domain, inputs of shape (n, *input_shape) and targets of shape (n,).
        batch_size: most images of each domain in a mini-batch.
    """

    def __init__(self, name: str, role: str, parts: Sequence[tuple[np.ndarray, np.ndarray]], batch_size: int) -> None:
        self.name, self.role, self.parts, self.batch_size = name, role, parts, batch_size
        share = min(len(targets) for _, targets in parts)
        batches = -(-share // batch_size)
        self._edges = [share * i // batches for i in range(batches + 1)]
        self.smallest_batch = min(end - start for start, end in pairwise(self._edges)) * len(parts)

    def __len__(self) -> int:
        return self._edges[-1] * len(self.parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start, end in pairwise(self._edges):
            x, y = (np.concatenate([part[i][start:end] for part in self.parts]) for i in range(2))
            yield torch.from_numpy(x), torch.from_numpy(y)


class Samples(NamedTuple):
    """The samples of a run: one for each source and each test environment; all of each kind together."""

    sources: list[Sample]
    tests: list[Sample]
    pooled: Sample
    test: Sample


@contextmanager
def draw_samples(
    dataset: MultipleDomainDataset,
    splits: Sequence[Splits],
    test_envs: Sequence[int],
    size: int | None,
    batch_size: int,
    seed: int,
) -> Iterator[Samples]:
    """Within the block, ``size`` images of every environment's in-split: the same for all runs of one split.

    They are drawn without replacement; None: ``DEFAULT_SIZE``, or all where there are fewer. A mini-batch has
    ``batch_size`` images of each domain at most.

    Raises:
        UserError: an in-split is smaller than ``size`` or empty, an image cannot be decoded, the disk is full.
    """
    sizes = [len(split.in_) for split in splits]
    if min(sizes) < (size or 1):
        named = ", ".join(f"{name} {count}" for name, count in zip(dataset.environments, sizes, strict=True))
        asked = f"--samples {size} is more than an in-split holds" if size else "an in-split is empty"
        raise UserError(f"{asked}; images of each environment: {named}")
    with tempfile.TemporaryDirectory(prefix="domainbed-adm-") as folder:
        samples = []
        for i, environment in enumerate(dataset.datasets):
            keys = np.array(splits[i].in_)
            order = np.random.RandomState(seed_hash("analysis sample", seed, i)).permutation(len(keys))
            part = _stored(environment, keys[order[: size or DEFAULT_SIZE]], Path(folder) / str(i))
            role = TEST if i in test_envs else SOURCE
            samples.append(Sample(dataset.environments[i], role, [part], batch_size))
        sources, tests = [sample for sample in samples if sample.role == SOURCE], [samples[i] for i in test_envs]
        names = {POOLED: "pooled", TEST: " + ".join(sample.name for sample in tests)}
        pooled, test = (
            Sample(names[role], role, [part for sample in several for part in sample.parts], batch_size)
            for role, several in ((POOLED, sources), (TEST, tests))
        )
        yield Samples(sources, tests, pooled, test)


def _stored(environment: Environment, keys: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of these images, decoded into a file and read from there, and their targets."""
    with writing(path), path.open("wb") as file:
        for key in keys:
            x = environment[int(key)][0].numpy()
            file.write(np.ascontiguousarray(x).tobytes())
    inputs = np.memmap(path, x.dtype, "r", shape=(len(keys), *x.shape))
    return inputs, np.asarray(environment.targets)[keys].astype(np.int64)


class TrainedModel(NamedTuple):
    """A model on the device, beside a sample of its data."""

    folder: Path  # of its run
    algorithm: Any  # in the mode training used
    params: list[Tensor]  # those that require a gradient
    samples: Samples
    about: dict[str, Any]  # the fields of ``result_files.Origin``

    def loss(self, sample: Sample) -> MeanLoss:
        """The mean loss over a sample.

        Raises:
            UserError: BatchNorm in training mode cannot normalise its smallest mini-batch.
        """
        if sample.smallest_batch < 2 and has_moving_batch_norm(self.algorithm):
            raise UserError(
                f"BatchNorm needs mini-batches of 2 images or more, {sample.name} has one of 1: change --batch_size"
            )
        return MeanLoss(self.algorithm.predict, self.params, sample, len(sample))


class TrainedModels:
    """The models of several runs, opened one at a time. Each file is read once, each dataset built once.

    Raises:
        UserError: a model is not there, damaged, or another run's.
    """

    def __init__(self, runs: Sequence[Run], settings: Settings) -> None:
        self.runs, self.settings = runs, settings
        torch.set_num_threads(settings.threads)  # more, on busy cores, wait for each other
        self._contents = [load_run_model(run, settings.checkpoint) for run in runs]
        self._datasets = RunDatasets(settings.data_dir)

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
        dataset = self._datasets.get(args, hparams)
        check_test_envs(args["test_envs"], dataset.environments, dataset.card)
        _check_same_data(run, contents, dataset)
        split_flags = [args[name] for name in ("test_envs", "trial_seed", "holdout_fraction", "uda_holdout_fraction")]
        splits = split_environments(
            [len(environment) for environment in dataset.datasets], *split_flags, whole=dataset.card.test_envs or ()
        )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        algorithm = restore_algorithm(contents).to(device, torch.float64 if settings.double else torch.float32)
        with as_trained(algorithm), exact_arithmetic():
            least = 0 if has_moving_batch_norm(algorithm) else 64
            batch_size = settings.batch_size or max(int(hparams["batch_size"]), least)
            with draw_samples(dataset, splits, args["test_envs"], settings.samples, batch_size, settings.seed) as drawn:
                params = [param for param in algorithm.parameters() if param.requires_grad]
                about = _about(args, algorithm, settings, batch_size, device)
                yield TrainedModel(run.folder, algorithm, params, drawn, about)


def _check_same_data(run: Run, contents: Mapping[str, Any], dataset: MultipleDomainDataset) -> None:
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
        "samples": settings.samples or DEFAULT_SIZE,
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
