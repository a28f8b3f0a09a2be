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

#: Algorithms that hold state wherever one can, as DomainBed's do; one that holds an iterator; one that comes to it.
MORE = '''

import collections, itertools, random
import numpy as np

ALGORITHMS += ["Hoarder", "Looper", "LateLooper", "Broken", "Absent"]


class Mean:
    """A plain object."""

    def __init__(self):
        self.data, self.count = {}, 0

    def update(self, name, value):
        self.data[name] = 0.9 * self.data.get(name, torch.zeros_like(value)) + value.detach()
        self.count += 1
        return self.data[name]


class Hoarder(ERM):
    """Holds state everywhere: not that."""

    def __init__(self, input_shape, num_classes, num_domains, hparams):
        super().__init__(input_shape, num_classes, num_domains, hparams)
        width = self.featurizer.n_outputs
        self.heads = [nn.Linear(width, num_classes).cuda() for _ in range(num_domains)]
        self.head_optimizers = [torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9) for head in self.heads]
        self.register_buffer("q", torch.Tensor())
        self.queue, self.means = collections.deque(maxlen=3), [Mean(), Mean()]
        self.own_random, self.noise = np.random.RandomState(3), random.Random(4)
        self.torch_random = torch.Generator().manual_seed(5)
        self.table, self.rate = np.ones(3), np.float64(0.5)
        self.scale = torch.ones(1, requires_grad=True)
        self.inner_state = None
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=0)
        self.shift = lambda x: x

    def update(self, minibatches, unlabeled=None):
        if not len(self.q):
            self.q = torch.ones(len(minibatches)).cuda()
        self.inner = networks.Featurizer(minibatches[0][0].shape[1:], self.hparams)
        self.inner_optimizer = torch.optim.Adam(self.inner.parameters(), lr=0.01)
        if self.inner_state is not None:
            self.inner_optimizer.load_state_dict(self.inner_state)
        self.inner.load_state_dict(self.featurizer.state_dict())
        total = 0.0
        for i, (x, y) in enumerate(minibatches):
            features = self.featurizer(x) + self.inner(x)
            logits = self.heads[i](self.shift(features)) * self.scale + self.classifier(features)
            loss = nn.functional.cross_entropy(logits, y) * float(self.rate)
            self.q[i] *= loss.detach().exp()
            total = total + self.q[i].item() * loss + 0.01 * self.means[i % 2].update("f", features.mean(0)).sum()
        total = total + 0.1 * self.own_random.rand() + self.noise.random() * sum(self.queue) * self.table.sum()
        total = total * (1 + torch.rand(1, generator=self.torch_random)[0])
        optimizers = [self.optimizer, self.inner_optimizer, *self.head_optimizers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        total.backward()
        for optimizer in optimizers:
            optimizer.step()
        with torch.no_grad():
            self.scale -= 0.01 * self.scale.grad
        self.scale.grad = None
        self.inner_state = self.inner_optimizer.state_dict()
        self.scheduler.step(total.item())
        self.queue.append(total.item() / 10)
        self.table, self.rate = self.table * 0.9, np.float64(self.rate * 0.9)
        self.q /= self.q.sum()
        return {"gap": 1.0, "total_loss": total.item(), "held": float(self.means[0].data["f"].sum())}


class Looper(ERM):
    def __init__(self, *args):
        super().__init__(*args)
        self.rates = itertools.cycle([0.1, 0.2])


class LateLooper(ERM):
    count = 0

    def update(self, *args):
        self.count += 1
        if self.count == 3:
            self.rates = itertools.cycle([0.1, 0.2])
        return super().update(*args)


class Broken(ERM):
    def update(self, minibatches, unlabeled=None):
        return {"loss": self.absent}
'''
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


def fails(capsys, run):
    capsys.readouterr()
    assert run() == 2
    error = capsys.readouterr().err
    assert error.startswith("domainbed-adm: error: ")
    assert error.count("\n") == 1, error
    return error
