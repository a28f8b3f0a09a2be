"""Learning curves as small multiples, drawn to be read at 390 px; their legend is the page's.

Up to eight methods share one panel, a colour each. Beyond that each flatness rule has a panel, in which the colour
tells the difficulty and the line the curriculum, so that one short legend serves all; methods outside the grid follow,
seven to a panel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup, escape

from domainbed_adm.leaderboard.paper import OPTIMIZERS
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES
from domainbed_adm.method.grid import METHODS, OwnMethod
from domainbed_adm.system.figures import COLOURS, inline, page_colour, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: (step, mean over trials), by step
Curve = list[tuple[float, float]]
#: Inches: the whole is 346 px wide; height of one panel, and of those that stand two in a row.
_WIDTH, _HEIGHT = 3.6, (1.65, 1.25)
#: Inches around and between panels: for numbers, titles and the label of the horizontal axis.
_LEFT, _RIGHT, _TITLE, _BOTTOM, _GAP = 0.42, 0.16, 0.2, 0.4, 0.2
#: Where all values are positive, and the highest is this many times the lowest, a loss has a logarithmic axis.
_LOG_FROM = 30


#: Of the first, second, ... curriculum; in widths of the line.
_DASHES: tuple[tuple[float, ...], ...] = ((2.5, 1), (), (1, 1), (6, 1.5, 1, 1.5))
#: The last colour, grey, is that of a method without a curriculum.
_COLOURED = len(COLOURS) - 1


class Chart(NamedTuple):
    """One chart: its caption, what it shows in words for those who do not see it, its ``<svg>``."""

    caption: str
    spoken: str
    svg: Markup


class LineStyle(NamedTuple):
    """One entry of the legend: what it stands for, colour, dashes in widths of the line, width in points."""

    label: str
    colour: str
    dashes: tuple[float, ...] = ()
    width: float = 1.5

    @property
    def on_page(self) -> str:
        """The colour as the page writes it."""
        return page_colour(self.colour)

    @property
    def dasharray(self) -> str:
        """The dashes as SVG writes them; "none" for a solid line."""
        return " ".join(f"{self.width * length:.1f}" for length in self.dashes) or "none"


class MethodStyles(NamedTuple):
    """How a set of methods is drawn."""

    panels: list[str]  # title of each; "" where there is but one
    legend: list[LineStyle]
    places: dict[str, tuple[int, int]]  # of each method, the index of its panel and of its entry in the legend


def method_styles(algorithms: Sequence[str]) -> MethodStyles:
    """The styles of these methods, in their order."""
    if len(algorithms) <= len(COLOURS):
        styles = {name: ("", LineStyle(name, colour)) for name, colour in zip(algorithms, COLOURS, strict=False)}
    else:
        styles = {name: style for name in algorithms if (style := _in_grid(name))}
        for i, name in enumerate(name for name in algorithms if name not in styles):
            panel = f"Other methods {i // _COLOURED + 1}"
            styles[name] = panel, LineStyle(f"{name} ({panel})", COLOURS[i % _COLOURED])
    panels = list(dict.fromkeys(panel for panel, _ in styles.values()))
    legend = list(dict.fromkeys(style for _, style in styles.values()))
    places = {name: (panels.index(panel), legend.index(style)) for name, (panel, style) in styles.items()}
    return MethodStyles(panels, legend, places)


def _in_grid(name: str) -> tuple[str, LineStyle] | None:
    method = METHODS.get(name)
    if method is None or isinstance(method, OwnMethod):
        return None
    panel = OPTIMIZERS.get(method.flatness, method.flatness) if method.flatness else "Base optimizer"
    if not (method.curriculum and method.difficulty):
        return panel, LineStyle("no curriculum", COLOURS[-1], width=2)
    colour = COLOURS[list(DIFFICULTIES).index(method.difficulty) % _COLOURED]
    dashes = _DASHES[list(CURRICULA).index(method.curriculum) % len(_DASHES)]
    return panel, LineStyle(f"{method.curriculum}, {method.difficulty}", colour, dashes)


def draw(
    curves: Mapping[str, Curve],
    styles: MethodStyles,
    span: tuple[float, float],
    logarithmic: bool,
    chance: float | None = None,
) -> Markup:
    """One chart of curves by the method's name, as an ``<svg>`` element without ids.

    Each line's ``<g>`` gets the classes ``curve`` and ``m<entry of the legend>``. The vertical axis, perhaps a
    logarithmic one, spans from the lowest to the highest value in ``span``; a dotted line marks ``chance``.
    """
    last = max(1.0, *(step for curve in curves.values() for step, _ in curve))
    with style():
        figure, panels = _panels(styles.panels)
        for axes in panels:
            _scale(axes, span, logarithmic, last)
            if chance is not None and axes.get_ylim()[0] <= chance <= axes.get_ylim()[1]:
                axes.axhline(chance, color="gray", linewidth=0.8, linestyle=":")
                axes.text(last, chance, "chance", color="gray", fontsize=8, ha="right", va="bottom")
        for i, (name, curve) in enumerate(curves.items()):
            panel, entry = styles.places[name]
            look = styles.legend[entry]
            steps, values = zip(*(curve if len(curve) > 1 else _dash(*curve[0], last)), strict=True)
            line = panels[panel].plot(steps, values, color=look.colour, linewidth=look.width, clip_on=False)[0]
            line.set_gid(f"m{entry}of{i}")
            if look.dashes:
                line.set_dashes(look.dashes)
        words = [f"{name}: {curve[-1][1]:.4g} at step {curve[-1][0]:g}" for name, curve in curves.items()]
        return Markup(_compact(inline(figure), words))


def _panels(titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each title, in two columns."""
    from matplotlib.figure import Figure

    columns = min(2, len(titles))
    rows = -(-len(titles) // columns)
    top = _TITLE if len(titles) > 1 else _RIGHT
    panel = _HEIGHT[columns - 1]
    height = rows * (top + panel) + (rows - 1) * _GAP + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height), layout="none")  # type: ignore[arg-type]  # which its types lack
    width = (_WIDTH - _LEFT - _RIGHT - (columns - 1) * _GAP) / columns
    around = {"left": _LEFT / _WIDTH, "right": 1 - _RIGHT / _WIDTH, "bottom": _BOTTOM / height, "top": 1 - top / height}
    figure.subplots_adjust(**around, wspace=_GAP / width, hspace=(top + _GAP) / panel)
    panels: list[Axes] = []
    for i, title in enumerate(titles):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(title, loc="left", pad=3, fontsize=9)
        is_lowest = i + columns >= len(titles)
        axes.tick_params(which="both", length=0, labelbottom=is_lowest, labelleft=i % columns == 0)
        axes.set_xlabel("training step" if is_lowest else "")
        axes.grid(which="major", clip_on=False)
        panels.append(axes)
    return figure, panels


def _dash(step: float, value: float, last: float) -> Curve:
    return [(max(0, step - last / 50), value), (step + last / 50, value)]


def _scale(axes: Axes, span: tuple[float, float], logarithmic: bool, last: float) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    low, high = span
    if logarithmic and low > 0 and high >= _LOG_FROM * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.1, high * 1.1)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        room = 0.05 * (high - low) or 0.1 * abs(high) or 0.5
        axes.set_ylim(low - room, high + room)
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(0, last)
    axes.xaxis.set_major_locator(MaxNLocator(3 if axes.figure.axes[1:] else 6, integer=True))


def _compact(svg: str, words: Sequence[str]) -> str:
    """Without what the page's style sheet says once for all, with tenths of a point, and with classes for ids.

    A curve has a title, of ``words``, which browsers show where one points at it.
    """
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>|\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\d+\.\d+", lambda n: f"{float(n[0]):.1f}", path[0]), svg)
    return re.sub(
        r'<g id="(m\d+)of(\d+)">',
        lambda found: f'<g class="curve {found[1]}"><title>{escape(words[int(found[2])])}</title>',
        svg,
    )
