"""Runs of a few steps, trained once for many tests."""

from pathlib import Path

from domainbed_adm.cli import main

HPARAMS = '{"cnn_width": 8, "batch_size": 4}'


def train(folder: Path, algorithm: str, *flags: str, hparams: str = HPARAMS) -> Path:
    command = ["train", "--algorithm", algorithm, "--steps", "3", "--checkpoint_freq", "2", "--hparams", hparams]
    assert main([*command, "--output_dir", str(folder / algorithm), *flags]) == 0
    return folder / algorithm
