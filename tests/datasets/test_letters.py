"""Letters in matplotlib's fonts: the same in every run, one family a domain."""

import pytest
import torch

from domainbed_adm.datasets import get_dataset_class, letters
from domainbed_adm.errors import UserError


@pytest.fixture(scope="module")
def dataset():
    return get_dataset_class("Letters")(None, [0], {})


def test_attributes_and_items(dataset):
    assert (dataset.input_shape, dataset.num_classes, len(dataset)) == ((1, 28, 28), 26, 5)
    assert dataset.environments == list(letters.FAMILIES)
    for environment in dataset:
        assert len(environment) == 26 * letters.PER_LETTER
        assert environment.inputs.shape == (len(environment), 1, 28, 28)
        assert environment.inputs.dtype == torch.float32
        assert environment.inputs.min() >= 0
        assert environment.inputs.max() <= 1
        assert environment[31][1] == 1
        # a letter is there: some bright pixels, most of them dark
        lit = (environment.inputs > 0.5).float().mean((1, 2, 3))
        assert (lit > 0.005).float().mean() > 0.95
        assert lit.max() < 0.6


def test_the_same_in_every_run_and_different_in_every_domain(dataset):
    again = letters.drawn(letters.fonts_folder(), "Serif")
    assert torch.equal(again.inputs, dataset[1].inputs)
    assert again.fingerprint == dataset[1].fingerprint
    assert len({environment.fingerprint for environment in dataset}) == 5
    assert not torch.equal(dataset[0].inputs, dataset[1].inputs)


def test_a_nearest_mean_knows_letters_but_domains_differ(dataset):
    """What a label says is in the picture, in another family less than in its own."""

    def means(environment):
        return torch.stack([environment.inputs[environment.targets == k].mean(0) for k in range(26)]).flatten(1)

    def accuracy(centres, environment):
        found = torch.cdist(environment.inputs.flatten(1), centres).argmin(1).numpy()
        return (found == environment.targets).mean()

    own = accuracy(means(dataset[0]), dataset[0])
    other = accuracy(means(dataset[0]), dataset[4])
    assert own > other > 3 / 26


def test_without_matplotlib_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(letters, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'domainbed-adm\[figures\]'"):
        letters.fonts_folder()
    with pytest.raises(UserError, match="cannot read a font of matplotlib"):
        letters.drawn(tmp_path, "CM")
