"""``hessian.json``: the flatness of a run's loss at a checkpoint, as ``analyze hessian`` found it. Loads no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from domainbed_adm.analysis.runs import MODEL, load_results, result_path
from domainbed_adm.run_files import HESSIAN
from domainbed_adm.system.disk import replacing

Kind = TypeVar("Kind")
#: Beyond it no number is a measurement, and an axis would overflow.
_LARGEST = 1e100


@dataclass(frozen=True)
class DomainFlatness:
    """One sample's flatness; losses in nats.

    Attributes:
        name: of the environment, or "pooled".
        role: "source", "pooled" (all source domains) or "test".
        n: images.
        loss: mean cross-entropy, in the mode training used.
        accuracy: fraction right, in the same mode.
        eigenvalues: of the Hessian, largest first.
        converged: whether all that were asked for are there.
        trace: of the Hessian, estimated.
        trace_sem: its standard error.
        trace_vectors: how many vectors it took.
        sharpness: rise of the loss by one SAM step of radius rho.
        random_rise: mean rise at distance rho.
        random_rise_sem: its standard error.
    """

    name: str
    role: str
    n: int
    loss: float
    accuracy: float
    eigenvalues: list[float]
    converged: bool
    trace: float
    trace_sem: float
    trace_vectors: int
    sharpness: float
    random_rise: float
    random_rise_sem: float

    @property
    def largest_eigenvalue(self) -> float:
        """NaN where not all converged: those that did need not be the largest."""
        return self.eigenvalues[0] if self.converged and self.eigenvalues else math.nan


@dataclass(frozen=True)
class Flatness:
    """What ``hessian.json`` holds: how it was measured, and each domain's flatness.

    Attributes are those of ``subject.Settings`` and ``flatness_measuring.Effort``, and

    Attributes:
        batch_size: images of each domain in a mini-batch, as it was.
        mode: how BatchNorm and dropout were treated, in words.
        rho: radius of the sharpness.
    """

    model: str
    algorithm: str
    dataset: str
    test_envs: list[int]
    trial_seed: int
    hparams_seed: int
    samples: int | None
    batch_size: int
    seed: int
    dtype: str
    device: str
    mode: str
    versions: dict[str, str]
    rho: float
    tolerance: float
    trace_tolerance: float
    domains: list[DomainFlatness]

    def of(self, role: str) -> list[DomainFlatness]:
        """The domains of this role."""
        return [domain for domain in self.domains if domain.role == role]


def save_flatness(found: Flatness, folder: Path) -> Path:
    """Write it into a run's folder, over an older one; returns the file.

    Raises:
        UserError: the system refuses.
    """
    path = result_path(folder, found.model, *HESSIAN)
    with replacing(path) as file:
        file.write(json.dumps(asdict(found), indent=1, allow_nan=False).encode() + b"\n")
    return path


def load_flatness(folder: Path, checkpoint: str = MODEL) -> list[Flatness]:
    """What was measured at this checkpoint of the run in ``folder``, or of the runs of the sweep there, by folder.

    A file that is damaged or another's gets a warning and is left out.
    """
    faults = (ValueError, KeyError, TypeError, OSError, RecursionError)
    return load_results(folder, checkpoint, *HESSIAN, lambda file: _flatness(json.loads(file.read_bytes())), faults)


def _flatness(contents: Any) -> Flatness:
    """The result in a file's contents.

    Raises:
        TypeError: a value is of another type than it should be.
        KeyError: one is missing.
        ValueError: the sources pooled or the test domains are not there.
    """
    if not isinstance(contents["domains"], list):
        raise TypeError("domains is no list")
    domains = [_checked(DomainFlatness, domain) for domain in contents["domains"]]
    found = _checked(Flatness, contents | {"domains": domains})
    if len(found.of("pooled")) != 1 or not found.of("test"):
        raise ValueError("not one pooled and some test domains")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < _LARGEST


def _is_int(value: object) -> bool:
    return type(value) is int and abs(value) < _LARGEST


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_list(items: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(items, value))


#: What a field's annotation asks of its value.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "int": _is_int,
    "int | None": lambda value: value is None or _is_int(value),
    "bool": lambda value: isinstance(value, bool),
    "float": _is_number,
    "list[float]": _is_list(_is_number),
    "list[int]": _is_list(_is_int),
    "dict[str, str]": lambda value: isinstance(value, dict) and all(map(_is_text, value.values())),
    "list[DomainFlatness]": lambda value: True,  # made of checked ones
}


def _checked(kind: type[Kind], contents: Mapping[str, Any]) -> Kind:
    """An object of this dataclass; names that it does not have are passed over.

    Raises:
        TypeError: a value is of another type than the field.
        KeyError: a field is missing.
    """
    values = {field.name: contents[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    for field in fields(kind):  # type: ignore[arg-type]
        if not _CHECKS[str(field.type)](values[field.name]):
            raise TypeError(f"{field.name} is {values[field.name]!r}")
    return kind(**values)
