import json

import pytest

pytest.importorskip("matplotlib")

from domainbed_adm.analysis.commands import common_rho
from domainbed_adm.analysis.drawings import QUANTITIES, draw_flatness, flatness_panels
from domainbed_adm.analysis.result_files import DomainFlatness, Flatness, load_flatness, result_path, save_flatness
from domainbed_adm.errors import UserError
from domainbed_adm.system.figures import inline


def domain(role, factor=1.0, **changes):
    values = {"name": role, "role": role, "n": 10, "loss": 1.5, "accuracy": 0.5, "eigenvalues": [8.0 * factor, 3.0]}
    values |= {"converged": True, "trace": 20.0 * factor, "trace_sem": 0.5, "trace_vectors": 10}
    values |= {"sharpness": 0.1 * factor, "random_rise": 1e-5, "random_rise_sem": 1e-6}
    return DomainFlatness(**values | changes)


def flatness(algorithm="SAM", test_env=0, factor=1.0, **changes):
    values = {"model": "model.pkl", "algorithm": algorithm, "dataset": "PACS", "test_envs": [test_env]}
    values |= {"trial_seed": 0, "hparams_seed": 0, "samples": None, "batch_size": 8, "seed": 0, "dtype": "float32"}
    values |= {"device": "cpu", "mode": "BatchNorm frozen", "versions": {"torch": "2.9"}, "rho": 0.05}
    values |= {"tolerance": 1e-3, "trace_tolerance": 0.05}
    domains = [domain("source", factor), domain("pooled", factor), domain("test", 2 * factor)]
    return Flatness(**values | {"domains": domains} | changes)


@pytest.fixture
def sweep(tmp_path):
    for i, name in enumerate(("ERM", "SAM")):
        (tmp_path / name).mkdir()
        save_flatness(flatness(name, factor=1 + i), tmp_path / name)
    return tmp_path


def test_what_is_saved_is_loaded_of_a_run_and_of_a_sweep(sweep):
    assert load_flatness(sweep / "SAM") == [flatness("SAM", factor=2)]
    assert load_flatness(sweep) == [flatness("ERM"), flatness("SAM", factor=2)]
    later = flatness("SAM", model="model_step300.pkl")
    assert save_flatness(later, sweep / "SAM").name == "hessian_step300.json"
    assert load_flatness(sweep, "model_step300.pkl") == [later]
    assert load_flatness(sweep / "none") == []
    assert flatness().of("test") == [domain("test", 2)]


def test_what_a_later_version_adds_is_passed_over(sweep):
    path = sweep / "SAM" / "hessian.json"
    contents = json.loads(path.read_text())
    contents["new"] = contents["domains"][0]["new"] = 1
    path.write_text(json.dumps(contents))
    assert load_flatness(sweep / "SAM") == [flatness("SAM", factor=2)]


def changed(**values):
    return lambda contents: json.dumps(contents | values)


@pytest.mark.parametrize(
    "damage",
    [
        lambda contents: json.dumps(contents)[:-40],
        lambda contents: "[]",
        lambda contents: "null",
        lambda contents: "[" * 100_000,
        lambda contents: b"\xff\xfe",
        lambda contents: json.dumps({k: v for k, v in contents.items() if k != "rho"}),
        changed(algorithm=3),
        changed(seed=True),
        changed(rho="0.05"),
        changed(rho=float("nan")),
        changed(trace_tolerance=float("inf")),
        changed(test_envs=["0"]),
        changed(domains={}),
        changed(domains=[{}]),
        changed(domains=[1]),
        changed(domains=[]),
        lambda contents: json.dumps(contents).replace('"pooled"', '"all"'),
        lambda contents: json.dumps(contents).replace("8.0", "9" * 400),
        lambda contents: json.dumps(contents).replace("8.0", '"<script>"'),
        lambda contents: json.dumps(contents).replace("8.0", "Infinity"),
    ],
)
def test_a_damaged_file_is_a_warning_and_left_out(sweep, capsys, damage):
    path = sweep / "ERM" / "hessian.json"
    contents = damage(json.loads(path.read_text()))
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    assert load_flatness(sweep) == [flatness("SAM", factor=2)]
    told = capsys.readouterr().err
    assert told.startswith(f"warning: {path} left out: no result of analyze hessian (")
    assert told.count("\n") == 1


