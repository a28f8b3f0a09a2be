"""What each dataset is, as data: environments, sizes, schedule, normalisation. Loads no torch."""

from __future__ import annotations

import math
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
#: Of the sets' own training images, as (pixel / 255).
_CIFAR10 = Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR100 = Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
#: Each corruption is there at severity 1 to 5.
SEVERITIES = 5
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
    ``n_epochs`` is the default length where it is given in epochs; ``n_steps`` is then about as many steps.
    ``normalization`` is what is known of it without the data; a run may read folders in grey.
    ``official_split`` marks a set for classification: its first environment, ``train``, is the source, and the others
    are official test sets, which are held out together and evaluated whole. ``other_directory`` holds it in another
    format. Of a corrupted set ``train`` is that of the dataset ``train_of``.
    ``recipe`` names the optimizer's default hparams (``hparams_registry``); None: DomainBed's for the image size.
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
    n_epochs: int | None = None
    checkpoint_freq: int = 100
    n_workers: int = 0
    sizes: tuple[tuple[int, ...], ...] = ()
    normalization: Normalization | None = None
    official_split: bool = False
    other_directory: str | None = None
    train_of: str | None = None
    recipe: str | None = None

    @property
    def test_envs(self) -> tuple[int, ...] | None:
        """The environments that every run holds out, together; None where it may hold out any."""
        return tuple(range(1, len(self.environments or ()))) if self.official_split else None

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
        *(name, summary, paper, FOLDERS, environments),
        directory=folder,
        checkpoint_freq=300,
        n_workers=8,
        sizes=sizes,
        normalization=IMAGENET,
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


#: Of CIFAR-10-C and CIFAR-100-C, in the order of the paper's tables; and those that its mean leaves out.
CIFAR_CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
CIFAR_EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
DIGITS_CORRUPTIONS = ("noise", "blur", "contrast", "brightness", "pixelate")


def _corrupted(corruptions: tuple[str, ...]) -> tuple[str, ...]:
    return ("train", *(f"{name}-{severity}" for name in corruptions for severity in range(1, SEVERITIES + 1)))


def _cifar(classes: int, corrupted: str = "", corruptions: tuple[str, ...] = ()) -> DatasetCard:
    """CIFAR-10 or -100, or their test images corrupted, under the name that ends in ``corrupted``."""
    clean, folder = f"CIFAR{classes}", f"cifar-{classes}"
    python, binary = (
        f"{folder}-{'batches-py' if classes == 10 else 'python'}",
        "batches-bin" if classes == 10 else "binary",
    )
    return DatasetCard(
        clean + corrupted,
        f"CIFAR-{classes}'s test images under {len(corruptions)} corruptions" if corrupted else "tiny photos",
        "Hendrycks and Dietterich, ICLR 2019" if corrupted else "Krizhevsky, 2009",
        f"{_SETS}:{'CorruptedCifar' if corrupted else 'Cifar'}",
        _corrupted(corruptions) if corrupted else ("train", "test"),
        (3, 32, 32),
        classes,
        directory=f"CIFAR-{classes}-C" if corrupted else f"{folder}-{binary}",
        other_directory=None if corrupted else python,
        n_steps=78_200,
        n_epochs=200,
        checkpoint_freq=3910,
        sizes=() if corrupted else ((50_000, 10_000),),
        normalization=_CIFAR10 if classes == 10 else _CIFAR100,
        official_split=True,
        train_of=clean if corrupted else None,
        recipe="cifar",
    )


def _fine_grained(name: str, folder: str, sizes: tuple[int, int], classes: int, about: str, paper: str) -> DatasetCard:
    return DatasetCard(
        *(name, about, paper, "domainbed_adm.datasets.classification.image_files:FineGrained", ("train", "test")),
        num_classes=classes,
        directory=folder,
        n_steps=200 * math.ceil(sizes[0] / 32),
        n_epochs=200,
        checkpoint_freq=10 * math.ceil(sizes[0] / 32),
        n_workers=8,
        sizes=(sizes,),
        normalization=IMAGENET,
        official_split=True,
        recipe="fine_grained",
    )


