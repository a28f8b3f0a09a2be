"""Runs and sweeps from Python: what the commands ``train`` and ``sweep launch`` do, with the same checks and files."""

from __future__ import annotations

import inspect
import random
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import FailedJobsError, UserError
from domainbed_adm.recorded_run import Run, Runs, one_of_each
from domainbed_adm.records import load_runs, read_runs
from domainbed_adm.registry import load_extensions
from domainbed_adm.run_args import FLAGS, words_of
from domainbed_adm.run_files import RESULTS, ExitCode
from domainbed_adm.scripts import sweep as sweep_command
from domainbed_adm.scripts import train as train_command
from domainbed_adm.training.start import start


def train(**flags: Any) -> Run:
    """Train one method on one dataset, and return its records.

    The keyword arguments are the flags of ``domainbed-adm train`` (``--help`` describes them), with their defaults;
    ``hparams`` is a dict, and ``config`` a YAML file of flags, or the folder of a run to repeat, which the others
    override. What is printed and written is the same, ``model.pkl`` too, for :func:`~domainbed_adm.load_model`. Called
    again with the same arguments it goes on where it was interrupted; a run that is finished is only read. Random
    generators and torch's number of threads are afterwards what they were.

    >>> from tempfile import mkdtemp
    >>> from domainbed_adm import train
    >>> run = train(dataset="Debug28", algorithm="SAM", steps=2, hparams={"cnn_width": 8}, output_dir=mkdtemp())
    ... # doctest: +ELLIPSIS
    device: ...
    >>> run.algorithm, run.last_step, run.hparams["cnn_width"]
    ('SAM', 1, 8)

    Raises:
        UserError: an argument, an hparam or the data keep it from running, or another process trains in the folder.
        NonFiniteError: a loss, gradient or score is not finite.
        LoadingError: a process that loads data was killed: another try may do.
        KeyboardInterrupt: interrupted, by Ctrl-C or the stop button of a notebook; the same call goes on.
    """
    load_extensions()
    words = words_of(flags, [*FLAGS, "config"])
    args = train_command.parse([*words, *_switched_off(flags, train_command.build_parser())], raising=True)
    with _globals_kept():
        start(args)
    path = Path(args.output_dir, RESULTS)
    runs = read_runs(path)
    if not runs:
        raise UserError(f"{path} holds no record")
    return one_of_each(runs)[0]


train.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # for help() and completion
    [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in {"config": None, **{name: field.default for name, field in FLAGS.items()}}.items()
    ],
    return_annotation=Run,
)


def sweep(name: str | Path | None = None, /, **flags: Any) -> Runs:
    """Launch the runs of a sweep that are not done yet, wait for them, and return the records of all.

    Args:
        name: a named sweep (``domainbed-adm list sweeps``) or a ``.yaml`` file; flags override it. None: the flags
            alone.
        flags: those of ``domainbed-adm sweep launch`` (``sweep --help`` describes them), with their defaults;
            ``output_dir`` must be given, ``hparams`` is a dict. It never asks for confirmation.

    Returns:
        The runs in ``output_dir``, as :func:`~domainbed_adm.load_runs` reads them; none, where ``dry_run`` or
        ``plan_only`` is set or the jobs were handed over to a scheduler, and nothing is recorded yet.

    >>> from domainbed_adm import sweep
    >>> runs = sweep("smoke", output_dir="results/smoke", algorithms=["ERM", "SAM"], jobs=2)  # doctest: +SKIP

    Raises:
        UserError: a flag is wrong; nothing has been created.
        FailedJobsError: jobs failed; what they said is printed, and ``load_runs(output_dir)`` reads the others.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    load_extensions()
    known = vars(sweep_command.build_parser().parse_args(["launch"])).keys() - {"command", "folder"}
    given = {"sweep": name, **flags, "skip_confirmation": True}
    words = [*words_of(given, sorted(known)), *_switched_off(flags, sweep_command.build_parser())]
    args = sweep_command.parse(["launch", *words], raising=True)
    folder = expanded(args.output_dir)
    code = sweep_command.launch(args, folder)
    if code == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt("the same call goes on, each job from its last checkpoint")
    if code != ExitCode.DONE:
        raise FailedJobsError(f"jobs failed, as printed above; load_runs({str(folder)!r}) reads the others")
    recorded = any(folder.glob(f"*/{RESULTS}"))
    return load_runs(folder) if recorded else Runs()


def _switched_off(flags: Mapping[str, Any], parser: ArgumentParser) -> list[str]:
    """What says False of a switch that a file may have set."""
    usage = parser.format_usage()
    return [f"--no-{flag}" for flag, value in flags.items() if value is False and f"--no-{flag}" in usage]


@contextmanager
def _globals_kept() -> Iterator[None]:
    """Within the block a run may seed and set what belongs to the process: afterwards it is as before."""
    import torch

    python, numpy, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
