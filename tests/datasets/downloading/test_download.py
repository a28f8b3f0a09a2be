"""A dataset is in place whole and right, or not at all; what was fetched serves the next try."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import msgspec
import pytest
from filelock import FileLock

from domainbed_adm.datasets.downloading import STAGE, download
from domainbed_adm.datasets.downloading.mirrors import Archive, CameraTraps, Source
from domainbed_adm.errors import UserError
from tests.datasets.downloading.server import Page, serving
from tests.datasets.downloading.test_archives import contents, made_tar, made_zip

FILES = {"kfold/art/dog/1.jpg": b"one", "kfold/photo/dog/1.jpg": b"two", "__MACOSX/x": b"litter"}
ZIP = made_zip(FILES)
PLACED = {"art/dog/1.jpg": b"one", "photo/dog/1.jpg": b"two"}


def source(address: str, root: str = "kfold", **known: object) -> Source:
    return Source((Archive("PACS.zip", (f"{address}/a.zip",), **known),), root)  # type: ignore[arg-type]


def get(data_dir: Path, page: Page, root: str = "kfold", **known: object) -> None:
    with serving({"/a.zip": page}) as address:
        download(source(address, root, **known), data_dir / "PACS", attempts=2)


def test_a_dataset_is_put_in_place_and_nothing_else(tmp_path: Path) -> None:
    get(tmp_path, Page(ZIP), size=len(ZIP), sha256=hashlib.sha256(ZIP).hexdigest())
    assert contents(tmp_path / "PACS") == PLACED
    assert {entry.name for entry in tmp_path.iterdir()} == {"PACS", STAGE}
    assert list(contents(tmp_path / STAGE).values()) in ([], [b""])


def test_a_dataset_that_is_its_whole_archive_has_the_umasks_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    get(tmp_path, Page(ZIP), root=".")
    assert contents(tmp_path / "PACS") == FILES
    assert (tmp_path / "PACS").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_an_empty_folder_is_filled_and_a_full_one_is_left(tmp_path: Path) -> None:
    (tmp_path / "PACS").mkdir()
    get(tmp_path, Page(ZIP))
    assert contents(tmp_path / "PACS") == PLACED
    with pytest.raises(UserError, match="PACS cannot be written"):
        get(tmp_path, Page(made_zip({"kfold/new/dog/1.jpg": b"new"})))
    assert contents(tmp_path / "PACS") == PLACED


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (Page(made_zip({**FILES, "../../evil": b"evil"})), "lies outside"),
        (Page(ZIP[:300]), "is damaged"),
        (Page(made_tar({"kfold/a": b""}, members=[])), "PACS cannot be written"),
    ],
)
def test_nothing_half_written_is_in_place(tmp_path: Path, page: Page, message: str) -> None:
    if message == "PACS cannot be written":
        (tmp_path / "PACS").write_text("a file in the way")
    with pytest.raises(UserError, match=message):
        get(tmp_path, page)
    assert not (tmp_path / "PACS").is_dir()
    assert not list(tmp_path.glob(f"{STAGE}/**/unpacked-*"))
    assert not list(tmp_path.glob("**/evil"))


def test_a_bad_archive_is_fetched_anew_and_a_broken_transfer_goes_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is damaged"):
        get(tmp_path, Page(ZIP[:300]))
    assert not list(tmp_path.glob(f"{STAGE}/PACS/**/PACS.zip*"))
    block = 512 * 1024
    large = made_zip({**FILES, "kfold/photo/dog/2.jpg": bytes(range(256)) * 8192}, zipfile.ZIP_STORED)
    page = Page(large, drops=[block + 9])
    with serving({"/a.zip": page}) as address:
        with pytest.raises(UserError, match="could not be fetched"):
            download(source(address), tmp_path / "PACS", attempts=1)
        download(source(address), tmp_path / "PACS")
    assert [asked for asked in page.asked if asked] == [f"bytes={block}-"]
    assert contents(tmp_path / "PACS")["photo/dog/1.jpg"] == b"two"


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (Page(b"<html>Log in"), "is a web page, not an archive"),
        (Page(ZIP[:300]), "is damaged"),
        (Page(made_tar(FILES, "w:")[:1024]), "breaks off between two members"),
        (Page(made_zip({"../x": b""})), "lies outside"),
        (Page(b"", statuses=[404]), "HTTP 404"),
    ],
)
def test_the_next_mirror_is_tried(tmp_path: Path, bad: Page, why: str) -> None:
    with serving({"/bad.zip": bad, "/a.zip": Page(ZIP)}) as address:
        urls = (f"{address}/bad.zip", f"{address}/a.zip")
        told: list[str] = []
        download(Source((Archive("PACS.zip", urls),), "kfold"), tmp_path / "PACS", tell=told.append)
        assert contents(tmp_path / "PACS") == PLACED
        assert told == [f"fetching PACS.zip from {url}" for url in urls]
        if why.startswith("HTTP"):
            bad.statuses = [404]
        with pytest.raises(UserError, match=why) as caught:
            download(Source((Archive("PACS.zip", urls[:1]),), "kfold"), tmp_path / "other")
    assert "give it as --archive PACS.zip" in str(caught.value)


def test_an_archive_that_came_whole_is_not_fetched_again(tmp_path: Path) -> None:
    page = Page(ZIP)
    with serving({"/a.zip": page}) as address:
        for _ in range(2):
            with pytest.raises(UserError, match="hold no folder data"):
                download(source(address, "data"), tmp_path / "PACS")
        download(source(address), tmp_path / "PACS")
    assert page.asked == [None]


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gdown.download", full)
    with pytest.raises(UserError, match=r"PACS cannot be written: No space left on device$"):
        download(source("http://127.0.0.1:1"), tmp_path / "PACS")


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / STAGE / "PACS" / "unpacked-old"
    left.mkdir(parents=True)
    (left / "a.jpg").write_bytes(b"half")
    get(tmp_path, Page(ZIP))
    assert contents(tmp_path / "PACS") == PLACED
    assert not left.exists()


def test_two_at_once_are_told(tmp_path: Path) -> None:
    (tmp_path / STAGE).mkdir()
    with FileLock(tmp_path / STAGE / "PACS.lock"), pytest.raises(UserError, match="another process is fetching PACS"):
        get(tmp_path, Page(ZIP))


def test_a_missing_folder_is_named_with_those_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the archives hold no folder data, but __MACOSX, kfold"):
        get(tmp_path, Page(ZIP), root="data")


def test_folders_are_renamed(tmp_path: Path) -> None:
    (tmp_path / "PACS.zip").write_bytes(ZIP)
    renamed = msgspec.structs.replace(source("http://127.0.0.1:1"), rename={"art": "art_painting"})
    download(renamed, tmp_path / "PACS", archives=[tmp_path / "PACS.zip"])
    assert contents(tmp_path / "PACS") == {"art_painting/dog/1.jpg": b"one", "photo/dog/1.jpg": b"two"}
    clash = msgspec.structs.replace(renamed, rename={"art": "photo"})
    with pytest.raises(UserError, match="art cannot be renamed, there is a photo"):
        download(clash, tmp_path / "other", archives=[tmp_path / "PACS.zip"])


def test_a_users_archive_is_checked_and_kept(tmp_path: Path) -> None:
    archive = tmp_path / "PACS (1).zip"
    archive.write_bytes(ZIP)
    with pytest.raises(UserError, match="7 are expected"):
        download(source("http://127.0.0.1:1", size=7), tmp_path / "PACS", archives=[archive])
    with pytest.raises(UserError, match=r"no file .*gone\.zip: --archive is the archive PACS\.zip"):
        download(source("http://127.0.0.1:1"), tmp_path / "PACS", archives=[tmp_path / "gone.zip"])
    with pytest.raises(UserError, match=r"the dataset comes in 1 archives: give --archive PACS\.zip"):
        download(source("http://127.0.0.1:1"), tmp_path / "PACS", archives=[archive, archive])
    download(source("http://127.0.0.1:1"), tmp_path / "PACS", archives=[archive])
    assert archive.read_bytes() == ZIP


TRAPS = CameraTraps("images", "labels", ("38", "100"), ("bird", "cat"))
LABELS = {
    "categories": [{"id": 1, "name": "bird"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "car"}],
    "images": [
        {"id": "a", "location": 38, "file_name": "a.jpg"},
        {"id": "b", "location": "100", "file_name": "b.jpg"},
        {"id": "c", "location": 7, "file_name": "c.jpg"},
    ],
    "annotations": [
        {"image_id": "a", "category_id": 1},
        {"image_id": "a", "category_id": 1},
        {"image_id": "a", "category_id": 2},
        {"image_id": "b", "category_id": 2},
        {"image_id": "b", "category_id": 3},
        {"image_id": "c", "category_id": 1},
    ],
}
IMAGES = {f"images/{name}.jpg": name.encode() for name in "abc"}


def sort(folder: Path, labels: object, images: dict[str, bytes] = IMAGES) -> dict[str, bytes]:
    (folder / "labels.tar.gz").write_bytes(made_tar({"labels/one.json": json.dumps(labels).encode()}))
    (folder / "images.tar.gz").write_bytes(made_tar(images))
    archives = tuple(Archive(name, ("http://127.0.0.1:1/",)) for name in ("images.tar.gz", "labels.tar.gz"))
    traps = Source(archives, camera_traps=TRAPS)
    download(traps, folder / "terra_incognita", archives=[folder / archive.file for archive in archives])
    return contents(folder / "terra_incognita")


def test_camera_traps_are_sorted_by_location_and_category(tmp_path: Path) -> None:
    assert sort(tmp_path, LABELS) == {
        "location_38/bird/a.jpg": b"a",
        "location_38/cat/a.jpg": b"a",
        "location_100/cat/b.jpg": b"b",
    }


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [
        ({}, IMAGES, "are not COCO's"),
        ([3], IMAGES, "are not COCO's"),
        ({**LABELS, "annotations": [{"image_id": "a", "category_id": 9}]}, IMAGES, "are not COCO's"),
        ({**LABELS, "annotations": [{"image_id": [], "category_id": 1}]}, IMAGES, "are not COCO's"),
        ({**LABELS, "annotations": []}, IMAGES, "name no image of the locations"),
        (LABELS, {"images/a.jpg": b"a"}, r"the archives lack the image .*b\.jpg"),
    ],
)
def test_bad_annotations_are_named(tmp_path: Path, labels: object, images: dict[str, bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sort(tmp_path, labels, images)
    assert not (tmp_path / "terra_incognita").exists()
