"""Fetch a dataset: transfer its archives, unpack them beside the target, and put it in place whole or not at all.

``mirrors`` is the table of addresses, ``transfer`` fetches and checks a file, ``archives`` unpacks it, and
``camera_traps`` sorts TerraIncognita.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

from domainbed_adm.datasets.downloading.archives import unpack
from domainbed_adm.datasets.downloading.camera_traps import sort_images
from domainbed_adm.datasets.downloading.mirrors import Archive, Source
from domainbed_adm.datasets.downloading.transfer import ATTEMPTS, ArchiveError, check, fetch, stored_as
from domainbed_adm.errors import UserError

#: Folder below data_dir where archives stand until the dataset is in place; hidden, so that it is no dataset.
STAGE = ".downloads"
_UNPACKED = "unpacked-"


def download(
    source: Source,
    target: Path,
    *,
    archives: Sequence[Path] = (),
    attempts: int = ATTEMPTS,
    tell: Callable[[str], object] = lambda line: None,
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
    own_files = dict(zip(source.archives, archives, strict=False))
    for archive, file in own_files.items():
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
                for archive in source.archives:
                    if own_files:
                        check(own_files[archive], archive)
                        unpack(own_files[archive], unpacked)
                    else:
                        _fetch_and_unpack(archive, stage, unpacked, attempts, tell)
                folder = _arranged(source, unpacked)
                if target.is_dir():
                    target.rmdir()  # fails where it is not empty
                folder.rename(target)
            shutil.rmtree(stage)
    except Timeout as error:
        raise UserError(f"another process is fetching {target.name} into {target.parent}") from error
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror or error}") from error


def _fetch_and_unpack(
    archive: Archive, stage: Path, unpacked: Path, attempts: int, tell: Callable[[str], object]
) -> None:
    """Take the archive from the first address that yields it whole and right; one fetched before comes first.

    Raises:
        UserError: no address does; the message says why, and how to go on by hand.
    """
    failures = []
    for url in sorted(archive.urls, key=lambda url: not stored_as(url, archive, stage).is_file()):
        tell(f"fetching {archive.file} from {url}")
        own = unpacked.with_name("archive")
        own.mkdir()
        try:
            unpack(fetch(url, archive, stage, attempts, tell), own)
        except ArchiveError as error:
            stored_as(url, archive, stage).unlink(missing_ok=True)
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


def _arranged(source: Source, unpacked: Path) -> Path:
    """The dataset's folder among what was unpacked, with its folders named as they should be.

    Raises:
        UserError: there is no such folder.
    """
    if source.camera_traps is not None:
        sort_images(unpacked, source.camera_traps, unpacked / ".sorted")
        return unpacked / ".sorted"
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
