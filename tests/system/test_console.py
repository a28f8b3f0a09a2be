"""What comes from files of strangers reaches a terminal as text, never as a command."""

from __future__ import annotations

import pytest

from domainbed_adm.system.console import printable, warn

SHOWN = {
    "plain, café, 日本, \u200c, \u00a0": "plain, café, 日本, \u200c, \u00a0",
    "\x1b[31m": r"\x1b[31m",
    "\x9b2J\x7f": r"\x9b2J\x7f",
    "a\nb\r\tc\0": r"a\nb\r\tc\x00",
    "\ud800\udce9": r"\ud800\udce9",
    "\u2028\u202e\u2066": r"\u2028\u202e\u2066",
}


@pytest.mark.parametrize("text", SHOWN, ids=range(len(SHOWN)))
def test_printable(text: str) -> None:
    assert printable(text) == printable(printable(text)) == SHOWN[text]
    SHOWN[text].encode()


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    warn("bad name \x1b[2J\nwarning: forged \udce9")
    assert capsys.readouterr().err == "warning: bad name \\x1b[2J\\nwarning: forged \\udce9\n"
