"""What runs cost on a GPU, by one command that needs nothing but the machine; it makes its images itself.

Parts: the cost of a step of ERM, SAM and SAM_SSPL_ADM on ResNet-18 and ResNet-50, in fp32 and bf16, compiled or not;
evaluation by batch size; the input pipeline against the floor, which is the same network, batches and precision on
tensors in memory; a whole run of 5,001 steps and 18 evaluations on 9,991 images, PACS's number. Each part fits into ten
minutes, and its rows are stored as they come: the same --output_dir again, with another --part, adds to the table.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.images import PACS, make_images
from benchmarks.tables import RESULTS, facts_of, file_name
from benchmarks.timed import Floor, beside_floor
from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import RunArgs
from domainbed_adm.system.console import Parser, show
from domainbed_adm.system.disk import replacing
from domainbed_adm.system.process import cpu_count

Row = dict[str, str]
ALGORITHMS = ("ERM", "SAM", "SAM_SSPL_ADM")
#: What makes a run fast, beside bf16.
FAST: dict[str, Any] = {"cache": True, "augment_on": "device"}
#: Flags of the input pipeline, from DomainBed's way to ours; the last one compiles the network as well.
PIPELINES: tuple[dict[str, Any], ...] = ({}, {"cache": True}, FAST, FAST | {"compile": True})
_MINUTES, _FLOOR = 5.0, 0.9


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    networks: tuple[str, ...] = ("resnet18", "resnet50")
    compiled: tuple[bool, ...] = (False, True)
    seconds: float = 5.0
    batch_sizes: tuple[int, ...] = (64, 128, 256, 512, 1024)
    steps: int = 5001
    checkpoint_freq: int = 300
    pipeline_steps: int = 301
    images: tuple[int, ...] = tuple(PACS.values())
    side: int = 227
    batch_size: int = 32
    image_size: int = 224


FULL = Size()
#: Every path on a CPU, in seconds; nothing is compiled, which takes a minute for each network.
SMALL = Size(("resnet18",), (False,), 0.01, (2, 4), 3, 2, 3, (14,) * 4, 64, 2, 64)


@dataclass
class Benchmark:
    """The parts, each a method that yields rows; ``data`` is a folder for the images, ``runs`` one for the runs."""

    size: Size
    data: Path
    runs: Path

    def args(self, network: str, algorithm: str = "ERM", images: tuple[int, ...] = (7,) * 4, **flags: Any) -> RunArgs:
        """Flags of a run on made images."""
        size, numbers = self.size, dict(zip(PACS, images, strict=True))
        hparams = {"batch_size": size.batch_size, "image_size": size.image_size, "resnet18": network == "resnet18"}
        return RunArgs(
            data_dir=str(make_images(self.data, numbers, size.side)),
            dataset="PACS",
            algorithm=algorithm,
            hparams=json.dumps(hparams | {"pretrained": False}),
            checkpoint_freq=size.checkpoint_freq,
            workers=cpu_count(),
            output_dir=str(self.runs / f"run{time.monotonic_ns()}"),
            **flags,
        )

    def steps(self, network: str) -> Iterator[Row]:
        """Of one network: milliseconds, images per second and memory of a step."""
        for compiled in self.size.compiled:
            for precision in ("fp32", "bf16"):
                for algorithm in ALGORITHMS:
                    flags = {"compile": True} if compiled else {}
                    with measured(self.args(network, algorithm, precision=precision, **flags)) as floor:
                        start = time.perf_counter()
                        floor.training(0)
                        first = time.perf_counter() - start
                        rate = floor.training(self.size.seconds)
                        yield {
                            "network": network,
                            "precision": precision,
                            "compiled": "yes" if compiled else "no",
                            "algorithm": algorithm,
                            "step_ms": f"{1000 * floor.images / rate:.1f}",
                            "images_per_s": f"{rate:.0f}",
                            "peak_GiB": f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if on_gpu() else "-",
                            "first_4_steps_s": f"{first:.1f}",
                        }

    def evaluation(self) -> Iterator[Row]:
        """Images per second of evaluation by batch size."""
        for network in self.size.networks:
            for precision in ("fp32", "bf16"):
                with measured(self.args(network, precision=precision)) as floor:
                    rates = {f"images_per_s_{n}": floor.evaluation(self.size.seconds, n) for n in self.size.batch_sizes}
                yield {"network": network, "precision": precision} | {n: f"{rate:.0f}" for n, rate in rates.items()}

    def pipeline(self) -> Iterator[Row]:
        """Runs of a few hundred steps, in bf16, against the floor."""
        for flags in PIPELINES:
            if flags.get("compile") and True not in self.size.compiled:
                continue
            yield self._run("pipeline", self.size.pipeline_steps, flags)

    def whole(self) -> Iterator[Row]:
        """A whole run with all of it, against five minutes."""
        row = self._run("whole run", self.size.steps, FAST)
        yield row | {"target_s": f"{60 * _MINUTES:.0f}", "met": met(float(row["seconds"]) <= 60 * _MINUTES)}

    def _run(self, name: str, steps: int, flags: dict[str, Any]) -> Row:
        network = self.size.networks[-1]
        args = self.args(network, images=self.size.images, steps=steps, precision="bf16", **flags)
        print(f"{name}: {steps} steps, {flags}", flush=True)
        rates, floor = beside_floor(args, self.size.seconds)
        return {
            "network": network,
            "precision": "bf16",
            "flags": " ".join(f"{flag}={value}" for flag, value in flags.items()) or "-",
            "steps": str(steps),
            "seconds": f"{rates.seconds:.1f}",
            "training_images_per_s": f"{rates.training:.0f}",
            "evaluation_images_per_s": f"{rates.evaluation:.0f}",
            "training_of_floor": f"{rates.training / floor.training:.3f}",
            "evaluation_of_floor": f"{rates.evaluation / floor.evaluation:.3f}",
            "floor_met": met(rates.training >= _FLOOR * floor.training),
        }

    @property
    def parts(self) -> dict[str, Callable[[], Iterator[Row]]]:
        """By name, in the order to run them."""
        steps = {f"steps-{network}": lambda network=network: self.steps(network) for network in self.size.networks}
        return {"run": self.whole, "pipeline": self.pipeline, **steps, "evaluation": self.evaluation}


def met(yes: bool) -> str:
    """The cell of a target."""
    return "yes" if yes else "no"


def on_gpu() -> bool:
    """Whether there is one."""
    return torch.cuda.is_available()


@contextmanager
def measured(args: RunArgs) -> Iterator[Floor]:
    """The floor of a run; its memory is free again afterwards, and the peak is its own."""
    if on_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield Floor.of(args)
    torch.compiler.reset()


def store(tables: dict[str, Any], path: Path) -> None:
    """Write the tables as JSON, and as Markdown beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(json.dumps(tables, indent=1).encode() + b"\n")
    lines = [f"# {tables['facts']['device']}", ""]
    lines += [f"- {name}: {value}" for name, value in tables["facts"].items()]
    for part, rows in tables["parts"].items():
        lines += ["", f"## {part}", "", f"| {' | '.join(rows[0])} |", f"|{' --- |' * len(rows[0])}"]
        lines += [f"| {' | '.join(row.values())} |" for row in rows]
    with replacing(path.with_suffix(".md")) as file:
        file.write("\n".join(lines).encode() + b"\n")


