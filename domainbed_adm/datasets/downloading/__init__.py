"""Fetch a dataset: transfer its archives, unpack them beside the target, and put it in place whole or not at all.

``mirrors`` is the table of addresses, and fetches what they hold.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

from filelock import FileLock, Timeout

from domainbed_adm.datasets.downloading import mirrors
from domainbed_adm.datasets.downloading.mirrors import ATTEMPTS, Archive, ArchiveError, CameraTraps, Source, Tell
from domainbed_adm.errors import UserError, one_line

#: Folder below data_dir where archives stand until the dataset is in place; hidden, so that it is no dataset.
STAGE = ".downloads"
_UNPACKED = "unpacked-"
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, KeyError, NotImplementedError, RuntimeError),
)


def download(
    source: Source,
    target: Path,
    *,
    archives: Sequence[Path] = (),
    attempts: int = ATTEMPTS,
    tell: Tell = lambda _: None,
) -> None:
    """Put a dataset at ``target``.

    Args:
        source: where it comes from.
        target: its folder, which is not there yet or empty; its parent is.
        archives: the source's archives where the user has them, in its order: then nothing is fetched.
        attempts: how often to ask each address.
        tell: called with one line for each address, and before each wait.

    Raises:
        UserError: an archive cannot be fetched or unpacked, is not what the table says, or is not given; the disk is
            full; or another process fetches the same dataset. What has been fetched stays for the next try; at
            ``target`` is nothing.
    """
    if archives and len(archives) != len(source.archives):
        names = " ".join(archive.file for archive in source.archives)
        raise UserError(f"the dataset comes in {len(source.archives)} archives: give --archive {names}")
    for archive, file in zip(source.archives, archives, strict=False):
        if not file.is_file():
            raise UserError(f"no file {file}: --archive is the archive {archive.file}")
    stage = target.parent / STAGE / target.name
    try:
        stage.mkdir(parents=True, exist_ok=True)
        with FileLock(stage.with_name(f"{target.name}.lock"), timeout=0):
            for left in stage.glob(f"{_UNPACKED}*"):  # of a run that was killed
                shutil.rmtree(left)
            with TemporaryDirectory(dir=stage, prefix=_UNPACKED) as private:
                unpacked = Path(private) / "all"
                unpacked.mkdir()  # the umask's mode, where a temporary folder is its owner's alone
                for archive, own in zip_longest(source.archives, archives):
                    if own is None:
                        _fetch_and_unpack(archive, stage, unpacked, attempts, tell)
                    else:
                        mirrors.check(own, archive)
                        unpack(own, unpacked)
                folder = _arranged(source, unpacked)
                if target.is_dir():
                    target.rmdir()  # fails where it is not empty
                folder.rename(target)
            shutil.rmtree(stage)
    except Timeout as error:
        raise UserError(
            f"another process is fetching {target.name} into {target.parent}: wait for its end, or end it"
        ) from error
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error


def _fetch_and_unpack(archive: Archive, stage: Path, unpacked: Path, attempts: int, tell: Tell) -> None:
    """Take the archive from the first address that yields it whole and right; one fetched before comes first.

    Raises:
        UserError: no address does; the message says why, and how to go on by hand.
    """
    failures = []
    for url in sorted(archive.urls, key=lambda url: not mirrors.stored_as(url, archive, stage).is_file()):
        tell(f"fetching {archive.file} from {url}")
        own = unpacked.with_name("archive")
        own.mkdir()
        try:
            unpack(mirrors.fetch(url, archive, stage, attempts, tell), own)
        except ArchiveError as error:
            mirrors.stored_as(url, archive, stage).unlink(missing_ok=True)
            failures.append(f"{url}: {error}")
        else:
            shutil.copytree(own, unpacked, symlinks=True, copy_function=os.replace, dirs_exist_ok=True)
            return
        finally:
            shutil.rmtree(own)
    raise UserError(
        f"{archive.file} could not be fetched ({'; '.join(failures)}). Run the command again to go on, or "
        f"fetch the file with a browser and give it as --archive {archive.file}"
    )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive, as its content shows, into a folder, which the caller removes after an error.

    Raises:
        ArchiveError: it is damaged, or a member would land outside the folder.
        UserError: the disk has less room than the archive's own size.
        OSError: the disk is full or cannot be written.
    """
    if (free := shutil.disk_usage(folder).free) < archive.stat().st_size:
        raise UserError(f"{folder} has {free >> 20:,} MiB free, {archive.name} needs more: free some or choose another")
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
                content = cast(IO[bytes], tar.fileobj)
                content.seek(tar.offset)  # a block of zeros ends it: tarfile takes one cut before that for whole
                if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                    raise ArchiveError("it breaks off between two members")
        else:
            with zipfile.ZipFile(archive) as packed:
                for name in packed.namelist():  # zipfile would unpack what lies outside under another name
                    if name.startswith("/") or ".." in PurePosixPath(name.replace("\\", "/")).parts:
                        raise ArchiveError(f"its member {name!r} lies outside")
                packed.extractall(folder)
    except _DAMAGED as error:
        raise ArchiveError(f"{archive.name} is damaged or no archive: {one_line(error)}") from error
    except OSError as error:
        if error.errno is None:  # of gzip and bz2, which found something else than their format
            raise ArchiveError(f"{archive.name} is damaged: {one_line(error)}") from error
        raise


def _arranged(source: Source, unpacked: Path) -> Path:
    """The dataset's folder among what was unpacked, with its folders named as they should be.

    Raises:
        UserError: there is no such folder.
    """
    if source.camera_traps is not None:
        return _sorted_images(unpacked, source.camera_traps)
    root = unpacked / source.root
    for folder in [root, *(root / old for old in source.rename)]:
        if not folder.is_dir():
            there = ", ".join(sorted(entry.name for entry in unpacked.iterdir())[:12])
            raise UserError(f"the archives hold no folder {folder.relative_to(unpacked)}, but {there}")
    for old, new in source.rename.items():
        if (root / new).exists():
            raise UserError(f"{old} cannot be renamed, there is a {new}")
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)
    return root


def _sorted_images(unpacked: Path, layout: CameraTraps) -> Path:
    """Copy the images to keep into ``location_<location>/<category>/`` by their annotations, as DomainBed does.

    An image with annotations of two categories goes to both; one that several annotations give the same category
    goes there once.

    Raises:
        UserError: the annotations are missing or not COCO's JSON, or an image is missing.
    """
    try:
        tables = [json.loads(file.read_bytes()) for file in (unpacked / layout.annotations).glob("*.json")]
        places = {place for table in tables for place in _places(table, layout)}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the annotations in {layout.annotations} are not COCO's: {error!r:.200}") from error
    if not places:
        raise UserError(f"{layout.annotations}/*.json name no image of the locations and categories to keep")
    target = unpacked / ".sorted"
    for location, category, name in sorted(places):
        image, folder = unpacked / layout.images / name, target / f"location_{location}" / category
        if not image.is_file():
            raise UserError(f"the archives lack the image {image.relative_to(unpacked)}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, folder / image.name)
    return target


def _places(table: dict[str, Any], layout: CameraTraps) -> Iterator[tuple[str, str, str]]:
    """Location, category and file name of each image to keep of one annotation file."""
    categories = {entry["id"]: entry["name"] for entry in table["categories"]}
    images = {entry["id"]: entry for entry in table["images"] if str(entry["location"]) in layout.locations}
    for annotation in table["annotations"]:
        image, category = images.get(annotation["image_id"]), categories[annotation["category_id"]]
        if image is not None and category in layout.categories:
            yield str(image["location"]), str(category), str(image["file_name"])
