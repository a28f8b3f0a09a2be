"""The small host's hparams: name -> (default, random draw)."""

import numpy as np

from domainbed.lib.seeds import seed_of


def table(algorithm, dataset):
    small = dataset in ("Debug28", "RotatedMNIST", "Pixels")
    names = {
        "lr": (1e-3 if small else 5e-5, lambda random: 10 ** random.uniform(-4, -2)),
        "batch_size": (8, lambda random: int(random.randint(4, 9))),
        "weight_decay": (0.0, lambda random: 0.0),
        "host_dropout": (0.25, lambda random: random.choice([0.0, 0.25])),
        "nonlinear_classifier": (False, lambda random: False),
        "class_balanced": (False, lambda random: False),
        "data_augmentation": (True, lambda random: True),
    }
    if algorithm == "Smoothed":
        names["smoothing"] = (0.1, lambda random: random.uniform(0, 0.2))
    return names


def default_hparams(algorithm, dataset):
    return {name: default for name, (default, _) in table(algorithm, dataset).items()}


def random_hparams(algorithm, dataset, seed):
    names = table(algorithm, dataset)
    return {name: draw(np.random.RandomState(seed_of(seed, name))) for name, (_, draw) in names.items()}