def test_results_lie_beside_their_model(tmp_path):
    assert result_path(tmp_path, "model.pkl", "hessian", "json") == tmp_path / "hessian.json"
    assert result_path(tmp_path, "model_step300.pkl", "hessian", "json") == tmp_path / "hessian_step300.json"
    for wrong in ("../model.pkl", "checkpoint.pkl", "model.pkl/", "model"):
        with pytest.raises(UserError, match="--checkpoint is model.pkl or model_step<step>.pkl"):
            result_path(tmp_path, wrong, "hessian", "json")


@pytest.mark.parametrize(
    ("hparams", "given", "rho", "warns"),
    [
        ([{}, {}], None, 0.05, False),
        ([{}, {"rho": 0.1}, {"rho": 0.1}], None, 0.1, False),
        ([{"rho": 0.2}, {"rho": 0.1}], None, 0.05, True),
        ([{"rho": 0.2}, {"rho": 0.1}], 0.3, 0.3, False),
        ([{"rho": None}], None, 0.05, False),
        ([{"rho": 0.0}], None, 0.0, False),
    ],
)
def test_one_rho_for_all_runs(capsys, hparams, given, rho, warns):
    assert common_rho(hparams, given) == rho
    message = "warning: the runs' rho differ (0.1, 0.2): sharpness of all at 0.05; --rho names another\n"
    assert capsys.readouterr().err == (message if warns else "")


def dots(axes):
    return {line.get_label(): sorted(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_figures_have_a_dot_for_each_run_and_role_and_methods_in_the_grids_order():
    found = [flatness("SAM_SSPL_ADM", 0, 1.0), flatness("ERM", 0, 3.0), flatness("ERM", 1, 4.0)]
    panels = flatness_panels(found)
    assert [len(figure.axes) for figure in panels] == [1] * len(QUANTITIES)
    assert len(draw_flatness(found).axes) == len(QUANTITIES)
    axes = panels[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ERM", "SAM_SSPL_ADM"]
    shown = {name: [x for x, _ in rows] for name, rows in dots(axes).items()}
    assert shown == {"source domains": [8.0, 24.0, 32.0], "test domain": [16.0, 48.0, 64.0]}
    assert {round(y) for x, y in dots(axes)["source domains"] if x > 20} == {0}
    assert axes.get_xscale() == "log"
    assert "rho = 0.05" in panels[2].axes[0].get_title("right")


def test_what_did_not_converge_is_not_drawn_and_alone_draws_no_axis_that_cannot_be():
    lost = {"eigenvalues": [3.0], "converged": False}
    panels = flatness_panels([flatness(domains=[domain("pooled", **lost), domain("test", 2)])])
    assert {name: len(rows) for name, rows in finite(panels[0].axes[0]).items()} == {
        "source domains": 0,
        "test domain": 1,
    }
    alone = flatness(domains=[domain("pooled", **lost), domain("test", **lost | {"eigenvalues": []})])
    assert flatness_panels([alone])[0].axes[0].get_xscale() == "linear"
    inline(draw_flatness([alone]))


def finite(axes):
    return {name: [x for x, _ in rows if x == x] for name, rows in dots(axes).items()}


def test_what_is_negative_missing_or_named_strangely_is_drawn():
    strange = flatness("<script>alert(1)</script>", domains=[domain("pooled", -1), domain("test", eigenvalues=[])])
    panels = flatness_panels([strange, flatness(rho=0.1)])
    assert panels[1].axes[0].get_xscale() == "linear"
    assert "rho = 0.05, 0.1" in panels[2].axes[0].get_title("right")
    for figure in panels:
        assert "<script" not in inline(figure)
        assert "$" not in inline(figure)
