"""Two launchers: one as DomainBed's users write them, and one that hands workers over to a queue of its own."""

import subprocess
from pathlib import Path


def each(commands):
    for command in commands:
        subprocess.call(command, shell=True)


def queued(commands, labels, queue_log):
    """Returns at once; the commands run in a session of their own."""
    if queue_log:
        Path(queue_log).write_text("\n".join(labels))
    if commands:
        subprocess.Popen(" & ".join(commands) + " & wait", shell=True, start_new_session=True).returncode = 0
