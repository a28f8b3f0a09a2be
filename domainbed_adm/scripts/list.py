"""``list``: the algorithms, datasets, hparams and named sweeps there are; loads no torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from domainbed_adm.cli import run
from domainbed_adm.datasets.cards import CARDS, MNIST, DatasetCard
from domainbed_adm.datasets.environment_names import numbered
from domainbed_adm.hparams_registry import every_hparam, hparams_of
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, FLATNESS, WEIGHTINGS, Card
from domainbed_adm.method.grid import METHODS, Method, OwnMethod, unnamed_methods
from domainbed_adm.registry import load_checkout
from domainbed_adm.run_args import add_flags
from domainbed_adm.sweeping import plan
from domainbed_adm.sweeping.flags import default_datasets
from domainbed_adm.sweeping.jobs import Sweep
from domainbed_adm.system.console import Parser, show
from domainbed_adm.upstream.methods import HostMethod

EXAMPLES = """\
  domainbed-adm list algorithms
  domainbed-adm list hparams --algorithm SAM_SSPL_ADM --dataset PACS
  domainbed-adm list algorithms --domainbed DomainBed
  domainbed-adm list sweeps --json"""

_PROSE = ("about", "meaning", "paper", "environments", "default", "valid", "read by", "needs")
#: A dataset of each of the two kinds whose defaults differ: images of 28 px, and larger ones.
_KINDS = ["RotatedMNIST", "PACS"]

_Rows = list[dict[str, Any]]


def _algorithms(every: bool) -> _Rows:
    return [
        {
            "algorithm": method.name,
            **{f"cost {weighting}": _cost(method, weighting) for weighting in WEIGHTINGS},
            "about": method.summary,
            "paper": method.papers,
        }
        for method in METHODS.values()
        if every or not method.only_by_name or isinstance(method, HostMethod)
    ]


def _cost(method: Method, weighting: str) -> str:
    return "-" if isinstance(method, HostMethod) else f"{method.passes(weighting)}F"


def _datasets() -> _Rows:
    return [
        {
            "dataset": card.name,
            "input": "x".join(map(str, card.input_shape)),
            "classes": card.num_classes or "folders",
            "steps": card.n_steps,
            "needs": _needs(card),
            "environments": _some(card.environments or ()),
            "about": card.summary,
            "paper": card.paper,
        }
        for card in CARDS.values()
    ]


def _needs(card: DatasetCard) -> str:
    """Which folders a run reads."""
    if card.train_of:
        return f"data_dir/{card.directory} and {card.train_of}'s"
    return f"data_dir/{card.directory}" if card.directory else "data_dir" if card.path == MNIST else "-"


def _some(environments: tuple[str, ...]) -> str:
    """Each number and name, as ``--test_envs`` takes either; or of many the first two and the last."""
    if len(environments) <= 12:
        return numbered(environments)
    last = len(environments) - 1
    return f"{numbered(environments[:2])} ... {last} {environments[last]}"


def _hparams(algorithm: str | None, dataset: str | None) -> _Rows:
    kinds = [dataset, dataset] if dataset else _KINDS
    small, large = (hparams_of(algorithm, kind) if algorithm else every_hparam(kind) for kind in kinds)
    host = METHODS.get(algorithm or "")
    drawn = set(host.default_hparams(_KINDS[0])) if isinstance(host, HostMethod) else set()
    rows = []
    for name, hparam in small.items():
        default, other = json.dumps(hparam.default), json.dumps(large[name].default)
        searched, also = bool(hparam.draw), bool(large[name].draw)
        differing = default if default == other else f"{default} (28 px); {other} (larger)"
        rows.append(
            {
                "hparam": name,
                "default": "by the run" if hparam.set_by_run else differing,
                "valid": "-" if hparam.valid is None else str(hparam.valid),
                "searched": "by DomainBed"
                if name in drawn
                else ("yes" if searched else "no")
                if searched == also
                else "not 28 px",
                "read by": host.name if host and name in drawn else _readers(name),
                "meaning": hparam.help,
            }
        )
    return rows


def _readers(name: str) -> str:
    if not any(name in method.hparams for method in METHODS.values()):
        return "every method"
    found = [card.name for card in _cards() if name in {hparam.name for hparam in card.hparams}]
    kinds = ((FLATNESS, METHODS["SAM"]), (CURRICULA, METHODS["SPL_Loss"]))
    return ", ".join(found or [part for cards, method in kinds if name in method.hparams for part in cards])


def _cards() -> list[Card]:
    """The cards of all parts, and of algorithms that are no method of the grid."""
    parts = [card for table in (FLATNESS, CURRICULA, DIFFICULTIES) for card in table.values()]
    own = [method for method in METHODS.values() if isinstance(method, OwnMethod)]
    return [*parts, *(method.card for method in own if not isinstance(method, HostMethod))]


def _sweeps() -> _Rows:
    rows = []
    for name in plan.named_sweeps():
        flags = plan.read_named_sweep(name)
        fields = {key: value for key, value in flags.items() if key in Sweep.__dataclass_fields__}
        sweep = Sweep(**{"datasets": default_datasets(), "algorithms": unnamed_methods(), **fields})
        rows.append({"sweep": name, "jobs": sweep.count(), "about": flags["about"]})
    return rows


def build_parser() -> Parser:
    """What to list."""
    about = "List the algorithms, datasets, hparams and named sweeps there are."
    parser = Parser("domainbed-adm list", description=about, examples=EXAMPLES)
    parser.add_argument("what", choices=("algorithms", "datasets", "hparams", "sweeps"))
    parser.add_argument("--algorithm", help="hparams of this algorithm only")
    parser.add_argument("--dataset", help="hparams with the defaults of this dataset only")
    parser.add_argument("--all", action="store_true", help="algorithms: those too that run only where they are named")
    parser.add_argument("--json", action="store_true", help="a JSON list")
    add_flags(parser, ("domainbed",))
    return parser


def main(argv: Sequence[str]) -> int:
    """Print the table asked for."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.what in ("algorithms", "hparams"):
        load_checkout(args.domainbed)
    if (args.algorithm or args.dataset) and args.what != "hparams":
        parser.error("--algorithm and --dataset go with hparams")
    if args.all and args.what != "algorithms":
        parser.error("--all goes with algorithms")
    tables: dict[str, Callable[[], _Rows]] = {
        "algorithms": partial(_algorithms, args.all),
        "datasets": _datasets,
        "hparams": partial(_hparams, args.algorithm, args.dataset),
        "sweeps": _sweeps,
    }
    rows = tables[args.what]()
    if args.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    if args.what == "algorithms":
        _print([{"part": card.name, "about": card.summary, "paper": card.paper} for card in _cards()], width=120)
        _print([{name: value for name, value in row.items() if name not in _PROSE} for row in rows])
        behind = [card for card in _cards() if card.only_by_name]
        if behind and not args.all:
            names = ", ".join(card.name for card in behind)
            print(f"methods with {names} run only where they are named, and --all lists them.")
        print("cost: one step in F, a forward pass of the batch, by the hparam weighting (plain SAM is 6F, ERM 3F).")
        for card in DIFFICULTIES.values():
            if card.estimate:
                saved = card.cost.forwards - card.estimate.cost.forwards
                print(f"{card.estimate.hparam.name} {card.estimate.value} saves {saved}F of {card.name}.")
            if card.refresh:
                forwards = card.cost.forwards
                print(
                    f"{card.refresh.name} r, with weighting memory, makes {forwards}F of {card.name} {forwards} x r F."
                )
    else:
        _print(rows, width=160)
    return 0


def _print(rows: _Rows, width: int | None = None) -> None:
    show(list(rows[0]), [[str(value) for value in row.values()] for row in rows], prose=_PROSE, width=width)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
