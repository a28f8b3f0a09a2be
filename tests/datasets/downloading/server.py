"""A web server of a few lines that drops connections, lies, and ignores what it is asked, as told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """One file of the server, and how it misbehaves; each list is used up, one entry a request."""

    content: bytes
    etag: str | None = '"one"'
    ranges: bool = True
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    chunked: bool = False
    heeds_if_range: bool = True
    ranges_asked: list[str | None] = field(default_factory=list)


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
        page.ranges_asked.append(asked)
        if page.statuses and (status := page.statuses.pop(0)) != 200:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            for name, value in page.headers.items():
                self.send_header(name, value)
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and page.ranges else 0
        if page.heeds_if_range and self.headers.get("If-Range") != page.etag:
            start = 0
        if start and start >= len(page.content):
            self.send_error(416)
            return
        self.answer(page, start)

    def answer(self, page: Page, start: int) -> None:
        body = page.content[start:]
        headers: dict[str, str] = {"ETag": page.etag} if page.etag else {}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(page.content) - 1}/{len(page.content)}"
        if page.chunked:
            headers["Transfer-Encoding"] = "chunked"
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        else:
            headers["Content-Length"] = str(len(body) if page.length is None else page.length)
        headers |= page.headers if start or "Content-Range" not in page.headers else {}
        self.send_response(206 if start else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: page.drops.pop(0)] if page.drops else body)

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
