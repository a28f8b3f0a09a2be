"""A transfer ends in the right file or in one line of error, whatever the server does; what came is kept."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainbed_adm.datasets.downloading.mirrors import Archive
from domainbed_adm.datasets.downloading.responses import Interrupted, Unusable
from domainbed_adm.datasets.downloading.transfer import Transfer
from domainbed_adm.errors import UserError
from tests.datasets.downloading.server import Page, serving

CONTENT = np.random.default_rng(0).bytes(600_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def transfer(folder: Path, *urls: str, retries: int = 4, **known: Any) -> Transfer:
    return Transfer(Archive("a.zip", urls, **known), folder, retries=retries, backoff=0)


def fetch(folder: Path, page: Page, **known: Any) -> bytes:
    with serving({"/a.zip": page}) as address:
        return transfer(folder, f"{address}/a.zip", **known).run().read_bytes()


def failure(folder: Path, page: Page, **known: Any) -> str:
    with pytest.raises(UserError) as caught:
        fetch(folder, page, **known)
    assert not (folder / "a.zip").exists()
    assert "\n" not in str(caught.value)
    assert "--archive a.zip" in str(caught.value)
    return str(caught.value)


def test_a_file_is_fetched_whole(tmp_path: Path) -> None:
    page = Page(CONTENT)
    assert fetch(tmp_path, page, size=len(CONTENT), sha256=DIGEST) == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]
    assert page.ranges_asked == [None]


def test_a_dropped_connection_goes_on_where_it_broke(tmp_path: Path) -> None:
    page = Page(CONTENT, drops=[100_000, 250_000])
    assert fetch(tmp_path, page) == CONTENT
    assert page.ranges_asked == [None, "bytes=100000-", "bytes=350000-"]


def test_another_run_goes_on_where_the_first_broke(tmp_path: Path) -> None:
    page = Page(CONTENT, drops=[100_000])
    with serving({"/a.zip": page}) as address:
        with pytest.raises(UserError, match=r"it sent 100,000 of 600,000 bytes, after 1 attempts"):
            transfer(tmp_path, f"{address}/a.zip", retries=1).run()
        assert transfer(tmp_path, f"{address}/a.zip").run().read_bytes() == CONTENT
    assert page.ranges_asked == [None, "bytes=100000-"]


def test_a_part_that_was_whole_is_not_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").write_bytes(CONTENT)
    url = "http://127.0.0.1:9/a.zip"
    (tmp_path / "a.zip.part.json").write_text(json.dumps({"url": url, "validator": '"one"', "total": len(CONTENT)}))
    assert transfer(tmp_path, url).run().read_bytes() == CONTENT


def test_a_server_without_ranges_begins_anew(tmp_path: Path) -> None:
    page = Page(CONTENT, ranges=False, drops=[100_000])
    assert fetch(tmp_path, page, sha256=DIGEST) == CONTENT
    assert page.ranges_asked == [None, "bytes=100000-"]


def test_a_server_that_names_no_version_begins_anew(tmp_path: Path) -> None:
    page = Page(CONTENT, etag=None, drops=[100_000])
    assert fetch(tmp_path, page) == CONTENT
    assert page.ranges_asked == [None, None]
    (tmp_path / "a.zip").unlink()
    weak = Page(CONTENT, etag='W/"one"', drops=[100_000])
    assert fetch(tmp_path, weak) == CONTENT
    assert weak.ranges_asked == [None, None]


def test_a_file_that_changed_meanwhile_is_never_mixed(tmp_path: Path) -> None:
    old, new = Page(CONTENT, drops=[100_000]), Page(CONTENT[::-1], etag='"two"')
    pages = {"/a.zip": old}
    with serving(pages) as address:
        with pytest.raises(UserError):
            transfer(tmp_path, f"{address}/a.zip", retries=1).run()
        pages["/a.zip"] = new
        assert transfer(tmp_path, f"{address}/a.zip").run().read_bytes() == CONTENT[::-1]
    assert new.ranges_asked == ["bytes=100000-"]


@pytest.mark.parametrize("known", [{"validator": '"two"'}, {"total": 700_000}])
def test_a_server_that_ignores_if_range_is_caught(tmp_path: Path, known: dict[str, Any]) -> None:
    page = Page(CONTENT, heeds_if_range=False)
    with serving({"/a.zip": page}) as address:
        url = f"{address}/a.zip"
        (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
        origin = {"url": url, "validator": '"one"', "total": len(CONTENT), **known}
        (tmp_path / "a.zip.part.json").write_text(json.dumps(origin))
        assert transfer(tmp_path, url).run().read_bytes() == CONTENT


def test_a_part_longer_than_the_file_begins_anew(tmp_path: Path) -> None:
    page = Page(CONTENT)
    with serving({"/a.zip": page}) as address:
        (tmp_path / "a.zip.part").write_bytes(b"x" * 700_000)
        origin = {"url": f"{address}/a.zip", "validator": '"one"', "total": 800_000}
        (tmp_path / "a.zip.part.json").write_text(json.dumps(origin))
        assert transfer(tmp_path, f"{address}/a.zip").run().read_bytes() == CONTENT
    assert page.ranges_asked == ["bytes=700000-", None]


@pytest.mark.parametrize("state", ["", "[]", '{"url": 3}', '{"validator": {}}', "\0"])
def test_a_damaged_note_beside_the_part_begins_anew(tmp_path: Path, state: str) -> None:
    (tmp_path / "a.zip.part").write_bytes(b"x" * 1000)
    (tmp_path / "a.zip.part.json").write_text(state)
    assert fetch(tmp_path, Page(CONTENT)) == CONTENT


def test_errors_that_pass_are_waited_for_a_bounded_number_of_times(tmp_path: Path) -> None:
    page = Page(CONTENT, statuses=[503, 429, 500])
    assert fetch(tmp_path, page) == CONTENT
    tired = Page(CONTENT, statuses=[503] * 9)
    (tmp_path / "a.zip").unlink()
    assert "HTTP 503 Service Unavailable, after 4 attempts" in failure(tmp_path, tired)
    assert len(tired.ranges_asked) == 4


def test_waits_grow_and_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("domainbed_adm.datasets.downloading.transfer.time.sleep", waits.append)
    with serving({"/a.zip": Page(CONTENT, statuses=[503] * 9)}) as address, pytest.raises(UserError):
        Transfer(Archive("a.zip", (f"{address}/a.zip",)), tmp_path, retries=9, backoff=1).run()
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_errors_that_stay_are_not_tried_again(tmp_path: Path) -> None:
    page = Page(CONTENT, statuses=[404] * 9)
    assert "HTTP 404" in failure(tmp_path, page)
    assert len(page.ranges_asked) == 1


def test_a_server_that_always_drops_is_given_up(tmp_path: Path) -> None:
    assert "it sent 10 of 600,000 bytes, after 4 attempts" in failure(
        tmp_path, Page(CONTENT, drops=[10] * 9, ranges=False)
    )


@pytest.mark.parametrize(
    ("page", "known", "message"),
    [
        (Page(CONTENT), {"size": 7}, "its file has 600,000 bytes, 7 are expected"),
        (Page(CONTENT, length=700_000), {}, "after 4 attempts"),
        (Page(CONTENT, length=1000), {"size": 600_000}, "its file has 1,000 bytes, 600,000 are expected"),
        (Page(CONTENT, chunked=True), {"size": 1000}, "it sends more than the 1,000 bytes of the file"),
        (Page(CONTENT, chunked=True, drops=[5000] * 9), {}, "transfer broke"),
        (Page(CONTENT, length=-5), {"sha256": "0" * 64}, "has the SHA-256"),
        (Page(CONTENT), {"sha256": "0" * 64}, f"has the SHA-256 {DIGEST}, {'0' * 64} is expected"),
        (Page(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}), {}, "answers with a web page"),
        (Page(CONTENT, headers={"Content-Encoding": "gzip"}), {}, "sends the file compressed as 'gzip'"),
        (Page(CONTENT, statuses=[302] * 9, headers={"Location": "file:///etc/passwd"}), {}, "HTTP 302"),
        (Page(CONTENT, statuses=[302] * 9, headers={"Location": "ftp://127.0.0.1:9/x"}), {}, "unknown url type"),
        (Page(CONTENT, statuses=[204]), {}, "answers with HTTP 204"),
    ],
)
def test_lies_are_refused(tmp_path: Path, page: Page, known: dict[str, Any], message: str) -> None:
    assert message in failure(tmp_path, page, **known)


def test_a_part_of_another_place_is_refused(tmp_path: Path) -> None:
    page = Page(CONTENT, drops=[1000], headers={"Content-Range": "bytes 5-9/10"})
    assert "where the bytes from 1000 on were asked for" in failure(tmp_path, page)


def test_the_next_address_is_tried(tmp_path: Path) -> None:
    with serving({"/b.zip": Page(CONTENT)}) as address:
        file = transfer(tmp_path, f"{address}/a.zip", f"{address}/b.zip").run()
    assert file.read_bytes() == CONTENT


def test_every_address_is_named_when_none_works(tmp_path: Path) -> None:
    with serving({}) as address, pytest.raises(UserError) as caught:
        transfer(tmp_path, f"{address}/a.zip", f"{address}/b.zip", "http://127.0.0.1:1/c.zip", retries=1).run()
    for part in ("/a.zip: HTTP 404", "/b.zip: HTTP 404", "/c.zip: transfer broke"):
        assert part in str(caught.value)


def test_a_redirection_is_followed(tmp_path: Path) -> None:
    pages = {"/b.zip": Page(CONTENT), "/a.zip": Page(b"", statuses=[302], headers={"Location": "/b.zip"})}
    with serving(pages) as address:
        assert transfer(tmp_path, f"{address}/a.zip").run().read_bytes() == CONTENT


def test_what_is_there_and_right_is_kept_and_what_is_wrong_is_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(CONTENT)
    assert transfer(tmp_path, "http://127.0.0.1:1/a.zip", sha256=DIGEST).run().read_bytes() == CONTENT
    (tmp_path / "a.zip").write_bytes(b"wrong")
    assert fetch(tmp_path, Page(CONTENT), sha256=DIGEST) == CONTENT


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.zip\.part cannot be written: No such file or directory"):
        fetch(tmp_path / "gone", Page(CONTENT))


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    with serving({"/a.zip": Page(CONTENT)}) as address:
        archive = Archive("a.zip", (f"{address}/a.zip",))
        Transfer(archive, tmp_path, lambda there, total: told.append((there, total))).run()
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert [there for there, _ in told] == sorted(there for there, _ in told)


def test_the_two_errors_are_no_user_errors() -> None:
    assert not issubclass(Interrupted, UserError)
    assert not issubclass(Unusable, UserError)
