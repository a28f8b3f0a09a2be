"""Our methods inside a real DomainBed checkout, which is not edited. Nothing else in this package imports `domainbed`.

``host`` finds the checkout and checks that it has what we use; ``registration`` adds our algorithms, hparams, datasets
and job commands to it; ``run`` is what is known of a run and handed to the algorithm; ``scripts`` runs one of
DomainBed's scripts, registered. From a script of your own::

    from domainbed_adm import upstream

    upstream.register(total_steps=1000)  # finds DomainBed by DOMAINBED_DIR or on the Python path
    from domainbed import algorithms

    algorithms.get_algorithm_class("SAM_SSPL_ADM")
"""

from domainbed_adm.upstream.host import VARIABLE, Host, find
from domainbed_adm.upstream.registration import Registration, register
from domainbed_adm.upstream.scripts import run_script

__all__ = ["VARIABLE", "Host", "Registration", "find", "register", "run_script"]
