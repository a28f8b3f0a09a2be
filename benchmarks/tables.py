"""What every benchmark does with its table: facts of the machine, printing, a CSV file named by device and torch."""

from __future__ import annotations

import csv
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from domainbed_adm import __version__
from domainbed_adm.system.console import show

RESULTS = Path(__file__).parent / "results"


def device_name(device: torch.device) -> str:
    """The processor's or accelerator's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def facts_of(device: torch.device) -> dict[str, str]:
    """What every table says of the machine and the versions."""
    facts = {"device": device_name(device), "torch": torch.__version__, "domainbed_adm": __version__}
    if device.type == "cuda":
        facts["cuda"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return facts


def file_name(*parts: str) -> str:
    """These parts as one name of a file, in small letters, with a dash for all but letters and digits."""
    return "".join(c if c.isalnum() else "-" for c in " ".join(parts)).lower()


def write(name: str, table: Sequence[Mapping[str, str]], facts: Mapping[str, str], folder: Path) -> Path:
    """Print the table and store it, ``name`` first in the file's, as CSV with the facts above it as comments."""
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    show(list(table[0]), [list(row.values()) for row in table])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file_name(name, facts['device'], 'torch', facts['torch'])}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in facts.items())
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    print(f"stored: {path}", flush=True)
    return path
