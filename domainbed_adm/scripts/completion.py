"""``completion``: a script for the shell that completes commands, flags, methods and datasets; loads no torch."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence

from domainbed_adm.cli import COMMANDS, run
from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.errors import UserError
from domainbed_adm.loggers import LOGGERS
from domainbed_adm.method.grid import METHODS
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.sweeping.plan import named_sweeps
from domainbed_adm.system.console import Parser

SHELLS = ("bash", "zsh", "fish")

EXAMPLES = """\
  eval "$(domainbed-adm completion bash)"     # in ~/.bashrc
  domainbed-adm completion zsh > ~/.zfunc/_domainbed-adm     # with ~/.zfunc in fpath before compinit
  domainbed-adm completion fish > ~/.config/fish/completions/domainbed-adm.fish

Installed extensions are known; after one is added or removed, and after an update, make the script anew."""


def build_parser() -> Parser:
    """The shell."""
    about = "Print a script that makes the shell complete commands, flags, methods, datasets and files (extra\n"
    about += "[completion])."
    parser = Parser("domainbed-adm completion", description=about, examples=EXAMPLES)
    parser.add_argument("shell", choices=SHELLS)
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the script; returns the exit code.

    Raises:
        UserError: shtab is not installed.
    """
    shell = build_parser().parse_args(argv).shell
    try:
        import shtab
    except ImportError:
        raise UserError("completion needs shtab: pip install shtab") from None
    print(shtab.complete(_whole_parser(), shell=shell))
    return 0


def _whole_parser() -> argparse.ArgumentParser:
    """All commands as one parser, each flag with the names that it takes."""
    whole = argparse.ArgumentParser("domainbed-adm")
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers(dest="command")
    for name, about in COMMANDS.items():
        module = importlib.import_module(f"domainbed_adm.scripts.{name}")
        parents = [module.build_parser()] if hasattr(module, "build_parser") else []
        command = commands.add_parser(name, help=about, parents=parents, add_help=not parents)
        _complete(command)
    return whole


def _complete(parser: argparse.ArgumentParser) -> None:
    """Say what each flag takes: names of a registry, else a folder or a file where it is one."""
    import shtab

    methods, datasets = sorted(METHODS), sorted(CARDS)
    names: dict[str, Iterable[str]] = {
        **dict.fromkeys(("algorithm", "algorithms", "double_epochs", "match_passes"), methods),
        **dict.fromkeys(("dataset", "datasets"), datasets),
        "logger": LOGGERS,
        "command_launcher": LAUNCHERS,
        "sweep": named_sweeps(),
    }
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for other in {id(one): one for one in action.choices.values()}.values():
                _complete(other)
        elif action.dest in names and not action.choices:
            action.choices = list(names[action.dest])
        elif action.nargs != 0 and not action.choices and action.type not in (int, float):
            where = "DIRECTORY" if action.dest.endswith("_dir") or action.dest == "domainbed" else "FILE"
            action.complete = vars(shtab)[where]  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
