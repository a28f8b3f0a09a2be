"""ASAM and GSAM: flatness rules behind the ADM paper's three; see ``flatness`` for what a rule is and keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from domainbed_adm.method.cards import FLATNESS
from domainbed_adm.method.flatness import NORM_EPSILON, Point, displaced
from domainbed_adm.method.flatness_hparams import ASAM_BIASES, ASAM_ETA, ASAM_RHO, GSAM_ALPHA, GSAM_RHO_MIN, RHO
from domainbed_adm.method.gradients import Gradients, joint_norm, present


@dataclass(frozen=True)
class ASAM:
    """Adaptive SAM: the gradient at theta + rho T^2 g / ||T g||_2, T = |theta| + eta (Kwon et al., ICML 2021, eq. 6).

    The radius is relative to each parameter, so that it means the same after layers were rescaled against each other.
    As in the authors' code (SamsungLabs/ASAM f156a68), T is 1 for parameters without "weight" in their name, such as
    biases. With ``biases`` it is |theta| + eta for all; eta 0 is then the common variant ``adaptive`` of SAM.
    Cost: 2 forward-backward passes, two extra copies of the parameters.

    Args:
        rho: radius, >= 0; 0 gives the base optimizer. Ten times SAM's are usual: 0.5 on CIFAR-10, 1 on CIFAR-100.
        eta: keeps a weight of 0 movable, >= 0.
        biases: whether parameters that are no weights have a relative radius too.

    Raises:
        UserError: a value is out of its range.
    """

    rho: float = ASAM_RHO.default
    eta: float = ASAM_ETA.default
    biases: bool = ASAM_BIASES.default

    passes = 2

    def __post_init__(self) -> None:
        FLATNESS["ASAM"].check(self)

    def __call__(self, point: Point) -> Gradients:
        """The gradient at the top of the adaptive ball."""
        parts, scales = self._scales(point)
        if scales:
            torch._foreach_mul_(parts, scales)
        everything = present(point.gradient)
        if everything:
            radius = self.rho / (joint_norm(everything) + NORM_EPSILON)
            torch._foreach_mul_(everything, radius)
        if scales:
            torch._foreach_mul_(parts, scales)
        del parts, scales, everything
        with displaced(point.params, point.gradient):
            return point.gradient_here()

    @torch.no_grad()
    def _scales(self, point: Point) -> tuple[list[Tensor], list[Tensor]]:
        """The gradients that are scaled, and |theta| + eta of their parameters."""
        names = [] if self.biases else point.names()
        names = names or ["weight"] * len(point.params)
        chosen = [
            (part, param)
            for part, param, name in zip(point.gradient, point.params, names, strict=True)
            if part is not None and "weight" in name
        ]
        scales = list(torch._foreach_abs([param for _, param in chosen])) if chosen else []
        if scales:
            torch._foreach_add_(scales, self.eta)
        return [part for part, _ in chosen], scales


@dataclass(frozen=True)
class GSAM:
    """Surrogate gap guided SAM: SAM's gradient h without a share of what is orthogonal to it in the gradient g.

    With h = grad L(theta + rho_t g / ||g||_2), the optimizer gets h - alpha (g - <g, h> h / ||h||_2^2): it lowers the
    loss at the top of the ball and the gap to the loss here (Zhuang et al., ICLR 2022, algorithm 1; the authors' code
    for PyTorch, juntang-zhuang/GSAM a770275). The radius follows the learning rate from its highest value to 0:
    rho_t = rho (m + (1 - m) f), f being the learning rate's share of the highest (1 where it is constant).
    Cost: 2 forward-backward passes, two extra copies of the parameters.

    Args:
        rho: radius at the highest learning rate, >= 0; 0 gives the base optimizer.
        alpha: share of the orthogonal part, >= 0; 0 gives SAM.
        rho_min: m, in [0, 1]: the radius at learning rate 0, as a share of ``rho``.

    Raises:
        UserError: a value is out of its range.
    """

    rho: float = RHO.default
    alpha: float = GSAM_ALPHA.default
    rho_min: float = GSAM_RHO_MIN.default

    passes = 2

    def __post_init__(self) -> None:
        FLATNESS["GSAM"].check(self)

    def __call__(self, point: Point) -> Gradients:
        """SAM's gradient, bent away from the gradient's orthogonal part."""
        parts = present(point.gradient)
        if not parts:
            return point.gradient
        radius = self.rho * (self.rho_min + (1 - self.rho_min) * point.rate_share)
        scaled = list(torch._foreach_mul(parts, radius / (joint_norm(parts) + NORM_EPSILON)))
        offsets = [None if part is None else scaled.pop(0) for part in point.gradient]
        with displaced(point.params, offsets):  # which frees them
            handed = point.gradient_here()
        pairs = [(g, h) for g, h in zip(point.gradient, handed, strict=True) if g is not None and h is not None]
        if self.alpha and pairs:
            here, there = [g for g, _ in pairs], [h for _, h in pairs]
            # <g, h> / ||h||^2 over all parameters jointly; the products are freed one by one
            inner = torch.stack([(g * h).sum() for g, h in pairs]).sum()
            along = inner / (joint_norm(there).square() + NORM_EPSILON**2)
            torch._foreach_mul_(there, 1 + self.alpha * along)
            torch._foreach_sub_(there, torch._foreach_mul(here, self.alpha))
        return handed
