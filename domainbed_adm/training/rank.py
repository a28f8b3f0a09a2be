"""One process of a run on several devices: ``supervision`` starts it, and it ends with that process.

The first line of its standard input says what to train. It tells how it ended through a pipe: a JSON object with
``code``, ``told`` (one line, or a traceback) and ``lost``, whether all that went wrong is that another rank is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from domainbed_adm.cli import explained
from domainbed_adm.errors import LostRankError
from domainbed_adm.registry import load_extensions
from domainbed_adm.run_args import RunArgs
from domainbed_adm.run_files import ExitCode
from domainbed_adm.system.process import terminate_as_interrupt

#: Of a traceback: what a pipe holds even where nobody reads.
_LONGEST = 20_000


def main() -> int:
    """Train as the first line of the standard input says; returns the exit code."""
    order = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe = order["pipe"]
    os.set_inheritable(pipe, False)
    if order["rank"]:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    code, told, lost = int(ExitCode.DONE), "", False
    try:
        with terminate_as_interrupt():
            _train(order)
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except Exception as error:
        known, lost = explained(error), isinstance(error, LostRankError)
        code, told = known or (ExitCode.RETRY, traceback.format_exc()[-_LONGEST:])
    with open(pipe, "w", encoding="utf-8") as report:  # noqa: PTH123
        json.dump({"code": code, "told": told, "lost": lost}, report)
    sys.stdout.flush()
    return code


def _train(order: dict[str, Any]) -> None:
    load_extensions()
    args = RunArgs(**{**order["args"], **{name: tuple(order["args"][name]) for name in ("test_envs", "logger")}})
    from domainbed_adm.method.ranks import Ranks
    from domainbed_adm.training.devices import check_devices, join
    from domainbed_adm.training.loop import train
    from domainbed_adm.training.setup import set_up

    check_devices(args.devices)
    ranks = Ranks(order["rank"], args.devices)
    join(ranks, order["meeting"])
    train(set_up(args, ranks), Path(args.output_dir), args.restart)


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the parent is gone, or ends this process
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
