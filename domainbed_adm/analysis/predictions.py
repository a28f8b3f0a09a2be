"""``analyze predictions``: the class a run's model gives each image of the environments held out, and how hard each is.

The model is in evaluation mode, images are as evaluation sees them, an environment is taken whole. A score is what
``method.difficulty`` gives the image there, so that it does not depend on the other images of its batch but by ADM's
normalisation over a batch where the run asks for one. Cost: 5 F of each image, and 1 F for each forward pass that a
difficulty asks for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

import domainbed_adm
from domainbed_adm.analysis.evaluation import (
    EvaluationJob,
    EvaluationSettings,
    counted,
    evaluation_jobs,
    file_digest,
    whole_environment,
)
from domainbed_adm.analysis.prediction_files import About, Predictions, load_predictions
from domainbed_adm.analysis.runs import labels
from domainbed_adm.datasets.base import MultipleDomainDataset, constants
from domainbed_adm.errors import NonFiniteError
from domainbed_adm.method.cards import DIFFICULTIES
from domainbed_adm.method.difficulty import Difficulty, Probe
from domainbed_adm.method.passes import cross_entropy
from domainbed_adm.recorded_run import IDENTITY, Run
from domainbed_adm.run_files import MODEL
from domainbed_adm.system.console import ProgressBar, printable, show
from domainbed_adm.training.batches import EVALUATION_BATCH, Batch, TaskDataset
from domainbed_adm.training.loading_processes import open_stream
from domainbed_adm.training.model_file import restore_algorithm
from domainbed_adm.training.setup import worker_budget


def analyze_predictions(runs: Sequence[Run], settings: EvaluationSettings, per_end: int, size: int) -> None:
    """Predict with the model of each run, keep ``predictions.npz`` in its folder, and print accuracies.

    Of each environment and difficulty the ``per_end`` easiest and hardest images are kept as thumbnails of at most
    ``size`` pixels. A file of the same model, images and settings is not made again, unless ``settings.again``.

    Raises:
        UserError: a model, its data or an image cannot be read, the dataset fits no model, a file cannot be written.
        NonFiniteError: an output of a model is infinite or no number.
    """
    torch.set_num_threads(settings.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    jobs = evaluation_jobs(runs, settings)
    rows = []
    for name, job in zip(labels([job.run.args for job in jobs]), jobs, strict=True):
        about = _about(job, per_end, size)
        found = None if settings.again else load_predictions(job.run)
        if found is None or found.about != about:
            found = _predict(job, about, device)
            print(f"{name}: {found.save(job.run.folder)}", file=sys.stderr, flush=True)
        rows += [[name, *row] for row in _rows(found)]
    show(("run", "environment", "images", "accuracy %", "worst class", "its accuracy %"), rows)
    print("report shows confusions, accuracy by class and by difficulty, and the easiest and hardest images.")


def _about(job: EvaluationJob, per_end: int, size: int) -> About:
    names = {i: job.dataset.environments[i] for i in job.environments}
    return About(
        **{name: job.run.args[name] for name in IDENTITY},
        model_digest=file_digest(job.run.folder / MODEL),
        classes=[printable(name) for name in job.dataset.classes],
        environments={str(i): printable(name) for i, name in names.items()},
        fingerprints={str(i): job.dataset.datasets[i].fingerprint for i in names},
        per_end=per_end,
        size=size,
        versions={module.__name__: str(module.__version__) for module in (domainbed_adm, torch)},
    )


def _predict(job: EvaluationJob, about: About, device: torch.device) -> Predictions:
    dataset, hparams = job.dataset, dict(job.contents["model_hparams"])
    algorithm = restore_algorithm(dict(job.contents)).to(device).requires_grad_(False)
    algorithm.eval()
    difficulties = _difficulties(hparams, dataset)
    tasks = {i: whole_environment(i, dataset, EVALUATION_BATCH[device.type]) for i in job.environments}
    reader = TaskDataset(dataset.datasets, (), (), 0, {**hparams, "class_balanced": False})
    workers = worker_budget(None, dataset.N_WORKERS, os.environ)
    batches = open_stream(reader, [task for own in tasks.values() for task in own], workers, device.type == "cuda")
    parts: list[dict[str, np.ndarray]] = []
    with ProgressBar(f"predict {job.run.algorithm}", sum(len(dataset.datasets[i]) for i in tasks), lines=True) as bar:
        for i, own in tasks.items():
            for batch in counted(islice(batches, len(own)), bar, dataset.environments[i]):
                part = _scored(algorithm, batch, difficulties, device)
                if not np.isfinite(part["score_Loss"]).all():
                    raise NonFiniteError(f"not finite: an output of the model of {job.run.folder}")
                n = len(part["label"])
                start = sum(len(one["label"]) for one in parts if one["environment"][0] == i)
                parts.append(part | {"environment": np.full(n, i), "sample": np.arange(start, start + n)})
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    scores = {name: columns.pop(f"score_{name}") for name in difficulties}
    shown = _ends(columns["environment"], scores, about.per_end)
    places = [(int(columns["environment"][k]), int(columns["sample"][k])) for k in shown]
    return Predictions(
        about, scores=scores, shown=shown, thumbnails=_thumbnails(dataset, places, about.size), **columns
    )


def _scored(
    algorithm: Any, batch: Batch, difficulties: Mapping[str, Difficulty], device: torch.device
) -> dict[str, np.ndarray]:
    """The columns of one batch, without where its images lie."""
    x, y = batch.inputs(device).detach().requires_grad_(), batch.y.to(device)
    logits = algorithm.predict(x)
    losses = cross_entropy(logits, y)
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    losses_at = torch.no_grad()(lambda other: cross_entropy(algorithm.predict(other), y))
    probe = Probe(x.detach(), losses.detach(), lambda: gradient, losses_at)
    best = logits.detach().float().softmax(1).max(1)
    found: dict[str, Tensor] = {"label": y, "predicted": best.indices, "probability": best.values}
    found |= {f"score_{name}": difficulty(probe).float() for name, difficulty in difficulties.items()}
    return {name: values.cpu().numpy() for name, values in found.items()}


def _difficulties(hparams: Mapping[str, Any], dataset: MultipleDomainDataset) -> dict[str, Difficulty]:
    """Every difficulty that measures something, exact, with the run's hparams or else the defaults."""
    std = dataset.normalization.std if dataset.normalization else None
    found: dict[str, Difficulty] = {}
    for card in (card for card in DIFFICULTIES.values() if not card.only_by_name):
        own = {hparam.name: hparam.default for hparam in card.hparams} | dict(hparams)
        own |= {"input_std": std, "total_steps": 1}
        if card.estimate:
            own[card.estimate.hparam.name] = card.estimate.hparam.default
        found[card.name] = card.build(own)
    return found


