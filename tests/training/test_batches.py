"""The data of a step are a function of (seed, environment, step) alone."""

from collections import Counter

import pytest
import torch

from domainbed_adm.algorithms import ERM
from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.base import Environment, TensorEnvironment
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.training.batches import (
    EvaluateTask,
    Schedule,
    TaskDataset,
    TrainTask,
    evaluation_tasks,
    split_environments,
)
from domainbed_adm.training.evaluation import evaluate
from domainbed_adm.training.loading_processes import open_stream

LENGTHS = (20, 3, 150)


class NoisyEnvironment(TensorEnvironment):
    """Training items are augmented by torch's global generator, as torchvision's transforms are."""

    augmented = True

    def train_item(self, index):
        x, y = self[index]
        return x + torch.rand(1), y


class BrokenEnvironment(Environment):
    def __init__(self, n):
        self.targets = [0] * n

    def __getitem__(self, index):
        raise UserError("cannot decode image broken.png")


def environments():
    kinds = (NoisyEnvironment, TensorEnvironment, NoisyEnvironment)
    made = []
    for k, (kind, n) in enumerate(zip(kinds, LENGTHS, strict=True)):
        made.append(kind((torch.arange(n) + 1000 * k).float().view(n, 1, 1, 1), [i % 3 for i in range(n)]))
    return made


def tasks(test_envs=(2,), batch_size=6, seed=1, uda=0.0, **hparams):
    splits = split_environments(LENGTHS, test_envs, 0, 0.2, uda)
    given = {"batch_size": batch_size, "class_balanced": False, **hparams}
    return TaskDataset(environments(), splits, test_envs, seed, given)


def stream(workers=0, start=0, **options):
    data = tasks(**options)
    return list(open_stream(data, Schedule(5, 2, evaluation_tasks(data.splits), start), workers, pin_memory=False))


def equal(a, b):
    same = all(torch.equal(x, y) for x, y in zip((a.x, a.y, a.index), (b.x, b.y, b.index), strict=True))
    return same and (a.task, a.sizes, a.unlabeled) == (b.task, b.sizes, b.unlabeled)


def pieces(batch):
    """Inputs, targets and indices of each domain."""
    return [(x, y, m.sample_index) for m in batch.minibatches(torch.device("cpu"))[0] for x, y in [m]]


def test_the_schedule_is_domainbeds():
    """Evaluation after every checkpoint_freq-th step, the first and the last."""
    kinds = "".join("t" if isinstance(batch.task, TrainTask) else "e" for batch in stream())
    evaluation = "e" * len(evaluation_tasks(tasks().splits))
    assert kinds == "t" + evaluation + "tt" + evaluation + "tt" + evaluation
    assert [Schedule(5, 3, []).is_checkpoint(step) for step in range(5)] == [True, False, False, True, True]


def test_workers_change_nothing():
    here, elsewhere = stream(workers=0), stream(workers=2)
    assert len(here) == len(elsewhere)
    assert all(equal(a, b) for a, b in zip(here, elsewhere, strict=True))


def test_a_run_taken_up_at_a_step_gets_the_same_data():
    whole = stream()
    rest = stream(start=3)
    assert all(equal(a, b) for a, b in zip(whole[-len(rest) :], rest, strict=True))


def test_steps_environments_and_seeds_differ():
    data = tasks()
    first, second = data[TrainTask(0)], data[TrainTask(1)]
    assert not torch.equal(pieces(first)[0][2], pieces(second)[0][2])
    assert not torch.equal(pieces(data[TrainTask(0)])[0][2], pieces(tasks(seed=2)[TrainTask(0)])[0][2])


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    stream()
    assert torch.equal(torch.get_rng_state(), before)


