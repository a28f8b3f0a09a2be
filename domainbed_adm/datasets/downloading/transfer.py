"""Fetch one archive from one address: a broken transfer goes on where it broke, and only what is right is kept.

gdown transfers the bytes: it answers Google Drive's request for a confirmation and resumes over HTTP ranges.
"""

from __future__ import annotations

import glob
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from domainbed_adm.datasets.downloading.mirrors import Archive
from domainbed_adm.errors import UserError, one_line

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


class ArchiveError(UserError):
    """An archive, or an address of it, that is of no use; another address may be."""


def fetch(
    url: str,
    archive: Archive,
    folder: Path,
    attempts: int = ATTEMPTS,
    tell: Callable[[str], object] = lambda line: None,
) -> Path:
    """Fetch an archive, or go on with what an earlier call got from the same address.

    Args:
        url: the address.
        archive: what is known of the file.
        folder: where to put it.
        attempts: how often to ask.
        tell: called with one line before each wait.

    Returns:
        The file, whose size and checksum are right; at once where an earlier call fetched it whole.

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
            if not left:
                raise ArchiveError(f"{error}, after {attempts} attempts") from error
            wait = min(error.wait or 2.0 ** (attempts - 1 - left), LONGEST_WAIT)
            tell(f"{error}; trying again in {wait:.0f} s")
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
        if archive.sha256 is not None:
            digest = hashlib.sha256()
            content.seek(0)
            while chunk := content.read(1 << 20):
                digest.update(chunk)
            if digest.hexdigest() != archive.sha256.lower():
                raise ArchiveError(f"{file.name} has the SHA-256 {digest.hexdigest()}, {archive.sha256} is expected")


class _Interrupted(Exception):
    """The transfer broke; another attempt may go further, after ``wait`` seconds where the server names them."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def _transfer(url: str, file: Path) -> None:
    """Ask once for what is missing of the file.

    Raises:
        _Interrupted: the transfer broke, or the server asks to come back later.
        ArchiveError: the address does not yield the file.
        OSError: the disk is full or cannot be written.
    """
    # Only those who download wait for these imports.
    import gdown
    import requests
    from gdown.exceptions import DownloadCancelled, DownloadError, FileURLRetrievalError

    before = _part_sizes(file)
    try:
        with _stall_guard() as (stalled, progress):
            gdown.download(
                url,
                str(file),
                quiet=not sys.stderr.isatty(),
                resume=True,
                timeout=TIMEOUT,
                progress=progress,
                cancel=stalled,
            )
    except DownloadCancelled as error:
        raise ArchiveError(f"the server sends less than 512 KiB in {STALLED:.0f} s") from error
    except requests.HTTPError as error:
        response = error.response
        reason = str(error) if response is None else f"HTTP {response.status_code} {response.reason}"
        if response is None or response.status_code not in _PASSING:
            raise ArchiveError(reason) from error
        wait = response.headers.get("Retry-After", "")
        raise _Interrupted(reason, float(wait) if wait.isdecimal() else 0.0) from error
    except (FileURLRetrievalError, requests.exceptions.InvalidURL, UnicodeError) as error:
        raise ArchiveError(one_line(error)) from error
    except DownloadError as error:
        if before and error.__cause__ is None and before == _part_sizes(file):  # the server does not resume this part
            for part in before:
                part.unlink()
        raise _Interrupted(f"transfer broke: {one_line(error)}") from error
    except requests.RequestException as error:
        raise _Interrupted(f"transfer broke: {one_line(error)}") from error


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
