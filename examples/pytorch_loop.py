"""A plain PyTorch loop with SAM and the curriculum SSPL by ADM, on scikit-learn's digits.

python examples/pytorch_loop.py --steps 300
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

from domainbed_adm import ADM, SAM, SSPL, TrainingStep


def main(steps: int) -> float:
    """Train; returns the accuracy on the images that were held back."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    targets = torch.tensor(digits.target)
    train, test = torch.randperm(len(targets)).split([1400, len(targets) - 1400])

    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    # images are in [0, 1]; of normalised ones tell ADM their deviation: ADM(input_std=(0.229, 0.224, 0.225))
    step = TrainingStep(model, optimizer, SAM(rho=0.05), SSPL(), ADM(), total_steps=steps)

    for i in range(steps):
        batch = train[torch.randint(len(train), (32,))]
        step.backward(images[batch], targets[batch])
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=5.0)  # between the halves of a step
        figures = step.apply()
        if i % 100 == 0 or i == steps - 1:
            print(f"step {i:>4}  loss {figures['loss']:.3f}  mean difficulty {figures['difficulty_mean']:.3f}")

    model.eval()
    with torch.no_grad():
        accuracy = float((model(images[test]).argmax(1) == targets[test]).float().mean())
    print(f"accuracy on held back images: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    main(parser.parse_args().steps)
