"""DomainBed's own algorithms as methods of our engine: the names and hparams that a checkout has.

Names and summaries are read from the checkout's source. Its registry of hparams is imported, and torch with it, when
hparams are asked for.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import Card
from domainbed_adm.method.grid import OwnMethod
from domainbed_adm.upstream.host import import_part, lacks

#: Before the name of an algorithm of DomainBed's that has the name of one of ours: DomainBed's ERM is DomainBed_ERM.
PREFIX = "DomainBed_"


@dataclass(frozen=True)
class HostMethod(OwnMethod):
    """An algorithm of the DomainBed checkout at ``root``, which calls it ``own_name``."""

    root: Path = Path()
    own_name: str = ""

    @property
    def only_by_name(self) -> bool:
        """It runs only where it is named."""
        return True

    def passes(self, weighting: str = "both", **hparams: Any) -> float:
        """Not a number: DomainBed's algorithms do not say what they cost."""
        return math.nan

    def default_hparams(self, dataset: str) -> dict[str, Any]:
        """As DomainBed's registry gives them."""
        return self._registered("default_hparams", dataset)

    def random_hparams(self, dataset: str, seed: int) -> dict[str, Any]:
        """As DomainBed's registry draws them."""
        return self._registered("random_hparams", dataset, seed)

    def _registered(self, function: str, dataset: str, *seed: int) -> dict[str, Any]:
        found = getattr(import_part(self.root, "hparams_registry"), function)(self.own_name, dataset, *seed)
        # the same numbers as plain ones, which JSON and files of tensors know
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in found.items()}


def host_methods(root: Path, taken: set[str]) -> Iterator[HostMethod]:
    """DomainBed's algorithms, in its order; behind the others those whose names are ``taken``, with ``PREFIX``.

    Raises:
        UserError: the checkout's list of algorithms cannot be read.
    """
    path = root / "domainbed" / "algorithms.py"
    names: list[str] = []
    about: dict[str, str] = {}
    try:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                about[node.name] = next(iter((ast.get_docstring(node) or "").splitlines()), "")
            elif isinstance(node, (ast.Assign, ast.AugAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and target.id == "ALGORITHMS" for target in targets):
                    names += map(str, ast.literal_eval(node.value))
    except (OSError, SyntaxError, ValueError, TypeError):
        names = []
    if not names:
        raise UserError(lacks(root, "list domainbed.algorithms.ALGORITHMS"))
    for name in sorted(dict.fromkeys(names), key=lambda name: name in taken):
        own = f"{PREFIX}{name}" if name in taken else name
        card = Card(own, about.get(name) or "DomainBed's own", "DomainBed", "domainbed.algorithms:" + name)
        yield HostMethod(card=card, root=root, own_name=name)
