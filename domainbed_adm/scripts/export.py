"""Write the network of a finished run for programs without this package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.run_args import add_flags
from domainbed_adm.system.console import Parser

EXAMPLES = """\
  domainbed-adm export results/one --format onnx --out model.onnx
  domainbed-adm export results/one/model_step300.pkl --format torch_export --out model.pt2
  domainbed-adm export results/one --format safetensors --out model.safetensors"""
_FORMATS = ("torch_export", "onnx", "safetensors")


def build_parser() -> Parser:
    """The flags of export."""
    parser = Parser(
        "domainbed-adm export",
        description="Write the network of a finished run, for any batch size, with its classes and preprocessing as\n"
        "metadata (domainbed_adm, JSON). onnx and safetensors need pip install 'domainbed-adm[export]'.",
        examples=EXAMPLES,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a finished run, or a model.pkl")
    parser.add_argument("--format", required=True, choices=_FORMATS, help="safetensors: the weights alone")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="file to write")
    add_flags(parser, ("domainbed",))
    return parser


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code."""
    args = build_parser().parse_args(argv)
    from domainbed_adm.exporting import export
    from domainbed_adm.trained_network import load_model

    print(export(load_model(args.run, "cpu", args.domainbed), args.format, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
