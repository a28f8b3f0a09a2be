"""The blocks of README.md and of the pages of docs/, and which of them the tests run."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [Path("README.md"), *(path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md")))]
#: What a block holds that is not run, and why. Each of its lines that calls domainbed-adm must parse all the same.
NOT_RUN = {
    "make ": "installs, or runs these tests",
    "git clone": "needs a network",
    "--domainbed": "needs a DomainBed checkout; tests/upstream_real runs such lines in one",
    "results/upstream": "what the lines before it would leave",
    "--dataset Name": "the reader's own images",
    "--dataset MyPhotos": "the reader's own images",
    "domainbed-adm export": "needs the extra [export]; tests/scripts/test_export.py has it",
    "--command_launcher": "needs a cluster, or GPUs; tests/slurm and tests/ray start their own",
}
#: Pages whose blocks run, and whether that takes long. Of the others every command line is parsed.
RUN = {
    "README.md": False,
    "docs/howto/python.md": False,
    "docs/tutorials/add-a-difficulty.md": False,
    "docs/tutorials/cluster.md": True,
    "docs/tutorials/domainbed.md": True,
    "docs/tutorials/first-sweep.md": True,
    "docs/tutorials/own-images.md": True,
}
_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block; one with a title is a file of that name."""

    language: str
    title: str
    text: str

    @property
    def runs(self) -> bool:
        """Whether it is run."""
        return self.language in {"sh", "python"} and not self.title and not any(one in self.text for one in NOT_RUN)


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    return [Block(*found) for found in _FENCE.findall((ROOT / page).read_text(encoding="utf-8"))]


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words of each line that calls domainbed-adm, without what the shell does with it."""
    for block in blocks(page):
        if block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                ends = [i for i, word in enumerate(words) if word in {"||", "&&", "|", ">", "&"}]
                if words[:1] == ["domainbed-adm"]:
                    yield words[1 : min(ends, default=len(words))]


def script(page: Path) -> str:
    """The page as a script of bash: files are written, Python blocks without a shell block between are one program."""
    lines, program = ["set -euo pipefail"], ""
    for block in [*blocks(page), Block("sh", "", "")]:
        if block.title:
            lines.append(
                f"mkdir -p $(dirname {block.title})\ncat > {block.title} <<'END_OF_FILE'\n{block.text}END_OF_FILE"
            )
        elif block.runs and block.language == "python":
            program += block.text
        elif block.runs:
            if program:
                lines.append(f"python - <<'END_OF_PROGRAM'\n{program}END_OF_PROGRAM")
            lines.append(block.text)
            program = ""
    return "\n".join(lines)


def hooks() -> Any:
    """The module that makes what pages do not type."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
