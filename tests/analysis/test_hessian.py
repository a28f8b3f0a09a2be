import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import nn

from domainbed_adm.analysis.flatness import (
    Eigenpairs,
    HessianOperator,
    cost_of,
    hutchinson_trace,
    lanczos_products,
    largest_eigenvalues,
)
from domainbed_adm.analysis.mean_loss import MeanLoss
from domainbed_adm.analysis.runs import HessianSettings
from domainbed_adm.errors import UserError
from domainbed_adm.method.side_effects import as_trained
from domainbed_adm.system.console import ProgressBar
from tests.analysis.test_mean_loss import loss_of, split
from tests.reference.hessian import Quadratic, dense_hessian
from tests.toys import batch, network

EXACT = {"tolerance": 1e-12, "max_restarts": 1000, "seed": 0}


def symmetric(size, seed=0):
    random = np.random.RandomState(seed)
    basis, _ = np.linalg.qr(random.standard_normal((size, size)))
    values = np.concatenate([[9.0, 4.0, 2.5], random.uniform(-1, 1, size - 3)])
    return (basis * values) @ basis.T


def none_known(size):
    return Eigenpairs([], np.zeros((size, 0)), True)


def test_a_quadratic_with_a_known_hessian():
    matrix = symmetric(40)
    params = [torch.ones(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 5), (25,))]
    operator = HessianOperator(Quadratic(torch.from_numpy(matrix), *params))
    pairs = largest_eigenvalues(operator, 3, **EXACT)
    assert pairs.converged
    assert pairs.values == pytest.approx([9.0, 4.0, 2.5], rel=1e-9)
    trace = hutchinson_trace(operator, pairs, 0.01, 1000, 0)
    assert trace.sem <= 0.02 * trace.mean
    assert abs(trace.mean - np.trace(matrix)) < 4 * trace.sem


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_small_network_against_its_full_autograd_hessian(batch_norm):
    model, batches = network(batch_norm=batch_norm), split(*batch(13), 5)
    with as_trained(model):
        dense = dense_hessian(model, batches).numpy()
        operator = HessianOperator(loss_of(model, batches))
        pairs = largest_eigenvalues(operator, 6, **EXACT)
        trace = hutchinson_trace(operator, pairs, 0.05, 30, 0)
        columns = operator.matmat(np.eye(len(dense)))
    assert pairs.values == pytest.approx(np.linalg.eigvalsh(dense)[::-1][:6], rel=1e-6)
    assert np.trace(columns) == pytest.approx(np.trace(dense), rel=1e-6)
    assert trace == hutchinson_trace(operator, pairs, 0.05, 30, 0)
    of_dense = hutchinson_trace(aslinearoperator(dense), pairs, 0.05, 30, 0)
    assert (trace.mean, trace.sem) == pytest.approx((of_dense.mean, of_dense.sem), rel=1e-6)
    assert abs(trace.mean - np.trace(dense)) < 4 * trace.sem


def test_softmax_regression_at_zero_has_a_hessian_in_closed_form():
    """(diag(p) - p p^T) kron X^T X / n with p = 1 / classes: eigenvalues are those of X^T X / n over the classes."""
    x, y = batch(20, channels=1, size=3, classes=4)
    model = nn.Linear(9, 4, bias=False).double()
    nn.init.zeros_(model.weight)
    loss = MeanLoss(lambda x: model(x.flatten(1)), [model.weight], split(x, y, 7), 20)
    flat = x.flatten(1).numpy()
    expected = np.linalg.eigvalsh(flat.T @ flat / 20 / 4)[::-1]
    found = largest_eigenvalues(HessianOperator(loss), 4, **EXACT).values
    assert found == pytest.approx([*np.repeat(expected[0], 3), expected[1]], rel=1e-9)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # when it is imported
