import math

import numpy as np
import pytest
import torch
from torch import nn

from domainbed_adm.analysis.landscape import filter_normalised, loss_along, loss_over_plane, symmetric_grid
from tests.analysis.test_mean_loss import loss_of, split
from tests.toys import batch, network, parameters_of


def convolutional(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)).double()


def test_each_filter_is_as_long_as_the_weights_and_one_axis_has_direction_zero():
    model = convolutional(0)
    for param, direction in zip(model.parameters(), filter_normalised(list(model.parameters()), 0, 0), strict=True):
        if param.ndim == 1:
            assert not direction.any()
            continue
        for weights, part in zip(param.tolist(), direction, strict=True):
            length = math.sqrt(sum(w * w for w in torch.tensor(weights, dtype=torch.float64).flatten().tolist()))
            assert part.norm().item() == pytest.approx(length, rel=1e-12)


def test_a_filter_of_zeros_stays():
    weight = torch.zeros(3, 4)
    weight[0] = 1
    (direction,) = filter_normalised([weight], 0, 0)
    assert direction.norm(dim=1).tolist() == pytest.approx([2, 0, 0])


def test_runs_of_equal_shapes_have_the_same_direction_up_to_their_filters_lengths():
    params = [list(convolutional(seed).parameters()) for seed in range(2)]
    here, there = (filter_normalised(own, 0, 0) for own in params)
    for a, b in zip(here, there, strict=True):
        if a.ndim > 1:
            cosine = torch.cosine_similarity(a.flatten(1), b.flatten(1))
            torch.testing.assert_close(cosine, torch.ones_like(cosine))
    for seed, number in ((1, 0), (0, 1)):
        other = filter_normalised(params[0], seed, number)
        assert torch.cosine_similarity(here[-2].flatten(), other[-2].flatten(), 0).abs() < 0.5


def test_parameters_of_one_shape_have_directions_of_their_own():
    weight = torch.ones(3, 4)
    first, second = filter_normalised([weight, weight], 0, 0)
    assert not torch.equal(first, second)


def test_the_loss_along_a_direction_is_the_loss_there_and_moves_nothing():
    model, batches = network(), split(*batch(13), 5)
    loss, before = loss_of(model, batches), parameters_of(model)
    first, second = (filter_normalised(loss.params, 0, number) for number in range(2))
    alphas = symmetric_grid(5, 1.5)
    assert alphas.tolist() == [-1.5, -0.75, 0, 0.75, 1.5]
    points = []
    line = loss_along(loss, first, alphas, lambda: points.append(1))
    plane = loss_over_plane(loss, first, second, alphas, lambda: points.append(1))
    assert len(points) == 5 + 25
    assert torch.equal(parameters_of(model), before)
    assert line[2] == plane[2, 2] == loss.value()
    assert plane[:, 2] == pytest.approx(line)
    moved = network()
    with torch.no_grad():
        for param, a, b in zip(moved.parameters(), first, second, strict=True):
            param += -1.5 * a + 0.75 * b
    assert plane[0, 3] == pytest.approx(loss_of(moved, batches).value(), rel=1e-12)
    assert plane[0, 3] != pytest.approx(plane[3, 0], rel=1e-3)


def test_a_loss_that_is_not_finite_is_kept_and_the_parameters_are_back():
    model = network()
    loss, before = loss_of(model, split(*batch(13), 5)), parameters_of(model)
    line = loss_along(loss, filter_normalised(loss.params, 0, 0), np.array([0.0, 1e308]))
    assert np.isfinite(line).tolist() == [True, False]
    assert torch.equal(parameters_of(model), before)


@pytest.mark.parametrize("points", [3, 15, 41, 1001])
def test_the_middle_of_a_grid_is_exactly_zero(points):
    alphas = symmetric_grid(points, 0.3)
    assert len(alphas) == points
    assert alphas[points // 2] == 0
    assert alphas[0] == -alphas[-1] == -0.3
