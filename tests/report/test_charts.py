"""How methods are told apart, and the charts."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from domainbed_adm.method.grid import METHODS, unnamed_methods
from domainbed_adm.registry import DOMAINBED_ALGORITHMS
from domainbed_adm.report.charts import MethodStyles, draw, method_styles
from tests.report.sweeps import HOSTILE

SVG = "{http://www.w3.org/2000/svg}"


def differ(found: MethodStyles) -> bool:
    drawn = [(panel, found.legend[entry].colour, found.legend[entry].dashes) for panel, entry in found.places.values()]
    return len(set(drawn)) == len(drawn) == len(found.places)


def test_up_to_eight_methods_have_a_colour_each_in_one_panel() -> None:
    found = method_styles(["ERM", "SAM", HOSTILE])
    assert found.panels == [""]
    assert [look.label for look in found.legend] == ["ERM", "SAM", HOSTILE]
    assert differ(found)
    assert differ(method_styles([str(i) for i in range(8)]))


def test_the_grid_has_a_panel_for_each_optimizer_and_one_short_legend() -> None:
    found = method_styles(unnamed_methods())
    assert found.panels == ["Base optimizer", "SAM", "SAGM", "F-SAM"]
    assert len(found.legend) == 7
    assert differ(found)


def test_many_methods_outside_the_grid_share_panels() -> None:
    names = list(dict.fromkeys([*DOMAINBED_ALGORITHMS, *METHODS]))
    found = method_styles(names)
    assert set(found.places) == set(names)
    assert found.panels[4:] == ["ASAM", "GSAM"] + [f"Other methods {i}" for i in range(1, 6)]
    assert differ(found)
    assert all(panel.width > 0 for panel in found.legend)


def chart(*names: str, values: tuple[float, ...] = (1.0, 2.0), logarithmic: bool = False) -> ElementTree.Element:
    curves = {name: list(enumerate(values)) for name in names}
    return ElementTree.fromstring(draw(curves, method_styles(names), (min(values), max(values)), logarithmic))


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(one.itertext()).strip() for one in svg.iter(f"{SVG}text")]


def test_a_chart_has_a_class_for_each_entry_of_the_legend_and_no_ids() -> None:
    svg = chart("ERM", "SAM")
    assert [one.get("class") for one in svg.iter(f"{SVG}g") if one.get("class")] == ["curve m0", "curve m1"]
    assert not [one.tag for one in svg.iter() if one.get("id")]
    assert not list(svg.iter(f"{SVG}style"))
    assert "training step" in texts(svg)


def test_panels_have_titles_and_the_lowest_the_steps() -> None:
    names = [name for name in METHODS if not name.startswith("FSAM")]
    svg = chart(*names)
    assert [title for title in texts(svg) if title in {"Base optimizer", "SAM", "SAGM"}] == [
        "Base optimizer",
        "SAM",
        "SAGM",
    ]
    assert texts(svg).count("training step") == 2


def test_a_single_checkpoint_is_a_short_line() -> None:
    svg = chart("ERM", values=(3.0,))
    (line,) = (one for one in svg.iter(f"{SVG}g") if one.get("class"))
    path = line.find(f"{SVG}path")
    assert path is not None
    x = [float(number) for number in re.findall(r"[ML](\S+)", path.get("d", ""))]
    assert x[1] > x[0]


@pytest.mark.parametrize(("values", "logarithmic", "shown"), [
    ((0.01, 1.0), True, "0.03"),
    ((0.01, 1.0), False, "0.2"),
    ((0.5, 1.0), True, "0.6"),
    ((-0.01, 1.0), True, "0.2"),
])  # fmt: skip
def test_a_loss_that_falls_far_has_a_logarithmic_axis(values: tuple, logarithmic: bool, shown: str) -> None:
    assert shown in texts(chart("ERM", values=values, logarithmic=logarithmic))


def test_the_same_curves_are_the_same_text() -> None:
    curves = {"ERM": [(0.0, 1.0), (1.0, 0.5)]}
    assert draw(curves, method_styles(["ERM"]), (0, 1), False) == draw(curves, method_styles(["ERM"]), (0, 1), False)
