"""One training step: shared gradients, what it keeps from step to step, its progress, and what it refuses."""

import pytest
import torch

from domainbed_adm.errors import UserError
from domainbed_adm.method.flatness import FSAM, SAGM, SAM
from domainbed_adm.method.state import RememberedScores, StepState
from domainbed_adm.method.step import TrainingStep
from tests.test_invariants import STEPS, make, run
from tests.toys import batch, network, parameters_of


class Shared(torch.nn.Module):
    """Two parameters whose gradients autograd hands out as one tensor, and one whose gradient is a number repeated."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Parameter(torch.full((32, 3), v, dtype=torch.float64)) for v in (1, 2, 3))

    def forward(self, x):
        return x.flatten(1) @ (self.a + self.b).sin() + self.c.sum() * torch.tensor([0.1, 0.2, 0.3]).double()


@pytest.mark.parametrize("rule", [SAM(0.5), SAGM(0.5, 0.1), FSAM(0.5)], ids=lambda rule: type(rule).__name__)
def test_gradients_that_share_memory(rule):
    """The rule sees each parameter's own gradient: the result is that of clones."""

    class Cloning(Shared):
        def forward(self, x):
            a, b, c = (parameter * torch.ones_like(parameter) for parameter in (self.a, self.b, self.c))
            return x.flatten(1) @ (a + b).sin() + (c * 1.0).sum() * torch.tensor([0.1, 0.2, 0.3]).double()

    ends = []
    for model in (Shared(), Cloning()):
        step = TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.5), rule)
        for _ in range(3):
            step(*batch())
        ends.append(parameters_of(model))
    torch.testing.assert_close(*ends, rtol=1e-12, atol=1e-14)


def test_fsam_keeps_each_parameters_mean_when_others_are_unfrozen():
    model = network()
    model[1].weight.requires_grad_(False)
    step = make("FSAM", model=model)
    run(step, 2)
    kept = step.state["fsam_momentum_3"].clone()
    model[1].weight.requires_grad_(True)
    run(step, 1)
    assert step.state["fsam_momentum_3"].shape == kept.shape == model[3].bias.shape
    assert step.state["fsam_momentum_0"].shape == model[1].weight.shape


def test_memory_keeps_the_largest_score_of_a_sample_drawn_twice_and_knows_score_zero():
    remembered, scores = RememberedScores(StepState()), torch.tensor([0.5, 0.2, 0.0, 0.7])
    index = torch.tensor([3, 3, 0, 1])
    before, seen = remembered.recall(index, scores)
    assert before.tolist() == [-1, -1, -1, -1]
    assert not seen.any()
    remembered.remember(index, scores)
    for memory in (remembered, RememberedScores(remembered.state)):  # as kept, and as loaded
        after, seen = memory.recall(torch.tensor([0, 1, 2, 3]), scores)
        assert after.tolist() == pytest.approx([0.0, 0.7, -1.0, 0.5])
        assert seen.tolist() == [True, True, False, True]
    step = make("SPL_Loss", "memory", network(), total_steps=100)
    step.state["difficulty_memory"] = torch.tensor([0.0, 1.0] * 6, dtype=torch.float64)
    assert step(*batch(), index=torch.arange(12))["kept_fraction"] == 0.5  # score 0 was seen, and is the easiest


def test_linear_estimator_reports_its_correlation_on_a_sample_of_steps():
    step = make("SAM_SSPL_ADM", "descent", network(), adm_estimator="linear")
    with_figure = [t for t in range(101) if "adm_rank_correlation" in run(step, 1)]
    assert with_figure == [0, 50, 100]
    assert -1 <= run(make("SSPL_ADM", model=network(), adm_estimator="linear"), 1)["adm_rank_correlation"] <= 1


def test_progress_ends_where_the_run_ends():
    step = make("SSPL_Loss", model=network())
    seen = []
    for _ in range(STEPS + 1):
        seen.append(step.progress)
        run(step, 1)
    assert seen == [0, 0.2, 0.4, 0.6, 0.8, 1, 1]
    assert make("SSPL_Loss", model=network(), total_steps=1).progress == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(curriculum=None, difficulty=object()), "a curriculum and a difficulty go together"),
        (dict(weighting="memori"), "unknown weighting 'memori'. Did you mean memory"),
        (dict(scope="domains"), "unknown curriculum scope 'domains'. Did you mean domain"),
        (dict(curriculum=object(), difficulty=object()), "needs total_steps >= 1 to know its progress, not None"),
    ],
)
def test_parts_that_do_not_go_together_are_named(options, message):
    model = network()
    with pytest.raises(UserError, match=message):
        TrainingStep(model, torch.optim.Adam(model.parameters()), **options)


def test_memory_without_identities_and_scope_without_domains_are_named():
    x, y = batch()
    with pytest.raises(UserError, match="needs index"):
        make("SSPL_Loss", "memory", network())(x, y)
    with pytest.raises(UserError, match="needs domain_sizes"):
        make("SSPL_Loss", "both", network(), curriculum_scope="domain")(x, y)


class RegisterToken(torch.nn.Module):
    """A token behind the patches, then positions: the gradients of both are views that overlap in one tensor."""

    def __init__(self):
        super().__init__()
        self.patches, self.hidden, self.head = torch.nn.Linear(8, 6), torch.nn.Linear(6, 6), torch.nn.Linear(6, 3)
        self.token = torch.nn.Parameter(torch.full((1, 1, 6), 0.3))
        self.positions = torch.nn.Parameter(torch.full((1, 5, 6), 0.1))

    def forward(self, x):
        tokens = self.patches(x.reshape(-1, 4, 8))
        tokens = torch.cat([tokens, self.token.expand(len(tokens), -1, -1)], 1) + self.positions
        return self.head(self.hidden(tokens).tanh().mean(1))


@pytest.mark.parametrize("rule", [None, SAM(0.5), SAGM(0.5, 0.1), FSAM(0.5)], ids=lambda rule: type(rule).__name__)
def test_gradients_that_overlap_in_one_tensor(rule):
    ends = []
    for micro_batch in (None, 1, 5):
        torch.manual_seed(0)
        model = RegisterToken().double()
        step = TrainingStep(model, torch.optim.SGD(model.parameters(), lr=0.5), rule, micro_batch=micro_batch)
        for t in range(3):
            step(*batch(seed=t))
        ends.append(parameters_of(model))
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ends[2], ends[0], rtol=1e-10, atol=1e-12)
