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
from domainbed_adm.analysis.result_files import Flatness, load_flatness
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
    results = ordered(load_flatness(root), algorithms)
    return [
        AnalysisBlock(title, _how(alike), charts(title, partial(flatness_panels, alike)), _means(title, alike))
        for title, alike in parts(results, lambda one: (one.rho, one.seed, one.samples, one.batch_size, one.dtype))
    ]


def _how(results: Sequence[Flatness]) -> str:
    """The settings, each value that occurs."""
    names = {"rho": "rho", "samples": "images of each environment", "batch_size": "batch size", "seed": "seed"}
    names |= {"dtype": "precision", "device": "device", "mode": "mode"}
    told = []
    for name, heading in names.items():
        values = dict.fromkeys(getattr(result, name) for result in results)
        told.append(f"{heading}: {', '.join('256 at most' if value is None else str(value) for value in values)}")
    return "; ".join(told) + "."


def _means(title: str, results: Sequence[Flatness]) -> Table:
    """Each method's mean over runs, on the source domains pooled and on the test domains."""
    methods: dict[str, list[Flatness]] = {}
    for result in results:
        methods.setdefault(result.algorithm, []).append(result)
    held_out = {name: _held_out(runs) for name, runs in methods.items()}
    counted = {name: _counted(counts) for name, counts in held_out.items()}
    shares = [{env: count / len(methods[name]) for env, count in own.items()} for name, own in held_out.items()]
    notes, labels = [], ["Method", "Domains"]
    if len(set(counted.values())) == 1:
        notes.append(f"Test environments of each method (runs): {counted[results[0].algorithm]}.")
    else:
        labels.append("Test environments (runs)")
    if any(share != shares[0] for share in shares):
        notes.append("The methods hold out test environments in different shares: their means do not compare.")
    if any(not _is_known(result, role) for result in results for role in _ROLES):
        notes.append("* not over the runs whose eigenvalues did not converge; the other columns are over all runs.")
    rows = [
        Row([name, domains, counted[name]][: len(labels)], _cells(runs, role))
        for name, runs in methods.items()
        for role, domains in _ROLES.items()
    ]
    columns = ["measured", "largest eigenvalue", *_FLATNESS.values()]
    return Table(f"{title}, means over runs", labels, columns, rows, " ".join(notes))


def _held_out(runs: Sequence[Flatness]) -> dict[str, int]:
    """The test environments, and how many runs hold each out; both of a pair are one."""
    by_index = sorted(runs, key=lambda run: run.test_envs)
    return dict(Counter(" and ".join(domain.name for domain in run.of("test")) for run in by_index))


def _counted(held_out: dict[str, int]) -> str:
    """In words: "0, 15 (3 each), 30 (1)"."""
    names: dict[int, list[str]] = {}
    for name, count in held_out.items():
        names.setdefault(count, []).append(name)
    return ", ".join(f"{', '.join(own)} ({n}{' each' if len(own) > 1 else ''})" for n, own in names.items())


def _cells(runs: Sequence[Flatness], role: str) -> list[Cell]:
    """One method on the domains of one role."""
    known = [run for run in runs if _is_known(run, role)]
    eigenvalues = [domain.largest_eigenvalue for run in known for domain in run.of(role)]
    largest = number(mean(eigenvalues) if eigenvalues else None, ".4g")
    if len(known) < len(runs):
        largest = replace(largest, text=f"{largest.text} *")
    domains = [domain for run in runs for domain in run.of(role)]
    others = [number(mean(getattr(domain, name) for domain in domains), ".4g") for name in _FLATNESS]
    return [number(len(known), "d"), largest, *others]


def _is_known(run: Flatness, role: str) -> bool:
    """Whether the largest eigenvalue is there: one that is left of several need not be the largest."""
    return not any(math.isnan(domain.largest_eigenvalue) for domain in run.of(role))
