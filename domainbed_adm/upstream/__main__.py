"""``python -m domainbed_adm.upstream``: the same as ``domainbed-adm upstream``."""

import sys

from domainbed_adm.cli import run
from domainbed_adm.scripts.upstream import main

if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
