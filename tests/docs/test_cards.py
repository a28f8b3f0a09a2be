"""Every method part and dataset has a card, and what the site generates holds what the registry says."""

from __future__ import annotations

import re

import pytest

from domainbed_adm import run_files
from domainbed_adm.cli import COMMANDS
from domainbed_adm.datasets.cards import CARDS as DATASETS
from domainbed_adm.hparams_registry import every_hparam
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, FLATNESS
from domainbed_adm.method.grid import METHODS
from tests.docs.pages import ROOT, hooks

PARTS = {**FLATNESS, **CURRICULA, **DIFFICULTIES}


def built(page: str) -> str:
    """The Markdown of a page with what is generated in it."""
    text = hooks().on_page_markdown((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert "<!-- generated" not in text
    return str(text)


@pytest.mark.parametrize("name", PARTS)
def test_every_part_has_a_card(name: str) -> None:
    text, card = built(f"methods/{name}.md"), PARTS[name]
    assert card.summary in text
    assert card.paper in text
    for hparam in card.hparams:
        assert f"| `{hparam.name}` |" in text
        assert hparam.help.replace("|", "\\|") in text
    assert re.search(r"^## When (it helps, and when not|to use it)$", text, re.MULTILINE)
    assert f"methods/{name}.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"[`{name}`]({name}.md)" in built("methods/index.md")


def test_every_dataset_has_a_card() -> None:
    pages = ("digits.md", "photos.md", "classification.md")
    carded = [name for page in pages for name in hooks().carded(f"datasets/{page}")]
    assert sorted(carded) == sorted(DATASETS)
    text = "".join(built(f"datasets/{page}") for page in pages)
    for card in DATASETS.values():
        assert f"\n## {card.name}\n" in text
        assert card.summary in text
    assert all(f"[`{name}`](" in built("datasets/index.md") for name in DATASETS)


def test_tables_hold_every_method_and_hparam() -> None:
    index = built("methods/index.md")
    assert all(f"| `{name}`" in index for name in METHODS)
    text = "".join(map(built, ("reference/hparams.md", *(f"methods/{name}.md" for name in PARTS))))
    assert {name for name in every_hparam() if f"| `{name}` |" not in text} == set()


def test_defaults_and_draws_are_the_registrys() -> None:
    assert "| `rho` | `0.05` | a number in [0, inf) | 10^U(-2, -0.7) |" in built("methods/SAM.md")
    assert "28 px: 0.001, photos: 5e-05, CIFAR: 0.05, fine-grained: 0.01" in built("reference/hparams.md")


def test_commands_files_and_exit_codes_are_all_there() -> None:
    commands = built("reference/commands.md")
    assert all(f"## {name}\n\n```text\nusage: domainbed-adm {name}" in commands for name in COMMANDS)
    assert str(ROOT) not in commands
    files = built("reference/files.md")
    names = ("RESULTS", "DONE", "MODEL", "OUT", "ERR", "CHECKPOINT", "LOCK", "FAILED", "DIVERGED", "DIFFICULTY")
    names += ("TENSORBOARD", "PLAN", "CLAIMS", "SEARCH", "JOURNAL", "TRIALS", "PRUNED")
    names += ("METRICS", "LOGGER_STATES", "PREDICTIONS")
    assert [name for name in names if f"`{getattr(run_files, name)}" not in files] == []
    codes = built("reference/exit-codes.md")
    assert all(f"| `{code.value}` | {code.name} |" in codes for code in run_files.ExitCode)
