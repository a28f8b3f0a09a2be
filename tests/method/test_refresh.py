"""Scores that are refreshed, not recomputed: which samples, what their passes see, what is kept, what is reported."""

import copy
import math
import random

import pytest
import torch

from domainbed_adm.errors import NonFiniteError, UserError
from domainbed_adm.method import step as step_module
from domainbed_adm.method.curriculum import SPL
from domainbed_adm.method.difficulty import ADM, GDM, rank_correlation
from domainbed_adm.method.grid import METHODS
from domainbed_adm.method.passes import Passes
from domainbed_adm.method.state import RememberedScores, StepState
from domainbed_adm.method.step import TrainingStep
from tests.method.failing import equal, fail_in, state_of
from tests.reference.difficulty import oldest
from tests.test_invariants import make, run, same
from tests.toys import batch, buffers_of, network, parameters_of

NAME = "SAM_SSPL_ADM"
IDENTITIES = ([5, 4, 3], torch.arange(12))
NETWORKS = {"plain": {}, "batch norm": {"batch_norm": True}, "dropout": {"dropout": 0.3}}
each_network = pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)


def refreshing(share=0.25, model=None, **given):
    return make(NAME, "memory", network() if model is None else model, adm_refresh=share, **given)


def test_the_oldest_are_those_of_the_slow_twin():
    draw = random.Random(0)
    remembered, scored_at = RememberedScores(StepState()), {}
    for t in range(40):
        index = [draw.randrange(30) for _ in range(13)]
        count = draw.randint(1, 13)
        rows = remembered.oldest(torch.tensor(index), count)
        assert rows.tolist() == oldest(index, scored_at, count)
        remembered.remember(torch.tensor(index)[rows], torch.rand(count), t)
        scored_at |= {index[i]: t for i in rows.tolist()}
        remembered = RememberedScores(copy.deepcopy(remembered.state)) if t % 3 == 0 else remembered


def test_at_first_each_domain_has_its_share():
    rows = RememberedScores(StepState()).oldest(torch.arange(96), 12)
    assert [int(((rows >= k) & (rows < k + 32)).sum()) for k in (0, 32, 64)] == [4, 4, 4]


def test_scores_without_their_steps_are_older_than_any():
    """Those of a state that was trained with the whole batch scored."""
    state = StepState()
    RememberedScores(state).remember(torch.tensor([1, 2]), torch.tensor([0.5, 0.0]))
    remembered = RememberedScores(state)
    remembered.remember(torch.tensor([1]), torch.tensor([0.5]), step=7)
    assert remembered.oldest(torch.tensor([1, 2, 3]), 1).tolist() == [2]
    assert remembered.oldest(torch.tensor([1, 2]), 1).tolist() == [1]


@pytest.mark.parametrize(
    ("share", "size", "count"), [(1e-45, 12, 1), (0.25, 12, 3), (0.26, 12, 4), (0.1, 30, 3), (0.999, 12, 12)]
)
def test_a_step_passes_the_share_alone(share, size, count):
    """ceil(r B): 3 of 30 at 0.1, though 0.1 * 30 is more than 3 in floating point."""
    step, sizes = refreshing(share), []
    step.model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    step.state.update_count = 1
    step(*batch(size), None, torch.arange(size))
    assert sizes == [size, count, size]
    assert int((step.state["difficulty_scored_at"] == 1).sum()) == count


@pytest.mark.parametrize("options", [{"batch_norm": True}, {"dropout": 0.3}], ids=str)
def test_batch_norm_and_dropout_pass_the_share_by_itself(options):
    step, sizes, gradients = refreshing(0.25, network(**options)), [], []
    run(step, 1)
    step.model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    own = torch.autograd.grad

    def grad(outputs, inputs, *rest, **options):
        gradients.append(len(inputs)) if isinstance(inputs, torch.Tensor) else None
        return own(outputs, inputs, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", grad)
        run(step, 1, start=1)
    assert sizes == [12, 3, 3, 12]
    assert gradients == [3]


def test_batch_norm_sees_two_samples_or_more():
    step = refreshing(0.01, network(batch_norm=True))
    step(*batch(), *IDENTITIES)
    assert int((step.state["difficulty_scored_at"] >= 0).sum()) == 2


@each_network
@pytest.mark.parametrize("micro_batch", [None, 12, 6])
def test_scores_are_those_of_the_share_as_a_batch(options, micro_batch):
    """With BatchNorm by the share's statistics; of dropout the FGSM copy has the masks of the share's clean pass."""
    step, model = refreshing(0.25, network(**options)), network(**options)
    step.micro_batch = micro_batch
    x, y = batch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        step(x, y, *IDENTITIES)
        rows = (step.state["difficulty_scored_at"][:12] == 0).nonzero().squeeze(1)
        torch.manual_seed(1)
        [model(part) for part in x.split(micro_batch or 12)]  # the clean pass draws first
        share, state = x[rows].requires_grad_(), torch.get_rng_state()
        losses = torch.nn.functional.cross_entropy(model(share), y[rows], reduction="none")
        moved = share + 8 / 255 * torch.autograd.grad(losses.sum(), share)[0].sign()
        torch.set_rng_state(state)
        gap = torch.nn.functional.cross_entropy(model(moved), y[rows], reduction="none") - losses
    expected = (gap.abs() / (losses + 1e-6)).detach()
    assert len(rows) == 3
    torch.testing.assert_close(step.state["difficulty_memory"][rows], expected, rtol=1e-9, atol=1e-12)


@each_network
def test_what_a_step_must_leave_alone_it_leaves(options):
    """BatchNorm moves once a step, and random numbers go on as in a plain step."""
    ends = []
    for step in (refreshing(0.25, network(**options)), make("SAM", model=network(**options))):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            step(*batch(), *IDENTITIES)
            ends.append((buffers_of(step.model), torch.rand(3)))
    assert same(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])
    assert all(module.training for module in step.model.modules())