def test_trains_on_the_in_splits_of_the_sources_only():
    data = tasks(test_envs=(0,))
    seen = set()
    for step in range(60):
        batch = data[TrainTask(step)]
        assert [len(y) for _, y, _ in pieces(batch)] == [6, 6]
        for (x, y, index), environment in zip(pieces(batch), (1, 2), strict=True):
            offset = sum(LENGTHS[:environment])
            keys = (index - offset).tolist()
            assert set(keys) <= set(data.splits[environment].in_)
            assert y.tolist() == [key % 3 for key in keys]
            assert x.flatten().floor().tolist() == [key + 1000.0 * environment for key in keys]
        seen |= set(pieces(batch)[0][2].tolist())
    assert len(seen) == len(data.splits[1].in_)


def test_an_environment_smaller_than_the_batch_trains():
    batch = tasks(batch_size=64)[TrainTask(0)]
    assert [len(y) for _, y, _ in pieces(batch)] == [64, 64]


def test_class_balanced_batches_draw_classes_alike():
    data = TaskDataset(
        [TensorEnvironment(torch.zeros(20, 1), [0] * 18 + [1] * 2), TensorEnvironment(torch.zeros(2, 1), [0, 1])],
        split_environments([20, 2], [1], 0, 0.0),
        [1],
        0,
        {"batch_size": 1000, "class_balanced": True},
    )
    counts = Counter(pieces(data[TrainTask(0)])[0][1].tolist())
    assert abs(counts[0] - 500) < 80


def test_unlabeled_samples_come_from_the_uda_split():
    data = tasks(uda=0.5)
    minibatches, unlabeled = data[TrainTask(0)].minibatches(torch.device("cpu"))
    assert [x.shape for x in unlabeled] == [(6, 1, 1, 1)]
    keys = [int(x) - 2000 for x in unlabeled[0].flatten()]
    assert set(keys) <= set(data.splits[2].uda)
    labelled, none = tasks()[TrainTask(0)].minibatches(torch.device("cpu"))
    assert none == []
    assert all(
        torch.equal(x, y) for pair in zip(minibatches, labelled, strict=True) for x, y in zip(*pair, strict=True)
    )


def test_evaluation_reads_every_sample_once_and_not_augmented():
    data = tasks(uda=0.5)
    read = Counter()
    for task in evaluation_tasks(data.splits, 7):
        assert len(task.keys) <= 7
        x, _, index = pieces(data[task])[0]
        assert x.flatten().tolist() == [key + 1000.0 * task.environment for key in task.keys]
        read.update(index.tolist())
    assert sorted(read) == list(range(sum(LENGTHS)))
    assert set(read.values()) == {1}


def test_figures_do_not_depend_on_the_size_of_a_batch():
    dataset = get_dataset_class("RotatedDigits")(None, [0], default_hparams("ERM", "RotatedDigits"))
    torch.manual_seed(0)
    algorithm = ERM((1, 28, 28), 10, 5, default_hparams("ERM", "RotatedDigits") | {"cnn_width": 8})
    data = TaskDataset(
        dataset.datasets, split_environments([150] * len(dataset), [0], 0, 0.2), [0], 0, algorithm.hparams
    )
    by_size = [
        evaluate(algorithm, (data[task] for task in evaluation_tasks(data.splits, size)), torch.device("cpu"))
        for size in (7, 16, 128)
    ]
    assert by_size[1] == pytest.approx(by_size[0], abs=1e-6)
    assert by_size[2] == pytest.approx(by_size[0], abs=1e-6)
    assert algorithm.training


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_loaded_is_one_clear_error(workers):
    splits = split_environments([4, 4], [1], 0, 0.0)
    data = TaskDataset(
        [BrokenEnvironment(4), BrokenEnvironment(4)], splits, [1], 0, {"batch_size": 2, "class_balanced": False}
    )
    with pytest.raises(UserError, match="^cannot decode image broken.png$"):
        list(open_stream(data, Schedule(1, 1, [EvaluateTask("env0_in", 0, (0,))]), workers, pin_memory=False))
