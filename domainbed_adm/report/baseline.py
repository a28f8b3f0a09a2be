"""What the page compares methods with: SAM, which the curricula were made for, else ERM."""

from __future__ import annotations

from collections.abc import Collection

BASELINES = ("SAM", "ERM")


def baseline(names: Collection[str]) -> str | None:
    """The first of ``BASELINES`` among the names; None where there is none."""
    return next((name for name in BASELINES if name in names), None)
