"""A study's plan: what is compared, stated in a YAML file before anything runs, then kept as it is. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from domainbed_adm.datasets.cards import get_card
from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.model_selection import SELECTION_METHODS, SelectionMethod
from domainbed_adm.registry import checkout_flag, get_method
from domainbed_adm.run_args import Precision
from domainbed_adm.sweeping.jobs import Job, Sweep, check_sweep
from domainbed_adm.system.disk import replacing, run_lock
from domainbed_adm.system.yaml_files import read_yaml

#: The plan as it was when the study began, in the study's folder.
STUDY = "study.json"


class Arm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to train: a method, what it changes of the hparams, and how long it may train.

    ``control_of`` names the arm that this one is a control of: it stands beside it in the tables.
    """

    algorithm: str
    hparams: dict[str, Any] = {}
    match_passes: str | None = None
    control_of: str | None = None


class ForDataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs on one dataset, for every arm."""

    steps: int | None = None
    hparams: dict[str, Any] = {}


class Primary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The comparison that the study is for: ``arm`` against ``baseline``."""

    arm: str
    baseline: str


class StudyPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a study compares.

    Attributes:
        datasets: each environment is held out in turn.
        arms: by the name that tables give them.
        primary: the one comparison whose verdict counts; all others are there to understand it.
        smallest_difference: of interest, in percentage points of accuracy, above 0.
        n_trials: of each arm and test environment, with splits of their own.
        pilot_trials: the first so many are the pilot's, 2 or more.
        selection: key of the model selection method.
        hparams: of every arm; those of a dataset come on top, and on them an arm's own.
        by_dataset: where one length, learning rate or batch size does not fit all.
        trace_difficulty: score so many training images at each evaluation; None for no trace.
        about: one line for people.
    """

    datasets: list[str]
    arms: dict[str, Arm]
    primary: Primary
    smallest_difference: float
    n_trials: int = 3
    pilot_trials: int = 2
    selection: str = "training-domain"
    steps: int | None = None
    epochs: int | None = None
    checkpoint_freq: int | None = None
    holdout_fraction: float = 0.2
    precision: Precision = "fp32"
    hparams: dict[str, Any] = {}
    by_dataset: dict[str, ForDataset] = {}
    trace_difficulty: int | None = None
    about: str = ""

    @property
    def selection_method(self) -> SelectionMethod:
        """How the checkpoint is chosen whose test accuracy counts."""
        return SELECTION_METHODS[self.selection]

    @property
    def job_flags(self) -> dict[str, Any]:
        """Flags of ``train`` that say how each job is run."""
        traced = {} if self.trace_difficulty is None else {"trace_difficulty": self.trace_difficulty}
        return traced | checkout_flag(one.algorithm for one in self.arms.values())

    def sweeps(self, arm: str, data_dir: str | None = None, n_trials: int | None = None) -> list[Sweep]:
        """The runs of one arm, or of its first ``n_trials`` trials: a sweep for each length and choice of hparams."""
        one = self.arms[arm]
        together: dict[tuple[int | None, str | None], list[str]] = {}
        for dataset in self.datasets:
            own = self.by_dataset.get(dataset, ForDataset())
            hparams = self.hparams | own.hparams | one.hparams
            key = own.steps or self.steps, json.dumps(hparams, sort_keys=True) if hparams else None
            together.setdefault(key, []).append(dataset)
        return [
            Sweep(
                datasets=datasets,
                algorithms=[one.algorithm],
                n_hparams=1,
                n_trials=n_trials or self.n_trials,
                steps=steps,
                epochs=self.epochs,
                hparams=hparams,
                holdout_fraction=self.holdout_fraction,
                single_test_envs=True,
                data_dir=data_dir,
                checkpoint_freq=self.checkpoint_freq,
                precision=self.precision,
                match_passes=one.match_passes,
            )
            for (steps, hparams), datasets in together.items()
        ]

    def jobs(self, folder: Path, data_dir: str | None = None, n_trials: int | None = None) -> dict[str, list[Job]]:
        """The jobs of each arm, in the study's folder."""
        return {
            arm: [job for sweep in self.sweeps(arm, data_dir, n_trials) for job in sweep.jobs(folder, self.job_flags)]
            for arm in self.arms
        }

    def passes(self, arm: str) -> float:
        """What a step of this arm costs in F, forward passes of the batch."""
        one = self.arms[arm]
        return get_method(one.algorithm).passes(**(self.hparams | one.hparams))


def read_plan(path: Path) -> StudyPlan:
    """Read a plan and check all of it that can be known without data.

    Raises:
        UserError: for the first thing that is wrong, in one line.
    """
    if not path.is_file():
        raise UserError(f"no file {path}: study takes a plan in YAML; study --help shows one")
    content = read_yaml(path, str(path))
    try:
        plan = msgspec.convert(content, StudyPlan)
    except msgspec.ValidationError as error:
        raise UserError(f"{path} is no plan of a study: {_in_words(str(error))}") from None
    try:
        _check(plan)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return plan


