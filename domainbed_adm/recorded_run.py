"""A run as its records tell it: what identifies it, once, and its numbers as columns over its checkpoints."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.errors import UserError
from domainbed_adm.system.console import warn

if TYPE_CHECKING:
    import pandas as pd

Column = NDArray[np.float64]

#: What tells the runs of a sweep apart in its tables.
IDENTITY = ("dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed")
#: Of runs that cannot stand beside each other, so many are named.
_MOST_NAMED = 5
_LENGTH = re.compile(r" \((?:[0-9]+ epochs|passes of \w+|[0-9]+ epochs, passes of \w+)\)$")
ACCURACY = re.compile(r"env([0-9]{1,9})_(?:in|out)_acc")


class Columns:
    """Where each number of a record stands in a run's table. Runs that record the same numbers share one.

    Attributes:
        names: of the numbers, in the order of the table.
        n_envs: how many environments, counted from 0 on, have an accuracy among them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.place = {name: i for i, name in enumerate(self.names)}
        envs = {int(match[1]) for name in self.names if (match := ACCURACY.fullmatch(name))}
        self.n_envs = next(i for i in range(len(envs) + 1) if i not in envs)


@dataclass(frozen=True, eq=False)
class Run:
    """One training run. Its dictionaries may be shared with other runs: read them, do not write.

    Attributes:
        folder: where its ``results.jsonl`` lies.
        args: the flags it was trained with.
        hparams: its hyperparameters.
        provenances: what each part of it was made by (versions, device, data): one where it was never continued
            elsewhere, none in DomainBed's records; the last part's last.
        columns: which numbers it recorded.
        table: float64[checkpoints, columns], in the order of the file; NaN where a number is missing.
        dataset: its name, as in ``args``.
        algorithm: its name; with its length behind it (``with_length``) where most runs on its dataset have another.
        test_envs: indices of the environments that it holds out.
        trial_seed: decides the splits.
        hparams_seed: decides the hyperparameters; 0 means the defaults.
    """

    folder: Path
    args: dict[str, Any]
    hparams: dict[str, Any]
    provenances: tuple[dict[str, Any], ...]
    columns: Columns
    table: Column
    dataset: str = field(init=False)
    algorithm: str = field(init=False)
    test_envs: list[int] = field(init=False)
    trial_seed: int = field(init=False)
    hparams_seed: int = field(init=False)

    def __post_init__(self) -> None:
        vars(self).update((name, self.args[name]) for name in IDENTITY)

    def __len__(self) -> int:
        """Number of checkpoints recorded."""
        return len(self.table)

    @property
    def label(self) -> str:
        """What tells it from the other runs of a sweep, in words."""
        return run_label(self.dataset, self.algorithm, self.test_envs, self.trial_seed, self.hparams_seed)

    @property
    def alone(self) -> bool:
        """Whether it holds out what its dataset is tested on at a time, as selection methods report it."""
        return is_alone(self.dataset, self.test_envs)

    @property
    def method(self) -> str:
        """The name of its algorithm as ``--algorithm`` takes it."""
        return str(self.args["algorithm"])

    @property
    def epochs(self) -> int | None:
        """``--epochs``; None where it was not given, as by DomainBed, which has no such flag."""
        epochs = self.args.get("epochs")
        return epochs if isinstance(epochs, int) else None

    @property
    def match_passes(self) -> str | None:
        """``--match_passes``: the method whose passes it may spend; None where it was not given."""
        other = self.args.get("match_passes")
        return other if isinstance(other, str) else None

    @property
    def end_step(self) -> int | None:
        """The step that it ends at; None where its records do not say."""
        known = (self.provenance.get("n_steps"), self.hparams.get("total_steps"), self.args.get("steps"))
        steps = next((steps for steps in known if isinstance(steps, int) and steps), None)
        return None if steps is None else steps - 1

    @property
    def provenance(self) -> dict[str, Any]:
        """What made its last part; empty in DomainBed's records."""
        return self.provenances[-1] if self.provenances else {}

    @property
    def n_envs(self) -> int:
        """How many environments it has accuracies of, whether known or not."""
        return self.columns.n_envs

    @property
    def environments(self) -> list[str]:
        """The names of its dataset's environments: the card's, else those recorded; none where neither has them."""
        card = CARDS.get(self.dataset)
        names = (card.environments if card else None) or self.provenance.get("environments")
        return list(map(str, names)) if isinstance(names, list | tuple) else []

    @property
    def steps(self) -> Column:
        """The step of each checkpoint, counted from 0."""
        return self.column("step")

    @property
    def last_step(self) -> int:
        """The highest step recorded."""
        return int(self.steps.max())

    def column(self, name: str) -> Column:
        """One number over the checkpoints; all NaN where the run did not record it."""
        place = self.columns.place.get(name)
        return self._unknown if place is None else self.table[:, place]

    def accuracy(self, env: int, split: str) -> Column:
        """Accuracy in [0, 1] on one split ("in" or "out") of one environment over the checkpoints."""
        return self.column(f"env{env}_{split}_acc")

    def source_accuracy(self, split: str) -> Column:
        """Mean accuracy on one split over the environments trained on; NaN where one of them is missing."""
        columns = [self.accuracy(env, split) for env in range(self.n_envs) if env not in self.test_envs]
        mean: Column = np.column_stack(columns).mean(axis=1) if columns else self._unknown
        return mean

    @property
    def _unknown(self) -> Column:
        return np.full(len(self.table), np.nan)


