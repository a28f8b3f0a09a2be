"""Calls the loggers of a run, so that none of them can stop or change it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.errors import NonFiniteError, import_object, one_line
from domainbed_adm.loggers import LOGGERS
from domainbed_adm.loggers.interface import LoggedRun, Logger, figures_of
from domainbed_adm.run_files import LOGGER_STATES
from domainbed_adm.system.console import warn
from domainbed_adm.system.disk import replacing

Observe = Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], None]


class Watch:
    """The loggers ``names`` of a run, whose records before ``next_step`` are ``kept``: those that lack some get them.

    What a logger keeps of a run is in the file ``loggers.json`` of its folder.
    """

    def __init__(
        self,
        names: Iterable[str],
        folder: Path,
        config: Mapping[str, Mapping[str, Any]],
        environments: Sequence[str],
        next_step: int,
        kept: Sequence[Mapping[str, Any]],
    ) -> None:
        self._path, self._environments = folder / LOGGER_STATES, environments
        self._states = _read(self._path)
        self._loggers: dict[str, Logger] = {}
        for name in names:
            state = self._states.setdefault(name, {})
            logged = LoggedRun(folder, config, environments, next_step, state)
            with self._guarded(name):
                state.pop("status", None)
                self._loggers[name] = import_object(LOGGERS[name].path, f"logger {name}")(logged)
                self._save()
                last = self._loggers[name].last_step
                for record in kept:
                    if record["step"] > last:
                        self._log(name, record, {})

    def observe(self, record: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> None:
        """Tell the loggers of a record, and of the difficulties traced with it."""
        for name, logger in list(self._loggers.items()):
            if record["step"] > logger.last_step:  # a killed run may train a step again that it has logged already
                with self._guarded(name):
                    self._log(name, record, scores)

    def end(self, status: str) -> None:
        """Tell them how the run ended."""
        for name, logger in list(self._loggers.items()):
            with self._guarded(name):
                logger.end(status)
                self._states[name]["status"] = status
                self._save()

    def _log(self, name: str, record: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> None:
        logger, state, before = self._loggers[name], self._states[name], self._states[name].get("step", -1)
        figures = figures_of(record, self._environments)
        for measure, values in scores.items():
            if len(finite := values[np.isfinite(values)]):
                figures[f"difficulty/{measure}"] = float(finite.mean())
        state["step"] = record["step"]
        if logger.hands_over:
            self._save()
        try:
            logger.log(record["step"], figures, scores)
        except BaseException:
            state["step"] = before
            if logger.hands_over:
                self._save()
            raise
        if not logger.hands_over:
            self._save()

    def _save(self) -> None:
        with replacing(self._path) as file:
            file.write(json.dumps(self._states, indent=1, sort_keys=True).encode() + b"\n")

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Within the block, an error is a warning and the logger's end; random numbers go on as if nothing was."""
        import torch

        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            yield
        except Exception as error:
            self._loggers.pop(name, None)
            advice = "the same command with --logger later logs what is missing"
            warn(f"--logger {name} failed, and the run goes on without it: {one_line(error)}; {advice}")
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
            torch.set_rng_state(states[2])


@contextmanager
def watched(watch: Watch) -> Iterator[Observe]:
    """Within the block, a function that tells the loggers of a record; how the block ends they are told as well."""
    try:
        yield watch.observe
    except BaseException as error:
        kinds = {KeyboardInterrupt: "interrupted", NonFiniteError: "diverged"}
        watch.end(next((status for kind, status in kinds.items() if isinstance(error, kind)), "failed"))
        raise
    watch.end("finished")


def lacking(names: Iterable[str], folder: Path) -> list[str]:
    """Those of these loggers that have not been told all of the finished run in ``folder``."""
    states = _read(folder / LOGGER_STATES)
    return [name for name in names if states.get(name, {}).get("status") != "finished"]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
        return {str(name): dict(state) for name, state in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
