"""What the pages do not type: tables of the registry, help of the commands, and texts that lie elsewhere.

A line ``<!-- generated: NAME ARGUMENT -->`` of a page becomes what the function ``NAME`` returns. The benchmarks, the
changelog and the named sweeps become pages of the site.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import domainbed_adm
from domainbed_adm import run_files
from domainbed_adm.cli import COMMANDS, main
from domainbed_adm.datasets.cards import CARDS as DATASETS
from domainbed_adm.hparams_registry import hparams_of
from domainbed_adm.method.cards import (
    CURRICULA,
    CURRICULUM_HPARAMS,
    DIFFICULTIES,
    FLATNESS,
    FLATNESS_HPARAMS,
    WEIGHTINGS,
    Card,
)
from domainbed_adm.method.grid import METHODS, Method
from domainbed_adm.method.hparams import Hparam, Log2Integer, LogUniform, OneOf, Uniform

ROOT = Path(__file__).parents[1]
PACKAGE = Path(domainbed_adm.__file__).parent
FAMILIES = {"difficulty": DIFFICULTIES, "curriculum": CURRICULA, "flatness": FLATNESS}
PARTS = {name: card for family in FAMILIES.values() for name, card in family.items()}
#: Commands with a --help of their own beside those of ``COMMANDS``.
SUBCOMMANDS = {"sweep": ["work"], "analyze": ["hessian", "landscape", "difficulty", "predictions"]}
#: A dataset of each kind whose defaults differ.
KINDS = {"28 px": "RotatedMNIST", "photos": "PACS", "CIFAR": "CIFAR10", "fine-grained": "CUB200"}
MARK = re.compile(r"^<!-- generated: (\w+)(?: ([\w.]+))? -->$", re.MULTILINE)
#: Texts of the repository that are pages, and what of them is no page.
COPIES = {"CHANGELOG.md": "reference/changelog.md", "sweeps/README.md": "reference/named-sweeps.md"}
NO_PAGES = re.compile(r"\[([^\]]+)\]\((?:results|\.\./[^)]*)\)")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def value(of: Any) -> str:
    """A default, short: 0.03137 for 8/255."""
    return f"{of:.4g}" if isinstance(of, float) else json.dumps(of)


def draw(of: Uniform | OneOf | None) -> str:
    """What a random search draws."""
    if isinstance(of, OneOf):
        return "one of " + ", ".join(map(value, of.values))
    kinds = {LogUniform: "10^U({}, {})", Log2Integer: "integer part of 2^U({}, {})", Uniform: "U({}, {})"}
    return "-" if of is None else kinds[type(of)].format(value(of.low), value(of.high))


def hparam_table(hparams: Iterable[Hparam]) -> str:
    """Name, default, valid range, random draw and meaning."""
    rows = [
        [
            f"`{one.name}`",
            "by the run" if one.set_by_run else f"`{value(one.default)}`",
            "-" if one.valid is None else str(one.valid),
            draw(one.draw),
            one.help,
        ]
        for one in hparams
    ]
    return table(["hparam", "default", "valid", "random search", "meaning"], rows) if rows else "It has no hparams."


def hparams(name: str) -> str:
    """Those of a part, or of every method with a ``curriculum`` or a ``flatness`` rule."""
    families = {"curriculum": CURRICULUM_HPARAMS, "flatness": FLATNESS_HPARAMS}
    return hparam_table(families[name] if name in families else PARTS[name].hparams)


def hparams_of_every_method() -> str:
    """Those of networks, data and optimizers, with the default of each kind of dataset."""
    found = [hparams_of("ERM", dataset) for dataset in KINDS.values()]
    rows = []
    for name, first in found[0].items():
        defaults = [value(kind[name].default) for kind in found]
        draws = list(dict.fromkeys(draw(kind[name].draw) for kind in found))
        same = len(set(defaults)) == 1
        shown = defaults[0] if same else ", ".join(map(": ".join, zip(KINDS, defaults, strict=True)))
        rows.append([f"`{name}`", shown, str(first.valid or "-"), "; ".join(draws), first.help])
    return table(["hparam", "default", "valid", "random search", "meaning"], rows)


def _cost(method: Method, **chosen: str) -> list[str]:
    return [f"{method.passes(weighting, **chosen):g} F" for weighting in WEIGHTINGS]


def facts(name: str) -> str:
    """What a part is, where it is from, its class, and what methods with it cost."""
    card = PARTS[name]
    about = [["source", card.paper], ["class", f"`{card.path.replace(':', '.')}`"]]
    about += [["unit", card.unit]] if card.unit else []
    runs = "where it is named (`list algorithms --all`)" if card.only_by_name else "in sweeps that name no method too"
    about.append(["runs", runs])
    return f"{table([f'`{name}`', card.summary], about)}\n\n{costs(card)}"


def costs(card: Card) -> str:
    """Forward passes of a step of the methods with this part, by ``weighting``."""
    if card.name in FLATNESS:
        names = [card.name, f"{card.name}_SSPL_Loss", f"{card.name}_SSPL_ADM"]
    elif card.name in CURRICULA:
        names = [f"{card.name}_Loss", f"SAM_{card.name}_Loss", f"SAM_{card.name}_ADM"]
    else:
        names = [f"SSPL_{card.name}", f"SAM_SSPL_{card.name}"]
    rows = [[f"`{name}`", *_cost(METHODS[name])] for name in ("ERM", *names)]
    if card.estimate:
        chosen = {card.estimate.hparam.name: card.estimate.value}
        rows += [
            [f"`{name}`, `{card.estimate.hparam.name}` {card.estimate.value}", *_cost(METHODS[name], **chosen)]
            for name in names
        ]
    return table(["cost of a step", *(f"`{weighting}`" for weighting in WEIGHTINGS)], rows)


def parts(family: str) -> str:
    """The parts of a family, each with a link to its card."""
    rows = [
        [
            f"[`{card.name}`]({card.name}.md)" + " (by name)" * card.only_by_name,
            card.summary,
            ", ".join(f"`{one.name}`" for one in card.hparams if not one.set_by_run) or "-",
            card.paper,
        ]
        for card in FAMILIES[family].values()
    ]
    return table([family, "what it is", "hparams", "source"], rows)


def methods() -> str:
    """Every method with its cost."""
    rows = [[f"`{name}`" + " (by name)" * one.only_by_name, *_cost(one)] for name, one in METHODS.items()]
    return table(["method", *(f"`{weighting}`" for weighting in WEIGHTINGS)], rows)


def dataset(name: str) -> str:
    """The facts of one dataset."""
    card = DATASETS[name]
    environments = card.environments or ()
    shown = ", ".join(environments) if len(environments) < 10 else f"train and {len(environments) - 1} corrupted sets"
    length = f"{card.n_epochs} epochs" if card.n_epochs else f"{card.n_steps} steps"
    rows = [
        ["environments", shown],
        ["input", " x ".join(map(str, card.input_shape))],
        ["classes", str(card.num_classes or "those of the folder")],
        ["length by default", f"{length}, evaluated every {card.checkpoint_freq} steps"],
        ["images", "; or ".join(", ".join(f"{size:,}" for size in sizes) for sizes in card.sizes) or "-"],
        ["folder", f"`{card.directory}`" if card.directory else "none"],
        ["source", card.paper],
    ]
    return table([f"`{name}`", card.summary], rows)


def datasets() -> str:
    """Every dataset, with a link to its card."""
    pages = {name: page for page in ("digits", "photos", "classification") for name in carded(f"datasets/{page}.md")}
    rows = [
        [
            f"[`{card.name}`]({pages[card.name]}.md#{card.name.lower()})",
            card.summary,
            " x ".join(map(str, card.input_shape)),
            str(card.num_classes or "-"),
            str(len(card.environments or ())),
        ]
        for card in DATASETS.values()
    ]
    return table(["dataset", "what it is", "input", "classes", "environments"], rows)


def carded(page: str) -> list[str]:
    """The datasets whose facts stand on a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [name for function, name in MARK.findall(text) if function == "dataset"]


