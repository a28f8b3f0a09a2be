"""Registry, code, hparams, case table and README name the same things: this names whatever was forgotten."""

from pathlib import Path

import pytest

from domainbed_adm import algorithms, hparams_registry
from domainbed_adm.errors import UserError
from domainbed_adm.method import cards as methods
from domainbed_adm.method import curriculum, difficulty, flatness
from tests import cases

FAMILIES = {
    "difficulty": (methods.DIFFICULTIES, difficulty.FROM_HPARAMS, cases.DIFFICULTIES),
    "curriculum": (methods.CURRICULA, curriculum.FROM_HPARAMS, cases.CURRICULA),
    "flatness": (methods.FLATNESS, flatness.FROM_HPARAMS, {k: v for k, v in cases.FLATNESS.items() if k}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_has_code_and_a_slow_twin(family):
    cards, code, twins = FAMILIES[family]
    assert set(code) == set(cards), f"{family}.FROM_HPARAMS and methods name different parts"
    assert set(twins) == set(cards), f"tests/cases.py and methods name different parts of {family}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_hparam_of_a_part_is_registered(family):
    for card in FAMILIES[family][0].values():
        for name, method in methods.METHODS.items():
            if card in method.cards:
                assert set(card.hparams) <= hparams_registry.default_hparams(name, "PACS").keys()


def test_the_grid_is_the_papers():
    assert len(methods.METHODS) == 28
    assert list(methods.METHODS) == algorithms.ALGORITHMS
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


def test_readme_names_every_part_and_hparam():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for cards, *_ in FAMILIES.values():
        for card in cards.values():
            assert f"`{card.name}`" in readme, f"README does not name {card.name}"
            assert card.paper.split(":")[1].split(",")[0].strip() in readme, f"README does not cite {card.paper}"
    for card in [c for cards, *_ in FAMILIES.values() for c in cards.values()]:
        for name in card.hparams:
            assert f"`{name}`" in readme, f"README does not name the hparam {name}"


@pytest.mark.parametrize(
    ("name", "both", "descent", "memory", "linear"),
    [("ERM", 3, 3, 3, 3), ("SAM", 6, 6, 6, 6), ("SAM_SSPL_ADM", 8, 7, 7, 7), ("SSPL_ADM", 5, 5, 4, 4)],
)
def test_costs_are_method_mds(name, both, descent, memory, linear):
    method = methods.METHODS[name]
    assert [method.passes(w) for w in methods.WEIGHTINGS] == [both, descent, memory]
    assert method.passes("both", "linear") == linear
