"""Runs one of DomainBed's scripts, with its own argument parser, in a DomainBed that knows our methods."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from domainbed_adm import hparams_registry
from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.method.grid import METHODS
from domainbed_adm.system.disk import run_lock
from domainbed_adm.upstream.host import lacks, missing_import
from domainbed_adm.upstream.registration import Registration
from domainbed_adm.upstream.run import check_loop


def run_script(registration: Registration, name: str, flags: Sequence[str]) -> None:
    """Run ``domainbed.scripts.<name>`` as a program; ``train`` holds the lock of its folder, as our own does.

    Its flags are noted where its own parser reads them: abbreviations, defaults and types are those of its version.

    Raises:
        LockedError: another process trains in its ``--output_dir``.
        UserError: there is no such script, or a flag of it cannot work.
    """
    root, module = registration.host.root, f"domainbed.scripts.{name}"
    if not (root / "domainbed" / "scripts" / f"{name}.py").is_file():
        raise UserError(lacks(root, module))
    parse = argparse.ArgumentParser.parse_known_args

    def parse_known_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> Any:
        read, rest = parse(self, args, namespace)
        if args is None:  # it reads the command line
            _check_flags(registration, vars(read))
            if name == "train" and getattr(read, "output_dir", None):
                lock.close()  # where the script reads its flags twice
                lock.enter_context(run_lock(Path(read.output_dir), needed=False))
        return read, rest

    sys.argv = [module, *flags]
    argparse.ArgumentParser.parse_known_args = parse_known_args  # type: ignore[method-assign]
    with ExitStack() as lock:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except ModuleNotFoundError as error:
            raise UserError(missing_import(root, error)) from error
        finally:
            argparse.ArgumentParser.parse_known_args = parse  # type: ignore[method-assign]


def _check_flags(registration: Registration, flags: Mapping[str, Any]) -> None:
    """Learn from a script's flags what its run is, and refuse what cannot work before anything is written.

    Raises:
        UserError: an algorithm is unknown, ``--hparams`` is no JSON object, sets ``total_steps``, or asks for a
            weighting or averaging that DomainBed cannot serve.
    """
    algorithms, run = registration.host.algorithms, registration.run
    hparams = hparams_registry.parse(flags["hparams"]) if isinstance(flags.get("hparams"), str) else {}
    if "total_steps" in hparams:
        raise UserError("hparam total_steps is set by the run and cannot be given: use --steps")
    for name in flags.get("algorithms") or [flags.get("algorithm") or "ERM"]:
        if name not in algorithms.ALGORITHMS and not isinstance(getattr(algorithms, name, None), type):
            raise UserError(unknown_name(algorithms.ALGORITHMS, name, "algorithm"))
        if name in registration.methods:
            check_loop(hparams, METHODS[name])
    dataset = getattr(registration.host.datasets, str(flags.get("dataset")), None)
    if "algorithm" in flags and dataset is not None:
        registration.watch_dataset(flags["dataset"])
        run.as_dataset = not flags.get("steps") and hasattr(dataset, "N_STEPS")
        run.total_steps = dataset.N_STEPS if run.as_dataset else flags.get("steps")
