"""A transfer ends in the right file or in one line of error, whatever the server does; what came is kept."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainbed_adm.datasets.downloading import mirrors
from domainbed_adm.datasets.downloading.mirrors import Archive, ArchiveError, fetch
from tests.datasets.downloading.server import Page, serving

BLOCK = 512 * 1024  # gdown writes whole blocks: a transfer goes on after the last one
CONTENT = np.random.default_rng(0).bytes(4 * BLOCK)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which take no time."""
    seconds: list[float] = []
    monkeypatch.setattr(mirrors, "_sleep", seconds.append)
    return seconds


def get(folder: Path, page: Page, attempts: int = 4, **known: Any) -> bytes:
    with serving({"/a.zip": page}) as address:
        url = f"{address}/a.zip"
        return fetch(url, Archive("a.zip", (url,), **known), folder, attempts).read_bytes()


def failure(folder: Path, page: Page, **known: Any) -> str:
    with pytest.raises(ArchiveError) as caught:
        get(folder, page, **known)
    assert not list(folder.rglob("a.zip"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_whole(tmp_path: Path) -> None:
    page = Page(CONTENT)
    assert get(tmp_path, page, size=len(CONTENT), sha256=DIGEST.upper()) == CONTENT
    assert [entry.name for entry in tmp_path.rglob("*.*")] == ["a.zip"]
    assert page.asked == [None]


def test_a_dropped_connection_goes_on_where_it_broke(tmp_path: Path, waits: list[float]) -> None:
    page = Page(CONTENT, drops=[BLOCK + 100, BLOCK + 200])
    assert get(tmp_path, page, sha256=DIGEST) == CONTENT
    assert [asked for asked in page.asked if asked] == [f"bytes={BLOCK}-", f"bytes={2 * BLOCK}-"]
    assert waits == [1, 2]


def test_another_run_goes_on_where_the_first_broke(tmp_path: Path) -> None:
    page = Page(CONTENT, drops=[2 * BLOCK + 100])
    with serving({"/a.zip": page}) as address:
        archive = Archive("a.zip", (f"{address}/a.zip",))
        with pytest.raises(ArchiveError, match=r"transfer broke: .*, after 1 attempts"):
            fetch(archive.urls[0], archive, tmp_path, attempts=1)
        assert fetch(archive.urls[0], archive, tmp_path).read_bytes() == CONTENT
    assert [asked for asked in page.asked if asked] == [f"bytes={2 * BLOCK}-"]


def test_a_part_of_one_address_is_not_continued_from_another(tmp_path: Path) -> None:
    pages = {"/a.zip": Page(CONTENT, drops=[2 * BLOCK + 100]), "/b.zip": Page(CONTENT[::-1])}
    with serving(pages) as address:
        archive = Archive("a.zip", (f"{address}/a.zip", f"{address}/b.zip"))
        with pytest.raises(ArchiveError):
            fetch(archive.urls[0], archive, tmp_path, attempts=1)
        assert fetch(archive.urls[1], archive, tmp_path).read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_begins_anew(tmp_path: Path, waits: list[float]) -> None:
    page = Page(CONTENT, ranges=False, drops=[2 * BLOCK + 100])
    assert get(tmp_path, page, sha256=DIGEST) == CONTENT


def test_errors_that_pass_are_waited_for_a_bounded_number_of_times(tmp_path: Path, waits: list[float]) -> None:
    assert get(tmp_path, Page(CONTENT, statuses=[503, 429, 500])) == CONTENT
    tired = Page(CONTENT, statuses=[503] * 9)
    assert "HTTP 503 Service Unavailable, after 4 attempts" in failure(tmp_path / "other", tired)
    assert len(tired.asked) == 4
    assert waits == [1, 2, 4] * 2


def test_the_server_names_the_wait_within_a_bound(tmp_path: Path, waits: list[float]) -> None:
    get(tmp_path, Page(CONTENT, statuses=[503], headers={"Retry-After": "17"}))
    get(tmp_path, Page(CONTENT, statuses=[503], headers={"Retry-After": "86400"}))
    assert waits == [17, mirrors.LONGEST_WAIT]


def test_errors_that_stay_are_not_tried_again(tmp_path: Path) -> None:
    page = Page(CONTENT, statuses=[404] * 9)
    assert "HTTP 404" in failure(tmp_path, page)
    assert len(page.asked) == 1


def test_a_server_that_cannot_be_reached_is_given_up(tmp_path: Path, waits: list[float]) -> None:
    told: list[str] = []
    with pytest.raises(ArchiveError, match="after 3 attempts"):
        fetch("http://127.0.0.1:1/a.zip", Archive("a.zip", ()), tmp_path, attempts=3, tell=told.append)
    assert [line.rsplit("; ", 1)[1] for line in told] == ["trying again in 1 s", "trying again in 2 s"]


def test_a_server_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "STALLED", 0.3)
    assert "less than 512 KiB" in failure(tmp_path, Page(CONTENT[:200], drip=0.02))


@pytest.mark.parametrize(
    ("page", "known", "message"),
    [
        (Page(CONTENT), {"size": 7}, "a.zip has 2,097,152 bytes, 7 are expected"),
        (Page(CONTENT), {"sha256": "0" * 64}, f"has the SHA-256 {DIGEST}, {'0' * 64} is expected"),
        (Page(b"\n<!DOCTYPE html><title>Log in"), {}, "is a web page, not an archive"),
        (Page(CONTENT, drops=[10] * 9, ranges=False), {}, "after 4 attempts"),
    ],
)
def test_what_is_wrong_leaves_no_file(
    tmp_path: Path, page: Page, known: dict[str, Any], message: str, waits: list[float]
) -> None:
    assert message in failure(tmp_path, page, **known)


def test_google_drive_is_asked_by_gdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page on which Google Drive asks for a confirmation is answered, and what it then sends is the file."""
    import requests

    confirm = b'<form id="download-form" action="ADDRESS/real"><input type="hidden" name="confirm" value="t"></form>'
    sent = {"Content-Type": "application/zip", "Content-Disposition": 'attachment; filename="x"'}
    pages = {"/real?confirm=t": Page(CONTENT, headers=sent)}
    with serving(pages) as address:
        pages["/uc?id=1"] = Page(confirm.replace(b"ADDRESS", address.encode()), headers={"Content-Type": "text/html"})
        real = requests.Session.get
        monkeypatch.setattr(
            requests.Session,
            "get",
            lambda self, url, **more: real(self, url.replace("https://drive.google.com", address), **more),
        )
        url = "https://drive.google.com/uc?id=1"
        assert fetch(url, Archive("a.zip", (url,)), tmp_path).read_bytes() == CONTENT


def test_a_file_that_google_drive_withholds_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gdown.exceptions import FileURLRetrievalError

    def refuse(*_: object, **__: object) -> None:
        raise FileURLRetrievalError("Failed to retrieve file url:\n\n\tToo many users have viewed this file")

    monkeypatch.setattr("gdown.download", refuse)
    with pytest.raises(ArchiveError, match=r"^Failed to retrieve file url: Too many users"):
        fetch("https://drive.google.com/uc?id=1", Archive("a.zip", ()), tmp_path)


def test_a_full_disk_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gdown.download", full)
    with pytest.raises(OSError, match="No space left"):
        fetch("https://a/b", Archive("a.zip", ()), tmp_path)
    assert not waits


def test_only_a_download_loads_gdown() -> None:
    code = "import sys, domainbed_adm.scripts.download; print({'gdown', 'requests', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
