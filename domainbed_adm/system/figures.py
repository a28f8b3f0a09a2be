"""Figures: one style for files and for pages, drawn without a display.

A figure is built inside ``with style():`` from ``matplotlib.figure.Figure`` (not pyplot, which keeps global state).
Names are drawn as they are, a dollar sign included. What is black becomes the page's own text colour where a figure is
put into a page, so that one drawing serves light and dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from domainbed_adm.errors import UserError
from domainbed_adm.system.disk import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What draws one panel into the axes that it is given.
Panel: TypeAlias = "Callable[[Axes], None]"

#: Okabe and Ito's hues, told apart by colour-blind readers, dark enough for a contrast of 3:1 on white (WCAG 1.4.11).
COLOURS = ("#0072B2", "#C47F00", "#00906A", "#D14900", "#B8508A", "#2F95D0", "#6B4A1E", "#7F7F7F")
FORMATS = ("svg", "png", "pdf")
#: Ratio of the ends of an axis beyond which labels at 2 and 5 would run into each other.
_FAR = 60

_INK = "#102030"
#: Of an SVG: nothing that says when or by what it was drawn, so that the same data give the same file.
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_STYLE: dict[str, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": "medium",
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": "small",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "domainbed_adm",
    "savefig.dpi": 150,
}


def check_available() -> None:
    """Refuse to begin without matplotlib.

    Raises:
        UserError: it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install matplotlib") from error


@contextmanager
def style() -> Iterator[None]:
    """Within the block figures are built and drawn in the project's style."""
    import matplotlib

    settings: Any = {**matplotlib.rcParamsDefault} | _STYLE
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a name in a script that the font lacks
        yield


def grid(panels: Sequence[Panel], columns: int, size: tuple[float, float], legend: int = 0) -> Figure:
    """One figure of these panels, row by row; ``size`` is of one, in inches.

    The legend of the first is below all, ``legend`` names beside each other; 0: there is none.
    """
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    with style():
        figure = Figure(figsize=(size[0] * columns, size[1] * rows))
        for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=True):
            panel(axes)
        if legend:
            handles, names = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, names, loc="outside lower center", ncols=min(legend, len(names)))
    return figure


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis that is labelled at 1, 2 and 5, or where it spans far at 1 alone."""
    from matplotlib.ticker import LogLocator, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < _FAR * low else (1,)))
    axis.set_major_formatter("{x:g}")  # the scale's own writes formulas, which the style draws as they are
    axis.set_minor_locator(NullLocator())


def check_output(path: Path) -> None:
    """Check, before the work is done, that a figure can be drawn into this file.

    Raises:
        UserError: matplotlib is not installed, the file's ending is none of ``FORMATS``, its folder does not exist.
    """
    check_available()
    _format(path)
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}: make it first")


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all; the file's ending, one of ``FORMATS``, says the format."""
    kind = _format(path)
    with style(), replacing(path) as file:
        figure.savefig(file, format=kind, facecolor="white", metadata=_NO_METADATA if kind == "svg" else None)


def _format(path: Path) -> str:
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise UserError(f"{path} names no figure format: end it in {', '.join('.' + name for name in FORMATS)}")
    return kind


def page_colour(colour: str) -> str:
    """One of ``COLOURS`` as a page writes it: ``--colour<index>``, which its style sheet may set for a dark ground."""
    return f"var(--colour{COLOURS.index(colour)}, {colour})"


def inline(figure: Figure) -> str:
    """The figure as an ``<svg>`` element for a page: no ground of its own, the page's colours, no ids to clash."""
    text = io.StringIO()
    with style():
        figure.savefig(text, format="svg", transparent=True, metadata=_NO_METADATA)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg).replace(_INK, "currentColor")
    named = {colour.lower(): page_colour(colour) for colour in COLOURS}
    return re.sub("|".join(named), lambda found: named[found[0]], svg)
