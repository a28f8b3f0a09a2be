import re
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from domainbed_adm.errors import UserError
from domainbed_adm.system import figures


def _figure(label="a"):
    with figures.style():
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([0, 1], [1, 0], label=label)
        axes.legend()
    return figure


def test_an_inline_figure_escapes_names_has_no_ids_to_clash_and_takes_the_pages_colour():
    svg = figures.inline(_figure("<script>alert(1)</script> $x$"))
    assert svg.startswith("<svg")
    assert "<script" not in svg
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x$" in svg
    assert not re.search(r'id="[^"]*_\d', svg)
    assert "currentColor" in svg


@pytest.mark.parametrize(("ending", "magic"), [("svg", b"<?xml"), ("PNG", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_figure_is_saved_as_its_ending_says(tmp_path, ending, magic):
    figures.save(_figure(), tmp_path / f"a.{ending}")
    assert (tmp_path / f"a.{ending}").read_bytes().startswith(magic)


def test_the_same_figure_is_the_same_file(tmp_path):
    for name in ("a.svg", "b.svg"):
        figures.save(_figure(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_an_unknown_ending_is_refused():
    with pytest.raises(UserError, match=r"x\.gif names no figure format: end it in \.svg, \.png, \.pdf"):
        figures.save(_figure(), Path("x.gif"))
