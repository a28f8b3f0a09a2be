"""How long a forward pass of one image takes, F: as given, or measured by finished runs or by a benchmark's file."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from domainbed_adm.errors import UserError, one_line
from domainbed_adm.recipes import architecture
from domainbed_adm.recorded_run import Run
from domainbed_adm.records import load_runs
from domainbed_adm.registry import get_method
from domainbed_adm.system.console import printable

#: As ``benchmarks.step_cost`` and ``benchmarks.gpu`` describe what they measured.
_STEP_COST = re.compile(r"# network: (ResNet-\d+) from scratch, (\d+) px, (\w+), (\d+) domains x (\d+) samples")
_GPU = re.compile(r"(\d+) domains x (\d+), (\d+) px")
_NAMES = {"resnet18": "ResNet-18", "resnet50": "ResNet-50"}


@dataclass
class Rates:
    """Seconds of F by network (with its size and precision) and algorithm; those of network "" are of all.

    ``about`` says where they come from; ``sizes`` are the images of each environment of the datasets measured on.
    """

    about: str
    measured: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def networks(self) -> list[str]:
        """Those that were measured."""
        return list(self.measured)

    def add(self, network: str, algorithm: str, seconds: float) -> None:
        """One measurement."""
        self.measured.setdefault(network, {}).setdefault(algorithm, []).append(seconds)

    def seconds_of(self, network: str, algorithm: str) -> float | None:
        """Median of the algorithm's, or where it was not measured of all on the network; None where none was."""
        by_algorithm = self.measured.get(network) or self.measured.get("")
        if not by_algorithm:
            return None
        return median(by_algorithm.get(algorithm) or [one for own in by_algorithm.values() for one in own])


def given_rate(images_per_second: float) -> Rates:
    """From the images that plain training passes in a second, at 3 F each.

    Raises:
        UserError: it is no number above 0.
    """
    if not 0 < images_per_second < 1e12:
        raise UserError(f"--images_per_second must be above 0, not {images_per_second:g}")
    rates = Rates(f"plain training passes {images_per_second:g} images a second, whatever the network (as given)")
    rates.add("", "ERM", 1 / (3 * images_per_second))
    return rates


def measured_rates(path: Path) -> Rates:
    """From the step times in a folder of runs, or a file of ``benchmarks.step_cost`` (CSV) or ``.gpu`` (JSON).

    Raises:
        UserError: there is no such thing, or no step time in it.
    """
    rates = _of_runs(path) if path.is_dir() else _of_file(path)
    if not rates.measured:
        raise UserError(f"--rate_from {path}: no step was timed there")
    return rates


def _of_file(path: Path) -> Rates:
    try:
        text = path.read_text(encoding="utf-8")
        return _of_step_cost(path.name, text) if path.suffix == ".csv" else _of_gpu(path.name, text)
    except OSError as error:
        raise UserError(f"--rate_from {path}: {error.strerror}") from error
    except Exception as error:  # a file of something else breaks it in many ways
        expected = "a folder of runs, or a file of benchmarks.step_cost or benchmarks.gpu"
        told = f"{type(error).__name__}: {one_line(error, 100)}"
        raise UserError(f"--rate_from {path} is not {expected} ({told})") from error


def _of_runs(path: Path) -> Rates:
    from domainbed_adm.leaderboard.last_models import step_time

    runs = load_runs(path)
    devices = sorted({str(run.provenance.get("device", "a device that was not recorded")) for run in runs})
    rates = Rates(f"step times of the runs in {path}, on {', '.join(devices)}")
    for run in runs:
        seconds = step_time([run])
        if seconds and run.hparams.get("batch_size"):
            network = f"{architecture(run.dataset, run.hparams)}, {run.args.get('precision', 'fp32')}"
            sources = max(1, run.n_envs - len(run.test_envs))
            work = _passes(run) * run.hparams["batch_size"] * sources
            if work:
                rates.add(network, run.method, seconds / work)
        samples = run.provenance.get("samples")
        if isinstance(samples, list):
            rates.sizes[run.dataset] = tuple(samples)
    return rates


def _passes(run: Run) -> float:
    """Of a step; 0 where they are not known, as of DomainBed's own algorithms."""
    try:
        passes = get_method(run.method).passes(**run.hparams)
    except UserError:  # of a package, or a checkout, that is not here
        return 0.0
    return 0.0 if math.isnan(passes) else passes


def _of_step_cost(name_of_file: str, text: str) -> Rates:
    lines = text.splitlines()
    facts = {line[2:].partition(": ")[0]: line.partition(": ")[2] for line in lines if line.startswith("# ")}
    found = next((matched for line in lines if (matched := _STEP_COST.match(line))), None)
    if found is None:
        raise ValueError("it names no network")
    name, size, precision, domains, samples = found.groups()
    rates = Rates(f"{name_of_file}, on {printable(facts.get('device', 'an unnamed device'))}")
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        work = float(row["passes_F"]) * int(domains) * int(samples)
        rates.add(f"{name}, {size} px, {precision}", row["method"], float(row["ms"]) / 1000 / work)
    return rates


def _of_gpu(name_of_file: str, text: str) -> Rates:
    contents: dict[str, Any] = json.loads(text)
    facts = contents["facts"]
    size = _GPU.match(facts["batches"])
    if size is None:
        raise ValueError("it names no batches")
    rates = Rates(f"{name_of_file}, not compiled, on {printable(str(facts.get('device', 'an unnamed device')))}")
    for part, rows in contents["parts"].items():
        for row in rows if part.startswith("steps-") else ():
            if row["compiled"] == "no":
                seconds = 1 / (float(row["images_per_s"]) * get_method(row["algorithm"]).passes())
                network = f"{_NAMES.get(row['network'], row['network'])}, {size[3]} px, {row['precision']}"
                rates.add(network, row["algorithm"], seconds)
    return rates
