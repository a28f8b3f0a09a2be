"""How methods are told apart in charts: a panel for each, and in it a colour and a line.

Up to eight methods share one panel, a colour each. Beyond that each flatness rule has a panel, in which the colour
tells the difficulty and the line the curriculum, so that one short legend serves all; methods outside the grid follow,
seven to a panel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domainbed_adm.leaderboard.sheets import OPTIMIZERS
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, METHODS, Method, OwnMethod
from domainbed_adm.system.figures import COLOURS

#: Of the first, second, ... curriculum; in widths of the line.
_DASHES: tuple[tuple[float, ...], ...] = ((2.5, 1), (), (1, 1), (6, 1.5, 1, 1.5))
#: The last colour, grey, is that of a method without a curriculum.
_COLOURED = len(COLOURS) - 1


@dataclass(frozen=True)
class Look:
    """One entry of the legend: what it stands for, colour, dashes in widths of the line, width in points."""

    label: str
    colour: str
    dashes: tuple[float, ...] = ()
    width: float = 1.5

    @property
    def dasharray(self) -> str:
        """The dashes as SVG writes them; "none" for a solid line."""
        return " ".join(f"{self.width * length:.1f}" for length in self.dashes) or "none"


@dataclass(frozen=True)
class Looks:
    """How a set of methods is drawn.

    Attributes:
        panels: title of each; "" where there is but one.
        legend: its entries.
        places: of each method, the index of its panel and of its entry.
    """

    panels: list[str]
    legend: list[Look]
    places: dict[str, tuple[int, int]]


def looks(algorithms: Sequence[str]) -> Looks:
    """The looks of these methods, in their order."""
    if len(algorithms) <= len(COLOURS):
        legend = [Look(name, colour) for name, colour in zip(algorithms, COLOURS, strict=False)]
        return Looks([""], legend, {name: (0, i) for i, name in enumerate(algorithms)})
    found = Looks([], [], {})
    others = [name for name in algorithms if _parts(name) is None]
    for name in algorithms:
        method = _parts(name)
        if method:
            _place(found, name, OPTIMIZERS.get(method.flatness, str(method.flatness)), _grid_look(method))
    for i, name in enumerate(others):
        panel = f"Other methods {i // _COLOURED + 1}"
        _place(found, name, panel, Look(f"{name} ({panel})", COLOURS[i % _COLOURED]))
    return found


def _parts(name: str) -> Method | None:
    method = METHODS.get(name)
    return None if isinstance(method, OwnMethod) else method


def _grid_look(method: Method) -> Look:
    if not (method.curriculum and method.difficulty):
        return Look("no curriculum", COLOURS[-1], width=2)
    colour = COLOURS[list(DIFFICULTIES).index(method.difficulty) % _COLOURED]
    dashes = _DASHES[list(CURRICULA).index(method.curriculum) % len(_DASHES)]
    return Look(f"{method.curriculum}, {method.difficulty}", colour, dashes)


def _place(found: Looks, name: str, panel: str, look: Look) -> None:
    if panel not in found.panels:
        found.panels.append(panel)
    if look not in found.legend:
        found.legend.append(look)
    found.places[name] = found.panels.index(panel), found.legend.index(look)
