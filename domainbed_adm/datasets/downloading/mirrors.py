"""The table of mirrors, as YAML that a user's own file extends, and the transfer of one archive from one address.

gdown transfers the bytes: it answers Google Drive's request for a confirmation and resumes over HTTP ranges. A broken
transfer goes on where it broke, and only what is right is kept.
"""

from __future__ import annotations

import glob
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError, one_line

TABLE = Path(__file__).with_name("mirrors.yaml")
FileName = Annotated[str, msgspec.Meta(pattern=r"^\w[^/\\]*$")]
InnerPath = Annotated[str, msgspec.Meta(pattern=r"^(?!/|.*\.\.).")]
WebAddress = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+")]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]
Md5 = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{32}$")]
Tell = Callable[[str], object]

#: Attempts for each address. The first wait has one second and each further one twice as many, unless the server names
#: another (Retry-After); none is longer than LONGEST_WAIT.
ATTEMPTS = 5
LONGEST_WAIT = 300.0
#: Seconds to connect, and seconds without a byte after which a connection counts as broken.
TIMEOUT = (10.0, 60.0)
#: A server that sends less than 512 KiB, gdown's block, in so many seconds is given up.
STALLED = 300.0
#: HTTP codes that another attempt may not meet.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_sleep = time.sleep


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One archive file; its addresses are tried in their order, size (bytes) and checksums compared where known."""

    file: FileName
    urls: Annotated[tuple[WebAddress, ...], msgspec.Meta(min_length=1)]
    size: Annotated[int, msgspec.Meta(gt=0)] | None = None
    sha256: Sha256 | None = None
    md5: Md5 | None = None


class CameraTraps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Unpacked folders of images and their annotations, and which locations (domains) and categories (classes) stay."""

    images: InnerPath
    annotations: InnerPath
    locations: tuple[FileName, ...]
    categories: tuple[FileName, ...]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to get one dataset: archives to unpack into one folder, and what of it becomes the dataset's.

    That is ``root`` ("." is all), after folders below it were renamed from old to new names; or what ``camera_traps``
    sorts, where the archives are not laid out as a dataset.
    """

    archives: Annotated[tuple[Archive, ...], msgspec.Meta(min_length=1)]
    root: InnerPath = "."
    rename: dict[InnerPath, InnerPath] = {}
    camera_traps: CameraTraps | None = None


def load_sources(files: Sequence[Path]) -> dict[str, Source | str]:
    """Read the package's table and then the user's files, whose entries replace those of the same name.

    In place of a source an entry may say, in a line, how to get the dataset by hand.

    Raises:
        UserError: a file cannot be read, or an entry is not as :class:`Source` says; the message names both.
    """
    sources: dict[str, Source | str] = {}
    for file in [TABLE, *files]:
        try:
            table: Any = yaml.safe_load(expanded(file).read_text(encoding="utf-8"))
            entries = msgspec.convert(table, dict[FileName, Any])
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise UserError(f"mirrors {file} cannot be read: {one_line(error)}") from error
        for dataset, entry in entries.items():
            try:
                sources[dataset] = entry if isinstance(entry, str) else msgspec.convert(entry, Source)
            except msgspec.ValidationError as error:
                raise UserError(f"mirrors {file}: {dataset}: {error}; {TABLE} shows the format") from error
    return sources


class ArchiveError(UserError):
    """An archive, or an address of it, that is of no use; another address may be."""


def fetch(url: str, archive: Archive, folder: Path, attempts: int = ATTEMPTS, tell: Tell = lambda _: None) -> Path:
    """Fetch an archive into a folder, or go on with what an earlier call got from the same address.

    ``tell`` is called with one line before each wait. The file returned has the right size and checksum; it is there at
    once where an earlier call fetched it whole.

    Raises:
        ArchiveError: the address does not yield the file. What came of a transfer that broke stays in ``folder``.
        OSError: the disk is full or cannot be written.
    """
    file = stored_as(url, archive, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(0 if file.is_file() else attempts)):
        try:
            _transfer(url, file)
            break
        except _Interrupted as error:
            reason, named = error.args
            if not left:
                raise ArchiveError(f"{reason}, after {attempts} attempts") from error
            wait = min(named or 2.0 ** (attempts - 1 - left), LONGEST_WAIT)
            tell(f"{reason}; trying again in {wait:.0f} s")
            _sleep(wait)
    try:
        check(file, archive)
    except ArchiveError:
        file.unlink()
        raise
    return file


def stored_as(url: str, archive: Archive, folder: Path) -> Path:
    """Where the file of this address lies: parts of one archive from two addresses are never mixed."""
    return folder / hashlib.sha256(url.encode()).hexdigest()[:8] / archive.file


def check(file: Path, archive: Archive) -> None:
    """Compare a file with the size and checksum that are known of it.

    Raises:
        ArchiveError: one differs, or the file is a web page.
    """
    size = file.stat().st_size
    with file.open("rb") as content:
        if content.read(256).lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise ArchiveError(f"{file.name} is a web page, not an archive: the site may ask for a login")
        if archive.size is not None and size != archive.size:
            raise ArchiveError(f"{file.name} has {size:,} bytes, {archive.size:,} are expected")
        for kind, digest, expected in (
            ("SHA-256", hashlib.sha256(), archive.sha256),
            ("MD5", hashlib.md5(), archive.md5),
        ):
            if expected is None:
                continue
            content.seek(0)
            while chunk := content.read(1 << 20):
                digest.update(chunk)
            if digest.hexdigest() != expected.lower():
                raise ArchiveError(f"{file.name} has the {kind} {digest.hexdigest()}, {expected} is expected")


class _Interrupted(Exception):
    """The transfer broke; another attempt may go further, after so many seconds, 0 where the server names none."""


def _transfer(url: str, file: Path) -> None:
    """Ask once for what is missing of the file.

    Raises:
        _Interrupted: the transfer broke, or the server asks to come back later.
        ArchiveError: the address does not yield the file.
    """
    import gdown  # here: only those who download wait for these imports
    import requests
    from gdown.exceptions import DownloadCancelled, DownloadError, FileURLRetrievalError

    before = _part_sizes(file)
    try:
        with _stall_guard() as (stalled, progress):
            quiet = not sys.stderr.isatty()
            gdown.download(url, str(file), quiet=quiet, resume=True, timeout=TIMEOUT, progress=progress, cancel=stalled)
    except DownloadCancelled as error:
        raise ArchiveError(f"the server sends less than 512 KiB in {STALLED:.0f} s") from error
    except requests.HTTPError as error:
        response = error.response
        reason = str(error) if response is None else f"HTTP {response.status_code} {response.reason}"
        if response is None or response.status_code not in _PASSING:
            raise ArchiveError(reason) from error
        wait = response.headers.get("Retry-After", "")
        raise _Interrupted(reason, float(wait) if wait.isdecimal() else 0) from error
    except (FileURLRetrievalError, requests.exceptions.InvalidURL, UnicodeError) as error:
        raise ArchiveError(one_line(error)) from error
    except DownloadError as error:
        if before and error.__cause__ is None and before == _part_sizes(file):  # the server does not resume this part
            for part in before:
                part.unlink()
        raise _Interrupted(f"transfer broke: {one_line(error)}", 0) from error
    except requests.RequestException as error:
        raise _Interrupted(f"transfer broke: {one_line(error)}", 0) from error


def _part_sizes(file: Path) -> dict[Path, int]:
    """What gdown has of a file that is not whole yet, with its bytes."""
    return {part: part.stat().st_size for part in file.parent.glob(f"{glob.escape(file.name)}????????.part")}


@contextmanager
def _stall_guard() -> Iterator[tuple[threading.Event, Callable[[int, int | None], None]]]:
    """An event that is set once :data:`STALLED` seconds have passed without a call of the function beside it."""
    stalled, progressed = threading.Event(), threading.Event()
    ended = False

    def watch() -> None:
        while progressed.wait(STALLED) and not ended:
            progressed.clear()
        stalled.set()

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield stalled, lambda received, total: progressed.set()
    finally:
        ended = True
        progressed.set()
