"""``upstream``: run a script of a DomainBed checkout with our methods in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from domainbed_adm.cli import run
from domainbed_adm.run_files import ExitCode
from domainbed_adm.system.console import Parser
from domainbed_adm.system.disk import LockedError

SCRIPTS = {
    "train": "train one algorithm",
    "sweep": "launch many runs; every job knows our methods, with every launcher",
    "collect_results": "print the tables of a sweep, DomainBed's or ours",
    "list_top_hparams": "print the best hparams of a sweep",
    "download": "download DomainBed's datasets",
}

EXAMPLES = """\
  domainbed-adm upstream train --domainbed DomainBed --dataset RotatedDigits --algorithm SAM_SSPL_ADM --test_envs 0 \\
      --steps 200 --output_dir results/one
  domainbed-adm upstream sweep launch --algorithms ERM SAM_SSPL_ADM --datasets PACS --data_dir data \\
      --output_dir results/pacs --command_launcher local
  domainbed-adm upstream collect_results --input_dir results/pacs"""


def main(argv: Sequence[str]) -> int:
    """Register, and run the script; returns the exit code, 75 where another process trains in the folder."""
    scripts = "\n".join(f"  {name:<17}{text}" for name, text in SCRIPTS.items())
    about = "Run a script of a DomainBed checkout, with its own flags, with our methods in it."
    parser = Parser("domainbed-adm upstream", description=f"{about}\n\nscripts:\n{scripts}", examples=EXAMPLES)
    parser.add_argument(
        "script", metavar="script", help="one of the above, or another one that the checkout has; each has --help"
    )
    parser.add_argument(
        "--domainbed",
        metavar="PATH",
        help="folder that git clone made; default: DOMAINBED_DIR, else domainbed on the Python path or in this folder",
    )
    parser.add_argument("flags", nargs="*", metavar="flags", help="of DomainBed's script")
    own = Parser("domainbed-adm upstream", add_help=False)  # the rest is read by DomainBed's script
    own.add_argument("--domainbed", default="")
    known, words = own.parse_known_args(argv)
    if known.domainbed == "" and any(word.partition("=")[0] == "--domainbed" for word in argv):
        parser.error("argument --domainbed: expected one argument")
    if not words or words[0].startswith("-"):
        parser.parse_args(words)
        parser.error("name the script first")
    if not words[0].isidentifier():
        parser.error(f"argument script: {words[0]!r} is no script, use one of {', '.join(SCRIPTS)}")
    from domainbed_adm import upstream  # after parsing: --help loads no torch

    try:
        upstream.run_script(upstream.register(known.domainbed or None), words[0], words[1:])
    except LockedError as error:
        print(f"domainbed-adm: error: {error}", file=sys.stderr)
        return ExitCode.LOCKED
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
