"""One run of the small host."""

import argparse
import json
from pathlib import Path

import torch

from domainbed import algorithms, datasets, hparams_registry
from domainbed.lib.seeds import seed_of


def accuracy(algorithm, environment, places):
    x, y = (torch.stack([torch.as_tensor(environment[i][k]) for i in places]) for k in (0, 1))
    algorithm.eval()
    right = (algorithm.predict(x).argmax(1) == y).float().mean().item()
    algorithm.train()
    return right


def minibatch(environment, places, size, random):
    chosen = [places[i] for i in torch.randint(len(places), (size,), generator=random)]
    return tuple(torch.stack([torch.as_tensor(environment[i][k]) for i in chosen]) for k in (0, 1))


def main(args):
    if args.hparams_seed:
        seed = seed_of(args.hparams_seed, args.trial_seed)
        hparams = hparams_registry.random_hparams(args.algorithm, args.dataset, seed)
    else:
        hparams = hparams_registry.default_hparams(args.algorithm, args.dataset)
    hparams.update(json.loads(args.hparams or "{}"))
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    dataset = datasets.get_dataset_class(args.dataset)(args.data_dir, args.test_envs, hparams)
    sources = [i for i in range(len(dataset)) if i not in args.test_envs]
    algorithm = algorithms.get_algorithm_class(args.algorithm)(
        dataset.input_shape, dataset.num_classes, len(sources), hparams
    )
    held = int(len(dataset[0]) * args.holdout_fraction)
    splits = [(range(held, len(one)), range(held)) for one in (dataset[i] for i in range(len(dataset)))]
    random = torch.Generator().manual_seed(args.seed)
    steps = args.steps or dataset.N_STEPS
    for _ in range(steps):
        drawn = [minibatch(dataset[i], splits[i][0], hparams["batch_size"], random) for i in sources]
        figures = algorithm.update(drawn, None)
    record = {"step": steps - 1, "epoch": 0.0, "step_time": 0.0, "mem_gb": 0.0, **figures}
    for i, (in_, out) in enumerate(splits):
        record[f"env{i}_in_acc"] = accuracy(algorithm, dataset[i], in_)
        record[f"env{i}_out_acc"] = accuracy(algorithm, dataset[i], out)
    record |= {"hparams": hparams, "args": vars(args)}
    (folder / "results.jsonl").write_text(json.dumps(record, sort_keys=True) + "\n")
    (folder / "done").write_text("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir")
    parser.add_argument("--dataset", default="Pixels")
    parser.add_argument("--algorithm", default="ERM")
    parser.add_argument("--task", default="domain_generalization")
    parser.add_argument("--hparams")
    parser.add_argument("--hparams_seed", type=int, default=0)
    parser.add_argument("--trial_seed", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--test_envs", type=int, nargs="+", default=[0])
    parser.add_argument("--output_dir", default="train_output")
    parser.add_argument("--holdout_fraction", type=float, default=0.25)
    main(parser.parse_args())
