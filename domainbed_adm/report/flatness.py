"""How flat the loss is at the runs' models, and the loss around them: what ``analyze`` left in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from domainbed_adm.analysis.flatness import DomainFlatness, Flatness, load_flatness
from domainbed_adm.analysis.flatness_figures import flatness_panels
from domainbed_adm.analysis.landscape import Landscape, load_landscapes
from domainbed_adm.analysis.landscape_figures import landscape_panels
from domainbed_adm.report.analyses import Analysis, chart_of, datasets, drawn, ordered, pair
from domainbed_adm.report.tables import Row, Table, number

#: Attribute of ``DomainFlatness``, heading.
_FLATNESS = {
    "trace": "trace",
    "sharpness": "rise by a SAM step",
    "random_rise": "mean rise at rho",
    "loss": "loss",
}


def flatness(root: Path, algorithms: Sequence[str]) -> list[Analysis]:
    """What ``analyze hessian`` measured of the runs below ``root``, by dataset; none where it measured nothing."""
    measured = ordered(load_flatness(root), algorithms)
    return [
        Analysis(dataset, _how(found), [chart_of(figure) for figure in flatness_panels(found)], _means(dataset, found))
        for dataset in datasets(measured)
        for found in [[one for one in measured if one.dataset == dataset]]
    ]


def _how(found: Sequence[Flatness]) -> str:
    """The settings, each value that occurs."""
    said = {
        "rho": [f"{one.rho:g}" for one in found],
        "images of each environment": ["256 at most" if one.samples is None else str(one.samples) for one in found],
        "seed": [str(one.seed) for one in found],
        "precision": [one.dtype for one in found],
        "device": [one.device for one in found],
        "mode": [one.mode for one in found],
    }
    return "; ".join(f"{name}: {', '.join(dict.fromkeys(values))}" for name, values in said.items()) + "."


def _means(dataset: str, found: Sequence[Flatness]) -> Table:
    """Each method's mean over runs, on the source domains pooled and on the test domains."""
    domains: dict[tuple[str, str], list[DomainFlatness]] = {}
    for algorithm in dict.fromkeys(one.algorithm for one in found):
        for role, name in (("pooled", "source"), ("test", "test")):
            own = [domain for one in found if one.algorithm == algorithm for domain in one.of(role)]
            if own:
                domains[algorithm, name] = own
    rows = [
        Row(
            labels,
            [
                number(len(own), "d"),
                number(_mean([one.eigenvalues[0] for one in own if one.eigenvalues]), ".4g"),
                *(number(_mean([getattr(one, name) for one in own]), ".4g") for name in _FLATNESS),
            ],
        )
        for labels, own in domains.items()
    ]
    columns = ["measured", "largest eigenvalue", *_FLATNESS.values()]
    return Table(f"{dataset}, means over runs", ["Method", "Domains"], columns, rows)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def landscape(root: Path, algorithms: Sequence[str]) -> list[Analysis]:
    """The loss around two models of each dataset; none where ``analyze landscape`` went round no model.

    Of several test environments and trials, the first with most methods is drawn.
    """
    measured = ordered(load_landscapes(root), algorithms)
    parts = []
    for dataset in datasets(measured):
        groups: dict[str, list[Landscape]] = {}
        for one in (one for one in measured if one.dataset == dataset):
            where = f"test environment {one.about['test_name']}, trial {one.about['trial_seed']}"
            groups.setdefault(where, []).append(one)
        where, found = max(groups.items(), key=lambda group: len({one.algorithm for one in group[1]}))
        shown = pair(found)
        charts = [chart_of(figure) for figure in landscape_panels(shown)]
        parts.append(Analysis(dataset, f"{drawn(shown)} With {where}.", charts))
    return parts
