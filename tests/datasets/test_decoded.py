"""Images decoded once: the pixels of the files, made once, whole or not at all, and anew when files change."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_adm.cli import main
from domainbed_adm.datasets import decoded, get_dataset_class
from domainbed_adm.datasets.images import load_image
from domainbed_adm.errors import UserError
from domainbed_adm.system.disk import run_lock
from tests.runs import read_records

SIZES = ((40, 300), (320, 500), (350, 321), (200, 200), (700, 330), (1000, 150))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A data_dir with the dataset "Pictures": short sides below and above 320 px, colour and grey, one turned."""
    random = np.random.default_rng(0)
    turned = Image.Exif()
    turned[0x0112] = 6
    for domain in ("a", "b"):
        folder = tmp_path / "data" / "Pictures" / domain / "c"
        folder.mkdir(parents=True)
        for i, (height, width) in enumerate(SIZES):
            small = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
            image = small.resize((width, height), Image.Resampling.BICUBIC).convert("L" if i == 3 else "RGB")
            image.save(folder / f"{i}.jpg", exif=turned if i == 2 else Image.Exif())
    return tmp_path / "data"


def build(data_dir: Path, cached: bool = True, cache_dir: Path | None = None, name: str = "Pictures", **hparams):
    dataset = get_dataset_class(name)(str(data_dir), [0], {"image_size": 28, **hparams})
    if cached:
        dataset.use_cache(cache_dir and str(cache_dir))
    return dataset


def seen(dataset, training):
    """All samples, with a seed of its own for each."""
    samples = []
    with torch.random.fork_rng():
        for environment in dataset:
            for i in range(len(environment)):
                torch.manual_seed(i)
                samples.append((environment.train_item(i) if training else environment[i])[0])
    return samples


