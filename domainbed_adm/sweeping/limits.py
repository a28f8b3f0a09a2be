"""How long a worker may go on: ``3h``, ``1h30m`` or Slurm's ``4:00:00`` and ``1-12:00:00``, in seconds."""

from __future__ import annotations

import re

from domainbed_adm.errors import UserError

_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_IN_UNITS = re.compile(r"(?=\d)" + "".join(rf"(?:(?P<{unit}>\d+){unit})?" for unit in _UNITS))
#: Slurm's, but for a bare number: days-hours, days-hours:minutes, ...:seconds; minutes:seconds, hours:minutes:seconds.
_DAYS = re.compile(r"(?P<d>\d+)-(?P<h>\d+)(:(?P<m>\d+)(:(?P<s>\d+))?)?")
_CLOCK = re.compile(r"((?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)")
#: A job is told to end so many seconds before the limit, or by this share of it where that is less.
MARGIN, SHARE = 30.0, 0.1
#: Longer than any cluster allows.
_MOST = 10 * 365 * 86400


def seconds(text: str) -> int:
    """The seconds that ``--time_limit`` stands for.

    Raises:
        UserError: it is no time, 0, or above ten years.
    """
    for pattern in (_IN_UNITS, _DAYS, _CLOCK):
        if (found := pattern.fullmatch(text.strip())) and len(text) < 40:
            total = sum(int(value) * _UNITS[unit] for unit, value in found.groupdict().items() if value)
            if 0 < total <= _MOST:
                return total
    raise UserError(f"--time_limit must be a time such as 3h, 90m, 4:00:00 or 1-12:00:00, not {text!r}")


def working_time(limit: float) -> float:
    """Seconds of a limit after which a running job is told to end, so that it has ended by then."""
    return limit - min(MARGIN, SHARE * limit)
