"""Finished models on whole environments of a dataset, perhaps another one's than training's, and under attack."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import torch
from torch import Tensor

import domainbed_adm
from domainbed_adm.analysis.attack import in_input_units, projected_gradient_descent
from domainbed_adm.analysis.evaluation_files import (
    Attack,
    EnvironmentFigures,
    Evaluation,
    evaluation_path,
    load_evaluation,
    save_evaluation,
)
from domainbed_adm.analysis.run_data import RunDatasets, load_run_model
from domainbed_adm.datasets.base import MultipleDomainDataset
from domainbed_adm.datasets.cards import Normalization
from domainbed_adm.errors import NonFiniteError, UserError, unknown_name
from domainbed_adm.recorded_run import IDENTITY, Run
from domainbed_adm.run_files import MODEL
from domainbed_adm.system.console import ProgressBar, printable, warn
from domainbed_adm.system.seeding import raw_stream
from domainbed_adm.training.batches import EVALUATION_BATCH, Batch, EvaluateTask, TaskDataset
from domainbed_adm.training.evaluation import evaluate
from domainbed_adm.training.loading_processes import open_stream
from domainbed_adm.training.model_file import restore_algorithm
from domainbed_adm.training.precision import check_precision
from domainbed_adm.training.setup import worker_budget

#: Beyond [0, 1] by more than rounding, inputs are no pixels.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class EvaluationSettings:
    """What to measure."""

    dataset: str | None = None  # None: each run's own
    data_dir: str | None = None  # None: where the data lay in training
    environments: Sequence[str] | None = None  # None: those to test on
    attack: Attack | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    again: bool = False  # whether to measure what is there already
    threads: int = 1  # of torch on the CPU


class Measured(NamedTuple):
    """One run's evaluation, and the file that holds it."""

    run: Run
    evaluation: Evaluation
    path: Path
    images: int  # how many were classified now; the others had been before


class EvaluationJob(NamedTuple):
    """One run's model, and what of which dataset it is to classify."""

    run: Run
    contents: Mapping[str, Any]  # of its model's file
    dataset: MultipleDomainDataset
    environments: list[int]


def evaluate_runs(runs: Sequence[Run], settings: EvaluationSettings) -> Iterator[Measured]:
    """Measure the model of each run, and keep what was found in the run's folder after every environment.

    What the file holds of the same model, images and settings is not measured again, unless ``settings.again``. A run
    that the dataset does not fit is left out with a warning.

    Raises:
        UserError: the dataset fits no run; a model, its data or an image cannot be read; an environment is unknown;
            the inputs to attack are no pixels; the device lacks the precision; a file cannot be written.
        NonFiniteError: an output of a model is infinite or no number.
    """
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_precision(settings.precision, device)
    for job in evaluation_jobs(runs, settings):
        # a GPU computes float32 as float32, always the same
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            measured = _measure(job, settings, device)
        yield measured


def evaluation_jobs(runs: Sequence[Run], settings: EvaluationSettings) -> list[EvaluationJob]:
    """A job for each run that the dataset fits; a warning counts the others.

    Raises:
        UserError: it fits none, a model or the data cannot be read, an environment is unknown.
    """
    datasets, jobs, unfit = RunDatasets(settings.data_dir), list[EvaluationJob](), list[str]()
    for run in runs:
        contents = load_run_model(run)
        dataset = datasets.get(contents["args"], contents["model_hparams"], settings.dataset)
        if unlike := _unlike(contents, dataset):
            unfit.append(f"{dataset.card.name} does not fit the model of {run.folder}: {unlike}")
        else:
            jobs.append(EvaluationJob(run, contents, dataset, _environments(run, dataset, settings.environments)))
    if not jobs:
        more = f" ({len(unfit)} runs, none fits)" if len(unfit) > 1 else ""
        raise UserError(f"{unfit[0]}{more}. --dataset names one with its classes and input shape")
    if unfit:
        warn(f"{len(unfit)} of {len(runs)} runs left out: {unfit[0]}")
    return jobs


def _unlike(contents: Mapping[str, Any], dataset: MultipleDomainDataset) -> str:
    """What keeps the model from classifying the dataset's images; "" where nothing does."""
    normalization = dataset.normalization and [list(dataset.normalization.mean), list(dataset.normalization.std)]
    trained, here = contents["normalization"], normalization
    pairs = {
        "inputs": (tuple(contents["model_input_shape"]), tuple(dataset.input_shape)),
        "classes": (contents["model_num_classes"], dataset.num_classes),
        "mean and deviation of pixels": (trained and [list(values) for values in trained], here),
    }
    unlike = [f"{name} {theirs} in training, here {ours}" for name, (theirs, ours) in pairs.items() if theirs != ours]
    names = zip(contents["classes"] or dataset.classes, dataset.classes, strict=False)
    unlike = unlike or [f"class {theirs} in training, here {ours}" for theirs, ours in names if theirs != ours][:1]
    return "; ".join(unlike)


def _environments(run: Run, dataset: MultipleDomainDataset, asked: Sequence[str] | None) -> list[int]:
    names = dataset.environments
    if asked is not None:
        by_word = {str(i): i for i in range(len(names))} | {name: i for i, name in enumerate(names)}
        unknown = [name for name in asked if name not in by_word]
        if unknown:
            raise UserError(unknown_name(names, unknown[0], f"environment of {dataset.card.name}"))
        return list(dict.fromkeys(by_word[name] for name in asked))
    if printable(dataset.card.name) == run.dataset:
        return sorted(run.test_envs)
    return list(dataset.card.test_envs or range(len(names)))