def main(argv: Sequence[str]) -> int:
    """Measure, print and store; returns the exit code.

    Raises:
        UserError: there is no GPU, and --small is not given.
    """
    parser = Parser(
        "python -m benchmarks.gpu",
        description=__doc__,
        examples="  python -m benchmarks.gpu --part run\n  python -m benchmarks.gpu --small",
    )
    names = list(Benchmark(FULL, Path(), Path()).parts)
    parser.add_argument("--part", nargs="+", choices=names, default=names, help="default: all, about half an hour")
    parser.add_argument("--small", action="store_true", help="every path in seconds, on a CPU too; tells no speed")
    parser.add_argument("--data_dir", type=Path, help="folder to keep the images in (default: a temporary one)")
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    if not on_gpu() and not args.small:
        raise UserError(
            "no GPU here: torch sees no CUDA device (--small runs every path on the CPU, and tells no speed)"
        )
    size = SMALL if args.small else FULL
    facts = facts_of(torch.device("cuda" if on_gpu() else "cpu")) | {
        "cpus": str(cpu_count()),
        "batches": f"3 domains x {size.batch_size}, {size.image_size} px",
        "of_floor": "the same network, batches and precision on tensors in memory; the cache is made before the run",
    }
    path = args.output_dir / f"{file_name('small' if args.small else 'gpu', facts['device'])}.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    parts = stored["parts"] if stored.get("facts") == facts else {}
    with tempfile.TemporaryDirectory() as folder:
        benchmark = Benchmark(size, args.data_dir or Path(folder), Path(folder))
        for name, measure in benchmark.parts.items():
            if name not in args.part:
                continue
            rows: list[Row] = []
            for row in measure():
                rows.append(row)
                print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
                store({"facts": facts, "parts": parts | {name: rows}}, path)
            parts[name] = rows
            show(list(rows[0]), [list(row.values()) for row in rows], title=name)
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    print(f"stored: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
