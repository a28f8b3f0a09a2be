"""The one reader of YAML that people write: plain data, and nothing that a file could run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from domainbed_adm.errors import UserError


def read_yaml(path: Path, what: str) -> Any:
    """The content of a file that people write, ``what`` in messages.

    Raises:
        UserError: it is not YAML, or names a type that is not plain data.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{what} is not YAML: {' '.join(str(error).split())}") from None
