"""Stands in for ``train``: ``job.py FOLDER STEPS`` has its lock and its exit codes, and goes on where it ended.

It writes a line for each step, so that one that is lost or made twice shows, and a log of how it began and ended.
"""

import fcntl
import os
import signal
import sys
import time
from pathlib import Path


def main(folder: Path, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / ".lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(75)
    if (folder / "done").exists():
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(130))
    checkpoint = os.open(folder / "steps", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    step = len((folder / "steps").read_text().split())
    with (folder / "log").open("a", buffering=1) as log:
        print("start", step, os.getpid(), os.getppid(), os.environ.get("CUDA_VISIBLE_DEVICES"), file=log)
        try:
            for done in range(step + 1, steps + 1):
                time.sleep(0.05)
                os.write(checkpoint, f"{done}\n".encode())
        except SystemExit:
            print("told", file=log)
            raise
        (folder / "done").touch()
        print("done", file=log)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
