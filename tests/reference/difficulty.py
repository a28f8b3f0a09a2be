"""Difficulty scores, one sample at a time."""

import math

import numpy as np
import torch


def sample_loss(model, x, y):
    """-log softmax(f(x))_y, with the sum written out; x is one sample."""
    logits = model(x.unsqueeze(0))[0]
    return torch.log(sum(torch.exp(logit - logits.max()) for logit in logits)) + logits.max() - logits[y]


def sample_input_gradient(model, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(sample_loss(model, x, int(y)), x)[0]


def loss(model, xs, ys):
    return [float(sample_loss(model, x, int(y)).detach()) for x, y in zip(xs, ys, strict=True)]


def gdm(model, xs, ys):
    scores = []
    for x, y in zip(xs, ys, strict=True):
        scores.append(math.sqrt(sum(float(g) ** 2 for g in sample_input_gradient(model, x, y).flatten())))
    return scores


def mean_loss(model, xs, ys):
    return sum(loss(model, xs, ys)) / len(ys)


def adm(model, xs, ys, alpha=8 / 255, delta=1e-6, gap="absolute", input_std=None):
    if delta == "batch_mean":
        delta = mean_loss(model, xs, ys)
    scores = []
    for x, y in zip(xs, ys, strict=True):
        gradient = sample_input_gradient(model, x, y)
        moved = x.clone()
        for c in range(x.shape[0]):
            moved[c] += alpha / (1.0 if input_std is None else input_std[c]) * torch.sign(gradient[c])
        clean = float(sample_loss(model, x, int(y)).detach())
        attacked = float(sample_loss(model, moved, int(y)).detach())
        change = attacked - clean
        scores.append(abs(change) / (clean + delta) if gap == "absolute" else 1 + change / (clean + delta))
    return scores


def adm_linear(model, xs, ys, alpha=8 / 255, delta=1e-6, gap="absolute", input_std=None):
    if delta == "batch_mean":
        delta = mean_loss(model, xs, ys)
    scores = []
    for x, y in zip(xs, ys, strict=True):
        gradient = sample_input_gradient(model, x, y)
        change = 0.0
        for c in range(x.shape[0]):
            change += alpha / (1.0 if input_std is None else input_std[c]) * float(gradient[c].abs().sum())
        score = change / (float(sample_loss(model, x, int(y)).detach()) + delta)
        scores.append(score if gap == "absolute" else 1 + score)
    return scores


def random(samples, step, seed=0):
    """The number that stands at each sample's own place in the stream of (seed, step + 1)."""
    return [np.random.Generator(np.random.Philox(key=[seed, step + 1])).random(i + 1)[i] for i in samples]


def oldest(index, scored_at, count):
    """Places of the samples to be scored: once each, never scored first, then oldest; ties by steps of golden ratio."""

    def key(place):
        golden = place * 2654435769 % 2**32
        return index[place] in index[:place], scored_at.get(index[place], -1), golden

    return sorted(sorted(range(len(index)), key=key)[:count])
