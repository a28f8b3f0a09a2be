"""``python -m tests.ray.launching STEPS FLAGS``: ``sweep launch`` with these flags, of stand-ins for ``train``."""

import shlex
import sys
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.scripts import sweep
from domainbed_adm.sweeping.jobs import Job

if __name__ == "__main__":
    stand_in = [sys.executable, "-S", str(Path(__file__).with_name("job.py"))]
    Job.command = property(lambda job: shlex.join([*stand_in, str(job.output_dir), sys.argv[1]]))  # type: ignore
    sys.exit(run(sweep.main, ["launch", *sys.argv[2:]]))
