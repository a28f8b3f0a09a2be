"""A decoded dataset that lies on the device whole, so that a step copies numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from domainbed_adm.datasets.base import Environment

#: Share of the device's free memory that a dataset may take. Chosen, not measured: the rest is the training's.
SHARE = 0.25


def hold(environments: Sequence[Environment], device: torch.device) -> torch.Tensor | None:
    """Put the pixels of a decoded dataset on a GPU, uint8, where it has room for them and images are augmented there.

    All environments lie in one file. Returns None where that is not so, and always on a CPU, whose memory they share.
    """
    decoded = next((one.decoded for one in environments if one.augmented_to), None)
    if decoded is None or decoded.size > SHARE * _free(device):
        return None
    held = decoded.on(device)
    print(f"decoded images on the device: {decoded.size / 2**20:,.0f} MiB")
    return held


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