@each_network
@pytest.mark.parametrize("scope", ["batch", "domain"])
def test_four_steps_are_two_saved_loaded_and_two(options, scope):
    with torch.random.fork_rng(devices=[]):
        whole, first, second = (
            refreshing(0.25, network(seed, **options), curriculum_scope=scope) for seed in (0, 0, 9)
        )
        torch.manual_seed(0)
        run(whole, 4)
        torch.manual_seed(0)
        run(first, 2)
        second.model.load_state_dict(first.model.state_dict())
        second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
        second.state.load_state_dict(copy.deepcopy(first.state.state_dict()))
        run(second, 2, start=2)
    assert equal(state_of(whole), state_of(second))
    assert second.state["difficulty_scored_at"].max() == 3


def test_a_step_that_failed_scores_nothing():
    step = refreshing()
    run(step, 1)
    before = state_of(step)
    hook = fail_in(step, 2, float("inf"))
    with pytest.raises(NonFiniteError):
        run(step, 1, start=1)
    hook.remove()
    assert equal(state_of(step), before)


@pytest.mark.parametrize("micro_batch", [5, 1])
def test_micro_batches_equal_the_whole_batch(micro_batch):
    whole, parts = refreshing(0.34), refreshing(0.34)
    parts.micro_batch = micro_batch
    for t in range(3):
        assert parts(*batch(seed=t), *IDENTITIES) == pytest.approx(
            whole(*batch(seed=t), *IDENTITIES), rel=1e-9, nan_ok=True
        )
    torch.testing.assert_close(parameters_of(parts.model), parameters_of(whole.model), rtol=1e-10, atol=1e-12)
    assert torch.equal(parts.state["difficulty_scored_at"], whole.state["difficulty_scored_at"])


def test_no_pass_of_the_share_exceeds_a_micro_batch():
    step, sizes = refreshing(0.5, network(batch_norm=True)), []
    step.micro_batch, step.state.update_count = 4, 1
    step.model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    step(*batch(), *IDENTITIES)
    assert sizes == [4, 4, 4, 3, 3, 3, 3, 4, 4, 4]


def test_fp16_passes_the_share_by_itself():
    ends = []
    for enabled in (False, True):
        step = refreshing(0.5, network().float())
        if enabled:
            step.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            run(step, 3)
        ends.append(step.state["difficulty_memory"])
    torch.testing.assert_close(*ends, rtol=0.1, atol=0.02)
    assert int((ends[0] >= 0).sum()) > 10


@each_network
def test_the_rank_correlation_is_of_used_and_fresh_scores(options):
    step = refreshing(0.5, network(**options), total_steps=200)
    with torch.random.fork_rng(devices=[]):
        found = {t: figures for t in range(101) if "adm_rank_correlation" in (figures := run(step, 1, t))}
        assert list(found) == [0, 50, 100]
        assert math.isnan(found[0]["adm_rank_correlation"])  # no score was used
        step.state.update_count = 150
        used, seed = step.state["difficulty_memory"].clone(), torch.get_rng_state()
        fresh = make(NAME, "descent", copy.deepcopy(step.model))
        found = run(step, 1)["adm_rank_correlation"]
        torch.set_rng_state(seed)
        scores = fresh._weighting.first_pass(passes_of(fresh), 0.5, None, None, 0, False).scores
    assert found == pytest.approx(float(rank_correlation(used[:12], scores)), rel=1e-9)


def passes_of(step):
    options = dict(micro_batch=None, needs_input_gradient=True, scaler=None)
    return Passes(step.model, step.loss, list(step.model.parameters()), *batch(), **options)


@each_network
def test_reporting_changes_no_step(options, monkeypatch):
    ends = []
    for every in (1, 10**9):
        monkeypatch.setattr(step_module, "CORRELATION_EVERY", every)
        step = refreshing(0.25, network(**options))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            step.state.update_count = 1
            run(step, 4)
        ends.append(state_of(step))
    assert equal(*ends)


def test_the_whole_batch_is_as_ever():
    """With r = 1 nothing is kept or reported that was not before."""
    step = make(NAME, "memory", network(), adm_refresh=1)
    assert "adm_rank_correlation" not in run(step, 1)
    assert set(step.state) == {"difficulty_memory"}


def test_a_difficulty_of_another_package_may_be_refreshed_too():
    class Dear(GDM):
        refresh = 0.25

    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    step = TrainingStep(model, optimizer, None, SPL(), Dear(), total_steps=9, weighting="memory")
    step(*batch(), None, torch.arange(12))
    assert int((step.state["difficulty_memory"] >= 0).sum()) == 3


@pytest.mark.parametrize("weighting", ["both", "descent"])
def test_a_share_needs_the_memory(weighting):
    with pytest.raises(UserError, match='adm_refresh 0.5 .* only weighting "memory" uses: set'):
        make(NAME, weighting, network(), adm_refresh=0.5)


def test_shares_that_make_no_sense_are_refused():
    for share in (0, 1.01, float("nan"), True, "1"):
        with pytest.raises(UserError, match=r"ADM's refresh must be a number in \(0, 1\], not"):
            ADM(refresh=share)
    with pytest.raises(
        UserError, match="the linear estimator has none: set adm_refresh to 1 or adm_estimator to exact"
    ):
        ADM(refresh=0.5, estimator="linear")


def test_costs_are_those_of_the_passes():
    method = METHODS[NAME]
    assert method.passes("memory", adm_refresh=0.25) == 6.25
    assert method.passes("memory", adm_refresh=1) == method.passes("memory") == 7
