"""Every flatness rule keeps its perturbation under bf16, by autocast and with parameters in bf16."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from domainbed_adm.method.flatness import FSAM, SAGM, SAM, Flatness, displaced
from domainbed_adm.method.passes import cross_entropy
from domainbed_adm.method.step import TrainingStep

RULES = [SAM(rho=0.5), SAGM(rho=0.5), FSAM(rho=0.5)]


def _case() -> tuple[nn.Module, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 64, 20, generator=generator), torch.randint(5, (3, 64), generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 5))
    return model, x, y


def _gradient(rule: Flatness | None, kind: str) -> Tensor:
    """The gradient handed to the optimizer in the third step, flat and in float32."""
    model, x, y = copy.deepcopy(_case()[0]), *_case()[1:]
    if kind == "parameters":
        model, x = model.to(torch.bfloat16), x.to(torch.bfloat16)
    step = TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.0), rule)
    for batch, labels in zip(x, y, strict=True):
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
            step(batch, labels)
    return torch.cat([param.grad.flatten().float() for param in model.parameters() if param.grad is not None])


@pytest.mark.parametrize("kind", ["autocast", "parameters"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_rule_has_the_direction_of_fp32_and_is_not_the_plain_step(rule: Flatness, kind: str) -> None:
    exact, low = _gradient(rule, "fp32"), _gradient(rule, kind)
    plain = _gradient(None, kind)
    assert torch.cosine_similarity(exact, low, dim=0) > 0.99
    assert (low - plain).norm() > 0.1 * (exact - _gradient(None, "fp32")).norm() > 0


def test_autocast_sees_the_displaced_parameters_and_then_the_restored_ones() -> None:
    model, x, _ = _case()
    params = list(model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        with displaced(params, [torch.ones_like(param) for param in params]):
            assert not torch.equal(model(x), before)
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_losses_are_in_single_precision_at_least(dtype: torch.dtype) -> None:
    logits, y = torch.randn(64, 5, dtype=torch.float64).to(dtype), torch.arange(64) % 5
    with torch.autocast("cpu", torch.bfloat16):
        losses = cross_entropy(logits, y)
    assert losses.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    exact = torch.logsumexp(logits.double(), 1) - logits.double().gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(losses.double(), exact, rtol=1e-5, atol=1e-6)
