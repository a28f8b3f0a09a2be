"""The whole page, as text."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from domainbed_adm.method.grid import METHODS
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.report import page, read_sweep
from domainbed_adm.sweeping import failures
from tests.report.sweeps import HOSTILE, write_sweep
from tests.runs import DATA

NOW = datetime(2025, 1, 2, 3, 4, tzinfo=timezone.utc)
SELECTIONS = list(SELECTION_METHODS.values())


def html(folder: Path, title: str = "A sweep", command: str = "domainbed-adm report x", now: datetime = NOW) -> str:
    return page(read_sweep(folder), SELECTIONS, title, command, now)


class Outline(HTMLParser):
    """Start tags with their attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, name: str) -> list[dict[str, Any]]:
        return [attributes for tag, attributes in self.tags if tag == name]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sweep(tmp_path_factory.mktemp("small"), ["ERM", "SAM", "SAM_SSPL_ADM"], {"Mine": ["ink", "oil"]}, 2)


@pytest.fixture(scope="module")
def small_page(small: Path) -> str:
    return html(small)


def test_the_sections_stand_in_the_order_of_the_issue(small_page: str) -> None:
    sections = [one["id"] for one in Outline(small_page).named("section")]
    wanted = [
        "differences",
        "leaderboard",
        "domains",
        "curves",
        "cost",
        "flatness",
        "difficulty",
        "statistics",
        "missing",
        "made",
    ]
    assert sections == wanted
    nav = small_page[small_page.index("<nav") : small_page.index("</nav>")]
    assert [one["href"] for one in Outline(nav).named("a")] == [f"#{name}" for name in wanted]


def test_a_selection_method_without_a_number_is_one_line(small_page: str) -> None:
    captions = re.findall(r"<caption><span>(Model selection: .*)</span>", small_page)
    assert captions == [
        "Model selection: training-domain validation set",
        "Model selection: test-domain validation set (oracle)",
    ]
    assert re.search(r"leave-one-domain-out cross-validation: no number for .* --single_test_envs", small_page)


def test_the_same_records_give_the_same_page_but_for_the_time(small: Path, small_page: str) -> None:
    assert html(small) == small_page
    later = html(small, now=datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert [a for a, b in zip(small_page.splitlines(), later.splitlines(), strict=True) if a != b] == [
        '<p class="quiet">Report of <time datetime="2025-01-02T03:04:00+00:00">2025-01-02 03:04 UTC</time>.</p>'
    ]


def test_nothing_is_fetched_and_only_our_script_may_run(small_page: str) -> None:
    outline = Outline(small_page)
    links = [value for _, attributes in outline.tags for name, value in attributes.items() if name in {"src", "href"}]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "url(" not in small_page
    assert "@import" not in small_page
    assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]
    policy = outline.named("meta")[1]["content"]
    script = re.search(r"<script>(.*?)</script>", small_page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith(f"script-src 'sha256-{digest}'")


def test_hostile_names_stay_text_everywhere(tmp_path: Path) -> None:
    image = '"><img src=x onerror=alert(2)>'
    more = {"hparams": {HOSTILE: image}, "provenance": {"device": HOSTILE, "version": image, "environments": [HOSTILE]}}
    write_sweep(tmp_path, ["ERM", HOSTILE, image], {HOSTILE: [HOSTILE], image: ["a", image]}, 2, **more)
    failures.write(tmp_path / "x", 1, [f"ValueError: {HOSTILE}"], 1, image)
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "results.jsonl").write_text(HOSTILE)
    text = html(tmp_path, title=f"</title>{HOSTILE}", command=f"report '{HOSTILE}'")
    outline = Outline(text)
    assert len(outline.named("script")) == 1
    assert not outline.named("img")
    assert text.count("alert(1)") > 20
    assert HOSTILE not in text
    assert outline.text.count(HOSTILE) > 20
    assert f"report '{HOSTILE}'" in outline.text


def test_every_run_has_its_seeds_and_every_curve_its_value_on_hover(small_page: str) -> None:
    text = " ".join(Outline(small_page).text.split())
    assert "Method Dataset test_envs trial hparams seed last step minutes threads device state folder" in text
    assert re.search(r'<g class="curve m0"><title>ERM: [0-9.]+ at step 600</title>', small_page)
    assert small_page.count("<title>SAM_SSPL_ADM: ") == 3 * 2 + 1  # measures, environments; against passes


def test_every_table_says_what_it_is(small_page: str) -> None:
    outline = Outline(small_page)
    assert len(outline.named("caption")) == len(outline.named("table")) > 4
    assert all(one.get("scope") in {"col", "row"} for one in outline.named("th"))
    regions = [one for one in outline.named("div") if one.get("role") == "region"]
    assert len(regions) == len(outline.named("table"))
    assert all(one["aria-label"] and one["tabindex"] == "0" for one in regions)
    assert "Test accuracy, % over training steps, Mine, tested on ink, a line for each method" in [
        one["aria-label"] for one in outline.named("div") if one.get("role") == "img"
    ]


