"""A web server of a few lines that drops connections, lies, and ignores what it is asked, as told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """One file of the server, and how it misbehaves.

    Attributes:
        content: the file.
        etag: of the file.
        ranges: whether the server heeds requests for a part.
        drops: bytes after which the connection is dropped, one entry a request that is not for a whole file in vain.
        statuses: HTTP codes of the first requests.
        headers: more headers of every answer.
        drip: seconds between single bytes; 0: all at once.
        asked: the ranges that were asked for.
    """

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    drip: float = 0
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    pages: dict[str, Page]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        page = self.pages.get(self.path)
        self.close_connection = True
        if page is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        page.asked.append(asked)
        if page.statuses and (status := page.statuses.pop(0)) != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and page.ranges else 0
        if self.headers.get("If-Range") not in {None, page.etag}:
            start = 0
        if start and start >= len(page.content):
            self.send_error(416)
            return
        with suppress(OSError):  # gdown hangs up where it asks for a part after all
            self.answer(page, start)

    def answer(self, page: Page, start: int) -> None:
        body = page.content[start:]
        headers: dict[str, str] = {"ETag": page.etag} if page.etag else {}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(page.content) - 1}/{len(page.content)}"
        headers["Content-Length"] = str(len(body))
        self.send_response(206 if start else 200)
        for name, value in (headers | page.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if page.drip:
            for byte in body:
                self.wfile.write(bytes([byte]))
                time.sleep(page.drip)
            return
        drops = page.drops and (start or len(page.asked) == 1 or not page.ranges)
        self.wfile.write(body[: page.drops.pop(0)] if drops else body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(pages: dict[str, Page]) -> Iterator[str]:
    """Serve the pages; yields the server's address."""
    handler = type("TheHandler", (Handler,), {"pages": pages})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
