import numpy as np
import pytest
import torch

from domainbed_adm.analysis.flatness import random_rise, sam_rise
from domainbed_adm.errors import NonFiniteError
from tests.analysis.test_mean_loss import loss_of, split
from tests.reference import hessian as reference
from tests.toys import batch, network, parameters_of

SHAPES = ((3, 4), (8,))


def quadratic(matrix):
    params = [torch.ones(shape, dtype=torch.float64, requires_grad=True) for shape in SHAPES]
    return reference.Quadratic(torch.from_numpy(matrix), *params)


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_the_rise_by_a_sam_step_is_that_by_hand_and_moves_nothing(rho):
    model, batches = network(), split(*batch(13), 5)
    loss, before = loss_of(model, batches), parameters_of(model)
    assert sam_rise(loss, loss.value(), rho) == pytest.approx(reference.sam_rise(model, batches, rho), rel=1e-10)
    assert torch.equal(parameters_of(model), before)


def test_the_random_rise_of_a_round_bowl_is_half_rho_squared():
    loss = quadratic(np.eye(20))
    rise = random_rise(loss, loss.value(), 0.3, 5, 0)
    assert rise.mean == pytest.approx(0.3**2 / 2)
    assert rise.sem == pytest.approx(0, abs=1e-12)


def test_the_random_rise_is_what_the_trace_says_within_its_error_and_moves_nothing():
    matrix = np.diag(np.linspace(-1, 6, 20))
    loss = quadratic(matrix)
    before = [param.clone() for param in loss.params]
    rise = random_rise(loss, loss.value(), 0.3, 200, 0)
    assert 0 < rise.sem < 0.1 * rise.mean
    assert abs(rise.mean - 0.3**2 * np.trace(matrix) / 2 / 20) < 4 * rise.sem
    assert all(torch.equal(param, kept) for param, kept in zip(loss.params, before, strict=True))
    assert rise == random_rise(loss, loss.value(), 0.3, 200, 0)
    assert rise != random_rise(loss, loss.value(), 0.3, 200, 1)


def test_no_distance_is_no_rise():
    loss = loss_of(network(), split(*batch(13), 5))
    assert sam_rise(loss, loss.value(), 0.0) == 0
    assert random_rise(loss, loss.value(), 0.0, 2, 0).mean == 0


def test_a_loss_out_of_all_bounds_is_told_and_the_parameters_are_back():
    model = network()
    loss, before = loss_of(model, split(*batch(13), 5)), parameters_of(model)
    with pytest.raises(NonFiniteError, match="give a smaller --rho"):
        sam_rise(loss, loss.value(), 1e308)
    assert torch.equal(parameters_of(model), before)
