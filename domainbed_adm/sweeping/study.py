"""Optuna's study of a search, which several searchers share: who takes which trial, and what came of each.

Optuna's journal keeps the trials. Every change is made under one lock of the study, and whoever runs a trial holds the
trial's own: both are dropped by the system with the process that held them. A trial that is not finished and that
nobody holds is taken up again before a new one is asked for; so none is lost, and none is run by two.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import JOURNAL, TRIALS
from domainbed_adm.sweeping.plan import add_to_plan, remove_from_plan
from domainbed_adm.sweeping.search import Search
from domainbed_adm.sweeping.search_space import Range, Values
from domainbed_adm.system.disk import is_locked, run_lock
from domainbed_adm.system.seeding import seed_hash

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_NAME = "search"
#: Trials that end before any is stopped, and the first checkpoint of each that is judged: the one before shows chance.
_PRUNE_AFTER, _WARM_UP = 5, 1
#: Complete trials below which no importance is told.
_FEW = 4
RUNNING, COMPLETE, PRUNED, FAIL = "RUNNING", "COMPLETE", "PRUNED", "FAIL"


class Trial(NamedTuple):
    """One trial: its number from 0 on, the hparams that it tries, Optuna's state, and the objective where known."""

    number: int
    values: dict[str, Any]
    state: str
    value: float | None


def check_available() -> None:
    """Refuse to begin without Optuna.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("a search needs Optuna: pip install 'domainbed-adm[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class Study:
    """The study in ``folder``; what it does is on the disk when a method returns.

    Raises:
        UserError: Optuna is missing, or the journal cannot be read, or the disk has no locks.
    """

    def __init__(self, folder: Path, search: Search) -> None:
        check_available()
        import optuna
        from optuna.storages.journal import JournalFileBackend

        self._folder, self.search = folder, search
        self._held: dict[int, ExitStack] = {}
        with self._lock(), _readable(folder / JOURNAL):
            backend = JournalFileBackend(str(folder / JOURNAL), _Held())  # type: ignore[arg-type]
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=_NAME,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(_PRUNE_AFTER, _WARM_UP),
            )

    def trials(self) -> list[Trial]:
        """All trials so far, by number."""
        return [_told(trial) for trial in self._trials()]

    def take(self, n_trials: int) -> Trial | None:
        """A trial to run, which this process holds from now on: one that was left, else a new one of ``n_trials``.

        None where there is none to take; others may still run some.
        """
        import optuna

        with self._lock():
            trials = self._trials()
            left = [one for one in trials if one.state.name == RUNNING and not is_locked(self._place(one.number))]
            waiting = [one for one in trials if one.state.name == "WAITING"]
            number = (left or waiting)[0].number if left or waiting else len(trials)
            if not left and number >= min(n_trials, self.search.size or n_trials):
                return None
            # A seed for each trial: it is the same whoever runs it, and no two searchers draw the same.
            self._study.sampler = optuna.samplers.TPESampler(seed=seed_hash(self.search.seed, number))
            if left:
                trial = optuna.trial.Trial(self._study, left[0]._trial_id)
            else:
                point = self.search.point(number)
                if point is not None and not waiting:
                    self._study.enqueue_trial(point)
                trial = self._study.ask()
            values = {name: _suggested(trial, name, one) for name, one in self.search.dimensions.items()}
            add_to_plan(self._folder, self.search.sweep_of(number, values))
            held = ExitStack()
            held.enter_context(run_lock(self._place(number)))
            self._held[number] = held
            return Trial(number, values, RUNNING, None)

    def should_stop(self, trial: Trial, curve: Sequence[float]) -> bool:
        """Note the objective as it was after each checkpoint; whether the trial is now worse than most others were."""
        import optuna

        with self._lock():
            known = self._trials()[trial.number]
            asked = optuna.trial.Trial(self._study, known._trial_id)
            for checkpoint in range(len(known.intermediate_values), len(curve)):
                asked.report(curve[checkpoint], checkpoint)
            return bool(curve) and asked.should_prune()

    def finish(self, trial: Trial, state: str, value: float | None = None) -> None:
        """Say what came of a trial that this process holds, and let go of it."""
        import optuna

        with self._lock():
            self._study.tell(trial.number, value, state=optuna.trial.TrialState[state])
            if state == PRUNED:
                remove_from_plan(self._folder, self.search.sweep_of(trial.number, trial.values))
        self.let_go(trial)

    def let_go(self, trial: Trial) -> None:
        """Leave a trial, as it is, to whoever takes it."""
        self._held.pop(trial.number).close()
        with contextlib.suppress(OSError):  # where a killed process had made it
            self._place(trial.number).rmdir()

    def _trials(self) -> Sequence[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _place(self, number: int) -> Path:
        return self._folder / TRIALS / str(number)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with run_lock(self._folder / TRIALS / "study", patience=-1):
            _drop_torn_line(self._folder / JOURNAL)
            yield


def read_trials(folder: Path) -> list[Trial]:
    """The trials of the search in ``folder``, by number; writes nothing.

    Raises:
        UserError: Optuna is missing, or the journal is, or it cannot be read.
    """
    check_available()
    import optuna
    from optuna.storages.journal import JournalFileBackend

    path = folder / JOURNAL
    if not path.is_file():
        raise UserError(f"no {path}")
    with _readable(path):
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        found = optuna.load_study(study_name=_NAME, storage=storage).get_trials(deepcopy=False)
    return [_told(trial) for trial in found]


def importance(search: Search, trials: Sequence[Trial]) -> dict[str, float]:
    """Share of the objective's variance that each hparam explains by itself and with others (fANOVA, Hutter et al.
    2014), highest first; nothing where the complete trials are fewer than 4 or all alike.
    """
    import optuna

    known = [trial for trial in trials if trial.state == COMPLETE]
    if len(known) < _FEW or len({trial.value for trial in known}) == 1:
        return {}
    distributions = {name: _distribution(one) for name, one in search.dimensions.items()}
    memory = optuna.create_study(direction="maximize")
    for trial in known:
        frozen = optuna.trial.create_trial(value=trial.value, params=trial.values, distributions=distributions)
        memory.add_trial(frozen)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(memory, evaluator=evaluator))


class _Held:
    """What Optuna takes for the journal's lock: the study's is held already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no journal of Optuna ({type(error).__name__}: {told})") from error


def _drop_torn_line(path: Path) -> None:
    """Cut off what a killed process or a full disk left of a line, which Optuna would refuse once others follow."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        if not end:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def _distribution(one: Range | Values) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(one, Values):
        return CategoricalDistribution(one.values)
    if one.integer:
        return IntDistribution(int(one.low), int(one.high), log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)


def _suggested(trial: optuna.trial.Trial, name: str, one: Range | Values) -> Any:
    if isinstance(one, Values):
        return trial.suggest_categorical(name, one.values)
    if one.integer:
        return trial.suggest_int(name, int(one.low), int(one.high), log=one.log)
    return trial.suggest_float(name, one.low, one.high, log=one.log)


def _told(trial: FrozenTrial) -> Trial:
    value = trial.value if trial.state.name in {COMPLETE, PRUNED} else None
    return Trial(trial.number, trial.params, trial.state.name, value)
