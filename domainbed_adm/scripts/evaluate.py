"""``evaluate``: finished models on the environments of another dataset, or under attack, without training."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import msgspec

from domainbed_adm.analysis.evaluation_files import Attack, EnvironmentFigures, Evaluation
from domainbed_adm.analysis.runs import find_runs, labels, with_checkpoint
from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.registry import load_checkout
from domainbed_adm.run_args import add_flags
from domainbed_adm.system.console import Parser, show

if TYPE_CHECKING:
    from domainbed_adm.analysis.evaluation import Measured

EXAMPLES = """\
  domainbed-adm evaluate results/one
  domainbed-adm evaluate results/paper_cifar --dataset CIFAR10C --data_dir data
  domainbed-adm evaluate results/paper_cifar --attack pgd --epsilon 1/255 --attack_steps 10
  domainbed-adm evaluate results/smoke_classification --dataset DigitsC
  domainbed-adm evaluate results/one --dataset DigitsC --environments noise-1 noise-5 --json
  domainbed-adm collect_results --input_dir results/smoke_classification --layout paper"""


def build_parser() -> Parser:
    """The flags."""
    about = (
        "Measure the finished model (model.pkl) of each run on whole environments of a dataset, without training:\n"
        "accuracy, negative log-likelihood (NLL, nats) and expected calibration error (ECE, 15 bins). Of a corrupted\n"
        "set also the mean corruption error: 1 - accuracy, the plain mean over corruptions and severities. The\n"
        "dataset must have the run's classes and input shape.\n"
        "Keeps evaluation_<dataset>.json in each run's folder, after each environment: a command that was broken off\n"
        "goes on there. What the file holds of the same model, images and settings is not measured again.\n"
        "collect_results --layout paper and report show what the files hold."
    )
    parser = Parser("domainbed-adm evaluate", description=about, examples=EXAMPLES)
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a run, or of a sweep")
    add("--dataset", metavar="NAME", help="dataset to measure on (default: each run's own)")
    add("--data_dir", help="folder that holds the datasets (default: where it was in training)")
    tested = (
        "only these (default: those that the run held out; of another dataset its official test sets, or where it has "
        "none all)"
    )
    add("--environments", nargs="+", metavar="NAME", help=tested)
    add("--attack", choices=("pgd",), help="accuracy under projected gradient descent in L-infinity, in fp32")
    add("--epsilon", metavar="X", help="radius of --attack, for pixels in [0, 1]: 1/255 (default) or 0.01")
    add("--attack_steps", type=int, metavar="N", help="steps of --attack, each 2.5 epsilon / N long (default 10)")
    add("--seed", type=int, metavar="N", help="of the random start of --attack (default 0)")
    add("--precision", choices=("fp32", "bf16"), default="fp32", help="of the passes (default fp32)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of one pass (default 1)")
    add("--again", action="store_true", help="measure also what is there already")
    add("--json", action="store_true", help="print what the files hold as a JSON list, with the means over corruptions")
    add_flags(parser, ("domainbed",))
    return parser


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code.

    Raises:
        UserError: a flag is out of its range, or lacks another, or what ``evaluate_runs`` raises.
    """
    args = build_parser().parse_args(argv)
    if args.domainbed:
        load_checkout(args.domainbed)
    if args.threads < 1:
        raise UserError(f"--threads must be at least 1, not {args.threads}")
    attack = _attack(args)
    runs = with_checkpoint(find_runs(args.runs))
    from domainbed_adm.analysis.evaluation import EvaluationSettings, evaluate_runs

    settings = EvaluationSettings(
        args.dataset, args.data_dir, args.environments, attack, args.precision, args.again, args.threads
    )
    measured = []
    for one in evaluate_runs(runs, settings):
        told = f"{one.images:,} images" if one.images else "there already; --again measures anew"
        print(f"{one.run.label}: {one.path} ({told})", file=sys.stderr, flush=True)
        measured.append(one)
    if args.json:
        print(json.dumps([_as_json(one) for one in measured], indent=1))
    else:
        _show(measured)
    return 0


def _attack(args: Any) -> Attack | None:
    given = {"epsilon": args.epsilon, "attack_steps": args.attack_steps, "seed": args.seed}
    if args.attack is None:
        needless = [f"--{name}" for name, value in given.items() if value is not None]
        if needless:
            raise UserError(f"{needless[0]} is of an attack: add --attack pgd")
        return None
    if args.precision != "fp32":
        raise UserError("--attack is computed in fp32: leave --precision out")
    steps = 10 if args.attack_steps is None else args.attack_steps
    seed = 0 if args.seed is None else args.seed
    for name, value, least in (("attack_steps", steps, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"--{name} must be at least {least}, not {value}")
    return Attack(epsilon=_epsilon(args.epsilon or "1/255"), steps=steps, seed=seed)


def _epsilon(text: str) -> float:
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        value = -1.0
    if not 0 < value <= 1:
        raise UserError(f"--epsilon is in units of pixels in [0, 1]: a number in (0, 1] such as 1/255, not {text}")
    return value


def _as_json(one: Measured) -> dict[str, Any]:
    evaluation = one.evaluation
    return {
        "folder": str(one.run.folder),
        **msgspec.to_builtins(evaluation),
        "error_by_corruption": evaluation.error_by_corruption(),
        "mean_corruption_error": evaluation.mean_corruption_error,
    }


def _show(measured: Sequence[Measured]) -> None:
    names = labels([one.run.args for one in measured])
    rows = [
        [name, *row]
        for name, one in zip(names, measured, strict=True)
        for row in _rows(one.evaluation, by_corruption=len(measured) == 1)
    ]
    show(("run", "environment", "images", "accuracy %", "error %", "NLL", "ECE %"), rows)
    if attack := measured[0].evaluation.attack:
        print(f"Under attack: {attack}, from a random start (seed {attack.seed}).")


def _rows(evaluation: Evaluation, by_corruption: bool) -> list[list[str]]:
    """A row for each environment; those of a corruption measured at all severities together, and the mean of all."""
    errors = evaluation.error_by_corruption()
    groups: dict[str, list[EnvironmentFigures]] = {}
    for one in evaluation.environments:
        corruption = one.name.rpartition("-")[0]
        groups.setdefault(corruption if corruption in errors else one.name, []).append(one)
    if evaluation.mean_corruption_error is not None:
        if not by_corruption:
            groups = {name: own for name, own in groups.items() if name not in errors}
        title = f"mean of {len(errors)} corruptions"
        groups[title] = [one for one in evaluation.environments if one.name.rpartition("-")[0] in errors]
    return [[name, *_figures(own)] for name, own in groups.items()]


def _figures(environments: Sequence[EnvironmentFigures]) -> list[str]:
    accuracy, nll, ece = (mean(getattr(one, name) for one in environments) for name in ("accuracy", "nll", "ece"))
    images = sum(one.n for one in environments)
    return [f"{images}", f"{100 * accuracy:.2f}", f"{100 * (1 - accuracy):.2f}", f"{nll:.4f}", f"{100 * ece:.2f}"]


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
