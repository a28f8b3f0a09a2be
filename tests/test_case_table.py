"""Registry, code, hparams, case table and README name the same things: this names whatever was forgotten."""

from pathlib import Path

import pytest

from domainbed_adm import algorithms, hparams_registry
from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, FLATNESS, WEIGHTINGS
from domainbed_adm.method.grid import METHODS, unnamed_methods
from tests import cases

FAMILIES = {
    "difficulty": (DIFFICULTIES, cases.DIFFICULTIES),
    "curriculum": (CURRICULA, cases.CURRICULA),
    "flatness": (FLATNESS, {k: v for k, v in cases.FLATNESS.items() if k}),
}
CARDS = [card for cards, _ in FAMILIES.values() for card in cards.values()]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_has_a_slow_twin(family):
    cards, twins = FAMILIES[family]
    assert set(twins) == set(cards), f"tests/cases.py and method/cards.py name different parts of {family}"


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_card_and_its_class_say_the_same(card):
    """The path finds the class, its constructor takes the card's hparams, with their defaults, and costs agree."""
    defaults = {hparam.name: hparam.default for hparam in card.hparams}
    built = card.build(defaults)
    assert built == type(built)(), f"{card.name}: the constructor and the card have different defaults"
    assert type(built).__name__ == card.name
    arguments = {hparam.argument or hparam.name for hparam in card.hparams}
    assert arguments == set(built.__dataclass_fields__), f"{card.name}: its card does not list every argument"
    assert getattr(built, "passes", 1) == card.cost.passes
    assert getattr(built, "needs_input_gradient", False) == card.cost.input_gradient


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_hparam_of_a_part_is_registered(card):
    for name, method in METHODS.items():
        if card in method.cards:
            assert {hparam.name for hparam in card.hparams} <= hparams_registry.default_hparams(name, "PACS").keys()


def test_one_name_is_one_hparam():
    erm = hparams_registry.default_hparams("ERM", "PACS")
    by_name = {}
    for card in CARDS:
        for hparam in card.hparams:
            assert hparam.name not in erm, f"{card.name}: the network has an hparam {hparam.name}"
            assert by_name.setdefault(hparam.name, hparam) is hparam, f"two hparams are named {hparam.name}"


def test_the_grid_is_the_papers():
    assert len(unnamed_methods()) == 28
    assert list(METHODS)[:28] == unnamed_methods()
    assert list(METHODS) == algorithms.ALGORITHMS
    wanted = {"ERM", "SPL_Loss", "SSPL_ADM", "SAM", "SAM_SPL_GDM", "SAM_SSPL_ADM", "SAGM", "FSAM", "FSAM_SSPL_ADM"}
    assert wanted <= set(algorithms.ALGORITHMS)


def test_every_name_gives_its_class():
    for name in algorithms.ALGORITHMS:
        found = algorithms.get_algorithm_class(name)
        assert found.__name__ == name
        assert getattr(algorithms, name) is found
        assert issubclass(found, algorithms.ERM)
    with pytest.raises(UserError, match="Did you mean SAM_SSPL_ADM"):
        algorithms.get_algorithm_class("SAM_SSPL_ADN")


def test_readme_names_every_part():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for card in CARDS:
        assert f"`{card.name}`" in readme, f"README does not name {card.name}"
        if card.paper != "-":
            assert card.paper.split(":")[1].split(",")[0].strip() in readme, f"README does not cite {card.paper}"


@pytest.mark.parametrize(
    ("name", "both", "descent", "memory", "linear"),
    [("ERM", 3, 3, 3, 3), ("SAM", 6, 6, 6, 6), ("SAM_SSPL_ADM", 8, 7, 7, 7), ("SSPL_ADM", 5, 5, 4, 4)],
)
def test_costs_are_those_of_the_passes(name, both, descent, memory, linear):
    method = METHODS[name]
    assert [method.passes(w) for w in WEIGHTINGS] == [both, descent, memory]
    assert method.passes("both", adm_estimator="linear") == linear
