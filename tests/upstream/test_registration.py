"""What registration adds to a host, and what it leaves alone."""

import json

import pytest
import torch

from domainbed_adm import algorithms, hparams_registry, networks, upstream
from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.errors import UserError
from domainbed_adm.extensions import Card, Hparam, add_algorithm, add_dataset, add_difficulty, folder_card
from domainbed_adm.method.grid import METHODS, unnamed_methods
from domainbed_adm.testing import check_algorithm
from domainbed_adm.upstream.run import input_std
from tests.extending import install
from tests.upstream.conftest import HOST

OURS = [name for name in METHODS if name != "ERM"]
SHAPE = (3, 28, 28)


def minibatches(seed):
    random = torch.Generator().manual_seed(seed)
    return [(torch.rand(4, *SHAPE, generator=random), torch.randint(2, (4,), generator=random)) for _ in range(2)]


def after_five_steps(algorithm):
    torch.manual_seed(1)
    figures = [algorithm.update(minibatches(t)) for t in range(5)]
    return figures, algorithm.state_dict()


def test_every_name_of_the_host_knows_every_method(host):
    modules = host.host
    assert ["ERM", "Smoothed", *unnamed_methods()[1:]] == modules.algorithms.ALGORITHMS
    for name in OURS:
        found = modules.algorithms.get_algorithm_class(name)
        assert issubclass(found, modules.algorithms.ERM)
        assert found.__name__ == name
        assert modules.hparams_registry.default_hparams(name, "Debug28")["lr"] == 1e-3
    assert modules.algorithms.ERM.__module__ == "domainbed.algorithms"
    assert [name for name in modules.datasets.DATASETS if name not in CARDS] == ["Pixels", "Photos", "Secret"]
    assert [name for name in modules.datasets.DATASETS if name in CARDS] == list(CARDS)
    assert modules.datasets.Debug28.__module__ == "domainbed.datasets"


def test_twice_changes_nothing(host):
    modules = host.host
    before = [dict(vars(module)) for module in (modules.algorithms, modules.hparams_registry, modules.datasets)]
    lists = [
        list(modules.algorithms.ALGORITHMS),
        list(modules.datasets.DATASETS),
        dict(modules.command_launchers.REGISTRY),
    ]
    assert upstream.register() is host
    assert [dict(vars(module)) for module in (modules.algorithms, modules.hparams_registry, modules.datasets)] == before
    assert lists == [modules.algorithms.ALGORITHMS, modules.datasets.DATASETS, modules.command_launchers.REGISTRY]


@pytest.mark.parametrize("seed", [None, 1, 7])
@pytest.mark.parametrize("name", ["ERM", "Smoothed", "SAM_SSPL_ADM", "FSAM_SPL_Loss"])
def test_the_hosts_draws_do_not_move_and_ours_are_the_engines(monkeypatch, name, seed):
    monkeypatch.syspath_prepend(HOST)
    from domainbed import hparams_registry as theirs

    def draw(registry, dataset="Photos"):
        if seed is None:
            return registry.default_hparams(name, dataset)
        return registry.random_hparams(name, dataset, seed)

    alone = draw(theirs)
    upstream.register()
    together = draw(theirs)
    assert {key: together[key] for key in alone} == alone
    assert list(together)[: len(alone)] == list(alone)
    added = {key: value for key, value in together.items() if key not in alone}
    if name not in METHODS or name == "ERM":
        assert added == {}
        return
    engine = draw(hparams_registry, "PACS")
    assert added == {key: engine[key] for key, hparam in METHODS[name].hparams.items() if not hparam.set_by_run}
    assert json.loads(json.dumps(added)) == added


def test_our_small_datasets_have_the_hosts_hparams_of_small_images(host):
    registry = host.host.hparams_registry
    assert registry.default_hparams("ERM", "RotatedDigits")["lr"] == 1e-3
    assert registry.default_hparams("ERM", "PACS")["lr"] == 5e-5


