"""How fast a whole run is, from outside, and how fast its network alone would be on tensors that are in memory already.

Both are told as images per second in training and in evaluation. The former comes from the times at which a run's
records appear and from their ``step_time``, which DomainBed's have too, so that the two are measured alike.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from domainbed_adm.errors import UserError
from domainbed_adm.run_args import RunArgs, words
from domainbed_adm.run_files import RESULTS
from domainbed_adm.training.batches import EVALUATION_BATCH, Batch, EvaluateTask, TrainTask
from domainbed_adm.training.evaluation import evaluate
from domainbed_adm.training.setup import Setup, set_up


@dataclass(frozen=True)
class Rates:
    """Images per second in training and evaluation; ``seconds`` are those of the whole run, start and end included."""

    training: float
    evaluation: float
    seconds: float


def timed_run(command: Sequence[str], folder: Path, images: int, evaluated: int, **options: object) -> Rates:
    """Run a ``train`` command, ours or DomainBed's, that writes to ``folder``.

    Args:
        command: the words.
        folder: ``--output_dir``; must not exist.
        images: of one step.
        evaluated: images of one evaluation.
        options: of ``subprocess.Popen``.

    Raises:
        UserError: the command failed, or made fewer than two records; with its last lines.
    """
    folder.mkdir(parents=True)
    results, log = folder / RESULTS, folder / "log.txt"
    appeared: list[float] = []
    start, size = time.monotonic(), 0
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)  # type: ignore[call-overload]
        try:
            while process.poll() is None:
                time.sleep(0.01)
                if results.exists() and results.stat().st_size > size:
                    size = results.stat().st_size
                    appeared.append(time.monotonic())
        finally:
            process.kill()
    seconds = time.monotonic() - start
    if process.returncode or len(appeared) < 2:
        raise UserError(f"{' '.join(command[:4])} ... failed:\n{log.read_text()[-2000:]}")
    records = [json.loads(line) for line in results.read_text().splitlines()]
    steps = records[-1]["step"] - records[0]["step"]
    training = sum(b["step_time"] * (b["step"] - a["step"]) for a, b in zip(records, records[1:], strict=False))
    evaluation = appeared[-1] - appeared[0] - training
    return Rates(steps * images / training, (len(records) - 1) * evaluated / evaluation, seconds)


@dataclass
class Floor:
    """The same network, batches, step and precision as of a run, on tensors that are in memory already."""

    run: Setup

    @classmethod
    def of(cls, args: RunArgs) -> Floor:
        """Of the run that these flags describe; makes its cache, too, where it has one."""
        return cls(set_up(args))

    def batch(self, size: int, training: bool) -> Batch:
        """A batch of random inputs, ``size`` of each source domain to train on, or of one to evaluate."""
        run, domains = self.run, len(self.run.sources) if training else 1
        random = torch.Generator().manual_seed(0)
        n = domains * size
        task = TrainTask(0) if training else EvaluateTask("env0_in", 0, tuple(range(n)))
        x = torch.randn(n, *run.dataset.input_shape, generator=random).to(run.device)
        y = torch.randint(run.dataset.num_classes, (n,), generator=random).to(run.device)
        return Batch(task, x, y, torch.arange(n), [size] * domains, 0, None)

    def training(self, seconds: float) -> float:
        """Images per second of training steps, measured for so many seconds."""
        minibatches, _ = self.batch(self.run.hparams["batch_size"], training=True).minibatches(self.run.device)

        def step() -> None:
            with self.run.autocast():
                self.run.algorithm.update(minibatches)

        return sum(len(y) for _, y in minibatches) / _mean_seconds(step, seconds)

    def evaluation(self, seconds: float, size: int | None = None) -> float:
        """Images per second of evaluation in batches of ``size``, of a run's where None is given."""
        run = self.run
        batch = self.batch(size or EVALUATION_BATCH[run.device.type], training=False)
        count = 8

        def evaluation() -> None:
            evaluate(run.algorithm, [batch] * count, run.device, run.args["precision"])

        return count * len(batch.y) / _mean_seconds(evaluation, seconds)

    def rates(self, seconds: float) -> Rates:
        """Both, measured for so many seconds each, and how long such a run would take."""
        training, evaluation = self.training(seconds), self.evaluation(seconds)
        images, evaluated = self.run.n_steps * self.images, self.evaluations * self.evaluated
        return Rates(training, evaluation, images / training + evaluated / evaluation)

    @property
    def images(self) -> int:
        """Images of one step."""
        return len(self.run.sources) * int(self.run.hparams["batch_size"])

    @property
    def evaluated(self) -> int:
        """Images of one evaluation."""
        return sum(map(len, self.run.dataset.datasets))

    @property
    def evaluations(self) -> int:
        """How often such a run is evaluated."""
        return len(self.run.checkpoints_before(self.run.n_steps))


def beside_floor(args: RunArgs, seconds: float) -> tuple[Rates, Rates]:
    """One run of ours and its floor, the mean of ``seconds`` before it and ``seconds`` after it.

    Its cache is made before, where it has one.
    """
    floor = Floor.of(args)
    before = floor.rates(seconds)
    if floor.run.device.type == "cuda":
        torch.cuda.empty_cache()  # the run is another process on the same device
    command = [sys.executable, "-m", "domainbed_adm", "train", *words(vars(args))]
    rates = timed_run(command, Path(args.output_dir), floor.images, floor.evaluated, env=environment())
    pairs = zip(vars(before).values(), vars(floor.rates(seconds)).values(), strict=True)
    return rates, Rates(*map(statistics.mean, pairs))


def _mean_seconds(call: Callable[[], None], seconds: float) -> float:
    """Mean time of a call that ends with the host waiting for the device; two before, which warm up, do not count."""
    call()
    call()
    calls, start = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - start < seconds:
        call()
        calls += 1
    return (time.perf_counter() - start) / calls


def environment(**more: str) -> Mapping[str, str]:
    """This process's, without a limit of threads, and with this checkout on the Python path."""
    kept = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    path = os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), kept.get("PYTHONPATH"))))
    return kept | {"PYTHONPATH": path} | more
