"""From flags to everything a run needs. All of it is checked here, before the run writes its first file."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch

from domainbed_adm import hparams_registry
from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.base import MultipleDomainDataset
from domainbed_adm.datasets.cards import DatasetCard
from domainbed_adm.datasets.environment_names import numbered
from domainbed_adm.errors import UserError
from domainbed_adm.method.averaging import EMA, SWAD
from domainbed_adm.method.ranks import ALONE, Ranks
from domainbed_adm.registry import get_method, load_checkout, matched_steps
from domainbed_adm.run_args import RunArgs
from domainbed_adm.system.console import warn
from domainbed_adm.system.process import WORKERS_VARIABLE, cpu_count
from domainbed_adm.system.seeding import seed_hash
from domainbed_adm.training.averaging import make_average
from domainbed_adm.training.batches import Schedule, Splits, split_environments
from domainbed_adm.training.compilation import check_compiles, compile_network
from domainbed_adm.training.devices import check_shares, device_of, named_device, share_out
from domainbed_adm.training.explained import torch_errors_explained
from domainbed_adm.training.learning_rate import LearningRate
from domainbed_adm.training.object_state import capture, not_kept
from domainbed_adm.training.precision import autocast, check_precision, scale_losses
from domainbed_adm.training.sampling import steps_per_epoch
from domainbed_adm.upstream.hosted import checkout_of
from domainbed_adm.upstream.methods import HostMethod


@dataclass
class Setup:
    """A run, checked and built, that has written nothing yet.

    ``args`` are the flags that its records keep; ``algorithm`` is on ``device``; ``trace_difficulty`` is the number of
    training images to score at each checkpoint, True for the default number, None for no trace, which the logger
    tensorboard turns on; ``loggers`` are the names of those that watch; ``start_time`` is of ``time.monotonic``, and
    ``start_up`` has the seconds that each part of the start took. ``average`` is what hparam ``averaging`` asks for,
    ``ranks`` are the processes that train the run.
    ``kinds`` has what an algorithm of DomainBed's held when it was new (``object_state``), None of our
    own; ``told`` what of it is said to be in no checkpoint.
    """

    args: dict[str, Any]
    hparams: dict[str, Any]
    dataset: MultipleDomainDataset
    splits: list[Splits]
    algorithm: Any
    device: torch.device
    n_steps: int
    checkpoint_freq: int
    workers: int
    trace_difficulty: int | Literal[True] | None
    loggers: list[str]
    start_time: float
    start_up: dict[str, float]
    average: EMA | SWAD | None = None
    ranks: Ranks = ALONE
    kinds: dict[str, str] | None = None
    told: set[str] = field(default_factory=set)

    @property
    def leads(self) -> bool:
        """Whether this process writes the run's files."""
        return self.ranks.rank == 0

    def in_words(self, step: int | None = None) -> str:
        """What is run, on how much data at a time, for messages."""
        return (
            f"{self.args['algorithm']} on {self.args['dataset']}{'' if step is None else f', step {step}'}, "
            f"{len(self.sources)} domains x batch_size {self.hparams['batch_size']}, "
            f"inputs {tuple(self.dataset.input_shape)}, on {self.device}"
        )

    @property
    def sources(self) -> list[int]:
        """The environments to train on."""
        return [i for i in range(len(self.dataset)) if i not in self.args["test_envs"]]

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales the losses of fp16, on the algorithm's step; None in another precision."""
        return self.algorithm.step.scaler if self.args["precision"] == "fp16" else None

    @property
    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The algorithm's, by the names of its attributes."""
        return {name: value for name, value in vars(self.algorithm).items() if isinstance(value, torch.optim.Optimizer)}

    @cached_property
    def learning_rate(self) -> LearningRate:
        """Sets the rates of the optimizers, each step; to be asked for before a checkpoint is loaded into them."""
        return LearningRate(self.optimizers.values(), self.n_steps, self.hparams)

    def autocast(self) -> AbstractContextManager[Any]:
        """Within the block, passes are computed in the run's precision."""
        return autocast(self.args["precision"], self.device)

    def checkpoints_before(self, next_step: int) -> list[int]:
        """The steps that are recorded before ``next_step``."""
        schedule = Schedule(self.n_steps, self.checkpoint_freq, ())
        return [step for step in range(next_step) if schedule.is_checkpoint(step)]


