"""What each dataset is, as data: environments, sizes, schedule, normalisation. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from domainbed_adm.registry import load_extensions


@dataclass(frozen=True)
class Normalization:
    """Per-channel ``(pixel - mean) / std`` of pixels in [0, 1]; its ``std`` turns ADM's alpha into input units."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
#: ImageNet's statistics of the grey image, for folder datasets read with ``image_channels`` 1.
IMAGENET_GREY = Normalization((0.449,), (0.226,))


@dataclass(frozen=True)
class DatasetCard:
    """One dataset's facts.

    ``environments`` is None where only the user's folder knows them, ``num_classes`` where the folder decides it.
    ``path`` is ``module:Class``, a subclass of ``base.MultipleDomainDataset`` that builds it, or a function of the card
    that returns one; ``directory`` the folder below ``data_dir``.
    ``sizes`` are the published numbers of images of each environment, one tuple for each published version.
    """

    name: str
    summary: str
    paper: str
    path: str
    environments: tuple[str, ...] | None
    input_shape: tuple[int, int, int] = (3, 224, 224)
    num_classes: int | None = None
    directory: str | None = None
    n_steps: int = 5001
    checkpoint_freq: int = 100
    n_workers: int = 0
    sizes: tuple[tuple[int, ...], ...] = ()

    @property
    def module(self) -> str:
        """Name of the file that builds it, of this package's ``folders``, ``digits``, ``mnist`` and ``debug``."""
        return self.path.partition(":")[0].removeprefix("domainbed_adm.datasets.")

    @property
    def small_images(self) -> bool:
        """Whether DomainBed's hparams for 28 px images apply."""
        return self.input_shape[1:] == (28, 28)


def folder_card(
    name: str,
    directory: str | None = None,
    environments: tuple[str, ...] | None = None,
    sizes: tuple[tuple[int, ...], ...] = (),
    **facts: str,
) -> DatasetCard:
    """Card of a dataset that lies as ``<data_dir>/<directory>/<domain>/<class>/<image>``."""
    return DatasetCard(
        name,
        facts.get("summary", "your own folder of images"),
        facts.get("paper", "-"),
        "domainbed_adm.datasets.folders:dataset_class",
        environments,
        directory=directory or name,
        checkpoint_freq=300,
        n_workers=8,
        sizes=sizes,
    )


_ANGLES = ("0", "15", "30", "45", "60", "75")
_COLORS = ("+90%", "+80%", "-90%")
_NOISE = "domainbed_adm.datasets.debug:DebugDataset"

CARDS = {
    card.name: card
    for card in (
        DatasetCard("Debug28", "random noise, for tests", "-", _NOISE, ("0", "1", "2"), (3, 28, 28), 2),
        DatasetCard("Debug224", "random noise, for tests", "-", _NOISE, ("0", "1", "2"), (3, 224, 224), 2),
        DatasetCard(
            "RotatedDigits",
            "handwritten digits of scikit-learn, rotated by 0 to 75 degrees; no download",
            "UCI digits: Alpaydin and Kaynak, 1998",
            "domainbed_adm.datasets.digits:dataset_class",
            _ANGLES,
            (1, 28, 28),
            10,
            n_steps=1001,
        ),
        DatasetCard(
            "ColoredDigits",
            "handwritten digits of scikit-learn, colour tied to the label; no download",
            "UCI digits: Alpaydin and Kaynak, 1998; colours: Arjovsky et al., 2019",
            "domainbed_adm.datasets.digits:dataset_class",
            _COLORS,
            (2, 28, 28),
            2,
            n_steps=1001,
        ),
        DatasetCard(
            "ColoredMNIST",
            "MNIST digits, colour tied to the label",
            "Arjovsky et al., 2019, arXiv 1907.02893",
            "domainbed_adm.datasets.mnist:dataset_class",
            _COLORS,
            (2, 28, 28),
            2,
        ),
        DatasetCard(
            "RotatedMNIST",
            "MNIST digits rotated by 0 to 75 degrees",
            "Ghifary et al., ICCV 2015",
            "domainbed_adm.datasets.mnist:dataset_class",
            _ANGLES,
            (1, 28, 28),
            10,
        ),
        folder_card(
            "VLCS",
            None,
            ("C", "L", "S", "V"),
            ((1415, 2656, 3282, 3376),),
            summary="photos of four collections",
            paper="Fang et al., ICCV 2013",
        ),
        folder_card(
            "PACS",
            None,
            ("A", "C", "P", "S"),
            ((2048, 2344, 1670, 3929),),
            summary="art paintings, cartoons, photos, sketches",
            paper="Li et al., ICCV 2017",
        ),
        folder_card(
            "OfficeHome",
            "office_home",
            ("A", "C", "P", "R"),
            ((2427, 4365, 4439, 4357),),
            summary="art, clip art, product and real photos of 65 objects",
            paper="Venkateswara et al., CVPR 2017",
        ),
        folder_card(
            "TerraIncognita",
            "terra_incognita",
            ("L100", "L38", "L43", "L46"),
            # As papers count, and as the source's labels have been since: DomainBed's script gets the latter.
            ((4879, 9767, 4020, 6122), (4741, 9736, 3970, 5883)),
            summary="wild animals at four camera traps",
            paper="Beery et al., ECCV 2018",
        ),
    )
}


def get_card(name: str) -> DatasetCard:
    """Return the card of a known dataset, or the card of a folder dataset of that name."""
    load_extensions()
    return CARDS.get(name) or folder_card(name)