def run_label(dataset: str, algorithm: str, test_envs: Sequence[int], trial: int, hparams: int) -> str:
    """What tells a run from the others of a sweep: "SAM on PACS, test_envs 0 2, trial 1, hparams 0"."""
    return f"{algorithm} on {dataset}, test_envs {' '.join(map(str, test_envs))}, trial {trial}, hparams {hparams}"


def with_length(algorithm: str, epochs: int | None, match_passes: str | None) -> str:
    """A name that tells runs of other lengths apart: "ERM (400 epochs)", "ERM (passes of SAM)"; or the algorithm's."""
    told = [f"{epochs} epochs"] if epochs else []
    told += [f"passes of {match_passes}"] if match_passes else []
    return f"{algorithm} ({', '.join(told)})" if told else algorithm


def without_length(name: str) -> str:
    """The algorithm that ``with_length`` made a name of."""
    return _LENGTH.sub("", name)


def is_official(dataset: str) -> bool:
    """Whether it is a set for classification: one source, and official test sets that are held out together."""
    card = CARDS.get(dataset)
    return card is not None and card.official_split


def is_alone(dataset: str, test_envs: Sequence[int]) -> bool:
    """Whether these are one environment, or all official test sets of a set for classification, no pair."""
    card = CARDS.get(dataset)
    return len(test_envs) == 1 or (card is not None and card.test_envs == tuple(sorted(test_envs)))


