"""What the jobs of a sweep cost before they run: passes, and at a rate hours on a GPU. Loads no torch.

Counted in F, the forward pass of one image. A training step takes ``Method.passes`` F of each of its images (a plain
one 3, SAM 6), an evaluation 1 F of every image of the dataset.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from domainbed_adm.datasets.cards import get_card
from domainbed_adm.hparams_registry import hparams_of, parse
from domainbed_adm.recipes import architecture
from domainbed_adm.recorded_run import with_length
from domainbed_adm.registry import get_method, matched_steps
from domainbed_adm.sweeping.jobs import DONE, Job, with_states
from domainbed_adm.sweeping.rates import Rates
from domainbed_adm.system.console import show
from domainbed_adm.system.seeding import seed_hash
from domainbed_adm.training.sampling import steps_per_epoch

#: Hparams that a job's cost depends on; those of them that are searched are drawn.
_READ = (
    *("batch_size", "sampling", "drop_last", "backbone", "resnet18", "image_size", "cnn_width"),
    *("weighting", "adm_estimator", "adm_refresh", "warmup_fraction", "flatness_start", "averaging"),
)


class Cost(NamedTuple):
    """Of one job: F of its training steps and of its evaluations (0 where the images are not counted), and its kind."""

    passes: float  # F a step takes of each image
    training: float
    evaluation: float
    network: str  # and precision, which the seconds depend on


class Environments(NamedTuple):
    """What a job trains on and evaluates: images of each environment (none where they are not known)."""

    sizes: tuple[int, ...]
    sources: tuple[int, ...]


def job_cost(job: Job, sizes: Mapping[str, tuple[int, ...]] = {}) -> Cost:  # noqa: B006 - never changed
    """What a job costs; ``sizes`` are the images of each environment of datasets whose card does not say."""
    args = job.train_args
    seed = seed_hash(args["hparams_seed"], args["trial_seed"]) if args["hparams_seed"] else None
    held_out, known = tuple(args["test_envs"]), sizes.get(args["dataset"], ())
    length = args.get("steps"), args.get("epochs"), args.get("match_passes"), args.get("checkpoint_freq")
    about = args["algorithm"], args["dataset"], args.get("hparams"), seed
    return _cost(about, held_out, args["holdout_fraction"], length, args.get("precision", "fp32"), known)


@cache
def _cost(
    about: tuple[str, str, str | None, int | None],
    held_out: tuple[int, ...],
    holdout: float,
    length: tuple[int | None, int | None, str | None, int | None],
    precision: str,
    known: tuple[int, ...],
) -> Cost:
    algorithm, dataset, given, _ = about
    hparams, environments = _hparams(*about), _environments(dataset, held_out, known)
    in_splits = [
        environments.sizes[i] - int(environments.sizes[i] * holdout) for i in environments.sources if environments.sizes
    ]
    steps = _steps(algorithm, dataset, given, hparams, in_splits, length)
    if in_splits and hparams["sampling"] == "epoch":
        images = sum(steps * size / steps_per_epoch(size, hparams) for size in in_splits)
    else:
        images = steps * hparams["batch_size"] * len(environments.sources)
    evaluations = _evaluations(steps, length[3] or get_card(dataset).checkpoint_freq)
    # averaged weights are evaluated beside the last ones: of EMA each time, of SWAD at the end
    evaluations += {"ema": evaluations, "swad": 1}.get(hparams["averaging"], 0)
    passes = get_method(algorithm).passes(**hparams)
    network = f"{architecture(dataset, hparams)}, {precision}"
    return Cost(passes, passes * images, evaluations * sum(environments.sizes), network)


@cache
def _hparams(algorithm: str, dataset: str, given: str | None, seed: int | None) -> dict[str, Any]:
    hparams = {}
    for name, hparam in _specs(algorithm, dataset).items():
        drawn = seed is not None and hparam.draw is not None
        random = np.random.RandomState(seed_hash(seed, name)) if drawn else None
        hparams[name] = hparam.draw.draw(random) if hparam.draw and random else hparam.default
    return hparams | {name: value for name, value in (parse(given) if given else {}).items() if name in hparams}


@cache
def _specs(algorithm: str, dataset: str) -> dict[str, Any]:
    return {name: hparam for name, hparam in hparams_of(algorithm, dataset).items() if name in _READ}


@cache
def _environments(dataset: str, held_out: tuple[int, ...], known: tuple[int, ...]) -> Environments:
    card = get_card(dataset)
    count = len(card.environments or known)
    sizes = card.sizes[0] if card.sizes else known
    if card.train_of and (clean := get_card(card.train_of).sizes):
        sizes = (clean[0][0], *[clean[0][1]] * (count - 1))
    sources = tuple(i for i in range(max(count, len(sizes))) if i not in held_out)
    return Environments(sizes if len(sizes) == count else (), sources or (0,))


def _steps(
    algorithm: str,
    dataset: str,
    given: str | None,
    hparams: dict[str, Any],
    in_splits: list[int],
    length: tuple[int | None, int | None, str | None, int | None],
) -> int:
    """As ``training.setup`` counts them where the images are known."""
    steps, epochs, match_passes, _ = length
    args = {"algorithm": algorithm, "dataset": dataset, "hparams": given, "steps": steps, "epochs": epochs}
    epochs = epochs or get_card(dataset).n_epochs
    if steps or not epochs or not in_splits:
        return Job(args | {"match_passes": match_passes}, Path()).n_steps
    steps = epochs * min(steps_per_epoch(size, hparams) for size in in_splits)
    return matched_steps(steps, algorithm, match_passes, parse(given) if given else {}) if match_passes else steps


def _evaluations(steps: int, every: int) -> int:
    """At step 0, at every so many steps, and at the last."""
    return (steps - 1) // every + 1 + bool((steps - 1) % every)


def show_cost(jobs: Sequence[Job], rates: Rates | None) -> None:
    """Print what the jobs that are not done cost, by method, and what was assumed."""
    todo = [job for job, state in with_states(jobs) if state != DONE]
    if not todo:
        return
    every = [(job, job_cost(job, rates.sizes if rates else {})) for job in todo]
    costs = [(job, cost) for job, cost in every if not math.isnan(cost.passes)]
    todo = [job for job, _ in costs]
    if unknown := dict.fromkeys(job.train_args["algorithm"] for job, cost in every if math.isnan(cost.passes)):
        print(f"Without {', '.join(unknown)}: DomainBed's algorithms do not say how many passes they spend")
    if not todo:
        return
    seconds = [_seconds(job, cost, rates) for job, cost in costs]
    lengths = Counter(name for name, _ in {(job.train_args["algorithm"], job.train_args.get("epochs")) for job in todo})
    groups: dict[str, list[int]] = {}
    for i, (job, _) in enumerate(costs):
        args = job.train_args
        name, epochs, other = args["algorithm"], args.get("epochs"), args.get("match_passes")
        groups.setdefault(with_length(name, epochs if lengths[name] > 1 else None, other), []).append(i)
    rows = []
    for name, own in groups.items():
        passes = sorted({costs[i][1].passes for i in own})
        row = [name, str(len(own)), " to ".join(f"{x:g}" for x in dict.fromkeys((passes[0], passes[-1])))]
        row += [f"{sum(costs[i][1].training for i in own):.3g}", f"{sum(costs[i][1].evaluation for i in own):.3g}"]
        rows.append(row + ([_hours(seconds[i] for i in own)] if rates else []))
    columns = ("algorithm", "jobs to run", "F a step", "F of training", "F of evaluation")
    show((*columns, *(["hours"] if rates else [])), rows)
    training, evaluation = (sum(getattr(cost, name) for _, cost in costs) for name in ("training", "evaluation"))
    print(f"Cost: {training + evaluation:.3g} F, of which evaluation {evaluation:.3g}; F: a forward pass of one image")
    uncounted = dict.fromkeys(job.train_args["dataset"] for job, cost in costs if not cost.evaluation)
    if uncounted:
        print(f"Without evaluation on {', '.join(uncounted)}, whose images are not counted here")
    if rates is None:
        print("For hours give --images_per_second, those of plain training, or --rate_from runs or a benchmark's file")
        return
    _show_hours([job for job, _ in costs], [cost for _, cost in costs], seconds, rates)


def _seconds(job: Job, cost: Cost, rates: Rates | None) -> float | None:
    if rates is None:
        return None
    known = rates.seconds_of(cost.network, job.train_args["algorithm"])
    evaluating = rates.seconds_of(cost.network, "ERM")
    return None if known is None or evaluating is None else cost.training * known + cost.evaluation * evaluating


def _show_hours(jobs: list[Job], costs: list[Cost], seconds: list[float | None], rates: Rates) -> None:
    datasets: dict[str, list[float | None]] = {}
    for job, one in zip(jobs, seconds, strict=True):
        datasets.setdefault(job.train_args["dataset"], []).append(one)
    each = ", ".join(f"{name} {_hours(own)}" for name, own in datasets.items())
    print(f"About {_hours(seconds)} hours, GPU hours where the rate is a GPU's, one job at a time ({each})")
    absent = Counter(cost.network for cost, one in zip(costs, seconds, strict=True) if one is None)
    for network, count in absent.items():
        print(f"No rate for {network}: {count} jobs are not in the sum; measured: {', '.join(rates.networks)}")
    print(f"Assumed: {rates.about}; the passes of the methods' cards;")
    print(
        "an evaluation takes 1 F of each image at the same rate; no start-up, no difficulty traces, and no step that is"
    )
    print("slower than where the rate was taken")


def _hours(seconds: Iterable[float | None]) -> str:
    known = [one for one in seconds if one is not None]
    hours = sum(known) / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}" if known else "-"
