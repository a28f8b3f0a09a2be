"""Names of what ``analyze`` measures at a model and keeps beside it in the run's folder. Loads no torch."""

from __future__ import annotations

import re
from pathlib import Path

#: Kind and ending of a file's name.
HESSIAN = ("hessian", "json")
LANDSCAPE = ("landscape", "npz")
_NAME = re.compile("|".join(rf"{kind}(_step[0-9]+)?\.{ending}" for kind, ending in (HESSIAN, LANDSCAPE)))


def measured(folder: Path) -> list[Path]:
    """The results in a run's folder: ``hessian.json`` of model.pkl, ``hessian_step300.json`` of model_step300.pkl."""
    return [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
