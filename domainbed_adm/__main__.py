"""``python -m domainbed_adm`` is the command ``domainbed-adm``."""

import sys

from domainbed_adm.cli import main

if __name__ == "__main__":
    sys.exit(main())