@pytest.mark.parametrize("weighting", ["both", "descent"])
@pytest.mark.parametrize("name", METHODS)
def test_both_hosts_train_the_same(monkeypatch, host, name, weighting):
    """From the same weights and the same minibatches; the host's network, with BatchNorm and dropout, in both."""
    host.run.total_steps = 5
    modules = host.host
    given = modules.hparams_registry.default_hparams(name, "Pixels") | {
        "weighting": weighting,
        "input_std": [0.2, 0.3, 0.4],
    }
    torch.manual_seed(0)
    theirs = modules.algorithms.get_algorithm_class(name)(SHAPE, 2, 2, given)
    monkeypatch.setattr(networks, "Featurizer", theirs.featurizer.__class__)
    ours = algorithms.get_algorithm_class(name)(SHAPE, 2, 2, {**given, "total_steps": 5})
    ours.load_state_dict(theirs.state_dict())
    found, wanted = after_five_steps(theirs), after_five_steps(ours)
    losses = [[figures["loss"] for figures in one[0]] for one in (found, wanted)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # ERM's mean is added up in another order
    assert found[1].keys() == wanted[1].keys()
    for key, value in found[1].items():
        assert torch.equal(value, wanted[1][key]), key


@pytest.mark.parametrize("name", ["SAM", "SAM_SSPL_ADM", "FSAM_SPL_GDM"])
def test_the_registered_classes_conform(host, name):
    found = host.host.algorithms.get_algorithm_class(name)
    check_algorithm(found, {"host_dropout": 0.25})


def built(host, name="SAM_SSPL_ADM", dataset="Photos", **given):
    modules = host.host
    hparams = modules.hparams_registry.default_hparams(name, dataset) | given
    modules.datasets.get_dataset_class(dataset)(None, [0], hparams)
    return modules.algorithms.get_algorithm_class(name)(SHAPE, 2, 2, hparams)


def test_progress_is_never_assumed(host):
    with pytest.raises(UserError, match=r"SAM_SSPL_ADM needs to know how many steps .*register\(total_steps=...\)"):
        built(host)
    assert built(host, "SAM").step.difficulty is None
    assert built(host, total_steps=9).step.total_steps == 9
    upstream.register(total_steps=7)
    algorithm = built(host)
    assert algorithm.step.total_steps == 7
    assert algorithm.hparams["total_steps"] == 7


def test_only_the_class_itself_is_watched_and_once(host, monkeypatch):
    class Base:
        def __init__(self, root, test_envs, hparams):
            self.root = root

    class Below(Base):
        pass

    noted = []
    monkeypatch.setattr(host.run, "note_dataset", lambda dataset, hparams: noted.append(hparams))
    monkeypatch.setattr(host.host.datasets, "Base", Base, raising=False)
    monkeypatch.setattr(host.host.datasets, "Below", Below, raising=False)
    for _ in range(2):
        host.watch_dataset("Base")
    Below("a", [], {"of": "below"})
    Base("a", [], hparams={"of": "base"})
    assert noted == [{"of": "base"}]
    host.watch_dataset("Below")
    Below("a", [], {"of": "below"})
    assert noted == [{"of": "base"}, {"of": "below"}]


@pytest.mark.parametrize(("dataset", "std"), [("Debug28", None), ("Pixels", None), ("Photos", [0.2, 0.3, 0.4])])
def test_the_normalisation_is_the_datasets(host, dataset, std):
    host.run.total_steps = 5
    algorithm = built(host, dataset=dataset)
    assert algorithm.step.difficulty.input_std == algorithm.hparams["input_std"] == std


def test_a_normalisation_that_cannot_be_known_must_be_given(host):
    host.run.total_steps = 5
    with pytest.raises(
        UserError, match=r"inputs of Secret are normalised, but its transform has no .* a Lambda .*null"
    ):
        built(host, dataset="Secret")
    assert built(host, dataset="Secret", input_std=[2, 2, 2]).step.difficulty.input_std == [2, 2, 2]
    assert built(host, "SAM_SSPL_GDM", dataset="Secret").step.difficulty is not None
    hparams = host.host.hparams_registry.default_hparams("SPL_ADM", "Photos")
    with pytest.raises(UserError, match="no dataset was built with the hparams that it got"):
        host.host.algorithms.SPL_ADM(SHAPE, 2, 2, hparams)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"weighting": "memory"}, "DomainBed does not say: use 'both' or 'descent', or our own engine"),
        ({"rho": -1}, r"hparam rho must be a number in \[0, inf\), not -1"),
        ({"sspl_eta": "1"}, "hparam sspl_eta must be"),
    ],
)
def test_hparams_that_cannot_work(host, given, message):
    host.run.total_steps = 5
    with pytest.raises(UserError, match=message):
        built(host, **given)


def test_extensions_reach_the_host(monkeypatch, tmp_path, host):
    install(monkeypatch, tmp_path)
    modules, known = upstream.register(total_steps=5).host, unnamed_methods()
    assert modules.algorithms.ALGORITHMS[2:] == known[1:]
    assert "Centred" in known
    algorithm = built(host, "Reverse_Capped_Margin")
    assert type(algorithm.step.flatness).__module__ == "adm_example.flatness"
    assert (algorithm.step.flatness.rho, algorithm.step.difficulty.power) == (0.05, 2.0)
    assert algorithm.update(minibatches(0))["loss"] > 0
    centred = built(host, "Centred")
    assert isinstance(centred, modules.algorithms.ERM)
    assert centred.update(minibatches(0))["loss"] > 0
    assert built(host, "SPL_ADM", "Stripes").step.difficulty.input_std is None
    assert modules.datasets.num_environments("Stripes") == 2
    assert "margin_power" not in modules.hparams_registry.default_hparams("SAM", "Pixels")


def test_what_is_added_after_registration_follows(host):
    add_difficulty(Card("Late", "-", "-", "nowhere:Late", (Hparam("late", 3, None, "-"),)))
    add_dataset(folder_card("Photos", None, ("a", "b")))
    upstream.register()
    assert host.host.hparams_registry.default_hparams("SAGM_SPL_Late", "Pixels")["late"] == 3
    assert host.host.datasets.Photos.ENVIRONMENTS == ["0", "1", "2"]


def test_a_name_of_the_hosts_is_refused_before_anything_is_added(host):
    add_algorithm(Card("Fine", "-", "-", "nowhere:fine"))
    add_algorithm(Card("Smoothed", "-", "-", "nowhere:smoothed"))
    with pytest.raises(UserError, match="already has a Smoothed"):
        upstream.register()
    assert "Fine" not in host.host.algorithms.ALGORITHMS


def test_our_folders_are_augmented_in_the_host(host, image_folder):
    add_dataset(folder_card("Shapes", None, ("dark", "light", "tinted")))
    upstream.register()
    hparams = {"image_size": 28, "data_augmentation": True}
    dataset = host.host.datasets.Shapes(str(image_folder), [0], hparams)
    assert torch.equal(dataset[0][1][0], dataset[0][1][0])
    assert not torch.equal(dataset[1][1][0], dataset[1][1][0])
    assert dataset[1][1][1] == dataset[1].targets[1]
    assert input_std(dataset) == [0.229, 0.224, 0.225]
