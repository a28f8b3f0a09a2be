"""What ``evaluate`` leaves beside a run's model: ``evaluation_<dataset>.json``. Loads no torch."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from statistics import mean
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from domainbed_adm.datasets.cards import CARDS, CIFAR_EXTRA, SEVERITIES
from domainbed_adm.errors import one_line
from domainbed_adm.recorded_run import IDENTITY, Run
from domainbed_adm.run_files import EVALUATIONS, evaluation_file
from domainbed_adm.system.console import warn
from domainbed_adm.system.disk import replacing

Fraction = Annotated[float, Meta(ge=0, le=1)]
_SEVERITY = re.compile(rf"(.+)-([1-{SEVERITIES}])")


class Attack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the inputs were moved; see ``attack.projected_gradient_descent``."""

    epsilon: Annotated[float, Meta(gt=0, le=1)]  # in units of pixels in [0, 1]
    steps: Annotated[int, Meta(ge=1)]
    seed: Annotated[int, Meta(ge=0)]  # of the random start
    name: Literal["pgd"] = "pgd"

    def __str__(self) -> str:
        return f"PGD {255 * self.epsilon:.4g}/255, {self.steps} {'step' if self.steps == 1 else 'steps'}"

    @property
    def suffix(self) -> str:
        """What tells it from other attacks in the name of a file."""
        return f"{self.name}_{self.epsilon:.6g}_{self.steps}"


class EnvironmentFigures(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A model on all images of one environment."""

    name: str
    n: Annotated[int, Meta(ge=1)]  # images
    accuracy: Fraction  # fraction right
    nll: Annotated[float, Meta(ge=0)]  # mean negative log-likelihood of the label, in nats
    ece: Fraction  # expected calibration error, 15 bins
    fingerprint: str  # of the images and labels
    device: str  # "cpu", or the GPU's name

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.accuracy, self.nll, self.ece))):
            raise ValueError(f"a figure of {self.name} is not finite")


class Evaluation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What one file holds: a run's model on environments of one dataset."""

    algorithm: str
    trained_on: str
    test_envs: list[int]  # indices of the environments that training held out
    trial_seed: int
    hparams_seed: int
    model_digest: str  # of the bytes of model.pkl
    dataset: str
    attack: Attack | None
    precision: Literal["fp32", "bf16"]
    versions: dict[str, str]  # of domainbed_adm and torch
    environments: list[EnvironmentFigures]

    def __post_init__(self) -> None:
        if len({environment.name for environment in self.environments}) < len(self.environments):
            raise ValueError("an environment is there twice")

    def is_like(self, other: Evaluation) -> bool:
        """Whether both are of one model, measured in the same way; their environments may differ."""
        names = set(self.__struct_fields__) - {"environments"}
        return all(getattr(self, name) == getattr(other, name) for name in names)

    def of(self, name: str) -> EnvironmentFigures | None:
        """One environment; None where it was not measured."""
        return next((environment for environment in self.environments if environment.name == name), None)

    def error_by_corruption(self) -> dict[str, float]:
        """1 - accuracy, mean over the five severities, of each corruption that was measured at all of them."""
        found = {
            corruption: [self.of(f"{corruption}-{severity}") for severity in range(1, SEVERITIES + 1)]
            for corruption in corruptions(self.dataset)
        }
        return {name: mean(1 - one.accuracy for one in own if one) for name, own in found.items() if all(own)}

    @property
    def mean_corruption_error(self) -> float | None:
        """The plain mean over all corruptions and severities of 1 - accuracy; None where one is missing.

        As for CIFAR-10-C; ImageNet-C's is normalised by the errors of AlexNet. Of the four extra corruptions, which
        papers leave out, there is none.
        """
        errors = self.error_by_corruption()
        complete = len(errors) == len(corruptions(self.dataset)) and not errors.keys() <= set(CIFAR_EXTRA)
        return mean(errors.values()) if complete else None


def corruptions(dataset: str) -> list[str]:
    """Names of a corrupted set's corruptions; none of any other dataset."""
    card = CARDS.get(dataset)
    names = (card.environments or ())[1:] if card and card.official_split else ()
    found = [matched[1] for name in names if (matched := _SEVERITY.fullmatch(name))]
    return list(dict.fromkeys(found)) if len(found) == len(names) else []


def evaluation_path(folder: Path, dataset: str, attack: Attack | None) -> Path:
    """Where a run's evaluation lies: ``evaluation_CIFAR10_pgd_0.00392157_10.json``."""
    return folder / evaluation_file(dataset, attack.suffix if attack else "")


def save_evaluation(evaluation: Evaluation, folder: Path) -> Path:
    """Write it into a run's folder, over an older one, whole or not at all; returns the file."""
    path = evaluation_path(folder, evaluation.dataset, evaluation.attack)
    with replacing(path) as file:
        file.write(json.dumps(msgspec.to_builtins(evaluation), indent=1, allow_nan=False).encode() + b"\n")
    return path


def load_evaluation(path: Path) -> Evaluation | None:
    """What the file holds; None, and a warning, where it is damaged."""
    try:
        # msgspec's own decoder knows no names that are not UTF-8
        return msgspec.convert(json.loads(path.read_bytes()), Evaluation)
    except (OSError, ValueError, RecursionError) as error:
        warn(f"{path} left out: no result of evaluate ({one_line(error, 100)})")
        return None


def load_evaluations(run: Run) -> list[Evaluation]:
    """All evaluations of a run; files that are damaged or another run's get a warning and are left out."""
    found = []
    for path in sorted(run.folder.glob(EVALUATIONS)):
        evaluation = load_evaluation(path)
        if evaluation is None:
            continue
        if identity(evaluation) == [run.args[name] for name in IDENTITY]:
            found.append(evaluation)
        else:
            warn(f"{path} left out: it is another run's")
    return found


def identity(evaluation: Evaluation) -> list[object]:
    """Of its run: the values of ``IDENTITY``."""
    return [evaluation.trained_on, *(getattr(evaluation, name) for name in IDENTITY[1:])]