def _in_words(error: str) -> str:
    """What msgspec says in the words of the file: the missing primary comparison is what people forget."""
    if "missing required field `primary`" in error:
        return "it names no primary comparison: add primary: {arm: ..., baseline: ...}"
    return error.replace("Object", "it").replace("`$.", "`")


def _check(plan: StudyPlan) -> None:
    for name in plan.by_dataset:
        if name not in plan.datasets:
            raise UserError(f"by_dataset: {unknown_name(plan.datasets, name, 'dataset of this study')}")
    if len(plan.arms) < 2:
        raise UserError("a study compares two arms or more")
    for role, name in (("arm", plan.primary.arm), ("baseline", plan.primary.baseline)):
        if name not in plan.arms:
            raise UserError(f"primary {role}: {unknown_name(list(plan.arms), name, 'arm')}")
    for name, arm in plan.arms.items():
        if arm.control_of is not None and (arm.control_of == name or arm.control_of not in plan.arms):
            raise UserError(f"{name}: control_of: {unknown_name(list(plan.arms), arm.control_of, 'other arm')}")
    trained: dict[str, str] = {}
    for name in plan.arms:
        sweeps = plan.sweeps(name)
        for sweep in sweeps:
            check_sweep(sweep, needs_data=False)
        same = trained.setdefault(repr(sweeps), name)
        if same != name:
            raise UserError(f"{same} and {name} train the same: a method is compared with itself")
    if plan.primary.arm == plan.primary.baseline:
        raise UserError(f"primary compares {plan.primary.arm} with itself: name another baseline")
    if not plan.smallest_difference > 0:
        raise UserError("smallest_difference must be above 0, in percentage points of accuracy")
    if plan.selection not in SELECTION_METHODS or plan.selection == "leave-one-domain-out":
        known = [key for key in SELECTION_METHODS if key != "leave-one-domain-out"]
        raise UserError(unknown_name(known, plan.selection, "selection of a study"))
    if not 2 <= plan.pilot_trials <= plan.n_trials:
        raise UserError(f"pilot_trials must be from 2 to n_trials ({plan.n_trials}), not {plan.pilot_trials}")


def begin(folder: Path, plan: StudyPlan) -> bool:
    """Fix the plan of the study in ``folder``; returns whether it begins now.

    Raises:
        UserError: the study there began with another plan; nothing has changed.
    """
    with run_lock(folder, needed=False):
        if (known := fixed_plan(folder)) is None:
            with replacing(folder / STUDY) as file:
                file.write(msgspec.json.format(msgspec.json.encode(plan)) + b"\n")
            return True
    if known != plan:
        raise UserError(
            f"the study in {folder} began with another plan ({_difference(known, plan)}): a plan is fixed before its "
            "test accuracies are seen; put it back, or give another --output_dir"
        )
    return False


def fixed_plan(folder: Path) -> StudyPlan | None:
    """The plan that the study in ``folder`` began with; None where none did.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / STUDY
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=StudyPlan)
    except msgspec.MsgspecError as error:
        raise UserError(f"{path} is damaged ({error}): put the file back from a copy") from error


def statement(plan: StudyPlan, jobs: dict[str, list[Job]]) -> list[str]:
    """What is compared, as it is told before anything runs: one sentence a line."""
    names = [get_card(name).environments for name in plan.datasets]
    environments = sum(map(len, filter(None, names)))
    n = plan.smallest_difference
    return [
        f"- Compared: {'; '.join(plan.arms)}.",
        f"- On {', '.join(plan.datasets)}: {environments or 'all'} environments held out one by one, {plan.n_trials} "
        f"trials each, {sum(map(len, jobs.values())):,} runs.",
        f"- Primary comparison: {plan.primary.arm} against {plan.primary.baseline}; all others serve to understand it.",
        f"- Smallest difference of interest: {n:g} percentage points of accuracy on the environment held out.",
        f"- Checkpoints are chosen by {plan.selection_method.name} ({plan.selection_method.splits}).",
        f"- Verdict, from the 95 % interval [low, high] of the primary difference: better where low >= {n:g}, worse "
        f"where high <= -{n:g}; no difference of interest where -{n:g} < low and high < {n:g}; a gain or loss "
        "perhaps of no interest where it does not hold 0; else undecided.",
    ]


def _difference(known: StudyPlan, new: StudyPlan) -> str:
    """The first parts of two plans that differ, by name."""
    there, here = (msgspec.to_builtins(plan) for plan in (known, new))
    return ", ".join(_unlike(there, here)[:3])


def _unlike(there: Mapping[str, Any], here: Mapping[str, Any], within: str = "") -> list[str]:
    names = []
    for name in {**there, **here}:
        one, other = there.get(name), here.get(name)
        if one != other:
            nested = isinstance(one, dict) and isinstance(other, dict) and not within
            names += _unlike(one, other, f"{name} ") if nested else [f"{within}{name}"]  # type: ignore[arg-type]
    return names
