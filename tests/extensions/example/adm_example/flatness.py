"""A flatness rule: the gradient at theta - rho g / ||g||, the other end of SAM's ball."""

from dataclasses import dataclass

from domainbed_adm.method.flatness import SAM


@dataclass(frozen=True)
class Reverse:
    rho: float

    passes = 2

    def __call__(self, params, gradient, gradient_here, state):
        return SAM(self.rho)(params, [None if part is None else -part for part in gradient], gradient_here, state)
