"""The table of mirrors: the package's, a user's, and what is no table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.datasets.downloading.mirrors import load_sources
from domainbed_adm.errors import UserError

GOOD: dict[str, Any] = {"archives": [{"file": "a.zip", "urls": ["https://example.org/a.zip"]}]}


def table(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder / "mine.yaml"


def test_the_packages_table_has_every_dataset_that_lies_in_a_folder() -> None:
    sources = load_sources([])
    assert set(sources) == {card.name for card in CARDS.values() if card.directory}
    assert [name for name, source in sources.items() if isinstance(source, str)] == ["StanfordCars"]
    assert all(get_card(name).directory for name in sources)
    assert sources["PACS"].root == "kfold"
    traps = sources["TerraIncognita"].camera_traps
    assert traps is not None
    assert traps.locations == ("38", "43", "46", "100")
    assert len(traps.categories) == 10


def test_a_users_table_joins_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"file": "a.tar", "urls": ["http://127.0.0.1:8000/a.tar"], "size": 5, "sha256": "AB" * 32}
    file = table(tmp_path, yaml.safe_dump({"Mine": GOOD, "PACS": {"archives": [own], "rename": {"x": "y"}}}))
    monkeypatch.setenv("HOME", str(file.parent))
    sources = load_sources([Path("~/mine.yaml")])
    assert len(sources) == len(load_sources([])) + 1
    assert sources["PACS"].archives[0].sha256 == "AB" * 32
    assert (sources["PACS"].root, sources["PACS"].rename) == (".", {"x": "y"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archive": []}, "unknown field `archive`"),
        ({"archives": []}, "Expected `array` of length >= 1 - at `$.archives`"),
        ({"archives": [{"file": "a.zip"}]}, "missing required field `urls` - at `$.archives[0]`"),
        ({"archives": [{"file": "../a.zip", "urls": ["http://a/b"]}]}, "at `$.archives[0].file`"),
        (
            {"archives": [{"file": "a.zip", "urls": ["file:///etc/passwd"]}]},
            "at `$.archives[0].urls[0]`",
        ),
        (
            {"archives": [{"file": "a.zip", "urls": "http://a/b"}]},
            "Expected `array`, got `str` - at `$.archives[0].urls`",
        ),
        ({"archives": [{"file": "a.zip", "urls": ["http://a/b"], "size": "5"}]}, "Expected `int | null`, got `str`"),
        (
            {"archives": [{"file": "a.zip", "urls": ["http://a/b"], "sha256": 5}]},
            "Expected `str | null`, got `int` - at `$.archives[0].sha256`",
        ),
        ({"root": "/etc"}, "at `$.root`"),
        ({"rename": {"a": "../b"}}, "at `$.rename[...]`"),
        ({"camera_traps": {}}, "missing required field `images` - at `$.camera_traps`"),
        (
            {"camera_traps": {"images": "a", "annotations": "b", "locations": ["../x"], "categories": ["c"]}},
            "at `$.camera_traps.locations[0]`",
        ),
    ],
)
def test_an_error_names_file_and_entry(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = table(tmp_path, yaml.safe_dump({"Mine": {**GOOD, **change}}))
    with pytest.raises(UserError) as caught:
        load_sources([file])
    assert str(caught.value).startswith(f"mirrors {file}: Mine: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "\0", "x: 3", "../x: {}", "3: {}", "&a [*a]", "!!python/object/apply:os.getpid []"]
)
def test_what_is_no_table_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as caught:
        load_sources([table(tmp_path, text)])
    assert str(caught.value).startswith(f"mirrors {tmp_path / 'mine.yaml'}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mirrors .*gone\.yaml cannot be read: .*No such file"):
        load_sources([tmp_path / "gone.yaml"])
