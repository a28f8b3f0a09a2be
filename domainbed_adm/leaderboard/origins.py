"""What made a table's runs, in words: seeds, versions, and where they differ, devices and threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from domainbed_adm.recorded_run import Run


def versions(runs: Iterable[Run]) -> str:
    """The package versions, commits and torch versions found in the records; DomainBed's records name none."""
    written = {_version(made_by) for run in runs for made_by in run.provenances or ({},)}
    return "; ".join(sorted(written)) or "none"


def _version(made_by: dict[str, Any]) -> str:
    if not made_by:
        return "not recorded"
    commit = str(made_by.get("git_commit") or "")[:10]
    own = f"domainbed_adm {made_by.get('version')}" + (f" (commit {commit})" if commit else "")
    return f"{own}, torch {made_by.get('torch')}"


def seeds(runs: Iterable[Run], name: str) -> list[int]:
    """The distinct values of one seed of ``args``, sorted."""
    return sorted({run.args[name] for run in runs})


def spoken(numbers: list[int]) -> str:
    """``0, 1, 2`` or, where they are many and consecutive, ``0 to 19``."""
    if len(numbers) > 3 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def differences(runs: Iterable[Run]) -> str:
    """A sentence on the devices and one on the numbers of threads, where the runs that record them differ; else ""."""
    runs = list(runs)
    sentences = []
    for name, named in (("device", "devices"), ("threads", "numbers of threads")):
        count = Counter(str(made_by[name]) for run in runs for made_by in run.provenances if name in made_by)
        if len(count) > 1:
            values = ", ".join(f"{value} ({n})" for value, n in count.most_common())
            sentences.append(f" Runs differ in {named}: {values}.")
    return "".join(sentences)


def sweep_line(runs: list[Run]) -> str:
    """The seeds, the splits and the versions of the runs; where they differ, the devices and numbers of threads."""
    holdouts = sorted({str(run.args.get("holdout_fraction", "not recorded")) for run in runs})
    return (
        f"Trial seeds {spoken(seeds(runs, 'trial_seed'))}; "
        f"hparams seeds {spoken(seeds(runs, 'hparams_seed'))}; holdout_fraction {', '.join(holdouts)}. "
        f"Versions: {versions(runs)}.{differences(runs)}"
    )
