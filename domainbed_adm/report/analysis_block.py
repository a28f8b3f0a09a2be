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
#: The poster compares Adam with SAM.
_COMPARED = ("ERM", "SAM")


@dataclass(frozen=True)
class AnalysisBlock:
    """One part of a section, of a dataset: ``note`` says what is drawn, ``table`` may be None."""

    title: str
    note: str
    charts: list[Chart]
    table: Table | None = None


def ordered(found: Sequence[Any], algorithms: Sequence[str]) -> list[Any]:
    """In the order of the tables, what they do not have last."""
    places = {name: i for i, name in enumerate(algorithms)}
    return sorted(found, key=lambda one: places.get(one.algorithm, len(places)))


def datasets(found: Sequence[Any]) -> list[str]:
    """The datasets of these results, as they appear."""
    return list(dict.fromkeys(one.dataset for one in found))


def parts(found: Sequence[Any], settings: Callable[[Any], Hashable]) -> list[tuple[str, list[Any]]]:
    """The results of each dataset under its name; where their settings differ, those with equal ones, numbered."""
    named = []
    for dataset in datasets(found):
        alike: dict[Hashable, list[Any]] = {}
        for one in found:
            if one.dataset == dataset:
                alike.setdefault(settings(one), []).append(one)
        for i, group in enumerate(alike.values(), 1):
            named.append((dataset if len(alike) == 1 else f"{dataset}, settings {i} of {len(alike)}", group))
    return named


def of_checkpoints(root: Path) -> str:
    """Which results of single checkpoints lie in the runs below ``root``, and in how many; "" where none does."""
    names = (path.name for pattern in ("*_*.*", "*/*_*.*") for path in root.glob(pattern))
    counts = Counter(name for name in names if _OF_CHECKPOINT.fullmatch(name))
    by_step = sorted(counts.items(), key=lambda item: (item[0].partition("_")[0], len(item[0]), item[0]))
    return ", ".join(f"{name} ({count} {'run' if count == 1 else 'runs'})" for name, count in by_step)


def pair(found: Sequence[Any]) -> list[Any]:
    """The first of each of the two that are compared; where one is not there, the first two methods."""
    first = {one.algorithm: one for one in reversed(found)}
    names = [name for name in _COMPARED if name in first]
    if len(names) < len(_COMPARED):
        names = list(dict.fromkeys(one.algorithm for one in found))[: len(_COMPARED)]
    return [first[name] for name in names]


def drawn(pair: Sequence[Any]) -> str:
    """Which methods are drawn, in a sentence."""
    return f"Drawn: {' and '.join(one.algorithm for one in pair)}."


def charts(title: str, panels: Callable[[], Sequence[Figure]]) -> list[Chart]:
    """The figures that ``panels`` draws; none, and a warning, where values are beyond what can be drawn."""
    with warnings.catch_warnings():
        for kind in (RuntimeWarning, UserWarning):  # of overflow, and of what is then done
            warnings.simplefilter("ignore", kind)
        try:
            return [_chart(figure) for figure in panels()]
        except (ArithmeticError, TypeError, ValueError) as error:
            warn(f"{title}: figures left out, they cannot be drawn ({' '.join(str(error).split())[:100]})")
            return []


def _chart(figure: Figure) -> Chart:
    """A figure with its titles and axis labels as what is said of it."""
    said = []
    for axes in figure.axes:
        said += [axes.get_ylabel(), axes.get_title("left"), axes.get_title(), axes.get_title("right")]
    return Chart("", ", ".join(dict.fromkeys(filter(None, said))) or UNKNOWN, Markup(inline(figure)))