def _split_digits(name: str, about: str, kind: str, environments: tuple[str, ...]) -> DatasetCard:
    path = f"{_SETS}:{kind}"
    return DatasetCard(
        *(name, f"{_OF_SCIKIT.format(about)}", _UCI, path, environments, (1, 28, 28), 10),
        n_steps=1001,
        official_split=True,
    )


_SETS = "domainbed_adm.datasets.classification.sets"
_OF_SCIKIT, _OF_MNIST = "handwritten digits of scikit-learn,{}; no download", "MNIST digits,{}"
_UCI, _COLOURS = "UCI digits: Alpaydin and Kaynak, 1998", "Arjovsky et al., 2019"
_OBJECTS = "art, clip art, product and real photos of 65 objects"
_ANIMALS = "wild animals at four camera traps"

_CARS, _AIRCRAFT = "Krause et al., 3dRR 2013", "Maji et al., 2013, arXiv 1306.5151"
_FOOD = "Bossard et al., ECCV 2014"
_CIFAR_VERSIONS: tuple[tuple[()] | tuple[str, tuple[str, ...]], ...] = (
    (),
    ("C", CIFAR_CORRUPTIONS),
    ("CExtra", CIFAR_EXTRA),
)

CARDS = {
    card.name: card
    for card in (
        _noise("Debug28", 28),
        _noise("Debug224", 224),
        _rotated("RotatedDigits", _OF_SCIKIT, _UCI, _DIGITS, 1001),
        _colored("ColoredDigits", _OF_SCIKIT, f"{_UCI}; colours: {_COLOURS}", _DIGITS, 1001),
        DatasetCard(
            "Letters",
            "letters in matplotlib's fonts, a family each; no download",
            "-",
            "domainbed_adm.datasets.letters:Letters",
            ("Sans", "Serif", "Mono", "STIX", "CM"),
            (1, 28, 28),
            26,
            n_steps=1001,
        ),
        _colored("ColoredMNIST", _OF_MNIST, f"{_COLOURS}, arXiv 1907.02893", MNIST),
        _rotated("RotatedMNIST", _OF_MNIST, "Ghifary et al., ICCV 2015", MNIST),
        _folder("VLCS", "VLCS", "C L S V", "photos of four collections", "Fang et al., ICCV 2013"),
        _folder("PACS", "PACS", "A C P S", "art paintings, cartoons, photos, sketches", "Li et al., ICCV 2017"),
        _folder("OfficeHome", "office_home", "A C P R", _OBJECTS, "Venkateswara et al., CVPR 2017"),
        _folder("TerraIncognita", "terra_incognita", "L100 L38 L43 L46", _ANIMALS, "Beery et al., ECCV 2018"),
        _split_digits("Digits", " a quarter as test set", "Digits", ("train", "test")),
        _split_digits("DigitsC", " the test set corrupted", "CorruptedDigits", _corrupted(DIGITS_CORRUPTIONS)),
        *(_cifar(classes, *of) for of in _CIFAR_VERSIONS for classes in (10, 100)),
        _fine_grained("StanfordCars", "stanford_cars", (8144, 8041), 196, "cars by make, model and year", _CARS),
        _fine_grained("FGVCAircraft", "fgvc-aircraft-2013b", (6667, 3333), 100, "aircraft by variant", _AIRCRAFT),
        _fine_grained("CUB200", "CUB_200_2011", (5994, 5794), 200, "birds by species", "Wah et al., 2011"),
        _fine_grained("Food101", "food-101", (75_750, 25_250), 101, "dishes; noisy training labels", _FOOD),
    )
}


def get_card(name: str) -> DatasetCard:
    """Return the card of a known dataset, or the card of a folder dataset of that name."""
    load_extensions()
    return CARDS.get(name) or folder_card(name)
