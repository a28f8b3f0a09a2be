"""What the tests of DomainBed's own algorithms in our engine share, in the small host and in a real checkout."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import torch

from domainbed_adm.cli import main
from domainbed_adm.run_args import RunArgs
from domainbed_adm.training import loop
from domainbed_adm.training.setup import set_up
from tests.runs import read_records

#: What no two runs have in common.
_OWN = ("step_time", "wall_time", "provenance", "args")


def train(folder, algorithm, *flags, hparams='{"batch_size": 4}', steps=4):
    """Train on Debug28, evaluated at every second step; returns the exit code."""
    words = ["--dataset", "Debug28", "--steps", str(steps), "--checkpoint_freq", "2", "--hparams", hparams]
    return main(["train", "--algorithm", algorithm, *words, "--output_dir", str(folder), *flags])


def train_killed(folder, monkeypatch, saves, *args, **more):
    """The same, killed once it has saved so many times."""

    def save(path, run, position):
        kept(path, run, position)
        count.append(position)
        if len(count) == saves:
            raise KeyboardInterrupt

    kept, count = loop.save_position, []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_position", save)
        assert train(folder, *args, **more) == 130
    assert len(count) == saves


def figures(folder):
    return [{name: value for name, value in record.items() if name not in _OWN} for record in read_records(folder)]


def weights(folder):
    return torch.load(folder / "model.pkl", weights_only=True)["model_dict"]


def assert_same_run(a, b):
    assert figures(a) == figures(b)
    assert weights(a).keys() == weights(b).keys()
    assert all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


@contextlib.contextmanager
def spied_updates(algorithm):
    """Within the block, a list of (minibatches, states of the generators before, figures) grows with each update."""
    seen, update = [], algorithm.update

    def spied(minibatches, unlabeled=None):
        states = torch.get_rng_state(), np.random.get_state(), random.getstate()
        told = update(minibatches, unlabeled)
        seen.append(([(x.clone(), y.clone()) for x, y in minibatches], states, dict(told)))
        return told

    algorithm.update = spied
    try:
        yield seen
    finally:
        del algorithm.update


def assert_as_in_the_host(folder, algorithm, make):
    """Our engine's records and weights are those of the host's own class on the same minibatches and random numbers.

    ``make`` constructs the host's class from its input shape, numbers of classes and domains, and the hparams.
    """
    hparams = '{"batch_size": 4}'
    run = set_up(RunArgs(dataset="Debug28", algorithm=algorithm, hparams=hparams, steps=3, checkpoint_freq=1))
    theirs = make(run.dataset.input_shape, run.dataset.num_classes, len(run.sources), dict(run.hparams))
    theirs.load_state_dict(run.algorithm.state_dict())
    start = {name: value.clone() for name, value in theirs.state_dict().items()}
    with spied_updates(run.algorithm) as seen:
        loop.train(run, folder)
    records = read_records(folder)
    for (minibatches, (of_torch, of_numpy, of_python), _), record in zip(seen, records, strict=True):
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        told = theirs.update(minibatches)
        assert told == {name: record[name] for name in told}
    ours = weights(folder)
    assert any(not torch.equal(start[name], value) for name, value in ours.items())
    assert all(torch.equal(value, ours[name]) for name, value in theirs.state_dict().items())