def _measure(job: EvaluationJob, settings: EvaluationSettings, device: torch.device) -> Measured:
    run, dataset = job.run, job.dataset
    evaluation = _about(job, settings)
    path = evaluation_path(run.folder, evaluation.dataset, settings.attack)
    before = load_evaluation(path) if path.exists() else None
    if before and before.is_like(evaluation):
        evaluation = before
    known = {} if settings.again else {one.name: one.fingerprint for one in evaluation.environments}
    left = [i for i in job.environments if known.get(dataset.environments[i]) != dataset.datasets[i].fingerprint]
    total = sum(len(dataset.datasets[i]) for i in left)
    if not left:
        return Measured(run, evaluation, path, 0)
    with ProgressBar(f"{run.algorithm} on {evaluation.dataset}", total, lines=True) as bar:
        for found in _figures(job, left, settings, device, bar):
            by_name = {one.name: one for one in (*evaluation.environments, found)}
            order = [by_name[name] for name in dataset.environments if name in by_name]
            evaluation = msgspec.structs.replace(evaluation, environments=order)
            save_evaluation(evaluation, run.folder)
    return Measured(run, evaluation, path, total)


def _figures(
    job: EvaluationJob,
    environments: Sequence[int],
    settings: EvaluationSettings,
    device: torch.device,
    bar: ProgressBar,
) -> Iterator[EnvironmentFigures]:
    """The figures of these environments, one after another.

    Raises:
        NonFiniteError: an output of the model is infinite or no number.
    """
    dataset, attack = job.dataset, settings.attack
    algorithm = restore_algorithm(dict(job.contents)).to(device).requires_grad_(False)
    tasks = {i: whole_environment(i, dataset, EVALUATION_BATCH[device.type]) for i in environments}
    # no training, and so no draw, whatever the hparams say
    reader = TaskDataset(dataset.datasets, (), (), 0, {**job.contents["model_hparams"], "class_balanced": False})
    workers = worker_budget(None, dataset.N_WORKERS, os.environ)
    batches = open_stream(reader, [task for own in tasks.values() for task in own], workers, device.type == "cuda")
    for i, own in tasks.items():
        name = dataset.environments[i]
        seen = counted(islice(batches, len(own)), bar, name)
        shown = _attacked(seen, algorithm, dataset.normalization, attack, device) if attack else seen
        figures = evaluate(algorithm, shown, device, settings.precision)
        if not math.isfinite(figures[f"{name}_nll"]):
            raise NonFiniteError(f"not finite: an output of the model of {job.run.folder} on {name}")
        yield EnvironmentFigures(
            name=name,
            n=len(dataset.datasets[i]),
            accuracy=figures[f"{name}_acc"],
            nll=figures[f"{name}_nll"],
            ece=figures[f"{name}_ece"],
            fingerprint=dataset.datasets[i].fingerprint,
            device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        )


def whole_environment(i: int, dataset: MultipleDomainDataset, size: int) -> list[EvaluateTask]:
    """Those that read environment ``i`` whole, ``size`` images at a time."""
    n = len(dataset.datasets[i])
    starts = range(0, n, size)
    return [EvaluateTask(dataset.environments[i], i, tuple(range(start, min(start + size, n)))) for start in starts]


def _about(job: EvaluationJob, settings: EvaluationSettings) -> Evaluation:
    """The evaluation before anything is measured."""
    about = {name: job.run.args[name] for name in IDENTITY}
    return Evaluation(
        trained_on=about.pop("dataset"),
        **about,
        model_digest=file_digest(job.run.folder / MODEL),
        dataset=printable(job.dataset.card.name),
        attack=settings.attack,
        precision=settings.precision,
        versions={module.__name__: str(module.__version__) for module in (domainbed_adm, torch)},
        environments=[],
    )


def file_digest(path: Path) -> str:
    """32 hexadecimal digits of the file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def counted(batches: Iterator[Batch], bar: ProgressBar, name: str) -> Iterator[Batch]:
    """The batches; the bar counts their images and shows the name."""
    for batch in batches:
        yield batch
        bar.advance(len(batch.y), name)


def _attacked(
    batches: Iterator[Batch],
    algorithm: Any,
    normalization: Normalization | None,
    attack: Attack,
    device: torch.device,
) -> Iterator[Batch]:
    """The batches with the inputs moved; the algorithm is in evaluation mode.

    Raises:
        UserError: they are no pixels.
    """
    epsilon, low, high = in_input_units(attack.epsilon, normalization, device)
    for batch in batches:
        assert isinstance(batch.task, EvaluateTask)
        x, y = batch.inputs(device), batch.y.to(device)
        are_pixels = batch.x.dtype == torch.uint8 or ((x >= low - _ROUNDING) & (x <= high + _ROUNDING)).all()
        if not are_pixels:
            raise UserError(f"no attack on {batch.task.name}: its inputs are not pixels in [0, 1]")
        start = _random_start(batch, attack.seed).to(device)
        moved = projected_gradient_descent(algorithm.predict, x, y, start, attack.steps, epsilon, low, high)
        yield replace(batch, x=moved)


def _random_start(batch: Batch, seed: int) -> Tensor:
    """Uniform in [-1, 1], of the inputs' shape: a function of the seed, the environment and the image alone."""
    assert isinstance(batch.task, EvaluateTask)
    size = batch.x[0].numel()
    raw = [raw_stream(size, "attack", seed, batch.task.name, key) for key in batch.task.keys]
    return torch.from_numpy((np.stack(raw) / 2.0**63 - 1).astype(np.float32)).view(batch.x.shape)
