"""A difficulty: the loss to a power."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Margin:
    power: float

    needs_input_gradient = False

    def __call__(self, probe):
        return probe.losses**self.power