def test_against_curvlinops():
    curvlinops = pytest.importorskip("curvlinops")
    model, batches = network(), split(*batch(13), 5)
    params = list(model.parameters())
    theirs = curvlinops.HessianLinearOperator(model, nn.CrossEntropyLoss(), params, batches)
    ours = HessianOperator(loss_of(model, batches))
    for seed in range(3):
        vector = np.random.RandomState(seed).standard_normal(ours.shape[0])
        expected = (theirs @ torch.from_numpy(vector)).numpy()
        np.testing.assert_allclose(ours @ vector, expected, rtol=1e-9, atol=1e-12)
    theirs_largest = largest_eigenvalues(theirs.to_scipy(), 3, **EXACT).values
    assert largest_eigenvalues(ours, 3, **EXACT).values == pytest.approx(theirs_largest, rel=1e-9)


def test_the_parameters_dtype_is_the_operators():
    model, batches = network().float(), split(*batch(13, dtype=torch.float32), 5)
    operator = HessianOperator(loss_of(model, batches))
    pairs = largest_eigenvalues(operator, 2, 1e-3, 100, 0)
    assert operator.dtype == pairs.vectors.dtype == np.float32
    exact = largest_eigenvalues(HessianOperator(loss_of(model.double(), split(*batch(13), 5))), 2, **EXACT)
    assert pairs.values == pytest.approx(exact.values, rel=1e-4)


def test_products_are_counted_and_a_seed_gives_the_same_again():
    calls = []
    operator = HessianOperator(loss_of(network(), split(*batch(13), 5)), lambda: calls.append(1))
    first = largest_eigenvalues(operator, 2, 1e-3, 100, 0)
    least, most = lanczos_products(2, operator.shape[0], 100)
    assert least <= len(calls) <= most
    assert first.values == largest_eigenvalues(operator, 2, 1e-3, 100, 0).values
    calls.clear()
    trace = hutchinson_trace(operator, first, 1e-9, 15, 0)
    assert (trace.vectors, len(calls)) == (10, 15)
    assert trace != hutchinson_trace(operator, first, 1e-9, 15, 1)


def test_lanczos_that_did_not_converge_says_so_and_gives_what_did():
    """Many eigenvalues close to each other, and one far off."""
    values = np.concatenate([[50.0], np.linspace(1, 1.001, 399)])
    operator = aslinearoperator(np.diag(values))
    pairs = largest_eigenvalues(operator, 4, 1e-12, 1, 0)
    assert not pairs.converged
    assert pairs.values == pytest.approx([50.0])
    assert pairs.vectors.shape == (400, len(pairs.values))


def test_a_hessian_that_is_zero_has_eigenvalues_and_trace_zero():
    operator = aslinearoperator(np.zeros((6, 6)))
    pairs = largest_eigenvalues(operator, 2, 1e-3, 100, 0)
    assert (pairs.values, pairs.converged) == ([0.0, 0.0], True)
    assert hutchinson_trace(operator, pairs, 0.05, 20, 0).mean == 0.0


def test_hutchinson_is_exact_for_a_diagonal_and_takes_the_fewest_vectors():
    trace = hutchinson_trace(aslinearoperator(np.diag([5.0, -1.0, 3.0])), none_known(3), 1e-6, 100, 0)
    assert (trace.mean, trace.sem, trace.vectors) == (pytest.approx(7.0), pytest.approx(0, abs=1e-12), 5)


def test_the_trace_is_unbiased_where_stopping_at_a_small_standard_error_was_not():
    """One large eigenvalue among small ones: vectors that miss it have a small mean and a small spread."""
    basis, _ = np.linalg.qr(np.random.RandomState(0).standard_normal((100, 100)))
    matrix = (basis * np.r_[100, np.ones(99)]) @ basis.T
    operator, truth, repetitions = aslinearoperator(matrix), 199.0, 400
    estimates = [hutchinson_trace(operator, none_known(100), 0.1, 100, seed) for seed in range(repetitions)]
    values = np.array([trace.mean for trace in estimates])
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(repetitions)
    signs = np.random.RandomState(1).randint(0, 2, (repetitions, 100, 100)) * 2.0 - 1
    old = []
    for forms in np.einsum("rvi,ij,rvj->rv", signs, matrix, signs, optimize=True):
        n = next((n for n in range(10, 100) if forms[:n].std(ddof=1) / n**0.5 <= 0.1 * forms[:n].mean()), 100)
        old.append(forms[:n].mean())
    assert np.mean(old) < truth - 6 * np.std(old) / np.sqrt(repetitions)


