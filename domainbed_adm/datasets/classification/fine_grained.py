"""The official lists of images of four fine-grained sets, in the folders their archives unpack to; loads no torch.

============  ========================  ===================================================================
set           folder                    train and test are listed in
============  ========================  ===================================================================
StanfordCars  ``stanford_cars``         ``devkit/cars_train_annos.mat``, ``cars_test_annos_withlabels.mat``
FGVCAircraft  ``fgvc-aircraft-2013b``   ``data/images_variant_trainval.txt``, ``..._test.txt``
CUB200        ``CUB_200_2011``          ``images.txt``, ``image_class_labels.txt``, ``train_test_split.txt``
Food101       ``food-101``              ``meta/train.json``, ``test.json``, or the same as ``.txt``
============  ========================  ===================================================================

They are torchvision's folders where it has the set. A class has its official name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from domainbed_adm.datasets.layout import Inventory
from domainbed_adm.errors import UserError, one_line

#: An image below the set's folder, and its class.
_Listed = tuple[str, str]


def list_images(name: str, root: Path) -> Inventory:
    """The images of "train" and "test" by class, sorted by name, as the set's own files list them; none is opened.

    Raises:
        UserError: a list is missing, cannot be read, or names an image twice or outside the folder; or the two splits
            have other classes.
    """
    inventory = Inventory()
    seen: set[str] = set()
    for split in ("train", "test"):
        classes: dict[str, list[Path]] = {}
        for image, label in _LISTS[name](root, split):
            if image in seen:
                raise UserError(f"{name}: {root / image} is listed twice: get the lists of images anew")
            if ".." in PurePosixPath(image).parts or image.startswith("/"):
                raise UserError(f"{name}: the image {image} lies outside {root}: get the lists of images anew")
            seen.add(image)
            classes.setdefault(label, []).append(root / image)
        inventory.images[split] = {label: sorted(classes[label]) for label in sorted(classes)}
    train, test = (set(inventory.images[split]) for split in ("train", "test"))
    if train != test:
        odd = sorted(train ^ test)[0]
        raise UserError(f"{name}: class {odd} is in one of train and test alone: get the lists of images anew")
    return inventory


def _lines(path: Path, fields: int) -> Iterator[list[str]]:
    """The lines of a text file as so many fields, the last of which may hold blanks; empty lines are passed over.

    Raises:
        UserError: the file cannot be read, or a line has fewer fields.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split(maxsplit=fields - 1)
        if parts and len(parts) < fields:
            raise UserError(f"{path}, line {number}: {line!r:.100} has not {fields} fields: get the file anew")
        if parts:
            yield [part.strip() for part in parts]


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)


def _aircraft(root: Path, split: str) -> Iterator[_Listed]:
    listed = "trainval" if split == "train" else "test"
    for image, variant in _lines(root / "data" / f"images_variant_{listed}.txt", 2):
        yield f"data/images/{image}.jpg", variant


def _cub(root: Path, split: str) -> Iterator[_Listed]:
    tables = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    images, labels, in_train, classes = (dict(_lines(root / table, 2)) for table in tables)
    wanted = "1" if split == "train" else "0"
    for number, image in images.items():
        try:
            label, side = classes[labels[number]], in_train[number]
        except KeyError as error:
            raise UserError(
                f"CUB200: no label, class or split of image {number} in {root}: get the lists anew"
            ) from error
        if side == wanted:
            yield f"images/{image}", label


def _food(root: Path, split: str) -> Iterator[_Listed]:
    path = root / "meta" / f"{split}.json"
    if path.exists():
        try:
            names = [str(name) for of_class in json.loads(path.read_bytes()).values() for name in of_class]
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
            raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    else:
        names = [name for (name,) in _lines(path.with_suffix(".txt"), 1)]
    for name in names:
        yield f"images/{name}.jpg", name.partition("/")[0]


def _cars(root: Path, split: str) -> Iterator[_Listed]:
    file = "cars_train_annos.mat" if split == "train" else "cars_test_annos_withlabels.mat"
    classes = [str(name) for name in _mat(root, "cars_meta.mat", "class_names")]
    annotations = _mat(root, file, "annotations")
    if len(set(classes)) < len(classes):
        raise UserError(f"StanfordCars: cars_meta.mat names a class twice: get {root / 'devkit'} anew")
    for annotation in annotations:
        try:
            name, number = str(annotation["fname"]), int(annotation["class"])
            label = classes[number - 1] if number > 0 else classes[len(classes)]
        except (IndexError, ValueError, TypeError) as error:
            raise UserError(
                f"StanfordCars: {file} has an image without a class of cars_meta.mat: get the file anew"
                " (the test set's labels come in cars_test_annos_withlabels.mat)"
            ) from error
        yield f"cars_{split}/{name}", label


def _mat(root: Path, name: str, key: str) -> Any:
    """One variable of a MATLAB file in the set's folder or its ``devkit``, an array of one axis.

    Raises:
        UserError: the file cannot be read, or has no such variable.
    """
    from scipy.io import loadmat  # here: only those who read Cars wait for it

    path = root / name if (root / name).is_file() else root / "devkit" / name
    try:
        with path.open("rb") as file:
            content = loadmat(file, squeeze_me=True, variable_names=[key])
    except Exception as error:  # of SciPy's parser
        raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    if key not in content:
        raise UserError(f"{path} has no {key}: get the file anew")
    return content[key].reshape(-1)


_LISTS: dict[str, Callable[[Path, str], Iterator[_Listed]]] = {
    "StanfordCars": _cars,
    "FGVCAircraft": _aircraft,
    "CUB200": _cub,
    "Food101": _food,
}
