"""The flatness rules by themselves: how far they move, and that they put everything back."""

import pytest
import torch

from domainbed_adm.method.flatness import FSAM, SAGM, SAM, Plain, Point, displaced
from domainbed_adm.method.gradients import joint_norm


@pytest.mark.parametrize("rule", [Plain(), SAM(), SAGM(), FSAM()], ids=lambda rule: type(rule).__name__)
def test_a_zero_gradient_moves_nothing(rule):
    params = [torch.ones(2, dtype=torch.float64)]
    handed = rule(Point(params, [torch.zeros(2, dtype=torch.float64)], lambda: [params[0] - 1], {}))
    assert handed[0].tolist() == [0, 0]


@pytest.mark.parametrize("rule", [SAM(0.3), FSAM(0.3)], ids=lambda rule: type(rule).__name__)
def test_moves_to_the_top_of_the_ball(rule):
    params = [torch.tensor([1.0, 2.0]), torch.tensor([[3.0]]), torch.tensor([9.0])]
    before = [p.clone() for p in params]
    moved = []

    def gradient_here():
        moved.extend(p - b for p, b in zip(params, before, strict=True))
        return [None, None, None]

    rule(Point(params, [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]]), None], gradient_here, {}))
    assert joint_norm(moved).item() == pytest.approx(0.3, rel=1e-5)
    torch.testing.assert_close(moved[1], torch.tensor([[0.24]]))
    assert moved[2].item() == 0
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_displaced_restores_values_that_addition_would_lose():
    param = torch.tensor([1e-20])
    with displaced([param], [torch.tensor([1.0])]):
        assert param.item() == 1.0
    assert param.item() == torch.tensor(1e-20).item()
