"""What can go wrong in a step, told in one line: numbers that are not finite, memory that is not enough."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from domainbed_adm.errors import NonFiniteError
from domainbed_adm.run_files import DIVERGED
from domainbed_adm.system.disk import replacing
from domainbed_adm.training.memory_errors import memory_errors_explained
from domainbed_adm.training.setup import Setup


@contextmanager
def explained(run: Setup, step: int, output_dir: Path) -> Iterator[None]:
    """Within the block, one step of the run; what goes wrong there says where, and what to do.

    Raises:
        NonFiniteError: a number was not finite; ``diverged.json`` says at which step, with which method and hparams.
        UserError: the memory was not enough.
    """
    try:
        with memory_errors_explained(run.in_words(f", step {step}")):
            yield
    except NonFiniteError as error:
        about = {name: run.args[name] for name in ("algorithm", "dataset", "test_envs", "seed", "trial_seed")}
        report = {"step": step, "error": str(error), **about, "hparams": run.hparams}
        with replacing(output_dir / DIVERGED) as file:
            file.write(json.dumps(report, indent=1, sort_keys=True).encode() + b"\n")
        raise NonFiniteError(
            f"{run.args['algorithm']} on {run.args['dataset']}, step {step}: {error} (lr {run.hparams['lr']:g}; "
            f"see {output_dir / DIVERGED})"
        ) from error


def check_finite(figures: dict[str, Any]) -> None:
    """Refuse a loss that is not finite, of an algorithm that does not check it.

    Raises:
        NonFiniteError: the loss is not finite.
    """
    if not math.isfinite(figures.get("loss", 0.0)):
        raise NonFiniteError(f"not finite: loss {figures['loss']}")
