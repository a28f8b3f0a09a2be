"""The names there are, with those that other installed packages add: entry points of ``domainbed_adm.extensions``.

DomainBed's own algorithms are among them once a checkout is named, by ``--domainbed`` or ``DOMAINBED_DIR``.

An entry point's target is a function without arguments that calls ``domainbed_adm.extensions``. It is called once, when
the first name is looked up; importing the package calls nothing. Loads no torch.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from domainbed_adm.errors import UserError, lookup
from domainbed_adm.method.grid import METHODS, Method
from domainbed_adm.upstream.host import VARIABLE, find
from domainbed_adm.upstream.methods import PREFIX, HostMethod, host_methods

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


def load_checkout(path: str | None = None) -> Path | None:
    """Add DomainBed's own algorithms, of the checkout at ``path``, else of one named before, else at ``DOMAINBED_DIR``.

    They take the place of another checkout's.

    Returns:
        The folder of the checkout; None where none is named, and nothing is added.

    Raises:
        UserError: there is no DomainBed, or it has no list of algorithms.
    """
    load_extensions()
    there = [method for method in METHODS.values() if isinstance(method, HostMethod)]
    if not path and (there or not os.environ.get(VARIABLE)):
        return there[0].root if there else None
    root = find(path)
    if not there or there[0].root != root:
        new = list(host_methods(root, METHODS.keys() - {method.name for method in there}))
        for method in there:
            del METHODS[method.name]
        METHODS.update({method.name: method for method in new})
    return root


def get_method(name: str) -> Method:
    """The method of this algorithm name, of DomainBed's checkout too where ``DOMAINBED_DIR`` names one.

    Raises:
        UserError: there is none; the message has the nearest match.
    """
    load_extensions()
    if name not in METHODS:
        load_checkout()
    if name not in METHODS and name.removeprefix(PREFIX) in DOMAINBED_ALGORITHMS:
        raise UserError(f"{name} is DomainBed's own: name a checkout of it by --domainbed DIR, or {VARIABLE}")
    return lookup(METHODS, name, "algorithm")


def checkout_flag(algorithms: Iterable[str]) -> dict[str, str]:
    """The flag that tells a job, in whatever folder and environment, the checkout that these algorithms need."""
    methods = [METHODS.get(name) for name in algorithms]
    roots = [str(method.root) for method in methods if isinstance(method, HostMethod)]
    return {"domainbed": roots[0]} if roots else {}


def matched_steps(steps: int, algorithm: str, other: str, hparams: Mapping[str, Any]) -> int:
    """How many steps give ``algorithm`` the passes that ``other`` spends in ``steps``, rounded up.

    steps x passes of other / passes of algorithm, each with these ``hparams``, of which ``Method.passes`` knows some.

    Raises:
        UserError: one of the two is unknown, or its passes are, or an hparam is out of its range.
    """
    own, theirs = (get_method(name).passes(**hparams) for name in (algorithm, other))
    for name, passes in ((algorithm, own), (other, theirs)):
        if math.isnan(passes):
            raise UserError(f"how many passes {name} spends is not known: DomainBed's algorithms do not say")
    return math.ceil(steps * theirs / own - 1e-9)


#: DomainBed's own algorithms at b93c22a, in the order of its tables, where they stand before ours.
DOMAINBED_ALGORITHMS = (
    *("ERM", "ERMPlusPlus", "Fish", "IRM", "GroupDRO", "Mixup", "MLDG", "CORAL", "MMD", "DANN", "CDANN", "MTL"),
    *("SagNet", "ARM", "VREx", "RSC", "SD", "ANDMask", "SANDMask", "IGA", "SelfReg", "Fishr", "TRM", "IB_ERM"),
    *("IB_IRM", "CAD", "CondCAD", "Transfer", "CausIRL_CORAL", "CausIRL_MMD", "EQRM", "RDM", "ADRMX", "URM"),
)