class Runs(list[Run]):
    """The runs of a sweep, by folder; no two have the same dataset, algorithm, test environments and seeds."""

    @cached_property
    def n_records(self) -> int:
        """Number of checkpoints over all runs."""
        return sum(map(len, self))

    def to_frame(self) -> pd.DataFrame:
        """A tidy pandas frame: one row for each checkpoint of each run.

        Its columns are ``folder``, the five that identify a run (``test_envs`` as text: "0" or "0 2"), every number
        recorded, NaN where missing, and each hyperparameter as ``hparams.<name>``.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError("to_frame needs pandas: pip install 'domainbed-adm[pandas]'") from error
        about = [
            {"folder": str(run.folder), **{name: getattr(run, name) for name in IDENTITY}}
            | {"test_envs": " ".join(map(str, run.test_envs))}
            for run in self
        ]
        row = np.repeat(np.arange(len(self)), [len(run) for run in self])
        names = dict.fromkeys(["step", *(name for run in self for name in run.columns.names)])
        numbers = {name: np.concatenate([run.column(name) for run in self]) for name in names}
        hparams = pd.DataFrame([run.hparams for run in self]).add_prefix("hparams.")
        frames = (pd.DataFrame(about).iloc[row], pd.DataFrame(numbers), hparams.iloc[row])
        return pd.concat([frame.reset_index(drop=True) for frame in frames], axis=1)


def one_of_each(runs: Iterable[Run]) -> Runs:
    """The runs, of those that a table cannot tell apart the longest; a warning names the others.

    Runs of other ``--epochs`` or ``--match_passes`` are apart: of each dataset the number of epochs that most runs
    have, of equals the lower, goes without saying, and others stand in the name of the algorithm.
    """
    kept: dict[tuple[object, ...], Run] = {}
    lines = []
    for run in runs:
        length = run.epochs, run.match_passes
        key = (run.dataset, run.method, length, frozenset(run.test_envs), run.trial_seed, run.hparams_seed)
        other = kept.setdefault(key, run)
        if other is not run:
            kept[key] = run if run.last_step >= other.last_step else other
            lines.append(_rivals(other, run, kept[key]))
    for line in lines[:_MOST_NAMED]:
        warn(line)
    if len(lines) > _MOST_NAMED:
        warn(f"{len(lines) - _MOST_NAMED} more runs are left out for the same reason")
    lengths: dict[str, Counter[int | None]] = {}
    for run in kept.values():
        lengths.setdefault(run.dataset, Counter())[run.epochs] += 1
    usual = {dataset: max(count, key=lambda n: (count[n], -(n or 0))) for dataset, count in lengths.items()}
    for run in kept.values():
        epochs = run.epochs if run.epochs != usual[run.dataset] else None
        vars(run)["algorithm"] = with_length(run.method, epochs, run.match_passes)
    return Runs(kept.values())


def _rivals(a: Run, b: Run, kept: Run) -> str:
    names = sorted((a.args.keys() | b.args.keys()) - {"output_dir"})
    unlike = [
        f"{name} {a.args.get(name)} and {b.args.get(name)}" for name in names if a.args.get(name) != b.args.get(name)
    ]
    where = f"{a.folder} and {b.folder} hold" if a.folder != b.folder else f"{a.folder} holds"
    return (
        f"{where} two runs of {a.label} ({', '.join(unlike) or 'the same flags'}): only that in "
        f"{kept.folder.name} counts, to step {kept.last_step}"
    )


def trouble(run: Run, n_classes: int | None = None) -> str | None:
    """Why a run that may be "done" is not to be trusted, in a few words; None where nothing is seen.

    * *Exploded*: the loss of its last record is no finite number, or above 10 max(loss of its first record, ln C).
    * *At chance*: the mean accuracy on the in-splits of the source environments in its last record is not above
      c + 2 sqrt(c (1 - c) / n), two standard errors of a guess. c is 1 / C or, where C is unknown, the accuracy at
      step 0; n is the number of images in those splits, or 1000 where they are not recorded.

    C is ``n_classes``, in ln C taken as 2 where it is unknown.

    A run with one record is not judged: it has just begun.
    """
    if len(run) < 2:
        return None
    order = np.argsort(run.steps, kind="stable")
    first, last = int(order[0]), int(order[-1])
    at = f"at step {run.steps[last]:g}"
    if "loss" in run.columns.place:
        loss = run.column("loss")
        before = float(loss[first]) if math.isfinite(loss[first]) else 0.0
        if not math.isfinite(loss[last]):
            return f"exploded: its loss {at} is not a number"
        if loss[last] > 10 * max(before, math.log(max(n_classes or 2, 2))):
            return f"exploded: its loss is {loss[last]:.3g} {at}, and was {before:.3g} at step {run.steps[first]:g}"
    sources = [env for env in range(run.n_envs) if env not in run.test_envs]
    if not sources:
        return None
    accuracy = np.mean([run.accuracy(env, "in") for env in sources], axis=0)
    chance = 1 / n_classes if n_classes else float(accuracy[first]) if run.steps[first] == 0 else math.nan
    samples = run.provenance.get("samples")
    n = 1000.0
    if isinstance(samples, list) and len(samples) == run.n_envs:
        n = sum(samples[env] for env in sources) * (1 - run.args.get("holdout_fraction", 0.2))
    if not accuracy[last] <= chance + 2 * math.sqrt(chance * (1 - chance) / max(n, 1)):
        return None
    of = f"of {n_classes} classes" if n_classes else "at step 0"
    reached = f"{100 * accuracy[last]:.1f} % on the source environments {at}"
    return f"at chance: {reached}; chance is {100 * chance:.1f} % ({of})"
