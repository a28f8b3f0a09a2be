"""An example package that adds a difficulty, an algorithm and a dataset to domainbed_adm; loads no torch by itself."""

from domainbed_adm.extensions import Card, DatasetCard, Hparam, Number, add_algorithm, add_dataset, add_difficulty


def extend():
    add_difficulty(
        Card("Margin", "loss over its scale", "-", ("margin_power",), build=margin),
        [Hparam("margin_power", 2.0, Number(0), "power of the loss", lambda random: random.uniform(1, 3))],
    )
    add_algorithm(
        Card("Centred", "ERM with each domain's mean taken from its inputs", "-", ("centring",), build=centred),
        [Hparam("centring", 0.5, Number(0, 1), "share of the mean")],
    )
    add_dataset(
        DatasetCard("Stripes", "bright and dark stripes", "-", "", ("0", "1"), (3, 28, 28), 2, n_steps=6), stripes
    )


def margin(hparams):
    from adm_example.difficulty import Margin

    return Margin(hparams["margin_power"])


def centred(erm):
    from adm_example.algorithm import centred_class

    return centred_class(erm)


def stripes(card):
    from adm_example.dataset import Stripes
    from domainbed_adm.datasets.base import class_of_card

    return class_of_card(Stripes, card)
