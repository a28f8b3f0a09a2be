"""Where a run's figures go as it trains, beside its records: TensorBoard, Weights & Biases, MLflow, a CSV file.

Each logger is a class with one card in ``LOGGERS``, by the names that ``train --logger`` takes;
``extensions.add_logger`` adds others. ``interface`` says what such a class does, ``watching`` calls it. None of them
changes a run: what one draws at random is put back, and one that fails is left out with a warning. Loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from domainbed_adm.errors import UserError, lookup


@dataclass(frozen=True)
class LoggerCard:
    """One logger: its name, the path ``module:Class`` of its ``interface.Logger``, and the package that it needs."""

    name: str
    path: str
    about: str
    package: str = ""


_HERE = "domainbed_adm.loggers."
LOGGERS = {
    card.name: card
    for card in (
        LoggerCard("tensorboard", f"{_HERE}to_tensorboard:TensorBoard", "output_dir/tensorboard", "tensorboard"),
        LoggerCard("wandb", f"{_HERE}to_wandb:WandB", "Weights & Biases, as its WANDB_* variables say", "wandb"),
        LoggerCard("mlflow", f"{_HERE}to_mlflow:MLflow", "MLflow, as its MLFLOW_* variables say", "mlflow"),
        LoggerCard("csv", f"{_HERE}to_csv:Csv", "output_dir/metrics.csv"),
    )
}


def check_loggers(names: Iterable[str]) -> None:
    """Check that these loggers are known, and that what they need is installed.

    Raises:
        UserError: one is not; the message says what to install.
    """
    for name in names:
        package = lookup(LOGGERS, name, "logger").package
        try:
            there = not package or find_spec(package) is not None
        except ValueError:  # a module that somebody has put there by hand
            there = True
        if not there:
            raise UserError(f"--logger {name} needs {package}: pip install {package}")
