"""README and documentation do what they say: blocks run, every command line parses, every flag and link is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domainbed_adm.cli import COMMANDS, main
from domainbed_adm.scripts.upstream import SCRIPTS
from domainbed_adm.system.console import Parser
from tests.docs.pages import NOT_RUN, PAGES, ROOT, RUN, blocks, command_lines, script

LINES = [(page, words) for page in PAGES for words in command_lines(page)]


class Parsed(Exception):
    """A command has read its flags."""


@pytest.fixture
def parsing_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """Commands end when they have read their flags, in an empty folder; the flags there are."""
    known: set[str] = set()

    def ending(parse: Callable[..., object]) -> Callable[..., None]:
        def parse_and_end(self: Parser, *args: Any, **kwargs: Any) -> None:
            choices = [choice for one in self._actions for choice in getattr(one.choices, "values", list)()]
            parsers = [self, *(choice for choice in choices if isinstance(choice, Parser))]
            known.update(flag for one in parsers for flag in one._option_string_actions)
            parse(self, *args, **kwargs)
            raise Parsed

        return parse_and_end

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(Parser, name, ending(getattr(Parser, name)))
    monkeypatch.chdir(tmp_path)
    return known


@pytest.mark.parametrize(("page", "words"), LINES, ids=lambda one: one.stem if isinstance(one, Path) else " ".join(one))
@pytest.mark.usefixtures("parsing_only")
def test_every_command_line_parses(page: Path, words: list[str]) -> None:
    if words[0] == "upstream":  # the other flags are DomainBed's to parse
        assert words[1] in SCRIPTS
        return
    with pytest.raises(Parsed):
        main(words)
    for flag, value in zip(words, words[1:], strict=False):
        assert flag != "--hparams" or isinstance(json.loads(value), dict)


def test_every_flag_that_is_named_is_there(parsing_only: set[str]) -> None:
    for command in [*COMMANDS, "sweep work"]:
        with contextlib.suppress(Parsed, SystemExit):  # flags are noted before any is found missing
            main(command.split())
    known = parsing_only | {"--domainbed"}  # of upstream, which hands all others on
    for page in PAGES:
        named = set(re.findall(r"(?<!`)`(--[\w-]+)", (ROOT / page).read_text(encoding="utf-8")))
        assert named <= known, f"{page} names flags that no command has: {named - known}"


def test_no_reason_is_left_over() -> None:
    for reason in NOT_RUN:
        assert any(reason in block.text for page in RUN for block in blocks(Path(page))), f"nothing holds {reason!r}"
    tutorials = {str(page) for page in PAGES if "tutorials" in page.parts}
    with_python = {str(page) for page in PAGES for block in blocks(page) if block.language == "python"}
    assert tutorials | with_python | {"README.md"} == RUN.keys()


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if slow else [], id=page) for page, slow in RUN.items()]
)
def test_blocks_run(tmp_path: Path, page: str) -> None:
    commands = tmp_path / "page.sh"
    commands.write_text(script(Path(page)), encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    words = ["bash", str(commands)]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_of_files_lead_somewhere(page: Path) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link}
    made = {"../reference/named-sweeps.md", "../benchmarks/", "../reference/changelog.md"}  # of the site alone
    missing = {link for link in links if not (ROOT / page.parent / link).exists() and not link.startswith(tuple(made))}
    assert not missing