def set_up(args: RunArgs, ranks: Ranks = ALONE) -> Setup:
    """Build the run that these flags describe, and set this process, one of ``ranks``, to its number of threads.

    Raises:
        UserError: a flag, an hparam or the data keep the run from starting, or the network does not fit into memory.
    """
    start_time, start_up = time.monotonic(), {"imports": time.process_time()}
    torch.set_num_threads(args.threads)
    device = named_device(args.device) if args.device else device_of(ranks)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    if args.domainbed:
        load_checkout(args.domainbed)
    check_precision(args.precision, device)
    if isinstance(get_method(args.algorithm), HostMethod):
        _check_flags_of_host(args)
    if args.compile:
        check_compiles(device)
    hparams = _hparams(args)
    random.seed(args.seed)
    np.random.seed(args.seed % 2**32)
    torch.manual_seed(args.seed)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    dataset = get_dataset_class(args.dataset)(args.data_dir, list(args.test_envs), hparams)
    check_test_envs(args.test_envs, dataset.environments, dataset.card)
    start_up["data"] = time.monotonic() - start_time
    splits = _split(args, dataset)
    n_steps = _length(args, dataset, splits, hparams)
    if ranks.count > 1:
        sources = [len(split.in_) for i, split in enumerate(splits) if i not in args.test_envs]
        check_shares(ranks.count, hparams, sources)
    # what only the run knows, where the method reads it
    std = list(dataset.normalization.std) if dataset.normalization else None
    known = {"total_steps": n_steps, "input_std": std, "run_seed": args.seed}
    hparams |= {name: value for name, value in known.items() if name in hparams}
    run = Setup(
        args.recorded(),
        hparams,
        dataset,
        splits,
        algorithm=None,
        device=device,
        n_steps=n_steps,
        checkpoint_freq=args.checkpoint_freq or dataset.CHECKPOINT_FREQ,
        workers=_workers(args, dataset, device, ranks),
        trace_difficulty=args.trace_difficulty,
        loggers=args.loggers,
        start_time=start_time,
        start_up=start_up,
        ranks=ranks,
    )
    make = get_algorithm_class(args.algorithm)
    with torch_errors_explained(run.in_words()):
        run.algorithm = make(dataset.input_shape, dataset.num_classes, len(run.sources), hparams).to(run.device)
        run.average = make_average(run.algorithm, hparams, splits, run.sources)
    if checkout_of(run.algorithm):
        _, run.kinds, lost = capture(run.algorithm)
        if lost:
            warn(not_kept(args.algorithm, lost))
        run.told.update(lost)
    run.learning_rate.set(0)
    start_up["network"] = time.monotonic() - start_time - start_up["data"]
    if ranks.count > 1:
        share_out(run.algorithm, ranks, args.batchnorm)
    if args.precision == "fp16":
        scale_losses(run.algorithm, device)
    if args.compile:
        compile_network(run.algorithm)
    if args.cache or args.cache_dir:
        dataset.use_cache(args.cache_dir)
    if args.augment_on == "device":
        dataset.augment_on_device()
    return run


def _check_flags_of_host(args: RunArgs) -> None:
    """Refuse what DomainBed's code does not know of: autocast, loss scaling and compilation.

    Raises:
        UserError: it is asked for.
    """
    for flag, asked in ((f"precision {args.precision}", args.precision != "fp32"), ("compile", args.compile)):
        if asked:
            raise UserError(f"--{flag} is for our own methods: {args.algorithm} is DomainBed's, which knows fp32 alone")


def _split(args: RunArgs, dataset: MultipleDomainDataset) -> list[Splits]:
    fractions, whole = (args.holdout_fraction, args.uda_holdout_fraction), dataset.card.test_envs or ()
    if whole and args.uda_holdout_fraction:
        raise UserError(f"{args.dataset}: official test sets are evaluated whole: --uda_holdout_fraction must be 0")
    splits = split_environments(
        list(map(len, dataset.datasets)), args.test_envs, args.trial_seed, *fractions, whole=whole
    )
    if args.task == "domain_adaptation" and not any(split.uda for split in splits):
        raise UserError("task domain_adaptation needs unlabeled samples: give --uda_holdout_fraction above 0")
    return splits


