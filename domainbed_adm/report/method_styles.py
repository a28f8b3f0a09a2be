"""How methods are told apart in charts: a panel for each, and in it a colour and a line.

Up to eight methods share one panel, a colour each. Beyond that each flatness rule has a panel, in which the colour
tells the difficulty and the line the curriculum, so that one short legend serves all; methods outside the grid follow,
seven to a panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from domainbed_adm.leaderboard.layouts import OPTIMIZERS
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, METHODS, Method, OwnMethod
from domainbed_adm.system.figures import COLOURS

#: Of the first, second, ... curriculum; in widths of the line.
_DASHES: tuple[tuple[float, ...], ...] = ((2.5, 1), (), (1, 1), (6, 1.5, 1, 1.5))
#: The last colour, grey, is that of a method without a curriculum.
_COLOURED = len(COLOURS) - 1
_OTHER = "Other methods"


class LineStyle(NamedTuple):
    """One entry of the legend: what it stands for, colour, dashes in widths of the line, width in points."""

    label: str
    colour: str
    dashes: tuple[float, ...] = ()
    width: float = 1.5

    @property
    def dasharray(self) -> str:
        """The dashes as SVG writes them; "none" for a solid line."""
        return " ".join(f"{self.width * length:.1f}" for length in self.dashes) or "none"


class MethodStyles(NamedTuple):
    """How a set of methods is drawn.

    Attributes:
        panels: title of each; "" where there is but one.
        legend: its entries.
        places: of each method, the index of its panel and of its entry.
    """

    panels: list[str]
    legend: list[LineStyle]
    places: dict[str, tuple[int, int]]


def method_styles(algorithms: Sequence[str]) -> MethodStyles:
    """The styles of these methods, in their order."""
    if len(algorithms) <= len(COLOURS):
        styles = {name: ("", LineStyle(name, colour)) for name, colour in zip(algorithms, COLOURS, strict=False)}
    else:
        styles = {name: _in_grid(method) for name in algorithms if (method := _parts(name))}
        others = [name for name in algorithms if name not in styles]
        styles |= {name: _other(i, name) for i, name in enumerate(others)}
    panels = list(dict.fromkeys(panel for panel, _ in styles.values()))
    legend = list(dict.fromkeys(style for _, style in styles.values()))
    places = {name: (panels.index(panel), legend.index(style)) for name, (panel, style) in styles.items()}
    return MethodStyles(panels, legend, places)


def _parts(name: str) -> Method | None:
    method = METHODS.get(name)
    return None if isinstance(method, OwnMethod) else method


def _in_grid(method: Method) -> tuple[str, LineStyle]:
    panel = OPTIMIZERS.get(method.flatness, str(method.flatness))
    if not (method.curriculum and method.difficulty):
        return panel, LineStyle("no curriculum", COLOURS[-1], width=2)
    colour = COLOURS[list(DIFFICULTIES).index(method.difficulty) % _COLOURED]
    dashes = _DASHES[list(CURRICULA).index(method.curriculum) % len(_DASHES)]
    return panel, LineStyle(f"{method.curriculum}, {method.difficulty}", colour, dashes)


def _other(index: int, name: str) -> tuple[str, LineStyle]:
    panel = f"{_OTHER} {index // _COLOURED + 1}"
    return panel, LineStyle(f"{name} ({panel})", COLOURS[index % _COLOURED])
