"""The command ``domainbed-adm``: finds the script of a subcommand and runs it."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence

from domainbed_adm import __version__
from domainbed_adm.errors import LoadingError, NonFiniteError, UserError
from domainbed_adm.registry import load_extensions
from domainbed_adm.run_files import ExitCode
from domainbed_adm.system.console import Parser, printable

COMMANDS = {
    "train": "train one method on one dataset, one environment held out",
    "predict": "classify a folder of images with a trained model",
    "export": "write a trained network as ONNX, torch.export or safetensors",
    "evaluate": "measure trained models on another dataset's environments, or under attack",
    "sweep": "launch and count many runs",
    "search": "search hyperparameters by training-domain validation accuracy (Optuna)",
    "list_top_hparams": "the best hyperparameters of a sweep or a search",
    "study": "compare methods by a plan that is stated first, and end in a verdict",
    "collect_results": "turn a sweep's records into DomainBed's tables",
    "report": "turn a sweep into one HTML page: leaderboards, curves, costs, what failed",
    "analyze": "look into runs: curvature of the loss, the loss around the model, difficulties",
    "download": "fetch a dataset, unpack it and verify it",
    "verify_data": "look at every file of a dataset: broken, double, misplaced, missing",
    "list": "algorithms, datasets, hparams and named sweeps there are",
    "doctor": "what is installed and found here, for bug reports: versions, devices, disk, locks, clusters",
    "completion": "a script that makes bash, zsh or fish complete commands, flags and names",
    "upstream": "run DomainBed's own train, sweep and collect_results with our methods in it",
}

EXAMPLES = """\
  domainbed-adm list algorithms
  domainbed-adm train --dataset RotatedDigits --algorithm SAM_SSPL_ADM --test_envs 0 --output_dir results/one
  domainbed-adm sweep launch --sweep smoke --output_dir results/smoke --jobs 2 --skip_confirmation
  domainbed-adm collect_results --input_dir results/smoke --layout paper"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``domainbed-adm``; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in COMMANDS:
        script = importlib.import_module(f"domainbed_adm.scripts.{arguments[0]}")
        return run(script.main, arguments[1:])
    commands = "commands:\n" + "\n".join(f"  {name:<17}{text}" for name, text in COMMANDS.items())
    about = "Adversarial-difficulty curricula and flatness-aware training on DomainBed's protocol."
    parser = Parser("domainbed-adm", description=f"{about}\n\n{commands}", examples=EXAMPLES)
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of the above; each has --help")
    parser.parse_args(arguments[:1])
    return 2


def run(script: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run a script's ``main``; one line and an exit code for what can go wrong.

    A user's mistake, and a file that the system does not give, is 2, a number that is not finite 3, a loading process
    that was killed 1, an interruption 130, a closed pipe 141. What the output's encoding lacks, as of a file name that
    is not UTF-8, is escaped.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started this process; the number that is free is taken again
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        load_extensions()
        return script(argv)
    except BrokenPipeError:  # the reader, head perhaps, has enough: nothing more can be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.CLOSED_PIPE
    except KeyboardInterrupt as error:
        print("domainbed-adm: interrupted" + "".join(f": {advice}" for advice in error.args), file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as error:
        known = explained(error)
        if known is None:
            raise
        print(f"domainbed-adm: error: {printable(known[1])}", file=sys.stderr)
        return known[0]


def explained(error: Exception) -> tuple[ExitCode, str] | None:
    """The exit code and the line of an error that one line explains; None where it is another."""
    if isinstance(error, OSError):
        return ExitCode.USER_ERROR, str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
    codes = {NonFiniteError: ExitCode.NOT_FINITE, LoadingError: ExitCode.RETRY, UserError: ExitCode.USER_ERROR}
    return next(((code, str(error)) for kind, code in codes.items() if isinstance(error, kind)), None)


if __name__ == "__main__":
    sys.exit(main())
