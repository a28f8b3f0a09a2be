"""A Lightning module that trains by SAM and the curriculum SSPL by ADM, on scikit-learn's digits.

    pip install lightning
    python examples/lightning_module.py --epochs 7

The optimisation is manual: a step of ours makes several backward passes.
"""

from __future__ import annotations

import argparse
from typing import Any

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from domainbed_adm import ADM, SAM, SSPL, TrainingStep


class Digits(lightning.LightningModule):
    """A small network for 8 x 8 digits; ``accuracy`` is that of the last validation."""

    def __init__(self, total_steps: int) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.total_steps = total_steps
        self.network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
        self.step: TrainingStep | None = None
        self.accuracy = 0.0
        self._right: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, and the step that uses it."""
        optimizer = torch.optim.Adam(self.network.parameters(), lr=0.003)
        self.step = TrainingStep(self.network, optimizer, SAM(rho=0.05), SSPL(), ADM(), total_steps=self.total_steps)
        return optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """One step of the method; its figures are logged."""
        assert self.step
        self.log_dict(self.step(*batch))

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        """Counts what is right."""
        x, y = batch
        self._right.append(self.network(x).argmax(1) == y)

    def on_validation_epoch_end(self) -> None:
        """The accuracy."""
        self.accuracy = float(torch.cat(self._right).float().mean())
        self._right.clear()
        self.log("accuracy", self.accuracy)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the step remembers, so that a run goes on as it was."""
        assert self.step
        checkpoint["step_state"] = self.step.state.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """And give it back."""
        self._restored = checkpoint["step_state"]

    def on_fit_start(self) -> None:
        """The step is there by now."""
        if self.step and getattr(self, "_restored", None):
            self.step.state.load_state_dict(self._restored)


def main(epochs: int) -> float:
    """Train; returns the accuracy on the images that were held back."""
    lightning.seed_everything(0, verbose=False)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target))
    train, test = torch.utils.data.random_split(data, [1400, len(data) - 1400])
    batches = DataLoader(train, batch_size=32, shuffle=True, drop_last=True)
    module = Digits(total_steps=epochs * len(batches))
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", **quiet)
    trainer.fit(module, batches)
    trainer.validate(module, DataLoader(test, batch_size=256), verbose=False)
    print(f"accuracy on held back images: {module.accuracy:.3f}")
    return module.accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=7)
    main(parser.parse_args().epochs)
