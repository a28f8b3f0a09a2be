"""Fetch a dataset: transfer its archives, unpack them beside the target, and put it in place whole or not at all.

``mirrors`` is the table of where from; ``transfer`` and ``responses`` fetch a file, ``checksums`` checks it,
``archives`` and ``members`` unpack it, and ``camera_traps`` sorts TerraIncognita.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

from domainbed_adm.datasets.downloading.archives import enough_room, unpack
from domainbed_adm.datasets.downloading.camera_traps import sort_images
from domainbed_adm.datasets.downloading.checksums import check
from domainbed_adm.datasets.downloading.mirrors import Source
from domainbed_adm.datasets.downloading.transfer import BACKOFF, RETRIES, Tick, Transfer
from domainbed_adm.errors import UserError

#: Folder below data_dir where transfers stand until the dataset is in place; hidden, so that it is no dataset.
STAGE = ".downloads"
_SCRATCH = "unpacked-"


def download(
    source: Source,
    target: Path,
    *,
    archives: Sequence[Path] = (),
    tick: Tick = lambda there, total: None,
    retries: int = RETRIES,
    backoff: float = BACKOFF,
) -> None:
    """Put a dataset at ``target``.

    Args:
        source: where it comes from.
        target: its folder, which is not there yet or empty; its parent is.
        archives: the source's archives where the user has them, in its order: then nothing is fetched.
        tick: called with the bytes there are of an archive and the bytes of the whole, or None.
        retries: attempts for each address.
        backoff: seconds before the second attempt.

    Raises:
        UserError: an archive cannot be fetched or unpacked, or is not what the table says; or another process is at it.
            What has been fetched stays for the next try; at ``target`` there is nothing.
    """
    stage = target.parent / STAGE / target.name
    try:
        stage.mkdir(parents=True, exist_ok=True)
        lock = FileLock(stage.with_name(f"{target.name}.lock"), timeout=0)
        with lock:
            for left in stage.glob(f"{_SCRATCH}*"):  # of a run that was killed
                shutil.rmtree(left)
            files = _given(source, archives) or [
                Transfer(archive, stage, tick, retries, backoff).run() for archive in source.archives
            ]
            with TemporaryDirectory(dir=stage, prefix=_SCRATCH) as private:
                scratch = Path(private) / "all"
                scratch.mkdir()  # the umask's mode, where a temporary folder is its owner's alone
                _unpack(files, scratch, fetched=not archives)
                _place(_arranged(source, scratch), target)
            shutil.rmtree(stage)
    except Timeout as error:
        raise UserError(f"another process is fetching {source.dataset} into {target.parent}") from error
    except OSError as error:
        raise UserError(f"{source.dataset} cannot be put into {target}: {error.strerror or error}") from error


def _given(source: Source, archives: Sequence[Path]) -> list[Path]:
    """The user's archives, checked.

    Raises:
        UserError: there are more or fewer than the source has, or one is not what the table says.
    """
    if archives and len(archives) != len(source.archives):
        names = " ".join(archive.file for archive in source.archives)
        raise UserError(f"{source.dataset} comes in {len(source.archives)} archives: give --archive {names}")
    for file, archive in zip(archives, source.archives, strict=False):
        if not file.is_file():
            raise UserError(f"no file {file}: --archive is the archive {archive.file} of {source.dataset}")
        check(file, archive)
    return list(archives)


def _unpack(files: Sequence[Path], scratch: Path, *, fetched: bool) -> None:
    """Unpack the archives; one that was fetched and is bad is removed, so that the next try fetches it anew.

    Raises:
        UserError: one cannot be unpacked.
    """
    for file in files:
        enough_room(file, scratch)
        try:
            unpack(file, scratch)
        except UserError:
            if fetched:
                file.unlink()
            raise


def _arranged(source: Source, scratch: Path) -> Path:
    """The dataset's folder among what was unpacked, with its folders named as they should be.

    Raises:
        UserError: there is no such folder.
    """
    if source.camera_traps is not None:
        sort_images(scratch, source.camera_traps, scratch / ".sorted")
        return scratch / ".sorted"
    root = scratch / source.root
    for folder in [root, *(root / old for old in source.rename)]:
        if not folder.is_dir():
            there = ", ".join(sorted(entry.name for entry in scratch.iterdir())[:12])
            raise UserError(
                f"the archives of {source.dataset} hold no folder {folder.relative_to(scratch)}, but {there}"
            )
    for old, new in source.rename.items():
        if (root / new).exists():
            raise UserError(f"{source.dataset}: {old} cannot be renamed, there is a {new}")
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)
    return root


def _place(folder: Path, target: Path) -> None:
    """Move the dataset to where it belongs in one step."""
    if target.is_dir():
        target.rmdir()  # fails where it is not empty
    folder.rename(target)