def helps() -> str:
    """What each command's ``--help`` prints."""
    names = [[name, *(f"{name} {sub}" for sub in SUBCOMMANDS.get(name, ()))] for name in COMMANDS]
    return "\n\n".join(f"## {name}\n\n```text\n{help_of(name)}```" for group in names for name in group)


def help_of(command: str) -> str:
    """The ``--help`` of one command, at 100 columns, without this machine's paths."""
    printed = io.StringIO()
    before = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS="100", NO_COLOR="1")
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*command.split(), "--help"])
    finally:
        for name, was in before.items():
            os.environ.pop(name) if was is None else os.environ.update({name: was})
    return printed.getvalue().replace(str(PACKAGE), "domainbed_adm")


def exit_codes() -> str:
    """The codes of ``run_files.ExitCode`` with the comments above them."""
    lines = Path(run_files.__file__).read_text(encoding="utf-8").splitlines()
    (codes,) = [node for node in ast.parse("\n".join(lines)).body if getattr(node, "name", "") == "ExitCode"]
    rows = []
    for node in codes.body[1:]:  # type: ignore[attr-defined]
        above = lines[node.lineno - 2].strip()
        name, code = node.targets[0].id, node.value.value
        rows.append([f"`{code}`", name, above[3:] if above.startswith("#: ") else "Done."])
    return table(["code", "name", "meaning"], rows)


def api() -> str:
    """The public names of the package, each documented from its docstring."""
    homes = domainbed_adm._PUBLIC  # noqa: SLF001
    return "\n\n".join(f"::: domainbed_adm.{homes[name]}.{name}" for name in homes)


GENERATED: dict[str, Callable[..., str]] = {
    one.__name__: one
    for one in (*(hparams, hparams_of_every_method, facts, parts, methods, dataset, datasets, helps, exit_codes, api),)
}


def on_config(config: Any) -> Any:
    """Name the benchmarks' pages."""
    pages = [f"benchmarks/{path.name}" for path in benchmark_pages()]
    config.nav = [{"Benchmarks": pages} if one == {"Benchmarks": "benchmarks"} else one for one in config.nav]
    return config


def benchmark_pages() -> list[Path]:
    """The texts beside the benchmarks, the overview first."""
    return sorted((ROOT / "benchmarks").glob("*.md"), key=lambda path: (path.name != "README.md", path.name))


def on_files(files: Any, config: Any) -> Any:
    """Add the texts that lie elsewhere in the repository."""
    from mkdocs.structure.files import File

    sources = {ROOT / source: page for source, page in COPIES.items()}
    sources |= {path: f"benchmarks/{path.name}" for path in benchmark_pages()}
    for source, page in sources.items():
        content = NO_PAGES.sub(r"\1", source.read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put what is generated into a page."""
    return MARK.sub(lambda found: GENERATED[found[1]](*filter(None, [found[2]])), markdown)
