"""The names there are, with those that other installed packages add: entry points of ``domainbed_adm.extensions``.

An entry point's target is a function without arguments that calls ``domainbed_adm.extensions``. It is called once, when
the first name is looked up; importing the package calls nothing. Loads no torch.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping
from typing import Any

from domainbed_adm.errors import UserError, lookup
from domainbed_adm.method.grid import METHODS, Method

GROUP = "domainbed_adm.extensions"
#: Names of the entry points that have been called, and ``GROUP`` once all have been found.
_called: set[str] = set()


def load_extensions() -> None:
    """Call the function of every entry point, once in a process.

    Raises:
        UserError: one of them cannot be loaded; the message names it and its package.
    """
    if GROUP in _called:
        return
    _called.add(GROUP)  # before the calls: an extension may look names up itself
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name in _called:
            continue
        try:
            point.load()()
        except Exception as error:
            _called.discard(GROUP)
            package = point.dist.name if point.dist else point.module
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(f"extension {point.name} of {package} cannot be loaded: {reason}") from error
        _called.add(point.name)


def get_method(name: str) -> Method:
    """The method of this algorithm name; ``UserError`` with the nearest match where there is none."""
    load_extensions()
    return lookup(METHODS, name, "algorithm")


def matched_steps(steps: int, algorithm: str, other: str, hparams: Mapping[str, Any]) -> int:
    """How many steps give ``algorithm`` the passes that ``other`` spends in ``steps``, rounded up.

    steps x passes of other / passes of algorithm, each with these ``hparams``, of which ``Method.passes`` knows some.

    Raises:
        UserError: one of the two is unknown, or an hparam is out of its range.
    """
    own, theirs = (get_method(name).passes(**hparams) for name in (algorithm, other))
    return math.ceil(steps * theirs / own - 1e-9)


#: DomainBed's own algorithms at b93c22a, in the order of its tables, where they stand before ours.
DOMAINBED_ALGORITHMS = (
    *("ERM", "ERMPlusPlus", "Fish", "IRM", "GroupDRO", "Mixup", "MLDG", "CORAL", "MMD", "DANN", "CDANN", "MTL"),
    *("SagNet", "ARM", "VREx", "RSC", "SD", "ANDMask", "SANDMask", "IGA", "SelfReg", "Fishr", "TRM", "IB_ERM"),
    *("IB_IRM", "CAD", "CondCAD", "Transfer", "CausIRL_CORAL", "CausIRL_MMD", "EQRM", "RDM", "ADRMX", "URM"),
)