def test_eigenvalues_are_within_their_residuals_bound_and_not_low():
    errors = []
    for seed in range(100):
        matrix = symmetric(60, seed)
        pairs = largest_eigenvalues(aslinearoperator(matrix), 3, 1e-3, 100, seed)
        assert pairs.converged
        residuals = np.linalg.norm(matrix @ pairs.vectors - pairs.vectors * pairs.values, axis=0)
        assert (residuals <= 1e-3 * np.array(pairs.values)).all()
        errors.append(np.array(pairs.values) / np.linalg.eigvalsh(matrix)[::-1][:3] - 1)
    assert np.abs(errors).max() < 1e-5


def test_the_standard_error_is_that_of_repeated_estimates_and_known_eigenvectors_make_it_small():
    matrix = symmetric(30)
    operator, none = aslinearoperator(matrix), none_known(30)
    traces = [hutchinson_trace(operator, none, 1e-9, 40, seed) for seed in range(60)]
    values = [trace.mean for trace in traces]
    assert abs(np.mean(values) - np.trace(matrix)) < 4 * np.std(values) / np.sqrt(60)
    assert np.mean([trace.sem for trace in traces]) == pytest.approx(np.std(values), rel=0.3)
    known = largest_eigenvalues(operator, 3, **EXACT)
    with_known = [hutchinson_trace(operator, known, 1e-9, 40, seed) for seed in range(60)]
    values = [trace.mean for trace in with_known]
    assert abs(np.mean(values) - np.trace(matrix)) < 4 * np.std(values) / np.sqrt(60)
    assert np.mean([trace.sem for trace in with_known]) < 0.5 * np.mean([trace.sem for trace in traces])


@pytest.mark.parametrize("count", [0, 3, 4])
def test_a_number_of_eigenvalues_that_cannot_be(count):
    with pytest.raises(UserError, match=f"--eigenvalues must be at least 1 and below the 3 parameters, not {count}"):
        largest_eigenvalues(aslinearoperator(np.eye(3)), count, **EXACT)


@pytest.mark.parametrize("restarts", [1, 3, 100])
@pytest.mark.parametrize("vectors", [2, 15])
def test_the_announced_number_of_products_bounds_what_is_done(restarts, vectors):
    how = HessianSettings(3, 1e-9, restarts, 1e-3, vectors)
    matrix, done = symmetric(200), []

    def product(x):
        done.append(1)
        return matrix @ x

    operator = LinearOperator((200, 200), matvec=product, dtype=np.float64)
    pairs = largest_eigenvalues(operator, how.eigenvalues, how.tolerance, how.max_restarts, 0)
    hutchinson_trace(operator, pairs, how.trace_tolerance, how.max_vectors, 0)
    least, most = cost_of([5], 200, how).products
    extra = 0 if pairs.converged else 1  # the check for a Hessian that is zero
    assert least <= len(done) <= most + extra
    assert pairs.converged or len(done) - vectors - extra > 12


def test_several_vectors_and_a_kept_graph_change_no_bit():
    model = network()
    for size in (13, 5):
        loss = loss_of(model, split(*batch(13), size))
        x = np.random.RandomState(0).standard_normal((HessianOperator(loss).shape[0], 7))
        one_by_one = np.stack([HessianOperator(loss).matvec(column) for column in x.T], 1)
        with loss.at_rest():
            kept = [HessianOperator(loss).matmat(x) for _ in range(2)]
        assert all(np.array_equal(one_by_one, columns) for columns in kept)
        with torch.no_grad():
            loss.params[0].mul_(2)
        assert not np.array_equal(HessianOperator(loss).matmat(x), one_by_one)


def test_lines_appear_without_a_terminal(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("domainbed_adm.system.console.time.monotonic", lambda: now[0])
    with ProgressBar("ERM", 3, lines=True) as bar:
        for now[0] in (10.0, 31.0, 40.0, 62.0):
            bar.advance(0, f"product {now[0]:g}")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == ["ERM: 0/3 product 31", "ERM: 0/3 product 62"]
