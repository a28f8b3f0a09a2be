"""Errors that one line explains, and the lookups by name and by path that every registry shares."""

from __future__ import annotations

import difflib
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """A mistake in what the caller gave; commands print its one line and exit with code 2."""


class NonFiniteError(ArithmeticError):
    """A loss, gradient or score that is infinite or no number; commands print its line and exit with code 3."""


class LoadingError(RuntimeError):
    """A process that loads data was killed; commands print its line and exit with code 1: another try may do."""


class LostRankError(LoadingError):
    """Another process that trains the same model is gone: what ended it is the error to tell."""


class FailedJobsError(RuntimeError):
    """Jobs of a sweep failed, of one that was launched from Python."""


def lookup(table: Mapping[str, T], name: str, kind: str) -> T:
    """Return ``table[name]``; ``kind`` is what the table holds, in the singular, for the message ("algorithm").

    Raises:
        UserError: ``name`` is not in ``table``; the message has the nearest match and the valid names.
    """
    if name not in table:
        raise UserError(unknown_name(table, name, kind))
    return table[name]


def unknown_name(names: Mapping[str, object] | list[str], name: str, kind: str) -> str:
    """The message for a name that is not among ``names``."""
    return f"unknown {kind} {name!r}.{did_you_mean(names, name)} Valid: {', '.join(map(str, names))}"


def did_you_mean(names: Iterable[str], name: str) -> str:
    """The nearest of ``names`` as a question, with a blank before it: "Did you mean PACS?"; "" where none is near."""
    by_lower = {str(known).lower(): str(known) for known in names}
    near = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[near[0]]}?" if near else ""


def one_line(error: BaseException, most: int = 300) -> str:
    """The message of an error on one line, of at most so many characters; its type where it has no message."""
    return " ".join(str(error).split())[:most] or type(error).__name__


def import_object(path: str, name: str) -> Any:
    """Import what a card's path, ``module:object``, names; ``name`` is the card's, for the message.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{name} cannot be loaded from {path}: {error}") from error
