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
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.method.grid import METHODS
from domainbed_adm.system.console import warn
from domainbed_adm.system.disk import run_lock
from domainbed_adm.upstream.host import lacks, missing_import
from domainbed_adm.upstream.registration import Registration
from domainbed_adm.upstream.run import check_loop

_INSTEAD = "use `domainbed-adm sweep`, or `domainbed-adm upstream train` with --test_envs"


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
            default = self.get_default("datasets")
            if name == "sweep" and default and read.datasets is default:
                read.datasets = _to_sweep(registration, default)
            _check_flags(registration, vars(read))
            _check_held_out(registration, name, vars(read))
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


def _official(registration: Registration, names: Sequence[Any]) -> list[str]:
    """Those that are our datasets of one source environment, ``train``, and official test sets."""
    return [name for name in names if name in registration.datasets and get_card(name).official_split]


def _to_sweep(registration: Registration, default: Sequence[str]) -> list[str]:
    """The datasets that a sweep takes where none is named: not ours whose source is always ``train``."""
    official = _official(registration, default)
    if official:
        warn(f"the sweep leaves out {len(official)} datasets that are trained on train alone: {_INSTEAD}")
    return [name for name in default if name not in official]


def _check_held_out(registration: Registration, script: str, flags: Mapping[str, Any]) -> None:
    """Refuse to train on an official test set, or to hold out ``train``.

    Raises:
        UserError: a sweep names such a dataset, as it holds out each environment, or a run holds out others than those.
    """
    for name in _official(registration, flags.get("datasets") or [flags.get("dataset")]):
        tests = get_card(name).test_envs or ()
        if script == "sweep":
            raise UserError(f"{name} is trained on train, and DomainBed's sweep would hold that out, too: {_INSTEAD}")
        if script == "train" and sorted(flags.get("test_envs") or ()) != list(tests):
            numbers = f"$(seq 1 {len(tests)})" if tests[1:] else "1"
            raise UserError(f"{name} is trained on train: hold out all else: --test_envs {numbers}")


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