def _ends(environment: np.ndarray, scores: Mapping[str, np.ndarray], per_end: int) -> np.ndarray:
    """Which images are the easiest and hardest of each environment by each difficulty, each once."""
    kept: dict[int, None] = {}
    for i in np.unique(environment):
        own = np.flatnonzero(environment == i)
        for values in scores.values():
            order = own[np.argsort(values[own], kind="stable")]
            ends = [*order[:per_end], *order[::-1][:per_end]] if per_end else []
            kept |= dict.fromkeys(int(k) for k in ends)
    return np.array(sorted(kept), dtype=np.int64)


def _thumbnails(dataset: MultipleDomainDataset, places: Sequence[tuple[int, int]], size: int) -> np.ndarray:
    """These images as evaluation sees them, reduced to at most ``size`` pixels, uint8 (K, height, width, channels)."""
    channels, height, width = dataset.input_shape
    factor = min(1.0, size / max(height, width))
    shape = max(1, round(height * factor)), max(1, round(width * factor))
    images = []
    for environment, sample in places:
        x = dataset.datasets[environment][sample][0].float()
        if normal := dataset.normalization:
            mean, std = (constants(values, x.device).view(-1, 1, 1) for values in (normal.mean, normal.std))
            x = x * std + mean
        if channels not in (1, 3):  # as ColoredMNIST's two: each a colour, the third dark
            x = torch.cat([x, torch.zeros(max(0, 3 - channels), height, width)])[:3]
        small = torch.nn.functional.interpolate(x[None], shape, mode="bilinear", antialias=True)[0]
        images.append((small.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
    return np.stack(images) if images else np.zeros((0, *shape, 3), np.uint8)


def _rows(found: Predictions) -> list[list[str]]:
    rows = []
    for index, name in found.about.environments.items():
        own = found.environment == int(index)
        right, label = found.correct[own], found.label[own]
        by_class = {k: float(right[label == k].mean()) for k in np.unique(label).tolist()}
        worst = min(by_class, key=lambda k: by_class[k])
        percent = f"{100 * float(right.mean()):.1f}"
        rows.append([name, str(len(right)), percent, found.about.classes[worst], f"{100 * by_class[worst]:.1f}"])
    return rows
