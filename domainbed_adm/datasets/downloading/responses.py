"""Ask a server for a file, and read what its answer says: where its bytes begin, and how many the file has."""

from __future__ import annotations

import contextlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

#: Seconds without a byte after which a connection counts as broken.
TIMEOUT = 60.0
_CHUNK = 1 << 18
#: HTTP codes that another attempt may not meet.
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class Interrupted(Exception):
    """The transfer broke; another attempt may go further."""


class Unusable(Exception):
    """This address does not yield the file, however often it is asked."""


@dataclass(frozen=True)
class Answer:
    """``start`` of the body in the file, ``total`` bytes of the file where known, and the ``validator`` for If-Range.

    ``validator`` is the strong ETag, else Last-Modified; None: a broken transfer must begin anew.
    """

    start: int
    total: int | None
    validator: str | None


@contextlib.contextmanager
def ask(url: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
    """Send one request, and yield the answer; one of HTTP code 416 as well.

    Raises:
        Interrupted: no answer, or one that asks to come back later.
        Unusable: the answer is that there is no such file, or the address cannot be asked.
    """
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            error.close()
            raise (Interrupted if error.code in _PASSING else Unusable)(f"HTTP {error.code} {error.reason}") from error
        response = error
    except (http.client.InvalidURL, ValueError) as error:
        raise Unusable(_one_line(error)) from error
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"transfer broke: {_one_line(error)}") from error
    with contextlib.closing(response):
        yield response


def read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes of a body, none at its end.

    Raises:
        Interrupted: the connection broke.
    """
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise Interrupted(f"transfer broke: {_one_line(error)}") from error


def parse_answer(response: http.client.HTTPResponse, start: int) -> Answer:
    """Read status and headers of the answer to a request for the bytes from ``start`` on.

    Raises:
        Unusable: the answer is a web page, compressed on its way, or another part of the file than was asked for.
    """
    headers = response.headers
    if headers.get_content_type() in {"text/html", "application/xhtml+xml"}:
        raise Unusable("answers with a web page, not with the file: it may ask for a confirmation or a login")
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Unusable(f"sends the file compressed as {headers['Content-Encoding']!r}, unasked")
    tag = headers.get("ETag", "")
    validator = tag if tag.startswith('"') else headers.get("Last-Modified")
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""), re.ASCII)
        if not match or int(match[1]) != start:
            raise Unusable(f"sends {headers.get('Content-Range')!r} where the bytes from {start} on were asked for")
        return Answer(start, None if match[3] == "*" else int(match[3]), validator)
    if response.status != 200:
        raise Unusable(f"answers with HTTP {response.status}")
    length = headers.get("Content-Length", "")
    return Answer(0, int(length) if re.fullmatch(r"\d{1,18}", length, re.ASCII) else None, validator)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _opener() -> urllib.request.OpenerDirector:
    """What opens http and https and nothing else: a redirection to a file of this machine is refused."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
