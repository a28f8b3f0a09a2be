"""A step on several ranks is the step of one process on the whole batch, and all ranks end alike."""

import subprocess
import sys

import pytest
import torch

from domainbed_adm.errors import UserError
from domainbed_adm.method.batch_norm import synchronise
from domainbed_adm.method.ranks import Ranks
from domainbed_adm.method.step import TrainingStep
from tests.method.on_ranks import APART, BATCH_NORM, CASES, ESTIMATED, EXACT, KNOBS, REFRESHED, train
from tests.test_invariants import make
from tests.toys import batch, network

COUNT = 2

#: What all tests here read is made once.
pytestmark = pytest.mark.xdist_group("ranks")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Where each case ended, by rank: one pair of processes trains them all."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.method.on_ranks"]
    ranks = [
        subprocess.Popen([*command, str(rank), str(COUNT), str(folder / "store"), str(folder / "end")])
        for rank in range(COUNT)
    ]
    assert [rank.wait(300) for rank in ranks] == [0] * COUNT
    return [torch.load(folder / f"end.{rank}") for rank in range(COUNT)]


@pytest.mark.parametrize(
    "cases",
    [EXACT, REFRESHED, ESTIMATED, KNOBS, BATCH_NORM],
    ids=["methods", "refreshed", "estimated", "knobs", "synchronised"],
)
def test_ranks_end_where_one_process_does(ends, cases):
    """Every method, weighting and scope: parameters, F-SAM's mean, remembered scores, statistics and figures."""
    for name, case in cases.items():
        alone = train(case)
        assert alone.keys() == ends[0][name].keys()
        for what, value in alone.items():
            message = f"{name}, {what}"
            torch.testing.assert_close(ends[0][name][what], value, rtol=1e-10, atol=1e-10, msg=message, equal_nan=True)


def test_all_ranks_end_alike_bit_for_bit(ends):
    """Also where each goes its own way in between: local ascents, local BatchNorm, dropout."""
    for name in CASES | APART:
        for what, value in ends[0][name].items():
            assert all(torch.equal(other[name][what], value) for other in ends[1:]), (name, what)


@pytest.mark.parametrize("name", [name for name in APART if "batch norm" not in name and "memory" not in name])
def test_local_ascents_are_other_ones(ends, name):
    global_ = name.removeprefix("local ") + " batch"
    assert 1e-5 < (ends[0][name]["parameters"] - ends[0][global_]["parameters"]).abs().max() < 1


def test_shares_that_are_none_are_named(monkeypatch):
    ranks = Ranks(1, 2)
    monkeypatch.setattr(ranks, "_reduce", lambda total: total.copy_(torch.tensor([5, 2, 6])))
    assert ranks.batch_sizes([2, 1, 3]) == [5, 2, 6]
    with pytest.raises(UserError, match=r"process 2 of 2 has \[3, 1, 2\] samples .* not \[2, 1, 3\].*batch\[1::2\]"):
        ranks.batch_sizes([3, 1, 2])


def test_parts_of_a_batch_go_with_one_process():
    model = network()
    step = TrainingStep(model, torch.optim.SGD(model.parameters()), micro_batch=2, ranks=Ranks(0, 2))
    with pytest.raises(UserError, match="micro_batch goes with one process"):
        step(*batch())


def test_one_process_apart_from_the_others_does_not_synchronise():
    """What the first rank computes beside training, or all in evaluation mode, sends no message."""
    model, plain, ranks = network(batch_norm=True), network(batch_norm=True), Ranks(1, 2)
    synchronise(model, ranks)
    x, _ = batch()
    with ranks.apart():
        assert torch.equal(model(x), plain(x))
    assert (ranks.rank, ranks.count) == (1, 2)
    assert torch.equal(model.eval()(x), plain.eval()(x))


def test_a_mean_over_the_batch_is_refused():
    step = make("SSPL_ADM", model=network(), adm_delta="batch_mean")
    step.ranks = Ranks(0, 2)
    step.ranks.batch_sizes = lambda sizes: [2 * size for size in sizes]
    with pytest.raises(UserError, match="adm_delta batch_mean .* nor with several devices"):
        step(*batch())


def test_batch_norm_with_a_pass_of_its_own_is_refused():
    class Own(torch.nn.BatchNorm1d):
        def forward(self, x):
            return super().forward(x).relu()

    with pytest.raises(UserError, match="Own cannot be synchronised over devices: give --batchnorm local"):
        synchronise(torch.nn.Sequential(Own(3)), Ranks(0, 2))
