"""``out.txt`` and ``err.txt``: what a run prints, kept in its folder as well."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from domainbed_adm.errors import LoadingError, NonFiniteError, UserError
from domainbed_adm.run_files import ERR, OUT
from domainbed_adm.system.disk import writing


class _Tee:
    """Writes to a stream and at once to the end of a file, where what cannot be encoded, of a name say, is escaped."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self._stream, self._path = stream, path
        with writing(path):
            self._file = path.open("ab", buffering=0)

    def write(self, text: str) -> int:
        with writing(self._path):
            self.log(text)
        return self._stream.write(text)

    def log(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "backslashreplace"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        self._file.close()


@contextmanager
def teed(output_dir: Path) -> Iterator[None]:
    """Within the block, what is printed also goes to out.txt and err.txt, an error to err.txt."""
    with (
        closing(_Tee(sys.stdout, output_dir / OUT)) as out,
        closing(_Tee(sys.stderr, output_dir / ERR)) as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            yield
        except BaseException as error:
            expected = isinstance(error, (UserError, NonFiniteError, LoadingError))
            told = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) if expected else ""
            with suppress(OSError):  # as far as there is room
                err.log(f"{told}\n" if told else traceback.format_exc())
            raise
