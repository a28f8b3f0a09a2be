"""Every fault planted in a folder is named once with its path, and a clean folder has none."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from domainbed_adm.datasets.cards import CARDS, folder_card, get_card
from domainbed_adm.errors import UserError
from domainbed_adm.scripts import verify_data
from domainbed_adm.scripts.verify_data import Report, verify

CARD = folder_card("Shapes")
PUBLISHED = {
    **{"PACS": [9991], "VLCS": [10729], "OfficeHome": [15588], "TerraIncognita": [24788, 24330]},
    **{"CIFAR10": [60000], "CIFAR100": [60000]},
    **{"StanfordCars": [16185], "FGVCAircraft": [10000], "CUB200": [11788], "Food101": [101000]},
}


def faults(report: Report) -> dict[str, tuple[str, str]]:
    named = {str(problem.path.relative_to(report.root)): (problem.kind, problem.reason) for problem in report.problems}
    assert len(named) == len(report.problems)
    return named


def test_the_published_totals() -> None:
    assert {name: [sum(sizes) for sizes in card.sizes] for name, card in CARDS.items() if card.sizes} == PUBLISHED
    assert all(len(sizes) == len(card.environments or ()) for card in CARDS.values() for sizes in card.sizes)


def test_a_clean_folder_has_no_fault(image_folder: Path) -> None:
    report = verify(CARD, image_folder / "Shapes")
    assert (report.problems, report.notes, report.hidden) == ([], [], 0)
    assert report.counts == {name: {"circle": 5, "square": 5} for name in ("dark", "light", "tinted")}
    assert report.sizes == (10, 10, 10)


def test_every_fault_is_named(image_folder: Path) -> None:
    root = image_folder / "Shapes"
    circle = root / "dark" / "circle"
    (circle / "0.jpg").write_bytes((circle / "0.jpg").read_bytes()[:300])
    (circle / "1.png").write_bytes(b"")
    (circle / "2.jpg").write_bytes(b"<html>not found</html>")
    shutil.copy(circle / "3.png", circle / "4.jpg")
    shutil.copy(circle / "3.png", root / "light" / "square" / "copy.png")
    shutil.copy(circle / "3.png", root / "stray.png")
    shutil.copy(circle / "3.png", root / "light" / "stray.PNG")
    (circle / "notes.txt").write_text("no image")
    (circle / "gone.png").symlink_to("nowhere.png")
    (circle / "round").symlink_to(circle)
    os.mkfifo(circle / "pipe.png")
    (root / "light" / "triangle").mkdir()
    (root / "void").mkdir()
    named = faults(verify(CARD, root))
    assert {path: kind for path, (kind, _) in named.items()} == {
        "dark/circle/0.jpg": "broken",
        "dark/circle/1.png": "empty",
        "dark/circle/2.jpg": "broken",
        "dark/circle/4.jpg": "duplicate",
        "light/square/copy.png": "duplicate",
        "stray.png": "misplaced",
        "light/stray.PNG": "misplaced",
        "dark/circle/notes.txt": "misplaced",
        "dark/circle/gone.png": "broken",
        "dark/circle/round": "broken",
        "dark/circle/pipe.png": "broken",
        "light/triangle": "empty",
        "void": "empty",
    }
    assert verify(CARD, root).verdict() == "5 unreadable, 2 duplicates, 3 empty, 3 misplaced"
    assert named["light/square/copy.png"][1] == f"same content as {circle / '3.png'}"
    assert named["dark/circle/2.jpg"][1] == "cannot decode image: no image of a format that Pillow knows"


def test_what_is_not_wrong_is_told(image_folder: Path) -> None:
    root = image_folder / "Shapes"
    shutil.rmtree(root / "light" / "circle")
    (root / "README").write_text("about")
    (root / ".DS_Store").write_bytes(b"litter")
    (root / "dark" / "square" / "Thumbs.db").write_bytes(b"litter")
    (root / "dark" / "square" / "._0.jpg").write_bytes(b"litter")
    (root / "tinted" / "square" / "more").mkdir()
    (root / "tinted" / "square" / "0.jpg").rename(root / "tinted" / "square" / "more" / "0.jpg")
    report = verify(CARD, root)
    assert report.problems == []
    assert report.hidden == 3
    assert report.notes == [f"{root / 'README'} is no image: ignored", f"{root / 'light'} lacks the class circle"]
    assert report.sizes == (10, 5, 10)


def test_sizes_are_compared_with_the_published_ones(image_folder: Path) -> None:
    root = image_folder / "Shapes"
    card = dataclasses.replace(CARD, environments=("D", "L", "T"), sizes=((10, 11, 10), (20, 20, 20)))
    assert faults(verify(card, root)) == {
        ".": ("count", "30 images, 31 or 60 are published"),
        "light": ("count", "10 images, 11 are published"),
    }
    shutil.rmtree(root / "tinted")
    reasons = [problem.reason for problem in verify(card, root).problems]
    assert "2 domain folders, Shapes has 3: D, L, T" in reasons
    assert "20 images, 31 or 60 are published" in reasons


def test_doubles_of_a_dataset_that_is_as_published_are_notes(image_folder: Path) -> None:
    root = image_folder / "Shapes"
    shutil.copy(root / "dark" / "circle" / "0.jpg", root / "light" / "circle" / "0.jpg")
    card = dataclasses.replace(CARD, environments=("D", "L", "T"), sizes=((10, 10, 10),))
    report = verify(card, root)
    assert report.problems == []
    assert [note.endswith("as published") for note in report.notes] == [True]
    assert [problem.kind for problem in verify(CARD, root).problems] == ["duplicate"]


def test_one_domain_is_too_few_and_none_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no domain folder"):
        verify(CARD, tmp_path)
    (tmp_path / "only" / "thing").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "only" / "thing" / "a.png")
    assert faults(verify(CARD, tmp_path)) == {".": ("count", "1 domain folder, training needs two or more")}


def test_a_folder_that_cannot_be_read_is_named(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = image_folder / "Shapes" / "dark" / "circle"
    real = os.scandir

    def scandir(path: Path) -> object:
        if path == secret:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    kinds = [(problem.path, problem.kind) for problem in verify(CARD, image_folder / "Shapes").problems]
    assert kinds == [(secret, "broken"), (secret, "empty")]


def test_several_threads_find_the_same(image_folder: Path) -> None:
    root = image_folder / "Shapes"
    (root / "dark" / "circle" / "1.png").write_bytes(b"damaged")
    assert verify(CARD, root, workers=8) == verify(CARD, root)


def test_an_interruption_does_not_wait_for_what_is_left(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def inspect(path: Path) -> tuple[str, None]:
        asked.append(path)
        time.sleep(0.01)
        return str(path), None

    def interrupt(bar: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify_data, "inspect_image", inspect)
    monkeypatch.setattr(verify_data.ProgressBar, "advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        verify(CARD, image_folder / "Shapes", workers=2)
    assert len(asked) < 15


def test_the_report_as_json(image_folder: Path) -> None:
    root = image_folder / "Shapes"
    (root / "dark" / "circle" / "1.png").write_bytes(b"")
    report = verify(get_card("Shapes"), root).as_json()
    assert report["images"] == 30
    assert report["problems"] == [
        {
            "path": str(root / "dark" / "circle" / "1.png"),
            "kind": "empty",
            "reason": "file of 0 bytes: remove it or get it anew",
        }
    ]
