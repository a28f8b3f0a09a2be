"""Runs one of DomainBed's scripts, with its own argument parser, in a DomainBed that knows our methods."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from domainbed_adm import hparams_registry
from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.method.cards import METHODS
from domainbed_adm.system.lock import run_lock_if_any
from domainbed_adm.upstream.host import check_script, missing_import
from domainbed_adm.upstream.registration import Registration
from domainbed_adm.upstream.run import check_weighting


def run_script(registration: Registration, name: str, flags: Sequence[str]) -> None:
    """Run ``domainbed.scripts.<name>`` as a program; ``train`` holds the lock of its folder, as our own does.

    Args:
        registration: from ``register``.
        name: the script's.
        flags: DomainBed's.

    Raises:
        LockedError: another process trains in its ``--output_dir``.
        UserError: there is no such script, or a flag of it cannot work.
    """
    root = registration.host.root
    check_script(root, name)
    sys.argv = [f"domainbed.scripts.{name}", *flags]
    lock = ExitStack()

    def note(args: argparse.Namespace) -> None:
        check_flags(registration, args)
        if name == "train" and getattr(args, "output_dir", None):
            lock.close()  # where the script reads its flags twice
            lock.enter_context(run_lock_if_any(Path(args.output_dir)))

    with lock, _flags_seen(note):
        try:
            runpy.run_module(f"domainbed.scripts.{name}", run_name="__main__", alter_sys=True)
        except ModuleNotFoundError as error:
            raise UserError(missing_import(root, error)) from error


def check_flags(registration: Registration, args: argparse.Namespace) -> None:
    """Learn from a script's flags what its run is, and refuse what cannot work before anything is written.

    Args:
        registration: its run learns ``total_steps``: ``--steps``, or the dataset's ``N_STEPS``.
        args: as the script's own parser read them.

    Raises:
        UserError: an algorithm is unknown, ``--hparams`` is no JSON object, sets ``total_steps``, or asks for a
            weighting that DomainBed cannot serve.
    """
    given = vars(args)
    algorithms = given.get("algorithms") or [given.get("algorithm") or "ERM"]
    known = registration.host.algorithms
    for name in algorithms:
        if name not in known.ALGORITHMS and not isinstance(getattr(known, name, None), type):
            raise UserError(unknown_name(known.ALGORITHMS, name, "algorithm"))
    hparams = hparams_registry.parse(given["hparams"]) if isinstance(given.get("hparams"), str) else {}
    if "total_steps" in hparams:
        raise UserError("hparam total_steps is set by the run and cannot be given: use --steps")
    for name in algorithms:
        if name in registration.methods:
            check_weighting(hparams, METHODS[name])
    dataset = getattr(registration.host.datasets, str(given.get("dataset")), None)
    if "algorithm" in given and dataset is not None:
        registration.watch_dataset(given["dataset"])
        registration.run.as_dataset = not given.get("steps") and hasattr(dataset, "N_STEPS")
        registration.run.total_steps = dataset.N_STEPS if registration.run.as_dataset else given.get("steps")


@contextmanager
def _flags_seen(note: Callable[[argparse.Namespace], None]) -> Iterator[None]:
    """Within the block, ``note`` sees the flags of every parser that reads the command line, as that parser read them.

    So abbreviations, defaults and types are those of DomainBed's script, whatever its version.
    """
    parse = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        found, rest = parse(self, args, namespace)
        if args is None:
            note(found)
        return found, rest

    argparse.ArgumentParser.parse_known_args = parse_known_args  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse.ArgumentParser.parse_known_args = parse  # type: ignore[method-assign]