def test_a_sweep_of_which_all_failed_is_a_page_of_failures(tmp_path: Path) -> None:
    for number in range(6):
        told = f"domainbed-adm: error: ERM on PACS, step 0: not finite: loss nan (lr {number})"
        failures.write(tmp_path / str(number), 3, [told], 1, f"ERM on PACS, test_envs {number}")
    text = Outline(html(tmp_path)).text
    assert "No run has a record yet" in text
    line = "6 x not finite at step 0, first ERM on PACS, test_envs 0 (0/failed.json)"
    assert line in text[text.index("What is missing or failed") :]


def test_what_failed_is_open_or_missing_is_told(tmp_path: Path) -> None:
    runs = sorted(write_sweep(tmp_path, ["ERM", "SAM"], {"Mine": ["ink", "oil"]}, 2).iterdir())
    (runs[0] / "done").unlink()
    lines = (runs[0] / "results.jsonl").read_text().splitlines()
    (runs[0] / "results.jsonl").write_text(lines[0] + "\n{torn\n")
    (runs[1] / "results.jsonl").unlink()
    (runs[1] / "done").unlink()
    failures.write(runs[1], -9, [], 2, "the second run")
    text = Outline(html(tmp_path)).text
    missing = text[text.index("What is missing or failed") :]
    assert re.search(r"Failed\s+the second run: killed by SIGKILL \(2 attempts\)", missing)
    assert re.search(r"Not finished\s+\S+ on Mine, test_envs \d.*: incomplete", missing)
    assert re.search(r"missing: \S+ on Mine, test_envs \d, trial \d, hparams 0", missing)
    assert re.search(r"unfinished: \S+ on Mine, test_envs \d, trial \d, hparams 0: step 0 of 600", missing)
    assert "line 2 left out" in missing
    assert "6 done1 failed0 running1 incomplete" in re.sub(r"\s+(?=\d)|\n", "", text)


def test_results_of_single_checkpoints_are_told(tmp_path: Path, small_page: str) -> None:
    write_sweep(tmp_path, ["ERM"], {"Mine": ["ink", "oil"]})
    first, second = sorted(tmp_path.iterdir())
    for path in (first / "hessian_step1200.json", first / "hessian_step300.json", second / "hessian_step300.json"):
        path.touch()
    (first / "landscape_step300.npz").touch()
    text = " ".join(Outline(html(tmp_path)).text.split())
    assert "Not measured at the last model of any run: domainbed-adm analyze hessian" in text
    assert (
        "Results of --checkpoint are there too, and not shown: hessian_step300.json (2 runs), hessian_step1200.json "
        "(1 run), landscape_step300.npz (1 run)."
    ) in text
    assert "Not measured: <code>" in small_page
    assert "--checkpoint" not in small_page


def test_pairs_of_test_environments_are_missing_only_where_there_are_some(tmp_path: Path) -> None:
    runs = sorted(write_sweep(tmp_path, ["ERM"], {"Mine": "abc"}).iterdir())
    assert "Nothing: every run that the records ask for is done" in html(tmp_path).replace("\n", " ")
    path = runs[0] / "results.jsonl"
    path.write_text(re.sub(r'"test_envs": \[\d\]', '"test_envs": [0, 1]', path.read_text()))
    assert "missing: ERM on Mine, test_envs 0 2, trial 0, hparams 0" in html(tmp_path)


def test_records_of_domainbed_itself(capsys: pytest.CaptureFixture[str]) -> None:
    text = Outline(html(DATA / "domainbed_sweep")).text
    assert "hparams seeds" in text
    assert "No comparison: ERM is the only method." in text
    assert "leave-one-domain-out cross-validation" in text
    assert capsys.readouterr().err == ""


def test_a_sweep_of_all_methods_stays_small(tmp_path: Path) -> None:
    write_sweep(tmp_path, list(METHODS), {"Mine": ["ink", "oil"]}, 1, range(0, 1500, 300))
    assert len(html(tmp_path)) < 500_000


def test_runs_at_chance_are_told_at_the_top_and_chance_is_a_line_in_the_charts(tmp_path: Path) -> None:
    write_sweep(tmp_path, ["ERM"], {"RotatedDigits": ["0", "15", "30", "45", "60", "75"]}, 1, (0, 300))
    good = html(tmp_path)
    assert good.count(">chance<") == 2 * 6  # measures, test environments
    assert "no better than chance, and count" not in good
    assert "of one trial (n = 1): no standard error" in good.replace("\n", " ")
    for path in list(tmp_path.glob("*/results.jsonl"))[:2]:
        path.write_text(re.sub(r"_acc\": [0-9.]+", '_acc": 0.1', path.read_text()))
    assert "<li>2 runs have exploded or ended no better than chance, and count in every mean. <a" in html(tmp_path)
