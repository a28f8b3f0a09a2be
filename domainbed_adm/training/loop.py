"""The training loop: step, and at each checkpoint evaluate, record and perhaps save."""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from domainbed_adm import records
from domainbed_adm.console import ProgressBar
from domainbed_adm.errors import UserError
from domainbed_adm.training.checkpoint import save_model
from domainbed_adm.training.evaluation import accuracies
from domainbed_adm.training.provenance import provenance
from domainbed_adm.training.setup import Setup
from domainbed_adm.training.stream import Batch, Schedule, TaskDataset, evaluation_tasks, open_stream


def train(run: Setup, output_dir: Path, restart: bool = False) -> None:
    """Train, and leave DomainBed's files in ``output_dir``: out.txt, err.txt, results.jsonl, model.pkl, done.

    Args:
        run: from ``set_up``.
        output_dir: made where absent.
        restart: whether to remove an earlier run there.

    Raises:
        UserError: ``output_dir`` cannot be written, or holds a run.
    """
    _claim(output_dir, restart)
    title = f"{run.args['algorithm']} on {run.args['dataset']}"
    with ProgressBar(title, run.n_steps) as bar, _teed(output_dir):
        _print_setup(run)
        _steps(run, output_dir, bar)
        if not run.args["skip_model_save"]:
            save_model(output_dir / "model.pkl", _model_contents(run))
        (output_dir / "done").write_text("done")


def _steps(run: Setup, output_dir: Path, bar: ProgressBar) -> None:
    origin = provenance(run.device, run.args["seed"], run.dataset.environments)
    tasks = TaskDataset(
        run.dataset.datasets,
        run.splits,
        run.args["test_envs"],
        run.hparams["batch_size"],
        run.args["seed"],
        run.hparams["class_balanced"],
    )
    schedule = Schedule(run.n_steps, run.checkpoint_freq, evaluation_tasks(run.splits))
    batches = open_stream(tasks, schedule, run.workers, pin_memory=run.device.type == "cuda")
    epoch_steps = min(len(split.in_) / run.hparams["batch_size"] for split in run.splits)
    since_checkpoint: dict[str, list[float]] = defaultdict(list)
    for step in range(run.n_steps):
        for name, value in _step(run, batches).items():
            since_checkpoint[name].append(value)
        bar.advance()
        if not schedule.is_checkpoint(step):
            continue
        record = {"step": step, "epoch": step / epoch_steps}
        record |= {name: float(np.mean(values)) for name, values in since_checkpoint.items()}
        since_checkpoint.clear()
        measured = accuracies(run.algorithm, schedule.evaluation, batches, run.device)
        record |= {f"env{i}_{kind}_acc": None for i in range(len(run.splits)) for kind in ("in", "out")}
        record |= {f"{name}_acc": value for name, value in measured.items()}
        record["mem_gb"] = torch.cuda.max_memory_allocated() / 2**30 if run.device.type == "cuda" else 0.0
        print(_line(record, run), flush=True)
        record |= {"hparams": run.hparams, "args": run.args, "provenance": origin}
        records.append(output_dir / records.FILE_NAME, record)
        if run.args["save_model_every_checkpoint"] and not run.args["skip_model_save"]:
            save_model(output_dir / f"model_step{step}.pkl", _model_contents(run))


def _step(run: Setup, batches: Iterator[Batch]) -> dict[str, float]:
    start = time.perf_counter()
    batch = next(batches)
    unlabeled = [x.to(run.device) for x in batch.unlabeled] if run.args["task"] == "domain_adaptation" else None
    figures = run.algorithm.update(batch.minibatches(run.device), unlabeled)
    return {**figures, "step_time": time.perf_counter() - start}


def _line(record: dict[str, Any], run: Setup) -> str:
    """One line for people: where the run is, and mean accuracies."""
    test_envs = run.args["test_envs"]
    sources = [i for i in range(len(run.splits)) if i not in test_envs]

    def mean(environments: list[int], kind: str) -> str:
        found = [record[f"env{i}_{kind}_acc"] for i in environments if record[f"env{i}_{kind}_acc"] is not None]
        return f"{np.mean(found):.3f}" if found else "-"

    left = (run.n_steps - 1 - record["step"]) * record["step_time"]
    return (
        f"step {record['step']:>5}/{run.n_steps - 1}  loss {record['loss']:.4f}  source in {mean(sources, 'in')} "
        f"out {mean(sources, 'out')}  test in {mean(test_envs, 'in')}  {record['step_time']:.3f} s/step  "
        f"{left:.0f} s left"
    )


def _model_contents(run: Setup) -> dict[str, Any]:
    normalization = run.dataset.normalization
    return {
        "args": run.args,
        "model_input_shape": run.dataset.input_shape,
        "model_num_classes": run.dataset.num_classes,
        "model_num_domains": len(run.dataset) - len(run.args["test_envs"]),
        "model_hparams": run.hparams,
        "model_dict": run.algorithm.state_dict(),
        "classes": run.dataset.classes,
        "normalization": None if normalization is None else [list(normalization.mean), list(normalization.std)],
    }


def _claim(output_dir: Path, restart: bool) -> None:
    """Make ``output_dir`` an empty place for one run's files.

    Raises:
        UserError: it cannot be, or must not.
    """
    try:
        if (output_dir / records.FILE_NAME).exists():
            if not restart:
                raise UserError(f"{output_dir} holds a run already: give another --output_dir, or --restart to redo it")
            for name in ("done", records.FILE_NAME, "model.pkl", "out.txt", "err.txt"):
                (output_dir / name).unlink(missing_ok=True)
        output_dir.mkdir(parents=True, exist_ok=True)
        probe = output_dir / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--output_dir {output_dir} cannot be written: {error.strerror}") from error
    if shutil.disk_usage(output_dir).free < 2**20:
        raise UserError(f"--output_dir {output_dir}: the disk is full")


def _print_setup(run: Setup) -> None:
    print(f"device: {run.device}, workers: {run.workers}, torch: {torch.__version__}")
    for title, values in (("args", run.args), ("hparams", run.hparams)):
        print(f"{title}: " + ", ".join(f"{name}={value}" for name, value in sorted(values.items())))
    sizes = (
        f"{name} {len(split.in_)}+{len(split.out)}"
        for name, split in zip(run.dataset.environments, run.splits, strict=True)
    )
    print(f"samples in+out: {', '.join(sizes)}", flush=True)


class _Tee:
    """Writes to a stream and to a file."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        self._file.write(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._file.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _teed(output_dir: Path) -> Iterator[None]:
    """Within the block, what is printed also goes to out.txt and err.txt, an error to err.txt."""
    with (
        (output_dir / "out.txt").open("a", encoding="utf-8") as out,
        (output_dir / "err.txt").open("a", encoding="utf-8") as err,
        redirect_stdout(_Tee(sys.stdout, out)),
        redirect_stderr(_Tee(sys.stderr, err)),
    ):
        try:
            yield
        except BaseException as error:
            err.write(f"{error}\n" if isinstance(error, UserError) else traceback.format_exc())
            raise