def _length(args: RunArgs, dataset: MultipleDomainDataset, splits: list[Splits], hparams: dict[str, Any]) -> int:
    """Training steps of a run: as many as ``--steps`` or ``--epochs`` says, or the dataset, and ``--match_passes``."""
    epochs = args.epochs or dataset.card.n_epochs
    if args.steps or not epochs:
        steps = args.steps or dataset.N_STEPS
    else:
        sources = [len(split.in_) for i, split in enumerate(splits) if i not in args.test_envs]
        steps = epochs * min(steps_per_epoch(size, hparams) for size in sources)
    if args.match_passes is None:
        return steps
    given = hparams_registry.parse(args.hparams) if args.hparams else {}
    return matched_steps(steps, args.algorithm, args.match_passes, given)


def check_test_envs(test_envs: Sequence[int], environments: list[str], card: DatasetCard) -> None:
    """Check that the environments held out exist, that one is left to train on, and that the dataset's are all there.

    Raises:
        UserError: they do not.
    """
    named = numbered(environments)
    if len(environments) < 2:
        raise UserError(
            f"domain generalization needs at least two domains, the dataset has {named or 'none'}: one is held out"
        )
    wrong = [env for env in test_envs if not 0 <= env < len(environments)]
    if wrong:
        raise UserError(f"--test_envs {wrong[0]} is none of the environments: {named}")
    if len(set(test_envs)) < len(test_envs):
        raise UserError(f"--test_envs names an environment twice: {' '.join(map(str, test_envs))}; name each once")
    if len(test_envs) == len(environments):
        raise UserError(f"--test_envs holds out all environments ({named}): none is left to train on; leave one out")
    if card.test_envs and set(test_envs) != set(card.test_envs):
        first, *_, last = (environments[i] for i in (card.test_envs[0], *card.test_envs))
        what = f"{first} to {last}: leave out --test_envs" if card.test_envs[1:] else f"{first}: --test_envs 1"
        raise UserError(f"{card.name} is trained on {environments[0]}: hold out {what}")


def _hparams(args: RunArgs) -> dict[str, Any]:
    names = args.algorithm, args.dataset
    if args.hparams_seed == 0:
        hparams = hparams_registry.default_hparams(*names)
    else:
        hparams = hparams_registry.random_hparams(*names, seed_hash(args.hparams_seed, args.trial_seed))
    chosen = hparams_registry.parse(args.hparams) if args.hparams else {}
    if args.hparams_from:
        chosen = hparams_registry.read_top(args.hparams_from, *names, args.test_envs, args.trial_seed) | chosen
    unused = hparams_registry.override(hparams, chosen, *names)
    if unused:
        warn(f"{args.algorithm} does not read the hparams {', '.join(unused)}: left out")
    return hparams


def _workers(args: RunArgs, dataset: MultipleDomainDataset, device: torch.device, ranks: Ranks) -> int:
    """Loading processes of this rank: its share of the run's."""
    computing = args.threads * ranks.count if device.type == "cpu" else 0
    budget = worker_budget(args.workers, dataset.N_WORKERS, os.environ, computing)
    return len(range(ranks.rank, budget, ranks.count))


def worker_budget(asked: int | None, deserved: int, environment: Mapping[str, str], computing: int = 0) -> int:
    """Number of loading processes of a run, at most one for each CPU: as asked, else as many as the dataset deserves.

    ``DOMAINBED_ADM_WORKERS`` in the environment limits the latter, as a launcher of several runs does; and so do the
    threads that compute on the CPU, whose work a loading process would hold up (2 CPUs and 2 threads, ResNet-18 at
    224 px: without one evaluation is 1.04 to 1.06 times as fast, training 1.0 to 1.06).
    """
    cpus = cpu_count()
    if asked is not None:
        if asked > cpus:
            warn(f"--workers {asked} is more than the {cpus} CPUs here: using {cpus}")
        return min(asked, cpus)
    limit = environment.get(WORKERS_VARIABLE, "")
    return max(0, min(deserved, int(limit) if limit.isdecimal() else cpus, cpus - computing))
