"""Docstrings as Markdown: they are written for ``help()``, with doctests, plain tables and references by role."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`~?([^`]+)`")
_DOCTEST = re.compile(r"(?:^[ ]*(?:>>>|\.\.\.).*\n?(?:^(?![ ]*>>>)[ ]*\S.*\n?)*)+", re.MULTILINE)
_TABLE = re.compile(r"^=+ +=+.*\n(?:.*\n)*?=+ +=+[ =]*$", re.MULTILINE)


def as_markdown(text: str) -> str:
    """Doctests and tables of a docstring as blocks of code, roles as code, ``::`` as a colon."""
    text = _ROLE.sub(lambda found: f"`{found[1]}`", text)
    text = _DOCTEST.sub(lambda found: _fenced("pycon", found[0]), text)
    return re.sub(r"::$", ":", _TABLE.sub(lambda found: _fenced("text", found[0]), text), flags=re.MULTILINE)


def _fenced(language: str, block: str) -> str:
    indent = re.match(" *", block)[0]  # type: ignore[index]
    return f"{indent}```{language}\n{block.rstrip()}\n{indent}```\n"


class Docstrings(griffe.Extension):
    """Gives mkdocstrings each docstring as Markdown."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
