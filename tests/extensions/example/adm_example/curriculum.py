"""A curriculum: hard samples count more, up to a cap."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Capped:
    cap: float

    def __call__(self, scores, progress):
        return (1 + scores * progress).clamp(max=1 + self.cap)
