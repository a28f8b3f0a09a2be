"""How flat the loss is at the runs' models: what ``analyze hessian`` left in their folders."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean

from domainbed_adm.analysis.hessian_figures import flatness_panels
from domainbed_adm.analysis.result_files import DomainFlatness, Flatness, load_flatness
from domainbed_adm.report.analysis_block import AnalysisBlock, charts, ordered, parts
from domainbed_adm.report.tables import Cell, Row, Table, number

#: Attribute of ``DomainFlatness``, heading.
_FLATNESS = {
    "trace": "trace",
    "sharpness": "rise by a SAM step",
    "random_rise": "mean rise at rho",
    "loss": "loss",
}
#: Role, name.
_ROLES = {"pooled": "source", "test": "test"}


def flatness(root: Path, algorithms: Sequence[str]) -> list[AnalysisBlock]:
    """What ``analyze hessian`` measured of the runs below ``root``; none where it measured nothing.

    By dataset, and where they differ by the settings that change the numbers.
    """
    measured = ordered(load_flatness(root), algorithms)
    alike = parts(measured, lambda one: (one.rho, one.seed, one.samples, one.batch_size, one.dtype))
    return [
        AnalysisBlock(title, _how(found), charts(title, partial(flatness_panels, found)), _means(title, found))
        for title, found in alike
    ]


def _how(found: Sequence[Flatness]) -> str:
    """The settings, each value that occurs."""
    said = {
        "rho": [f"{one.rho:g}" for one in found],
        "images of each environment": ["256 at most" if one.samples is None else str(one.samples) for one in found],
        "batch size": [str(one.batch_size) for one in found],
        "seed": [str(one.seed) for one in found],
        "precision": [one.dtype for one in found],
        "device": [one.device for one in found],
        "mode": [one.mode for one in found],
    }
    return "; ".join(f"{name}: {', '.join(dict.fromkeys(values))}" for name, values in said.items()) + "."


def _means(title: str, found: Sequence[Flatness]) -> Table:
    """Each method's mean over runs, on the source domains pooled and on the test domains."""
    methods: dict[str, list[Flatness]] = {}
    for one in found:
        methods.setdefault(one.algorithm, []).append(one)
    held_out = {name: _held_out(runs) for name, runs in methods.items()}
    counted = {name: _counted(counts) for name, counts in held_out.items()}
    shares = [{env: count / len(methods[name]) for env, count in own.items()} for name, own in held_out.items()]
    notes, labels = [], ["Method", "Domains"]
    if len(set(counted.values())) == 1:
        notes.append(f"Test environments of each method (runs): {counted[found[0].algorithm]}.")
    else:
        labels.append("Test environments (runs)")
    if any(one != shares[0] for one in shares):
        notes.append("The methods hold out test environments in different shares: their means do not compare.")
    if any(not _is_known(one, role) for one in found for role in _ROLES):
        notes.append("* not over the runs whose eigenvalues did not converge; the other columns are over all runs.")
    rows = [
        Row([name, domains, counted[name]][: len(labels)], _cells(runs, role))
        for name, runs in methods.items()
        for role, domains in _ROLES.items()
    ]
    columns = ["measured", "largest eigenvalue", *_FLATNESS.values()]
    return Table(f"{title}, means over runs", labels, columns, rows, " ".join(notes))


def _held_out(found: Sequence[Flatness]) -> dict[str, int]:
    """The test environments, and how many runs hold each out; both of a pair are one."""
    by_index = sorted(found, key=lambda one: one.test_envs)
    return dict(Counter(" and ".join(domain.name for domain in one.of("test")) for one in by_index))


def _cells(found: Sequence[Flatness], role: str) -> list[Cell]:
    """One method on the domains of one role."""
    known = [one for one in found if _is_known(one, role)]
    largest = number(_mean([domain.largest_eigenvalue for domain in _domains(known, role)]), ".4g")
    if len(known) < len(found):
        largest = replace(largest, text=f"{largest.text} *")
    others = [number(_mean([getattr(domain, name) for domain in _domains(found, role)]), ".4g") for name in _FLATNESS]
    return [number(len(known), "d"), largest, *others]


def _counted(held_out: dict[str, int]) -> str:
    """In words: "0, 15 (3 each), 30 (1)"."""
    names: dict[int, list[str]] = {}
    for name, count in held_out.items():
        names.setdefault(count, []).append(name)
    return ", ".join(f"{', '.join(own)} ({n}{' each' if len(own) > 1 else ''})" for n, own in names.items())


def _domains(found: Sequence[Flatness], role: str) -> list[DomainFlatness]:
    return [domain for one in found for domain in one.of(role)]


def _is_known(one: Flatness, role: str) -> bool:
    """Whether the largest eigenvalue is there: one that is left of several need not be the largest."""
    return not any(math.isnan(domain.largest_eigenvalue) for domain in one.of(role))


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None
