"""Figures of an evaluation against plain Python over all samples at once."""

import math

import pytest
import torch

from domainbed_adm.training.batches import Batch, EvaluateTask
from domainbed_adm.training.evaluation import BINS, evaluate

CPU = torch.device("cpu")


class Fixed(torch.nn.Module):
    """Its inputs are its logits."""

    def predict(self, x):
        return x


def batches(logits, y, size, name="env0_in"):
    keys = range(len(y))
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        task = EvaluateTask(name, 0, tuple(keys[part]))
        yield Batch(task, logits[part], y[part], torch.tensor(keys[part]), [len(y[part])], 0, None)


def by_hand(logits, y):
    n, bins, nll, right = len(y), {}, 0.0, 0
    for row, label in zip(logits.double().tolist(), y.tolist(), strict=True):
        total = sum(math.exp(v) for v in row)
        probabilities = [math.exp(v) / total for v in row]
        confidence = max(probabilities)
        hit = probabilities.index(confidence) == label
        nll -= math.log(probabilities[label])
        right += hit
        bins.setdefault(math.ceil(confidence * BINS), []).append((hit, confidence))
    ece = sum(abs(sum(hit for hit, _ in members) - sum(c for _, c in members)) for members in bins.values())
    return {"env0_in_acc": right / n, "env0_in_nll": nll / n, "env0_in_ece": ece / n}


@pytest.mark.parametrize("size", [1, 7, 200])
def test_figures_equal_plain_python_whatever_the_batches(size):
    torch.manual_seed(0)
    logits, y = 3 * torch.randn(200, 4), torch.randint(4, (200,))
    figures = evaluate(Fixed(), batches(logits, y, size), CPU)
    assert figures == pytest.approx(by_hand(logits, y), abs=1e-6)


def test_certain_and_right_is_perfectly_calibrated():
    y = torch.tensor([0, 1, 2])
    figures = evaluate(Fixed(), batches(100.0 * torch.eye(3), y, 2), CPU)
    assert figures == {"env0_in_acc": 1.0, "env0_in_nll": 0.0, "env0_in_ece": 0.0}


def test_certain_and_wrong_is_off_by_one():
    figures = evaluate(Fixed(), batches(100.0 * torch.eye(3), torch.tensor([1, 2, 0]), 3), CPU)
    assert (figures["env0_in_acc"], figures["env0_in_nll"], figures["env0_in_ece"]) == (0.0, 100.0, 1.0)


def test_a_network_that_exploded_is_told():
    figures = evaluate(Fixed(), batches(torch.full((2, 3), math.nan), torch.tensor([0, 1]), 2), CPU)
    assert math.isnan(figures["env0_in_nll"])
    assert math.isnan(figures["env0_in_ece"])


def test_splits_are_kept_apart_and_the_algorithm_trains_again():
    y, algorithm = torch.tensor([0, 1]), Fixed()
    both = [*batches(torch.eye(2), y, 2, "env0_in"), *batches(-torch.eye(2), y, 1, "env1_out")]
    figures = evaluate(algorithm, both, CPU)
    assert (figures["env0_in_acc"], figures["env1_out_acc"]) == (1.0, 0.0)
    assert algorithm.training
