import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from domainbed_adm.analysis.drawings import draw_landscape, landscape_panels
from domainbed_adm.analysis.result_files import Landscape, load_landscapes, save_landscape
from domainbed_adm.system.figures import inline

ALPHAS = np.linspace(-1, 1, 5)
ORIGIN = {"model": "model.pkl", "dataset": "PACS", "test_envs": [0], "trial_seed": 0, "hparams_seed": 0}
ORIGIN |= {"samples": None, "batch_size": 8, "seed": 0, "dtype": "float32", "device": "cpu", "mode": "", "versions": {}}
ORIGIN |= {"test_name": "sketch"}


def landscape(algorithm="SAM", scale=1.0, **changes):
    bowl = 1 + scale * ALPHAS**2
    arrays = {"alphas": ALPHAS, "source_1d": bowl, "test_1d": 2 * bowl, "alphas_2d": ALPHAS}
    arrays |= {"source_2d": bowl[:, None] + bowl, "test_2d": bowl[:, None] + 3 * bowl}
    return Landscape(**ORIGIN | arrays | changes, algorithm=algorithm)


def equal(one, other):
    fields = [(getattr(one, name), getattr(other, name)) for name in one.__struct_fields__]
    return all(np.array_equal(a, b, equal_nan=isinstance(a, np.ndarray)) for a, b in fields)


@pytest.fixture
def sweep(tmp_path):
    for name in ("ERM", "SAM"):
        (tmp_path / name).mkdir()
        save_landscape(landscape(name), tmp_path / name)
    return tmp_path


def test_what_is_saved_is_loaded_of_a_run_and_of_a_sweep(sweep):
    one = landscape("SAM", source_1d=np.array([np.inf, np.nan, 1, 2, 3]))
    save_landscape(one, sweep / "SAM")
    assert equal(load_landscapes(sweep / "SAM")[0], one)
    assert [found.algorithm for found in load_landscapes(sweep)] == ["ERM", "SAM"]
    assert load_landscapes(sweep, "model_step3.pkl") == []
    assert load_landscapes(sweep / "none") == []


def rewritten(path, **changes):
    with np.load(path) as contents:
        arrays = {**contents}
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04"),
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: np.save(path.open("wb"), ALPHAS),
        lambda path: rewritten(path, alphas=None),
        lambda path: rewritten(path, test_2d=np.ones(5)),
        lambda path: rewritten(path, alphas=np.float64(1)),
        lambda path: rewritten(path, alphas_2d=np.array([], dtype=float)),
        lambda path: rewritten(path, source_1d=np.array(["a"] * 5)),
        lambda path: rewritten(path, source_1d=np.array([{}] * 5, dtype=object)),
        lambda path: rewritten(path, about=np.array("{}")),
        lambda path: rewritten(path, about=np.array(json.dumps(ORIGIN | {"algorithm": 3}))),
    ],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_file_is_a_warning_and_left_out(sweep, capsys, damage):
    path = sweep / "ERM" / "landscape.npz"
    damage(path)
    assert [found.algorithm for found in load_landscapes(sweep)] == ["SAM"]
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {path} left out: no result of analyze landscape (")
    assert told.count("\n") == 1


def drawn(figure):
    return [axes for axes in figure.axes if axes.get_title()]


def test_source_and_test_stand_side_by_side_the_lines_of_all_runs_above_each_runs_plane():
    found = [landscape("ERM", 3.0), landscape("SAM")]
    titles = [axes.get_title() for axes in drawn(draw_landscape(found))]
    planes = [f"{name}\n{where}" for name in ("ERM", "SAM") for where in ("source domains", "test domain sketch")]
    assert titles == ["source domains", "test domain sketch", *planes]
    panels = landscape_panels(found)
    assert [drawn(figure)[0].get_title() for figure in panels] == titles
    for figure, name in zip(panels, ("source_1d", "test_1d"), strict=False):
        lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
        assert [line.get_label() for line in lines] == ["ERM", "SAM"]
        for line, one in zip(lines, found, strict=True):
            np.testing.assert_array_equal(line.get_ydata(), getattr(one, name))
    levels = [figure.axes[0].collections[0].levels.tolist() for figure in panels[2:]]
    assert levels[0] == levels[1] == levels[2] == levels[3]
    assert (levels[0][0], levels[0][-1]) == (2, 16)


def test_the_first_direction_runs_from_left_to_right():
    slope = np.repeat(ALPHAS[:, None] + 2, 5, axis=1)
    axes = landscape_panels([landscape(source_2d=slope, test_2d=slope)])[2].axes[0]
    widest = max((path.get_extents() for path in axes.collections[0].get_paths()), key=lambda box: box.x0)
    assert (widest.y0, widest.y1) == (-1, 1)
    assert widest.x0 > 0.5


def test_runs_of_one_method_share_a_colour_and_a_name_where_there_are_several_methods():
    found = [landscape("ERM"), landscape("SAM"), landscape("SAM", 2.0)]
    axes = landscape_panels(found)[0].axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert [line.get_color() for line in lines][1:] == [lines[1].get_color()] * 2
    assert lines[0].get_color() != lines[1].get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ERM", "SAM"]


@pytest.mark.parametrize(
    "found",
    [
        [landscape("<script>alert(1)</script> $x$", 1e6)],
        [landscape(source_1d=np.full(5, np.nan), source_2d=np.full((5, 5), np.inf))],
        [landscape(scale=0.0, test_1d=np.ones(5), test_2d=np.full((5, 5), 2.0))],
        [landscape(scale=0.0, source_1d=np.zeros(5), test_1d=np.zeros(5))],
        [landscape(scale=0.0, source_1d=np.full(5, 1e16), test_1d=np.full(5, 1e16))],
        [landscape(source_1d=np.full(5, 1e308), source_2d=np.full((5, 5), 1e308), test_2d=np.full((5, 5), 1e308))],
        [landscape(scale=0.0, source_2d=np.full((5, 5), 1e90), test_2d=np.full((5, 5), 1e90))],
    ],
)
def test_what_spans_far_not_at_all_or_is_no_number_is_drawn(found):
    for figure in landscape_panels(found):
        svg = inline(figure)
        assert "<script" not in svg
        assert "mathdefault" not in svg
