"""The sections on what ``analyze`` and ``train --trace_difficulty`` left in the runs' folders."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from domainbed_adm.analysis.difficulty_drawings import difficulty_panels
from domainbed_adm.analysis.drawings import flatness_panels, landscape_panels
from domainbed_adm.analysis.result_files import Flatness, Landscape, load_flatness, load_landscapes
from domainbed_adm.analysis.runs import find_runs
from domainbed_adm.errors import UserError
from domainbed_adm.report.charts import Chart
from domainbed_adm.report.tables import UNKNOWN, Cell, Row, Table, number
from domainbed_adm.run_files import DIFFICULTY
from domainbed_adm.system.console import warn
from domainbed_adm.system.figures import inline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Results of ``--checkpoint``; those of model.pkl have no suffix.
_OF_CHECKPOINT = re.compile(r"hessian_\w+\.json|landscape_\w+\.npz")
#: The ADM paper compares Adam with SAM.
_COMPARED = ("ERM", "SAM")
#: Settings of a result, as they are told, and those that must be equal where results are compared.
_TOLD = {"rho": "rho", "samples": "images of each environment", "batch_size": "batch size", "seed": "seed"}
_TOLD |= {"dtype": "precision", "device": "device", "mode": "mode"}
_COMPARABLE = ("seed", "samples", "batch_size", "dtype")
#: Attribute of ``DomainFlatness``, heading.
_FLATNESS = {"trace": "trace", "sharpness": "rise by a SAM step", "random_rise": "mean rise at rho", "loss": "loss"}
#: Role, name.
_ROLES = {"pooled": "source", "test": "test"}
#: Name in a row of ``analysis.difficulty.rows``, heading and format.
_TRACED = {
    "runs": ("runs", "d"),
    "median": ("median", ".3g"),
    "variation": ("variation", ".3f"),
    "self_correlation": ("corr. previous", ".3f"),
    "correctness_correlation": ("corr. correct", ".3f"),
    "linear_share": ("pairs linear keeps", ".3f"),
}


@dataclass(frozen=True)
class AnalysisBlock:
    """One part of a section, of a dataset: ``note`` says what is drawn, ``table`` may be None, ``more`` follow it."""

    title: str
    note: str
    charts: list[Chart]
    table: Table | None = None
    more: Sequence[Table] = ()
    warnings: Sequence[str] = ()  # sentences for the top of the page


def flatness(root: Path, algorithms: Sequence[str]) -> list[AnalysisBlock]:
    """What ``analyze hessian`` measured of the runs below ``root``, by dataset and, where they differ, by settings."""
    return [
        AnalysisBlock(
            title, _told(alike, *_TOLD) + ".", charts(title, partial(flatness_panels, alike)), _means(title, alike)
        )
        for title, alike in _parts(_ordered(load_flatness(root), algorithms), lambda result: result.rho)
    ]


def landscape(root: Path, algorithms: Sequence[str]) -> list[AnalysisBlock]:
    """The loss around two models of each dataset, as ``analyze landscape`` left it.

    Where settings differ, of each; of several test environments and trials, the first with most methods is drawn.
    """
    results = _ordered(load_landscapes(root), algorithms)
    groups = _parts(results, lambda result: (result.alphas.tobytes(), result.alphas_2d.tobytes()))
    blocks = []
    for title, alike in groups:
        places: dict[str, list[Landscape]] = {}
        for result in alike:
            places.setdefault(_place(result), []).append(result)
        place, there = max(places.items(), key=lambda group: len({result.algorithm for result in group[1]}))
        shown = _pair(there)
        how = f" {_how(shown[0])}" if len(groups) > len(_datasets(results)) else ""
        note = f"{_drawn(shown)} With {place}.{how}"
        blocks.append(AnalysisBlock(title, note, charts(title, partial(landscape_panels, shown))))
    return blocks


def difficulty(root: Path, algorithms: Sequence[str]) -> list[AnalysisBlock]:
    """The difficulty traces below ``root``, by dataset."""
    folders = [folder for folder in (root, *sorted(root.iterdir())) if (folder / DIFFICULTY).is_file()]
    if not folders:
        return []
    from domainbed_adm.analysis.difficulty import load_traces

    runs = []
    for folder in folders:
        try:
            runs += find_runs([folder])
        except UserError as error:
            warn(f"{folder / DIFFICULTY} left out: {error}")
    methods = _ordered(load_traces(runs), algorithms)
    return [_traced(dataset, [one for one in methods if one.dataset == dataset]) for dataset in _datasets(methods)]


def of_checkpoints(root: Path) -> str:
    """Which results of single checkpoints lie in the runs below ``root``, and in how many; "" where none does."""
    names = (path.name for pattern in ("*_*.*", "*/*_*.*") for path in root.glob(pattern))
    counts = Counter(name for name in names if _OF_CHECKPOINT.fullmatch(name))
    by_step = sorted(counts.items(), key=lambda item: (item[0].partition("_")[0], len(item[0]), item[0]))
    return ", ".join(f"{name} ({count} {'run' if count == 1 else 'runs'})" for name, count in by_step)


def _traced(dataset: str, methods: list[Any]) -> AnalysisBlock:
    from domainbed_adm.analysis.difficulty import backwards, rows

    ends = {method.algorithm: int(method.step[-1]) for method in methods}
    last = [row for row in rows(methods) if row["step"] == ends[row["algorithm"]]]
    lines = [
        Row([row["measure"], row["algorithm"]], [number(row[name], form) for name, (_, form) in _TRACED.items()])
        for row in last
    ]
    columns = [heading for heading, _ in _TRACED.values()]
    wrong = backwards(last)
    table = Table(f"{dataset}, last checkpoint", ["Difficulty", "Method"], columns, lines, " ".join(wrong))
    shown = _pair(methods)
    figures = charts(dataset, partial(difficulty_panels, shown))
    return AnalysisBlock(dataset, _drawn(shown), figures, table, warnings=[f"{dataset}: {line}" for line in wrong])


def _place(result: Landscape) -> str:
    """Which models it is compared with: those trained alike."""
    hparams = f", hparams {result.hparams_seed}" if result.hparams_seed else ""
    return f"test environment {result.test_name}, trial {result.trial_seed}{hparams}"


def _how(result: Landscape) -> str:
    lengths = f"{result.alphas[-1]:g} along the line, {result.alphas_2d[-1]:g} over the plane"
    points = f"{len(result.alphas)} and {len(result.alphas_2d)} squared"
    return f"{_told([result], *_COMPARABLE)}; points: {points}; radius: {lengths}."


def _told(results: Sequence[Any], *names: str) -> str:
    told = []
    for name in names:
        values = dict.fromkeys(getattr(result, name) for result in results)
        told.append(f"{_TOLD[name]}: {', '.join('256 at most' if value is None else str(value) for value in values)}")
    return "; ".join(told)


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


def _ordered(results: Sequence[Any], algorithms: Sequence[str]) -> list[Any]:
    """In the order of the tables, what they do not have last."""
    places = {name: i for i, name in enumerate(algorithms)}
    return sorted(results, key=lambda result: places.get(result.algorithm, len(places)))


def _datasets(results: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(result.dataset for result in results))


def _parts(results: Sequence[Any], more: Callable[[Any], Hashable]) -> list[tuple[str, list[Any]]]:
    """The results of each dataset under its name; where their settings differ, those with equal ones, numbered.

    Their settings are ``_COMPARABLE`` and ``more``.
    """
    named = []
    for dataset in _datasets(results):
        groups: dict[Hashable, list[Any]] = {}
        for result in results:
            if result.dataset == dataset:
                settings = (*(getattr(result, name) for name in _COMPARABLE), more(result))
                groups.setdefault(settings, []).append(result)
        for i, alike in enumerate(groups.values(), 1):
            named.append((dataset if len(groups) == 1 else f"{dataset}, settings {i} of {len(groups)}", alike))
    return named


def _pair(results: Sequence[Any]) -> list[Any]:
    """The first of each of the two that are compared; where one is not there, the first two methods."""
    first = {result.algorithm: result for result in reversed(results)}
    names = _COMPARED if first.keys() >= set(_COMPARED) else dict.fromkeys(result.algorithm for result in results)
    return [first[name] for name in list(names)[:2]]


def _drawn(pair: Sequence[Any]) -> str:
    return f"Drawn: {' and '.join(result.algorithm for result in pair)}."


def charts(title: str, panels: Callable[[], Sequence[Figure]]) -> list[Chart]:
    """The figures that ``panels`` draws; none, and a warning, where values are beyond what can be drawn."""
    with warnings.catch_warnings():
        for kind in (RuntimeWarning, UserWarning):  # of overflow, and of what is then done
            warnings.simplefilter("ignore", kind)
        try:
            return [Chart("", _spoken(figure), Markup(inline(figure))) for figure in panels()]
        except (ArithmeticError, TypeError, ValueError) as error:
            warn(f"{title}: figures left out, they cannot be drawn ({' '.join(str(error).split())[:100]})")
            return []


def _spoken(figure: Figure) -> str:
    """A figure's titles and axis labels: what is said of it."""
    said = [
        text
        for axes in figure.axes
        for text in (axes.get_ylabel(), axes.get_title("left"), axes.get_title(), axes.get_title("right"))
    ]
    return ", ".join(dict.fromkeys(filter(None, said))) or UNKNOWN
