"""The training loop: step, and at each checkpoint evaluate, record and save."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domainbed_adm import records
from domainbed_adm.errors import NonFiniteError, UserError
from domainbed_adm.method.batch_norm import average_statistics
from domainbed_adm.method.step import MAY_BE_NAN
from domainbed_adm.run_files import CHECKPOINT, DIFFICULTY, DIVERGED, DONE, MODEL, RESULTS, model_of_step
from domainbed_adm.system.console import ProgressBar
from domainbed_adm.system.disk import replacing
from domainbed_adm.system.seeding import seed_hash
from domainbed_adm.training.averaging import evaluate_average, schedule_of, weights_of
from domainbed_adm.training.batches import EVALUATION_BATCH, Batch, Schedule, TaskDataset, evaluation_tasks
from domainbed_adm.training.devices import check_alike
from domainbed_adm.training.evaluation import evaluate
from domainbed_adm.training.explained import torch_errors_explained
from domainbed_adm.training.held import hold
from domainbed_adm.training.loading_processes import open_stream
from domainbed_adm.training.model_file import save_model
from domainbed_adm.training.observers import check_observers, log_finished, observing, teed, warn_of_trace
from domainbed_adm.training.precision import not_scaled
from domainbed_adm.training.progress import Progress, loss_of, print_setup, summary
from domainbed_adm.training.resume import (
    Position,
    claim,
    find_position,
    follow_position,
    is_finished,
    provenance,
    save_position,
)
from domainbed_adm.training.setup import Setup


def train(run: Setup, output_dir: Path, restart: bool = False) -> None:
    """Train, and leave DomainBed's files in ``output_dir``: out.txt, err.txt, results.jsonl, model.pkl, done.

    A run that was broken off goes on from its last checkpoint and ends as if it had never stopped, on a CPU bit for
    bit; with ``restart`` an earlier run there is removed.

    Raises:
        UserError: ``output_dir`` cannot be written, or holds another run, or a flag asks what cannot be had; also with
            ``restart``, all that was there is there still.
    """
    check_observers(run)
    if run.leads:
        claim(output_dir, restart)
    if any(run.ranks.totals([run.leads and is_finished(run, output_dir)])):
        if not run.leads:
            return
        print(f"{output_dir} holds this run, finished; --restart redoes it")
        warn_of_trace(run, output_dir / DIFFICULTY)
        log_finished(run, output_dir)
        return
    if not run.leads:
        with ProgressBar("", run.n_steps) as bar:
            _steps(run, output_dir, Progress(bar), follow_position(run, output_dir), lambda record: None)
        return
    position = find_position(run, output_dir)
    with (
        observing(run, output_dir, position.next_step) as observe,
        ProgressBar(f"{run.args['algorithm']} on {run.args['dataset']}", run.n_steps, position.next_step) as bar,
        teed(output_dir),
    ):
        print_setup(run, position.next_step)
        _steps(run, output_dir, Progress(bar), position, observe)
        if not run.args["skip_model_save"]:
            save_model(output_dir / MODEL, _model_contents(run))
        _write_done(output_dir)


def _steps(
    run: Setup, output_dir: Path, progress: Progress, position: Position, observe: Callable[[records.Record], None]
) -> None:
    args, hparams = run.args, run.hparams
    held = hold(run.dataset.datasets, run.device)
    ranks = run.ranks
    share = ranks.rank, ranks.count
    tasks = TaskDataset(
        run.dataset.datasets, run.splits, args["test_envs"], args["seed"], hparams, held is not None, share
    )
    evaluation = evaluation_tasks(run.splits, EVALUATION_BATCH[run.device.type])[ranks.rank :: ranks.count]
    schedule = Schedule(run.n_steps, run.checkpoint_freq, evaluation, position.next_step)
    schedule = schedule_of(run.average, run.algorithm, schedule)
    batches = open_stream(tasks, schedule, run.workers, pin_memory=run.device.type == "cuda")
    origin = provenance(run) if run.leads else {}
    save_models = run.leads and args["save_model_every_checkpoint"] and not args["skip_model_save"]
    save_every = args["checkpoint_every"]
    last_record = run.start_time
    for step in range(position.next_step, run.n_steps):
        with _explained(run, step, output_dir):
            run.learning_rate.set(step)
            if not run.leads:  # dropout's masks are not the first rank's, and the same wherever the run goes on
                torch.manual_seed(seed_hash("rank", args["seed"], ranks.rank, step))
            figures = _step(run, batches, held)
            if run.average:
                run.average.update()
            for name, value in figures.items():
                position.since_record.setdefault(name, []).append(float(value))
            position.next_step = step + 1
            progress.bar.advance()
            progress.after_silence(f"step {step:>5}/{run.n_steps - 1}  {loss_of(figures)}")
            if schedule.is_checkpoint(step):
                record = _record(run, schedule, batches, held, position, progress)
                now = time.monotonic()
                record["wall_time"], last_record = now - last_record, now
                position.since_record = {}
                if run.leads:
                    records.append(output_dir / RESULTS, record | {"provenance": origin})
                    with ranks.apart():
                        observe(record)
                if save_models:
                    save_model(output_dir / model_of_step(step), _model_contents(run))
        if run.leads and ((step + 1) % save_every == 0 if save_every else schedule.is_checkpoint(step)):
            save_position(output_dir / CHECKPOINT, run, position)


def _record(
    run: Setup,
    schedule: Schedule,
    batches: Iterator[Batch],
    held: torch.Tensor | None,
    position: Position,
    progress: Progress,
) -> records.Record:
    """Evaluate; the record of the step just done."""
    step = position.next_step - 1
    counted = run.sources if run.dataset.card.official_split else range(len(run.splits))  # all of them in DomainBed
    epoch_steps = min(len(run.splits[i].in_) for i in counted) / run.hparams["batch_size"]
    record: records.Record = {"step": step, "epoch": step / epoch_steps}
    record |= {name: _mean(values) for name, values in position.since_record.items()}
    start = time.monotonic()

    names = dict.fromkeys(task.name for task in evaluation_tasks(run.splits))
    check_alike(run.algorithm, run.ranks)

    def evaluated() -> dict[str, float]:
        shown = _shown(batches, run, schedule, step, progress)
        return evaluate(run.algorithm, shown, run.device, run.args["precision"], run.ranks, names)

    figures = (
        evaluate_average(
            run.average,
            run.algorithm,
            run.sources,
            step == run.n_steps - 1,
            evaluated,
            lambda: _closing_inputs(run, schedule, batches, held),
        )
        if run.average
        else evaluated()
    )
    evaluation_time = time.monotonic() - start
    record |= {f"env{i}_{kind}_acc": None for i in range(len(run.splits)) for kind in ("in", "out")} | figures
    record["mem_gb"] = torch.cuda.max_memory_allocated() / 2**30 if run.device.type == "cuda" else 0.0
    progress.line(summary(run, schedule, record, evaluation_time))
    return record | {"hparams": run.hparams, "args": run.args}


def _shown(batches: Iterator[Batch], run: Setup, schedule: Schedule, step: int, progress: Progress) -> Iterator[Batch]:
    """The batches of one evaluation, while people see how far it is."""
    own = sum(len(task.keys) for task in schedule.evaluation)
    total, done = run.ranks.totals([own])[0], 0
    if step == schedule.start:
        progress.line(f"evaluating {total:,} images of {len(run.splits)} environments")
    for batch in islice(batches, len(schedule.evaluation)):
        yield batch
        done = min(total, done + len(batch.y) * run.ranks.count)  # the others are about as far
        progress.bar.advance(0, f"evaluated {done:,} of {total:,} images")
        progress.after_silence(f"evaluated {done:,} of {total:,} images")
    progress.bar.advance(0, "")


def _closing_inputs(
    run: Setup, schedule: Schedule, batches: Iterator[Batch], held: torch.Tensor | None
) -> Iterator[torch.Tensor]:
    """The inputs of the training batches that come after the last evaluation."""
    for batch in islice(batches, len(schedule.closing) - len(schedule.evaluation)):
        minibatches, _ = batch.minibatches(run.device, held)
        with run.autocast():
            yield torch.cat([x for x, _ in minibatches])
    average_statistics(run.algorithm, run.ranks)


@contextmanager
def _explained(run: Setup, step: int, output_dir: Path) -> Iterator[None]:
    try:
        with torch_errors_explained(run.in_words(step)):
            yield
    except NonFiniteError as error:
        if not run.leads:
            raise
        about = {name: run.args[name] for name in ("algorithm", "dataset", "test_envs", "seed", "trial_seed")}
        report = {"step": step, "error": str(error), **about, "hparams": run.hparams}
        with replacing(output_dir / DIVERGED) as file:
            file.write(json.dumps(report, indent=1, sort_keys=True).encode() + b"\n")
        raise NonFiniteError(
            f"{run.args['algorithm']} on {run.args['dataset']}, step {step}: {error} (lr {run.hparams['lr']:g}; "
            f"see {output_dir / DIVERGED})"
        ) from error


def _mean(values: list[float]) -> float:
    """Mean of what is a number: the rank correlation of equal scores, or a gradient that overflowed fp16, is none."""
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan


def _write_done(output_dir: Path) -> None:
    """Say that the run is whole: last of all, when everything else is on the disk. Its checkpoint is of no more use."""
    with replacing(output_dir / DONE) as file:
        file.write(b"done")
    (output_dir / CHECKPOINT).unlink(missing_ok=True)


def _step(run: Setup, batches: Iterator[Batch], held: torch.Tensor | None) -> dict[str, float]:
    start = time.perf_counter()
    minibatches, unlabeled = next(batches).minibatches(run.device, held)
    steps = run.algorithm.step.state.update_count if run.scaler else None
    with run.autocast():
        figures = run.algorithm.update(minibatches, unlabeled if run.args["task"] == "domain_adaptation" else None)
    if run.scaler:
        if run.algorithm.step.state.update_count == steps:
            raise UserError(not_scaled(run.algorithm))
        figures = _of_scaled(figures)
    for name in ["loss"] if "loss" in figures else figures:  # not every algorithm checks it itself
        if not math.isfinite(figures[name]):
            raise NonFiniteError(f"not finite: {name} {figures[name]}")
    return {**figures, "step_time": time.perf_counter() - start}


def _of_scaled(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of a step in fp16, with ``skipped_fraction``: 1 where its gradient overflowed, which is no number."""
    skipped = any(not math.isfinite(value) for name, value in figures.items() if name not in MAY_BE_NAN)
    known = {name: value if math.isfinite(value) else math.nan for name, value in figures.items()}
    return {**known, "skipped_fraction": float(skipped)}


def _model_contents(run: Setup) -> dict[str, Any]:
    normalization = run.dataset.normalization
    return {
        "args": run.args,
        "model_input_shape": run.dataset.input_shape,
        "model_num_classes": run.dataset.num_classes,
        "model_num_domains": len(run.sources),
        "model_hparams": run.hparams,
        **weights_of(run.average, run.algorithm),
        "classes": run.dataset.classes,
        "normalization": None if normalization is None else [list(normalization.mean), list(normalization.std)],
    }
