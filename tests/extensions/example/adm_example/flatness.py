"""A flatness rule: the gradient at theta - rho g / ||g||, the other end of SAM's ball."""

from dataclasses import dataclass, replace

from domainbed_adm.method.flatness import SAM


@dataclass(frozen=True)
class Reverse:
    rho: float

    passes = 2

    def __call__(self, point):
        return SAM(self.rho)(replace(point, gradient=[None if part is None else -part for part in point.gradient]))
