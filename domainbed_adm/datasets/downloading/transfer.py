"""Fetch one file over HTTP: a broken transfer goes on where it broke, and only what is right is ever in place."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainbed_adm import __version__
from domainbed_adm.datasets.downloading.checksums import check
from domainbed_adm.datasets.downloading.mirrors import Archive
from domainbed_adm.datasets.downloading.responses import Answer, Interrupted, Unusable, ask, parse_answer, read
from domainbed_adm.errors import UserError

#: Attempts for each address, and seconds before the second; each further wait is twice the one before, up to a minute.
RETRIES = 6
BACKOFF = 1.0
_LONGEST_WAIT = 60.0

#: Called with the bytes there are, and the bytes there will be or None.
Tick = Callable[[int, "int | None"], object]


@dataclass
class Transfer:
    """One archive on its way to ``<folder>/<archive.file>``; what has come lies beside it as ``.part``."""

    archive: Archive
    folder: Path
    tick: Tick = lambda there, total: None
    retries: int = RETRIES
    backoff: float = BACKOFF

    def __post_init__(self) -> None:
        self.target = self.folder / self.archive.file
        self.part = self.folder / f"{self.archive.file}.part"
        self.origin = self.folder / f"{self.archive.file}.part.json"

    def run(self) -> Path:
        """Fetch the archive from the first address that yields it whole and right.

        Returns:
            The file; at once where it is there already and right.

        Raises:
            UserError: no address yields it (the message says why, and how to go on by hand), or the disk is full.
        """
        if self.target.is_file():
            with contextlib.suppress(UserError):
                check(self.target, self.archive)
                return self.target
            self.target.unlink()
        failures = []
        for url in self.archive.urls:
            try:
                self._from(url)
                return self.target
            except Unusable as error:
                failures.append(f"{url}: {error}")
        raise UserError(
            f"{self.archive.file} could not be fetched ({'; '.join(failures)}). Run the command again to go on, or "
            f"fetch the file with a browser and give it as --archive {self.archive.file}"
        )

    def _from(self, url: str) -> None:
        """Fetch from one address, with a bounded number of attempts.

        Raises:
            Unusable: it does not yield the file.
        """
        for attempt in range(self.retries):
            if attempt:
                time.sleep(min(self.backoff * 2 ** (attempt - 1), _LONGEST_WAIT))
            try:
                self._attempt(url)
                break
            except Interrupted as error:
                reason = str(error)
        else:
            raise Unusable(f"{reason}, after {self.retries} attempts")
        try:
            check(self.part, self.archive)
        except UserError as error:
            self._forget()
            raise Unusable(str(error)) from error
        self.part.replace(self.target)
        self.origin.unlink(missing_ok=True)

    def _attempt(self, url: str) -> None:
        """Ask once for what is missing, and append it.

        Raises:
            Interrupted: the transfer broke, or the server asks to come back later.
            Unusable: the address does not yield the file.
        """
        start, origin, headers = self._resume(url)
        if start and start == origin["total"]:
            return
        with ask(url, headers) as response:
            if response.status == 416:
                self._forget()
                raise Interrupted("the file there is not the one that was begun")
            answer = parse_answer(response, start)
            if answer.start and (answer.total, answer.validator or origin["validator"]) != (
                origin["total"],
                origin["validator"],
            ):
                self._forget()
                raise Interrupted("the file there has changed")
            self._receive(url, response, answer)

    def _resume(self, url: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        """How many bytes of this address's file are here, what is known of them, and headers to ask for the others."""
        headers = {"User-Agent": f"domainbed-adm/{__version__}", "Accept-Encoding": "identity"}
        try:
            origin = json.loads(self.origin.read_text(encoding="utf-8"))
            start, validator = self.part.stat().st_size, origin["validator"]
            if origin["url"] == url and start and isinstance(validator, str) and "total" in origin:
                return start, origin, {**headers, "Range": f"bytes={start}-", "If-Range": validator}
        except (OSError, ValueError, TypeError, KeyError):
            pass
        self._forget()
        return 0, {}, headers

    def _receive(self, url: str, response: http.client.HTTPResponse, answer: Answer) -> None:
        """Append the body to the part, or begin it anew where the server sends all.

        Raises:
            Interrupted: the body ended early.
            Unusable: it is longer than the file is known to be.
            UserError: the disk is full or cannot be written.
        """
        expected = self.archive.size
        if expected is not None and answer.total not in {None, expected}:
            raise Unusable(f"its file has {answer.total:,} bytes, {expected:,} are expected")
        total = expected if answer.total is None else answer.total
        there = answer.start
        try:
            origin = {"url": url, "validator": answer.validator, "total": total}
            self.origin.write_text(json.dumps(origin), encoding="utf-8")
            with self.part.open("ab" if there else "wb") as file:
                while chunk := read(response):
                    there += len(chunk)
                    if total is not None and there > total:
                        raise Unusable(f"it sends more than the {total:,} bytes of the file")
                    file.write(chunk)
                    self.tick(there, total)
        except OSError as error:
            raise UserError(f"{self.part} cannot be written: {error.strerror}") from error
        if total is not None and there < total:
            raise Interrupted(f"it sent {there:,} of {total:,} bytes")

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.origin.unlink(missing_ok=True)
