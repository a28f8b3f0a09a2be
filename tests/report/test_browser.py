"""The page in a real browser: headless Chromium, offline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("selenium")

from selenium import webdriver

from domainbed_adm.method.grid import METHODS
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.report import page, read_sweep
from tests.report.sweeps import HOSTILE, write_sweep

_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with hostile names, a number that is not known, and a table wider than a phone."""
    folder = tmp_path_factory.mktemp("sweep")
    datasets = {"Mine": ["ink", HOSTILE], HOSTILE: ["a", "b" * 60], "Zoo": ["c", "d"]}
    write_sweep(folder, ["ERM", "SAM", "SAM_SSPL_ADM", HOSTILE], datasets, 2)
    write_sweep(folder, ["SAGM"], {"Mine": ["ink", HOSTILE]}, 2)
    return _written(folder)


@pytest.fixture(scope="module")
def grid_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of all 28 methods."""
    return _written(write_sweep(tmp_path_factory.mktemp("grid"), list(METHODS), {"PACS": "ACPS"}, 1, (0, 300)))


def _written(folder: Path) -> str:
    now = datetime(2025, 1, 2, tzinfo=timezone.utc)
    path = folder / "report.html"
    path.write_text(
        page(read_sweep(folder), list(SELECTION_METHODS.values()), f"On {HOSTILE}", "domainbed-adm report x", now)
    )
    return path.as_uri()


def show(browser: Any, address: str, width: int = 1280, scheme: str = "light") -> None:
    """Open the page on a screen so wide, in light or dark."""
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(address)


def test_no_error_no_alert_no_network(browser: Any, address: str) -> None:
    show(browser, address)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert address in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert [url for url in asked if url.startswith("file:") and url != address] == []


def test_hostile_names_are_text(browser: Any, address: str) -> None:
    show(browser, address)
    assert browser.title == f"On {HOSTILE}"
    assert browser.execute_script("return document.scripts.length") == 1
    assert browser.execute_script("return document.body.innerText").count(HOSTILE) > 10
    labels = browser.execute_script(
        "return [...document.querySelectorAll('.legend label')].map(e => e.innerText.trim())"
    )
    assert HOSTILE in labels


_COLUMN = """
const table = document.querySelectorAll("table")[arguments[0]];
return [...table.tBodies[0].rows].map(row => row.cells[arguments[1]].innerText);
"""
_SORTED = (
    "return [...document.querySelectorAll('table')[0].tHead.rows[0].cells].map(th => th.getAttribute('aria-sort'))"
)


def test_a_click_on_a_heading_sorts_numbers_as_numbers_and_unknown_last(browser: Any, address: str) -> None:
    show(browser, address)
    headings = browser.find_elements("css selector", "table:first-of-type thead th button")[:8]
    names = [one.text for one in headings]
    assert sorted(names) == sorted(["Method", "Opt.", "Curr.", "Diff.", "Mine", HOSTILE, "Zoo", "Avg"])
    zoo = names.index("Zoo")
    before = browser.execute_script(_COLUMN, 0, zoo)
    assert before.count("–") == 1
    orders = []
    for _ in range(3):
        headings[zoo].click()
        orders.append((browser.execute_script(_SORTED)[zoo], browser.execute_script(_COLUMN, 0, zoo)))
    numbers = sorted((cell for cell in before if cell != "–"), key=lambda cell: float(cell.split()[0]))
    up, down = ("ascending", [*numbers, "–"]), ("descending", [*numbers[::-1], "–"])
    assert orders == [down, up, down]
    headings[1].send_keys("\ue007")  # the enter key
    assert browser.execute_script(_SORTED) == [None, "ascending", *[None] * 6]
    assert browser.execute_script(_COLUMN, 0, 1) == ["-", "Adam", "SAGM", "SAM", "SAM"]


def test_ten_is_more_than_nine(browser: Any, address: str) -> None:
    show(browser, address)
    table = "document.querySelector('table').tBodies[0]"
    for i, value in enumerate((9, 10, -1, 100, 2)):
        browser.execute_script(f"{table}.rows[{i}].cells[6].dataset.value = {value}")
    browser.find_elements("css selector", "table:first-of-type thead th button")[6].click()
    order = browser.execute_script(f"return [...{table}.rows].map(row => Number(row.cells[6].dataset.value))")
    assert order == [100, 10, 9, 2, -1]


_BEYOND = """
const scrollers = e => e.closest(".scroll, .legend div") !== null;
return [...document.querySelectorAll("body *")]
  .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrollers(e))
  .map(e => e.outerHTML.slice(0, 80));
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page_of", ["address", "grid_address"])
def test_nothing_overflows_a_phone(browser: Any, page_of: str, scheme: str, request: pytest.FixtureRequest) -> None:
    show(browser, request.getfixturevalue(page_of), 390, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.execute_script("return document.scrollingElement.scrollWidth") <= 390
    assert browser.execute_script(_BEYOND) == []
    wide = "return [...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
    assert browser.execute_script(wide) > 0
    assert browser.execute_script("return document.querySelectorAll('table').length") == browser.execute_script(
        "return document.querySelectorAll('.scroll > table').length"
    )
    widths = browser.execute_script("return [...document.querySelectorAll('figure svg')].map(e => e.clientWidth)")
    assert min(widths) > 330


_CONTRAST = """
const channels = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
const light = colour => channels(colour)
  .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = e => {
  const own = getComputedStyle(e).backgroundColor;
  return own !== "rgba(0, 0, 0, 0)" ? own : e.parentElement ? ground(e.parentElement) : "rgb(255, 255, 255)";
};
return arguments[0].map(selector => {
  const e = document.querySelector(selector);
  const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
});
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_is_light_dark_is_dark_and_both_have_contrast(browser: Any, address: str, scheme: str) -> None:
    show(browser, address, scheme=scheme)
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    channels = [int(number) for number in ground[4:-1].split(",")]
    assert max(channels) < 50 if scheme == "dark" else min(channels) > 230
    ink = "return getComputedStyle(document.querySelector('figure svg text')).fill"
    assert browser.execute_script(ink) == browser.execute_script("return getComputedStyle(document.body).color")
    selectors = ["p", ".note", "nav a", "td.number", "td.best", "thead th", "figcaption", "dt", "code", ".quiet"]
    found = browser.execute_script(_CONTRAST, selectors)
    assert {name: ratio for name, ratio in zip(selectors, found, strict=True) if ratio < 4.5} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_wrong(browser: Any, address: str, scheme: str) -> None:
    folders = pytest.importorskip("axe_playwright_python").__path__
    browser.set_script_timeout(120)
    show(browser, address, scheme=scheme)
    browser.execute_script(Path(folders[0], "axe.min.js").read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[0])")
    assert [(one["impact"], one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
    assert len(found["passes"]) > 15


def test_a_ticked_method_stands_out_in_every_chart(browser: Any, address: str) -> None:
    show(browser, address)
    browser.find_element("id", "pick1").click()
    faint = "return [...document.querySelectorAll('.curve')].map(e => [e.classList[1], getComputedStyle(e).opacity])"
    found = browser.execute_script(faint)
    assert {name for name, opacity in found if opacity == "1"} == {"m1"}
    assert {name for name, opacity in found if opacity == "0.1"} == {"m0", "m2", "m3", "m4"}


def test_tables_and_charts_are_saved_under_names_of_their_own(browser: Any, address: str) -> None:
    show(browser, address)
    # the last of the texts and the name, as the browser would write them
    browser.execute_script(
        "URL.createObjectURL = (blob) => { window.saved = blob; return '#'; };"
        "HTMLAnchorElement.prototype.click = function () { window.file = this.download; };"
    )
    buttons = browser.find_elements("css selector", ".download button")
    tables = browser.execute_script("return document.querySelectorAll('table').length")
    charts = browser.execute_script("return document.querySelectorAll('figure:has(svg)').length")
    files = {}
    for button in buttons:
        browser.execute_script("arguments[0].click()", button)
        name = browser.execute_script("return window.file")
        files[name] = browser.execute_async_script("window.saved.text().then(arguments[0])")
    assert len(files) == len(buttons) == 2 * tables + charts
    csv = next(text for name, text in files.items() if name.startswith("leaderboard_") and name.endswith(".csv"))
    assert csv.splitlines()[0] == "Method,Opt.,Curr.,Diff.,<script>alert(1)</script>,Mine,Zoo,Avg"
    tex = next(text for name, text in files.items() if name.startswith("leaderboard_") and name.endswith(".tex"))
    assert "SAM\\_SSPL\\_ADM & SAM & SSPL & ADM & " in tex
    for name, text in files.items():
        if name.endswith(".svg"):
            assert "var(" not in text
            assert ElementTree.fromstring(text).tag.endswith("svg")


def test_without_javascript_there_are_plain_tables(browser: Any, address: str) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, address)
        assert browser.find_elements("css selector", "th button") == []
        assert browser.find_element("css selector", "table thead th").text == "Method"
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