def caches(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.pixels*"))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [28, 330])
def test_evaluation_is_the_same_bit_for_bit(pictures: Path, channels: int, image_size: int) -> None:
    options = {"image_channels": channels, "image_size": image_size}
    files = seen(build(pictures, cached=False, **options), training=False)
    for _ in ("made", "found"):
        assert all(map(torch.equal, seen(build(pictures, **options), training=False), files))


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_the_same_bit_for_bit_for_images_at_their_own_size(pictures: Path, channels: int) -> None:
    files = seen(build(pictures, cached=False, image_channels=channels), training=True)
    dataset = build(pictures, image_channels=channels)
    equal = [torch.equal(a, b) for a, b in zip(seen(dataset, training=True), files, strict=True)]
    own = [min(size) <= 320 for size in SIZES]
    assert equal == [True] * len(SIZES) + own  # the held-out environment is never augmented
    assert [environment.reduced for environment in dataset] == [0, own.count(False)]
    assert [environment.reduced for environment in build(pictures, data_augmentation=False)] == [0, 0]


def test_reduced_images_keep_their_aspect_and_look(pictures: Path) -> None:
    environment = build(pictures).datasets[1]
    kept = environment.decoded
    tall = load_image(environment.paths[4])
    assert tall.size == (330, 700)
    assert kept.image(len(SIZES) + 4).size == (320, 679)
    expected = np.asarray(tall.resize((320, 679), Image.Resampling.BICUBIC))
    assert np.array_equal(kept.pixels(len(SIZES) + 4), expected)
    assert kept.image(len(SIZES) + 2).size == (321 * 320 // 321, 349)[::-1]  # as the camera's turn says


def test_the_image_size_matters_where_images_are_reduced(pictures: Path, image_folder: Path) -> None:
    for size in (28, 32, 330, 28):
        build(pictures, image_size=size)
    assert len(caches(pictures / ".decoded" / "Pictures-3")) == 3
    for size in (28, 32):
        build(image_folder, name="Shapes", image_size=size)
    assert len(caches(image_folder / ".decoded" / "Shapes-3")) == 1


def test_it_is_made_once_and_shared(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(pictures)
    monkeypatch.setattr(decoded, "_make", None)
    second = build(pictures)
    monkeypatch.setattr("domainbed_adm.datasets.folders.load_image", None)
    assert all(map(torch.equal, seen(first, training=False), seen(second, training=False)))
    assert not list(pictures.rglob(".lock"))


def test_processes_share_the_map(pictures: Path) -> None:
    environment = build(pictures).datasets[1]
    environment[0]
    sent = pickle.dumps(environment)
    assert len(sent) < 5000
    copy = pickle.loads(sent)
    assert torch.equal(copy[4][0], environment[4][0])
    kept = copy.decoded.pixels(0)
    assert isinstance(kept.base, np.memmap)
    assert kept.base.mode == "r"
    assert not kept.flags.writeable


@pytest.mark.parametrize("change", ["touched", "rewritten", "added", "renamed"])
def test_changed_files_are_decoded_again(pictures: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    build(pictures)
    before = caches(pictures)
    file = pictures / "Pictures" / "a" / "c" / "0.jpg"
    if change == "touched":
        os.utime(file, ns=(1, 1))
    elif change == "rewritten":
        Image.new("RGB", (50, 60), "red").save(file)
    elif change == "added":
        Image.new("RGB", (50, 60), "red").save(file.with_name("7.jpg"))
    else:
        file.rename(file.with_name("00.jpg"))
    capsys.readouterr()
    now = build(pictures)
    assert "changed since they were decoded: they are decoded again" in capsys.readouterr().out
    assert len(caches(pictures)) == 1
    assert caches(pictures) != before
    assert all(map(torch.equal, seen(now, training=False), seen(build(pictures, cached=False), training=False)))


def test_another_version_of_pillow_decodes_again(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(pictures)
    (before,) = caches(pictures)
    monkeypatch.setattr(decoded.PIL, "__version__", "0")
    build(pictures)
    assert len(caches(pictures)) == 2  # another environment's is left to it
    assert before in caches(pictures)


def test_a_folder_of_ones_own_for_it(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(pictures)
    for data_dir in (pictures, tmp_path / "other"):
        build(data_dir, cache_dir=tmp_path / "caches")
    assert len(caches(tmp_path / "caches")) == 1
    assert not (pictures / ".decoded").exists()


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("refusal", ["full", "nearly full", "a file", "no locks", "no maps"])
def test_what_cannot_be_written_is_done_without(
    pictures: Path, refusal: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = os.strerror(errno.ENOSPC)
    if refusal == "full":
        monkeypatch.setattr(decoded, "_write", full)
    elif refusal == "nearly full":
        monkeypatch.setattr(decoded, "_CHUNK", 2)
        monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    elif refusal == "a file":
        (pictures / ".decoded").write_text("in the way")
        told = os.strerror(errno.ENOTDIR)
    elif refusal == "no maps":
        monkeypatch.setattr(decoded.np, "memmap", no_maps)
        told = "cannot be mapped into memory"
    else:
        monkeypatch.setattr("domainbed_adm.system.disk.FileLock", no_locks)
        told = "has no locks"
    dataset = build(pictures)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("warning: training goes on without --cache: ")
    assert told in error
    assert caches(pictures) == []
    assert all(map(torch.equal, seen(dataset, training=True), seen(build(pictures, cached=False), training=True)))


def no_maps(*_: object) -> None:
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def no_locks(*_: object, **__: object) -> None:
    raise NotImplementedError


def test_a_made_one_serves_where_nothing_can_be_written(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(pictures)
    monkeypatch.setattr("domainbed_adm.system.disk.FileLock", no_locks)
    assert build(pictures).datasets[1].decoded is not None


def test_an_image_that_cannot_be_decoded_is_named_and_leaves_nothing(pictures: Path) -> None:
    (pictures / "Pictures" / "b" / "c" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"cannot decode image .*1\.jpg"):
        build(pictures)
    assert not (pictures / ".decoded").exists()


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_file_that_was_cut_is_made_again(pictures: Path, kept: int) -> None:
    build(pictures)
    (cut,) = caches(pictures)
    cut.write_bytes(cut.read_bytes()[:kept])
    files = seen(build(pictures, cached=False), training=False)
    assert all(map(torch.equal, seen(build(pictures), training=False), files))


BUILD = """
import sys
from domainbed_adm.datasets import decoded, get_dataset_class
dataset = get_dataset_class("Pictures")(sys.argv[1], [0], {"image_size": 28})
if sys.argv[2:]:
    def write(file, values):
        file.write(values.tobytes())
        file.flush()
        print("begun", flush=True)
        __import__("time").sleep(60)
    decoded._write = write
dataset.use_cache(None)
assert dataset.datasets[1].decoded is not None
"""


def start(data_dir: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUILD, str(data_dir), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_processes_that_begin_together_make_it_once(pictures: Path) -> None:
    processes = [start(pictures) for _ in range(3)]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert "".join(said).count("decoding 12 images once") == 1
    assert len(caches(pictures)) == 1


def test_who_comes_later_waits(pictures: Path) -> None:
    folder = pictures / ".decoded" / "Pictures-3"
    with run_lock(folder):
        later = start(pictures)
        assert later.stdout is not None
        assert later.stdout.readline().startswith("waiting for another process, which decodes")
        assert caches(pictures) == []
    assert "decoding" in later.communicate(timeout=120)[0]
    assert later.returncode == 0


def test_a_killed_maker_leaves_nothing_that_is_taken_for_it(pictures: Path) -> None:
    maker = start(pictures, "slow")
    assert maker.stdout is not None
    while "begun" not in maker.stdout.readline():
        pass
    maker.kill()
    maker.communicate()
    (rest,) = caches(pictures)
    assert rest.name.endswith(".unfinished")
    (pictures / "Pictures" / "a" / "c" / "0.jpg").touch()
    files = seen(build(pictures, cached=False), training=False)
    assert all(map(torch.equal, seen(build(pictures), training=False), files))
    assert [path.suffix for path in caches(pictures)] == [".pixels"]


def test_runs_with_it_are_runs_without_it(image_folder: Path, tmp_path: Path) -> None:
    for name, flags in {"plain": [], "cached": ["--cache"], "workers": ["--cache", "--workers", "1"]}.items():
        assert train(image_folder, tmp_path / name, "--dataset", "Shapes", *flags) == 0
    plain, cached, workers = (
        [
            {k: v for k, v in record.items() if k.endswith("_acc") or k == "loss"}
            for record in read_records(tmp_path / n)
        ]
        for n in ("plain", "cached", "workers")
    )
    assert plain == cached == workers


def test_records_state_what_was_reduced_and_the_run_goes_on_with_it(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (30, 30)).save(pictures / "Pictures" / "a" / "c" / "9.png")
    assert train(pictures, tmp_path / "run", "--dataset", "Pictures", "--cache_dir", str(tmp_path / "caches")) == 0
    assert [record["provenance"]["reduced_images"] for record in read_records(tmp_path / "run")] == [[0, 2], [0, 2]]
    assert "2 training images are above 320 px" in capsys.readouterr().out
    assert train(pictures, tmp_path / "run", "--dataset", "Pictures") == 2
    assert "holds another run: reduced_images ([0, 2] there, [0, 0] here)" in capsys.readouterr().err
    assert train(pictures, tmp_path / "run", "--dataset", "Pictures", "--cache_dir", str(tmp_path / "caches")) == 0


def train(data_dir: Path, output_dir: Path, *flags: str) -> int:
    hparams = '{"image_size": 28, "cnn_width": 8, "batch_size": 3}'
    words = ["--data_dir", str(data_dir), "--output_dir", str(output_dir), "--hparams", hparams, "--workers", "0"]
    return main(["train", *words, "--steps", "3", "--checkpoint_freq", "2", "--skip_model_save", *flags])
