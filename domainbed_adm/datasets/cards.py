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
    ``path`` is ``module:Class``, the subclass of ``base.MultipleDomainDataset`` that builds it; ``directory`` the
    folder below ``data_dir``.
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
    summary: str = "your own folder of images",
    paper: str = "-",
) -> DatasetCard:
    """Card of a dataset that lies as ``<data_dir>/<directory>/<domain>/<class>/<image>``."""
    return DatasetCard(
        name,
        summary,
        paper,
        "domainbed_adm.datasets.folders:FolderDataset",
        environments,
        directory=directory or name,
        checkpoint_freq=300,
        n_workers=8,
        sizes=sizes,
    )


#: TerraIncognita's as papers count, and as the source's labels have been since; DomainBed's script gets the latter.
_SIZES = {
    "VLCS": ((1415, 2656, 3282, 3376),),
    "PACS": ((2048, 2344, 1670, 3929),),
    "OfficeHome": ((2427, 4365, 4439, 4357),),
    "TerraIncognita": ((4879, 9767, 4020, 6122), (4741, 9736, 3970, 5883)),
}


def _folder(name: str, directory: str, environments: str, summary: str, paper: str) -> DatasetCard:
    return folder_card(name, directory, tuple(environments.split()), _SIZES[name], summary, paper)


def _noise(name: str, size: int) -> DatasetCard:
    path = "domainbed_adm.datasets.debug:DebugDataset"
    return DatasetCard(name, "random noise, for tests", "-", path, ("0", "1", "2"), (3, size, size), 2)


def _digits(name: str, builder: str, images: str, paper: str, n_steps: int = 5001) -> DatasetCard:
    """Rotated digits, or coloured ones of two classes."""
    path = f"domainbed_adm.datasets.{builder}"
    if name.startswith("Rotated"):
        angles, summary = ("0", "15", "30", "45", "60", "75"), images.format(" rotated by 0 to 75 degrees")
        return DatasetCard(name, summary, paper, path, angles, (1, 28, 28), 10, n_steps=n_steps)
    colours, summary = ("+90%", "+80%", "-90%"), images.format(" colour tied to the label")
    return DatasetCard(name, summary, paper, path, colours, (2, 28, 28), 2, n_steps=n_steps)


_SCIKIT, _MNIST = "digits:ScikitDigits", "mnist:MnistDigits"
_OF_SCIKIT, _OF_MNIST = "handwritten digits of scikit-learn,{}; no download", "MNIST digits,{}"
_UCI, _COLOURS = "UCI digits: Alpaydin and Kaynak, 1998", "Arjovsky et al., 2019"

CARDS = {
    card.name: card
    for card in (
        _noise("Debug28", 28),
        _noise("Debug224", 224),
        _digits("RotatedDigits", _SCIKIT, _OF_SCIKIT, _UCI, 1001),
        _digits("ColoredDigits", _SCIKIT, _OF_SCIKIT, f"{_UCI}; colours: {_COLOURS}", 1001),
        _digits("ColoredMNIST", _MNIST, _OF_MNIST, f"{_COLOURS}, arXiv 1907.02893"),
        _digits("RotatedMNIST", _MNIST, _OF_MNIST, "Ghifary et al., ICCV 2015"),
        _folder("VLCS", "VLCS", "C L S V", "photos of four collections", "Fang et al., ICCV 2013"),
        _folder("PACS", "PACS", "A C P S", "art paintings, cartoons, photos, sketches", "Li et al., ICCV 2017"),
        _folder(
            "OfficeHome",
            "office_home",
            "A C P R",
            "art, clip art, product and real photos of 65 objects",
            "Venkateswara et al., CVPR 2017",
        ),
        _folder(
            "TerraIncognita",
            "terra_incognita",
            "L100 L38 L43 L46",
            "wild animals at four camera traps",
            "Beery et al., ECCV 2018",
        ),
    )
}


def get_card(name: str) -> DatasetCard:
    """Return the card of a known dataset, or the card of a folder dataset of that name."""
    load_extensions()
    return CARDS.get(name) or folder_card(name)
