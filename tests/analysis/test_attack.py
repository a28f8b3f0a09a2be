"""PGD against plain loops in float64, and where the worst case is known exactly."""

import math

import pytest
import torch

from domainbed_adm.analysis.attack import in_input_units, projected_gradient_descent
from domainbed_adm.datasets.cards import Normalization

CPU = torch.device("cpu")
NORMALIZATION = Normalization((0.4, 0.6), (0.2, 0.5))


def sample(n=4, seed=0):
    """Normalised inputs of two channels, their labels, and where to start."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(n, 2, 3, 3, generator=random)
    pixels[:, :, 0, 0], pixels[:, :, 2, 2] = 0, 1  # at the ends of what a pixel may be
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (NORMALIZATION.mean, NORMALIZATION.std))
    start = 2 * torch.rand(pixels.shape, generator=random) - 1
    return (pixels - mean) / std, torch.randint(3, (n,), generator=random), start


def slow_twin(weights, x, y, start, steps, epsilon):
    """Pixel by pixel, in [0, 1] and float64, on softmax regression, whose gradient is written by hand."""
    moved_all = []
    for image, label, begin in zip(x.double().flatten(1).tolist(), y.tolist(), start.double().flatten(1), strict=True):
        size = len(image) // 2
        mean = [NORMALIZATION.mean[i // size] for i in range(len(image))]
        std = [NORMALIZATION.std[i // size] for i in range(len(image))]
        pixels = [value * s + m for value, s, m in zip(image, std, mean, strict=True)]

        def projected(values, pixels=pixels):
            near = [min(max(v, p - epsilon), p + epsilon) for v, p in zip(values, pixels, strict=True)]
            return [min(max(v, 0.0), 1.0) for v in near]

        moved = projected([p + epsilon * b for p, b in zip(pixels, begin.tolist(), strict=True)])
        for _ in range(steps):
            inputs = [(v - m) / s for v, m, s in zip(moved, mean, std, strict=True)]
            logits = [sum(w * v for w, v in zip(row, inputs, strict=True)) for row in weights.tolist()]
            total = sum(math.exp(value) for value in logits)
            slopes = [math.exp(value) / total - (k == label) for k, value in enumerate(logits)]
            gradient = [
                sum(s * row[j] for s, row in zip(slopes, weights.tolist(), strict=True)) for j in range(len(moved))
            ]
            rates = [2.5 * epsilon / steps * ((g > 0) - (g < 0)) for g in gradient]
            moved = projected([v + r for v, r in zip(moved, rates, strict=True)])
        moved_all.append([(v - m) / s for v, m, s in zip(moved, mean, std, strict=True)])
    return torch.tensor(moved_all, dtype=torch.float64).view(x.shape)


@pytest.mark.parametrize("steps", [1, 4])
def test_each_pixel_is_where_plain_loops_put_it(steps):
    x, y, start = sample()
    weights = torch.randn(3, 18, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = slow_twin(weights, x, y, start, steps, 0.1)
    units = [unit.double() for unit in in_input_units(0.1, NORMALIZATION, CPU)]
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-5)):
        own = weights.T.to(dtype)
        radius_and_ends = [unit.to(dtype) for unit in units]
        moved = projected_gradient_descent(
            lambda z, own=own: z.flatten(1) @ own, x.to(dtype), y, start.to(dtype), steps, *radius_and_ends
        )
        assert moved.dtype == dtype
        torch.testing.assert_close(moved.double(), expected, rtol=0, atol=tolerance)


def test_on_a_linear_model_one_step_is_the_exact_worst_case():
    x, _, start = sample(16)
    y = torch.arange(16) % 2
    weight = torch.randn(18, generator=torch.Generator().manual_seed(2))
    epsilon, low, high = in_input_units(8 / 255, NORMALIZATION, CPU)

    def predict(z):  # two classes, one hyperplane
        margin = z.flatten(1) @ weight
        return torch.stack([torch.zeros_like(margin), margin], 1)

    moved = projected_gradient_descent(predict, x, y, start, 1, epsilon, low, high)
    away = torch.where(y == 1, -1.0, 1.0)[:, None, None, None] * weight.view(2, 3, 3).sign()
    worst = torch.minimum(torch.maximum(x + away * epsilon, low), high)
    torch.testing.assert_close(moved, worst)


def test_no_pixel_leaves_the_ball_or_what_pixels_can_be():
    x, y, start = sample(8)
    epsilon, low, high = in_input_units(0.3, NORMALIZATION, CPU)
    moved = projected_gradient_descent(lambda z: z.flatten(1)[:, :3] ** 3, x, y, start, 5, epsilon, low, high)
    assert ((moved - x).abs() <= epsilon + 1e-5).all()
    assert ((moved >= low) & (moved <= high)).all()
    assert not moved.requires_grad


def test_units_without_a_normalisation_are_those_of_pixels():
    assert [float(unit) for unit in in_input_units(0.25, None, CPU)] == [0.25, 0, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_moves_inputs_as_the_cpu_does_and_does_not_wait_for_the_host():
    x, y, start = sample(8)
    weight = torch.randn(18, 3, generator=torch.Generator().manual_seed(3))
    moved = []
    for device in (CPU, torch.device("cuda")):
        own = weight.to(device)
        given = [tensor.to(device) for tensor in (x, y, start)]
        units = in_input_units(0.1, NORMALIZATION, device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            moved.append(projected_gradient_descent(lambda z, own=own: z.flatten(1) @ own, *given, 3, *units))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(moved[0], moved[1].cpu())
