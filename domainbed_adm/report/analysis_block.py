"""What the sections on analyses share: parts of results that compare, two methods drawn, figures as charts."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from domainbed_adm.report.charts import Chart
from domainbed_adm.report.tables import UNKNOWN, Table
from domainbed_adm.system.console import warn
from domainbed_adm.system.figures import inline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Results of ``--checkpoint``; those of model.pkl have no suffix.
_OF_CHECKPOINT = re.compile(r"hessian_\w+\.json|landscape_\w+\.npz")
#: The ADM paper compares Adam with SAM.
_COMPARED = ("ERM", "SAM")


@dataclass(frozen=True)
class AnalysisBlock:
    """One part of a section, of a dataset: ``note`` says what is drawn, ``table`` may be None."""

    title: str
    note: str
    charts: list[Chart]
    table: Table | None = None


def ordered(results: Sequence[Any], algorithms: Sequence[str]) -> list[Any]:
    """In the order of the tables, what they do not have last."""
    places = {name: i for i, name in enumerate(algorithms)}
    return sorted(results, key=lambda result: places.get(result.algorithm, len(places)))


def datasets(results: Sequence[Any]) -> list[str]:
    """The datasets of these results, as they appear."""
    return list(dict.fromkeys(result.dataset for result in results))


def parts(results: Sequence[Any], settings: Callable[[Any], Hashable]) -> list[tuple[str, list[Any]]]:
    """The results of each dataset under its name; where their settings differ, those with equal ones, numbered."""
    named = []
    for dataset in datasets(results):
        groups: dict[Hashable, list[Any]] = {}
        for result in results:
            if result.dataset == dataset:
                groups.setdefault(settings(result), []).append(result)
        for i, alike in enumerate(groups.values(), 1):
            named.append((dataset if len(groups) == 1 else f"{dataset}, settings {i} of {len(groups)}", alike))
    return named


def of_checkpoints(root: Path) -> str:
    """Which results of single checkpoints lie in the runs below ``root``, and in how many; "" where none does."""
    names = (path.name for pattern in ("*_*.*", "*/*_*.*") for path in root.glob(pattern))
    counts = Counter(name for name in names if _OF_CHECKPOINT.fullmatch(name))
    by_step = sorted(counts.items(), key=lambda item: (item[0].partition("_")[0], len(item[0]), item[0]))
    return ", ".join(f"{name} ({count} {'run' if count == 1 else 'runs'})" for name, count in by_step)


def pair(results: Sequence[Any]) -> list[Any]:
    """The first of each of the two that are compared; where one is not there, the first two methods."""
    first = {result.algorithm: result for result in reversed(results)}
    names = _COMPARED if first.keys() >= set(_COMPARED) else dict.fromkeys(result.algorithm for result in results)
    return [first[name] for name in list(names)[:2]]


def drawn(pair: Sequence[Any]) -> str:
    """Which methods are drawn, in a sentence."""
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
