"""Every file that a run or a sweep leaves in its folder, by name, and every exit code of a command. Loads no torch."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path
from urllib.parse import quote

from domainbed_adm.errors import UserError

#: DomainBed's files of a run.
RESULTS, DONE, MODEL, OUT, ERR = "results.jsonl", "done", "model.pkl", "out.txt", "err.txt"
#: What an unfinished run goes on from, and what holds its folder while a process trains there.
CHECKPOINT, LOCK = "checkpoint.pkl", ".lock"
#: How a job's last attempt failed, as its launcher saw it, and the step whose numbers were not finite.
FAILED, DIVERGED = "failed.json", "diverged.json"
#: What was asked for beside training: ``train --trace_difficulty``, and ``train --logger``: its rows, folders of
#: TensorBoard and wandb, and what each logger keeps to go on with.
DIFFICULTY, METRICS, LOGGER_STATES = "difficulty.npz", "metrics.csv", "loggers.json"
TENSORBOARD, WANDB = LOGGER_FOLDERS = ("tensorboard", "wandb")
#: What a sweep's folder should hold, as its launches wrote it, and which of its jobs a worker is about to start.
PLAN, CLAIMS = "sweep.json", ".claims"
#: A search's folder: its settings, Optuna's journal, a lock for each trial; and what says that it stopped a run.
SEARCH, JOURNAL, TRIALS, PRUNED = "search.json", "optuna_journal.log", "trials", "pruned.json"
#: What ``analyze`` writes beside a model: kind and ending of the file's name.
HESSIAN, LANDSCAPE = ("hessian", "json"), ("landscape", "npz")
#: What ``analyze predictions`` writes beside model.pkl.
PREDICTIONS = "predictions.npz"
#: What ``evaluate`` writes beside a model.
EVALUATIONS = "evaluation_*.json"
#: Any of these files makes a folder a run's.
RUN_MARKS = (RESULTS, FAILED, LOCK, DONE, ERR)


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    #: Jobs failed, or a loading process was killed: another try may succeed.
    RETRY = 1
    #: A mistake in a flag or a file, or a system that refuses: another try fails as well.
    USER_ERROR = 2
    #: A loss, gradient or score that is not finite: another try fails as well.
    NOT_FINITE = 3
    #: ``train``: another process trains in the folder (``EX_TEMPFAIL`` of sysexits.h, "try again later").
    LOCKED = 75
    #: ``sweep work``: its time or its number of jobs is up, and jobs are left that nobody runs: start it again.
    MORE_TO_DO = 75
    #: A launcher did not start the command, or could not.
    NOT_RUN = 127
    #: Told to end, by Ctrl-C, SIGTERM or SIGHUP; the same command goes on. Of a job it is no failure.
    INTERRUPTED = 130
    #: Whoever read the output has closed it.
    CLOSED_PIPE = 141


def model_of_step(step: int) -> str:
    """The model of one checkpoint, kept by ``train --save_model_every_checkpoint``."""
    return f"model_step{step}.pkl"


def model_suffix(checkpoint: str) -> str:
    """What tells a model's file from the run's last one: "_step300" of model_step300.pkl, "" of model.pkl.

    Raises:
        UserError: ``checkpoint`` is no name of a model's file.
    """
    matched = re.fullmatch(r"model(?P<suffix>\w*)\.pkl", checkpoint)
    if matched is None:
        raise UserError(
            f"--checkpoint is {MODEL} or model_step<step>.pkl, the name of a file in the run, not {checkpoint}"
        )
    return matched["suffix"]


def evaluation_file(dataset: str, attack: str = "") -> str:
    """Where ``evaluate`` keeps what it measured on a dataset, perhaps under an attack: evaluation_CIFAR10C.json."""
    return EVALUATIONS.replace("*", "_".join(filter(None, (quote(dataset, safe=""), attack))))


def is_pruned(folder: Path) -> bool:
    """Whether a search has stopped the run in ``folder`` before its end."""
    return (folder / PRUNED).exists() and not (folder / DONE).exists()


def files_of_run(folder: Path) -> list[Path]:
    """What a run (its files there or not), ``analyze`` and ``evaluate`` may have left, but for the loggers' folders."""
    own = [DONE, PRUNED, CHECKPOINT, RESULTS, MODEL, DIVERGED, DIFFICULTY, PREDICTIONS]
    own += [METRICS, LOGGER_STATES, OUT, ERR]
    analysis = "|".join(rf"{kind}(_step[0-9]+)?\.{ending}" for kind, ending in (HESSIAN, LANDSCAPE))
    analyses = [path for path in folder.iterdir() if re.fullmatch(analysis, path.name)]
    return [*(folder / name for name in own), *folder.glob("model_step*.pkl"), *analyses, *folder.glob(EVALUATIONS)]
