"""Our methods inside a real DomainBed checkout, which is not edited, and its algorithms in our engine.

Nothing else in this package imports ``domainbed``. ``host`` finds the checkout and checks that it has what we use;
``registration`` adds our algorithms, hparams, datasets and job commands to it; ``run`` is what is known of a run and
handed to the algorithm; ``scripts`` runs one of DomainBed's scripts, registered. The other way round, ``methods`` are
DomainBed's algorithms as methods of our engine, ``hosted`` their classes. From a script of your own::

    from domainbed_adm import upstream

    upstream.register(total_steps=1000)  # finds DomainBed by DOMAINBED_DIR or on the Python path
    from domainbed import algorithms

    algorithms.get_algorithm_class("SAM_SSPL_ADM")

Importing this loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from domainbed_adm.upstream.host import VARIABLE, Host, find

if TYPE_CHECKING:
    from domainbed_adm.upstream.registration import Registration, register
    from domainbed_adm.upstream.scripts import run_script

__all__ = ["VARIABLE", "Host", "Registration", "find", "register", "run_script"]

_LAZY = {"Registration": "registration", "register": "registration", "run_script": "scripts"}


def __getattr__(name: str) -> Any:
    """Load what needs torch when it is first used.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
