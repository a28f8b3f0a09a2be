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
#: Paths of the classes that read from disk.
FOLDERS = "domainbed_adm.datasets.folders:FolderDataset"
MNIST = "domainbed_adm.datasets.in_memory:MnistDigits"
_DIGITS, _NOISE = (f"domainbed_adm.datasets.in_memory:{name}" for name in ("ScikitDigits", "DebugDataset"))


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
    folder = directory or name
    return DatasetCard(
        name, summary, paper, FOLDERS, environments, directory=folder, checkpoint_freq=300, n_workers=8, sizes=sizes
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
    return DatasetCard(name, "random noise, for tests", "-", _NOISE, ("0", "1", "2"), (3, size, size), 2)


def _rotated(name: str, images: str, paper: str, path: str, n_steps: int = 5001) -> DatasetCard:
    summary, angles = images.format(" rotated by 0 to 75 degrees"), ("0", "15", "30", "45", "60", "75")
    return DatasetCard(name, summary, paper, path, angles, (1, 28, 28), 10, n_steps=n_steps)


def _colored(name: str, images: str, paper: str, path: str, n_steps: int = 5001) -> DatasetCard:
    summary, colours = images.format(" colour tied to the label"), ("+90%", "+80%", "-90%")
    return DatasetCard(name, summary, paper, path, colours, (2, 28, 28), 2, n_steps=n_steps)


_OF_SCIKIT, _OF_MNIST = "handwritten digits of scikit-learn,{}; no download", "MNIST digits,{}"
_UCI, _COLOURS = "UCI digits: Alpaydin and Kaynak, 1998", "Arjovsky et al., 2019"
_OBJECTS = "art, clip art, product and real photos of 65 objects"
_ANIMALS = "wild animals at four camera traps"

CARDS = {
    card.name: card
    for card in (
        _noise("Debug28", 28),
        _noise("Debug224", 224),
        _rotated("RotatedDigits", _OF_SCIKIT, _UCI, _DIGITS, 1001),
        _colored("ColoredDigits", _OF_SCIKIT, f"{_UCI}; colours: {_COLOURS}", _DIGITS, 1001),
        _colored("ColoredMNIST", _OF_MNIST, f"{_COLOURS}, arXiv 1907.02893", MNIST),
        _rotated("RotatedMNIST", _OF_MNIST, "Ghifary et al., ICCV 2015", MNIST),
        _folder("VLCS", "VLCS", "C L S V", "photos of four collections", "Fang et al., ICCV 2013"),
        _folder("PACS", "PACS", "A C P S", "art paintings, cartoons, photos, sketches", "Li et al., ICCV 2017"),
        _folder("OfficeHome", "office_home", "A C P R", _OBJECTS, "Venkateswara et al., CVPR 2017"),
        _folder("TerraIncognita", "terra_incognita", "L100 L38 L43 L46", _ANIMALS, "Beery et al., ECCV 2018"),
    )
}


def get_card(name: str) -> DatasetCard:
    """Return the card of a known dataset, or the card of a folder dataset of that name."""
    load_extensions()
    return CARDS.get(name) or folder_card(name)
