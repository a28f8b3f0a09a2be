"""The table of mirrors: the package's, a user's, and what is no table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainbed_adm.datasets.cards import get_card
from domainbed_adm.datasets.downloading.mirrors import is_file_name, is_inner_path, load_sources
from domainbed_adm.errors import UserError

GOOD: dict[str, Any] = {"archives": [{"file": "a.zip", "urls": ["https://example.org/a.zip"]}]}


def table(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder / "mine.yaml"


def test_the_packages_table_has_the_four_folder_datasets() -> None:
    sources = load_sources([])
    assert list(sources) == ["PACS", "VLCS", "OfficeHome", "TerraIncognita"]
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
    assert len(sources) == 5
    assert sources["PACS"].archives[0].sha256 == "ab" * 32
    assert (sources["PACS"].root, sources["PACS"].rename) == (".", {"x": "y"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archive": []}, "unknown key 'archive'. Did you mean archives?"),
        ({"archives": []}, "archives must be a list of one or more"),
        ({"archives": [{"file": "a.zip"}]}, "lacks urls"),
        ({"archives": [{"file": "../a.zip", "urls": ["http://a/b"]}]}, "file must be a plain file name"),
        ({"archives": [{"file": "a.zip", "urls": ["file:///etc/passwd"]}]}, "urls must be http"),
        ({"archives": [{"file": "a.zip", "urls": "http://a/b"}]}, "urls must be a list"),
        ({"archives": [{"file": "a.zip", "urls": ["http://a/b"], "size": "5"}]}, "size must be a number of bytes"),
        ({"archives": [{"file": "a.zip", "urls": ["http://a/b"], "sha256": 5}]}, "sha256 must be 64"),
        ({"archives": GOOD["archives"] * 2}, "names one archive file twice"),
        ({"root": "/etc"}, "a folder must lie inside the archives"),
        ({"rename": {"a": "../b"}}, "a folder must lie inside the archives"),
        ({"camera_traps": {}}, "lacks images"),
        (
            {"camera_traps": {"images": "a", "annotations": "b", "locations": ["../x"], "categories": ["c"]}},
            "is no folder name",
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


def test_a_table_that_grows_when_shown_is_one_short_line(tmp_path: Path) -> None:
    doubled = [f"- &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    with pytest.raises(UserError) as caught:
        load_sources([table(tmp_path, "\n".join(["- &a0 [x, x, x, x]", *doubled]))])
    assert len(str(caught.value)) <= 500


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mirrors .*gone\.yaml cannot be read: .*No such file"):
        load_sources([tmp_path / "gone.yaml"])


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["..", "/x", "a", "http://[", "http://a:x/", "https://a/b", "0" * 64, "\ud800", "a\nb"]),
)
keys = st.sampled_from(["archives", "root", "rename", "file", "urls", "size", "images", "locations", "x", ".."])
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys | leaves, inner, max_size=4), max_leaves=12
)
entries = st.fixed_dictionaries(
    {"archives": st.lists(st.fixed_dictionaries({"file": leaves, "urls": st.lists(leaves)}), max_size=2)},
    optional={"root": leaves, "rename": values, "camera_traps": values, "size": values},
)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.one_of(st.dictionaries(leaves, entries, max_size=2), values, st.text(max_size=40), st.binary()))
def test_fuzz_tables(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "mine.yaml"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        text = content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=False)
        file.write_text(text, encoding="utf-8", errors="surrogatepass")
    message = ""
    try:
        sources = load_sources([file])
    except UserError as error:
        message = str(error)
    else:
        for source in sources.values():
            assert is_file_name(source.dataset)
            assert all(is_file_name(archive.file) for archive in source.archives)
            assert all(is_inner_path(path) for path in [source.root, *source.rename, *source.rename.values()])
    assert "\n" not in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.yaml"]
