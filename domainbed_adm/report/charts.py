"""Learning curves as small multiples, drawn to be read at 390 px; their legend is the page's.

Up to eight methods share one panel, a colour each. Beyond that each flatness rule has a panel, in which the colour
tells the difficulty and the line the curriculum, so that one short legend serves all; methods outside the grid follow,
seven to a panel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from domainbed_adm.leaderboard.paper import OPTIMIZERS
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES
from domainbed_adm.method.grid import METHODS, OwnMethod
from domainbed_adm.report.axes import Axis, across, linear, logarithmic, roomy, svg, up
from domainbed_adm.system.figures import COLOURS, page_colour

#: (step, mean over trials), by step
Curve = list[tuple[float, float]]
#: Of the whole; height of one panel, and of those that stand two in a row.
_WIDTH, _HEIGHT = 346, (158, 120)
#: Around and between panels: for numbers, titles and the label of the horizontal axis.
_LEFT, _RIGHT, _TITLE, _BOTTOM, _GAP = 40, 15, 19, 42, 19
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
    """One entry of the legend: what it stands for, colour, dashes in widths of the line, width in pixels."""

    label: str
    colour: str
    dashes: tuple[float, ...] = ()
    width: float = 2

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
        return panel, LineStyle("no curriculum", COLOURS[-1], width=2.6)
    colour = COLOURS[list(DIFFICULTIES).index(method.difficulty) % _COLOURED]
    dashes = _DASHES[list(CURRICULA).index(method.curriculum) % len(_DASHES)]
    return panel, LineStyle(f"{method.curriculum}, {method.difficulty}", colour, dashes)


def draw(
    curves: Mapping[str, Curve],
    styles: MethodStyles,
    span: tuple[float, float],
    is_logarithmic: bool,
    chance: float | None = None,
) -> Markup:
    """One chart of curves by the method's name, as an ``<svg>`` element without ids.

    Each line's ``<g>`` has the classes ``curve`` and ``m<entry of the legend>``, and as its ``<title>``, which
    browsers show on hover, its last value. The vertical axis, perhaps a logarithmic one, spans from the lowest to the
    highest value in ``span``; a dotted line marks ``chance``.
    """
    # the last of 5,000 steps is 4,999: the axis ends at what it can mark
    last = 1 + max(1.0, *(step for curve in curves.values() for step, _ in curve))
    columns = min(2, len(styles.panels))
    rows = -(-len(styles.panels) // columns)
    title = _TITLE if len(styles.panels) > 1 else _RIGHT
    width, height = (_WIDTH - _LEFT - _RIGHT - (columns - 1) * _GAP) / columns, _HEIGHT[columns - 1]
    panels = [
        _Panel(_LEFT + (i % columns) * (width + _GAP), (i // columns) * (title + height + _GAP) + title, width, height)
        for i in range(len(styles.panels))
    ]
    axes = [_axes(panel, span, is_logarithmic, last, narrow=columns > 1) for panel in panels]
    parts: list[str] = []
    for i, (panel, name) in enumerate(zip(panels, styles.panels, strict=True)):
        parts += _ground(panel, axes[i], name, i % columns == 0, i + columns >= len(panels))
        if chance is not None and panel.top <= (y := axes[i].y.place(chance)) <= panel.top + panel.height:
            parts.append(
                f'<path class="chance" d="M{panel.left:.1f} {y:.1f}h{panel.width:.1f}"/><text class="faint" '
                f'x="{panel.left + panel.width:.1f}" y="{y - 4:.1f}" font-size="11" text-anchor="end">chance</text>'
            )
    for name, curve in curves.items():
        at, entry = styles.places[name]
        across_to, up_to = axes[at].x.place, axes[at].y.place
        points = curve if len(curve) > 1 else _dash(*curve[0], last)
        path = "L".join(f"{across_to(step):.1f} {up_to(value):.1f}" for step, value in points)
        words = f"{name}: {curve[-1][1]:.4g} at step {curve[-1][0]:g}"
        look = styles.legend[entry]
        dashes = f' stroke-dasharray="{look.dasharray}"' if look.dashes else ""
        parts.append(
            f'<g class="curve m{entry}"><title>{escape(words)}</title><path d="M{path}" style="stroke: {look.on_page}" '
            f'stroke-width="{look.width}"{dashes}/></g>'
        )
    return svg(parts, _WIDTH, rows * (title + height + _GAP) - _GAP + _BOTTOM)


class _Panel(NamedTuple):
    """The box of the lines."""

    left: float
    top: float
    width: float
    height: float


class _Axes(NamedTuple):
    x: Axis
    y: Axis


def _axes(panel: _Panel, span: tuple[float, float], is_logarithmic: bool, last: float, narrow: bool) -> _Axes:
    low, high = span
    ends = panel.top + panel.height, panel.top
    far = is_logarithmic and low > 0 and high >= _LOG_FROM * low
    y = logarithmic(low, high, *ends) if far else roomy(low, high, *ends, most=6)
    return _Axes(linear(0, last, panel.left, panel.left + panel.width, most=3 if narrow else 6, whole=True), y)


def _ground(panel: _Panel, axes: _Axes, title: str, first: bool, lowest: bool) -> list[str]:
    """Rules, numbers where it is the ``first`` of its row or the ``lowest`` of its column, and the title."""
    right, bottom = panel.left + panel.width, panel.top + panel.height
    parts = up(axes.y, panel.left, right, named=first)
    if title:
        parts.append(f'<text x="{panel.left:.1f}" y="{panel.top - 6:.1f}">{escape(title)}</text>')
    if lowest:
        middle = (panel.left + right) / 2
        parts += across(axes.x, panel.top, panel.height)
        parts.append(f'<text x="{middle:.1f}" y="{bottom + 35:.1f}" text-anchor="middle">training step</text>')
    else:
        parts += [
            f'<path class="rule" d="M{axes.x.place(m):.1f} {panel.top:g}v{panel.height:g}"/>' for m in axes.x.marks
        ]
    return parts


def _dash(step: float, value: float, last: float) -> Curve:
    return [(max(0, step - last / 50), value), (step + last / 50, value)]
