"""The official lists of four fine-grained sets: what is read, and one line for each way in which they can be wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.errors import UserError


def image(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (colour, 2 * colour, 0)).save(path, "JPEG")


def aircraft(root: Path) -> None:
    lists = {"trainval": ["0034309 F/A-18", "0034958 707-320", "1 Model B200"], "test": ["2 707-320", "3 F/A-18"]}
    lists["test"].append("4 Model B200")
    for split, lines in lists.items():
        (root / "data").mkdir(parents=True, exist_ok=True)
        (root / "data" / f"images_variant_{split}.txt").write_text("".join(f"{line}\n" for line in lines))
        for i, line in enumerate(lines):
            image(root / "data" / "images" / f"{line.split()[0]}.jpg", 10 * i)


def cub(root: Path) -> None:
    root.mkdir(parents=True)
    names = [f"00{c}.Bird_{c}/Bird_{c}_000{i}_{c}{i}.jpg" for c in (1, 2) for i in (1, 2, 3)]
    (root / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    (root / "image_class_labels.txt").write_text("1 1\n2 1\n3 1\n4 2\n5 2\n6 2\n")
    (root / "train_test_split.txt").write_text("1 0\n2 1\n3 1\n4 1\n5 0\n6 0\n")
    (root / "classes.txt").write_text("1 001.Bird_1\n2 002.Bird_2\n")
    for i, name in enumerate(names):
        image(root / "images" / name, 10 * i)


def food(root: Path) -> None:
    lists = {
        "train": {"apple_pie": ["apple_pie/1005649", "apple_pie/9"], "waffles": ["waffles/2"]},
        "test": {"apple_pie": ["apple_pie/3"], "waffles": ["waffles/4", "waffles/5"]},
    }
    (root / "meta").mkdir(parents=True)
    for split, by_class in lists.items():
        names = [name for of_class in by_class.values() for name in of_class]
        (root / "meta" / f"{split}.json").write_text(json.dumps(by_class))
        (root / "meta" / f"{split}.txt").write_text("\n".join(names))
        for i, name in enumerate(names):
            image(root / "images" / f"{name}.jpg", 10 * i)


CARS = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Audi TT RS Coupe 2012"]


def annotations(*cars: tuple[str, int], labelled: bool = True) -> dict[str, Any]:
    """As the devkit has them: a MATLAB struct array of one row, with boxes."""
    names = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", *(["class"] if labelled else []), "fname"]
    rows = [(1, 2, 3, 4, *([label] if labelled else []), name) for name, label in cars]
    return {"annotations": np.array([rows], dtype=[(name, "O") for name in names])}


def cars(root: Path) -> None:
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": np.array([CARS], dtype=object)})
    train = annotations(("00001.jpg", 3), ("00002.jpg", 1), ("00003.jpg", 2))
    test = annotations(("00001.jpg", 2), ("00002.jpg", 1), ("00003.jpg", 3), ("00004.jpg", 1))
    savemat(root / "devkit" / "cars_train_annos.mat", train)
    savemat(root / "cars_test_annos_withlabels.mat", test)
    for split, count in (("train", 3), ("test", 4)):
        for i in range(count):
            image(root / f"cars_{split}" / f"0000{i + 1}.jpg", 10 * i)


WRITERS: dict[str, Callable[[Path], None]] = {
    "StanfordCars": cars,
    "FGVCAircraft": aircraft,
    "CUB200": cub,
    "Food101": food,
}
#: Class and file name of each image, in order.
EXPECTED = {
    "StanfordCars": (
        CARS,
        [("00002", 0), ("00003", 1), ("00001", 2)],
        [("00002", 0), ("00004", 0), ("00001", 1), ("00003", 2)],
    ),
    "FGVCAircraft": (
        ["707-320", "F/A-18", "Model B200"],
        [("0034958", 0), ("0034309", 1), ("1", 2)],
        [("2", 0), ("3", 1), ("4", 2)],
    ),
    "CUB200": (
        ["001.Bird_1", "002.Bird_2"],
        [("Bird_1_0002_12", 0), ("Bird_1_0003_13", 0), ("Bird_2_0001_21", 1)],
        [("Bird_1_0001_11", 0), ("Bird_2_0002_22", 1), ("Bird_2_0003_23", 1)],
    ),
    "Food101": (["apple_pie", "waffles"], [("1005649", 0), ("9", 0), ("2", 1)], [("3", 0), ("4", 1), ("5", 1)]),
}


def load(name: str, data_dir: Path, **hparams: Any) -> Any:
    return get_dataset_class(name)(str(data_dir), [1], {"image_size": 32, **hparams})


def written(name: str, data_dir: Path) -> Path:
    root = data_dir / get_card(name).directory
    WRITERS[name](root)
    return root


@pytest.mark.parametrize("name", WRITERS)
def test_the_official_split_is_read(tmp_path: Path, name: str) -> None:
    written(name, tmp_path)
    dataset = load(name, tmp_path)
    classes, *splits = EXPECTED[name]
    assert (dataset.classes, dataset.environments) == (classes, ["train", "test"])
    for environment, expected in zip(dataset, splits, strict=True):
        files = [Path(path).stem for path in environment.paths]
        assert list(zip(files, environment.targets.tolist(), strict=True)) == expected
        for i in range(len(environment)):
            x, target = environment[i]
            assert x.shape == (3, 32, 32)
            assert target == environment.targets[i]
    assert (dataset[0].augmented, dataset[1].augmented) == (True, False)
    assert dataset[0].fingerprint != dataset[1].fingerprint


@pytest.mark.parametrize("name", WRITERS)
def test_it_is_decoded_once(tmp_path: Path, name: str) -> None:
    written(name, tmp_path)
    plain, cached = (load(name, tmp_path, data_augmentation=False) for _ in range(2))
    cached.use_cache(None)
    assert len(list((tmp_path / ".decoded").rglob("*.pixels"))) == 1
    for environment, other in zip(plain, cached, strict=True):
        assert all((environment[i][0] == other[i][0]).all() for i in range(len(environment)))


def test_food_is_the_same_from_text(tmp_path: Path) -> None:
    root = written("Food101", tmp_path)
    before = [environment.fingerprint for environment in load("Food101", tmp_path)]
    for split in ("train", "test"):
        (root / "meta" / f"{split}.json").unlink()
    assert [environment.fingerprint for environment in load("Food101", tmp_path)] == before


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


def write_test_annotations(*cars: tuple[str, Any], labelled: bool = True) -> Callable[[Path], object]:
    return lambda root: savemat(root / "cars_test_annos_withlabels.mat", annotations(*cars, labelled=labelled))


FAULTS = [
    (
        "FGVCAircraft",
        write("data/images_variant_test.txt", "2 707-320\n3\n"),
        r"test\.txt, line 2: '3' has not 2 fields",
    ),
    (
        "FGVCAircraft",
        write("data/images_variant_test.txt", "1 Model B200\n"),
        r"images/1\.jpg is listed twice: get the lists of images anew",
    ),
    ("FGVCAircraft", write("data/images_variant_test.txt", "2 707-320\n"), r"class F/A-18 is in one of train and test"),
    ("FGVCAircraft", write("data/images_variant_test.txt", "../../2 707-320\n"), r"lies outside"),
    (
        "FGVCAircraft",
        lambda root: (root / "data/images_variant_trainval.txt").unlink(),
        r"images_variant_trainval\.txt cannot be read: No such file",
    ),
    ("FGVCAircraft", lambda root: (root / "data/images_variant_test.txt").write_bytes(b"\xff\xff"), r"'utf-8' codec"),
    ("CUB200", write("image_class_labels.txt", "1 1\n"), r"no label, class or split of image 2 in"),
    ("CUB200", write("train_test_split.txt", "1 1\n"), r"no label, class or split of image 2 in"),
    ("CUB200", write("classes.txt", "1 001.Bird_1\n"), r"no label, class or split of image 4 in"),
    ("CUB200", lambda root: (root / "images.txt").unlink(), r"images\.txt cannot be read: No such file"),
    ("Food101", write("meta/test.json", '{"apple_pie": ['), r"test\.json cannot be read: Expecting value"),
    ("Food101", write("meta/test.json", "[1]"), r"test\.json cannot be read: 'list' object has no attribute"),
    ("Food101", write("meta/test.json", '{"waffles": 3}'), r"test\.json cannot be read: 'int' object is not iterable"),
    ("Food101", write("meta/test.json", '{"a": ["a/b/../../../../etc/x"]}'), r"lies outside"),
    (
        "StanfordCars",
        write_test_annotations(("00001.jpg", 4)),
        r"cars_test_annos_withlabels\.mat has an image without a class of cars_meta\.mat",
    ),
    ("StanfordCars", write_test_annotations(("00001.jpg", 0)), r"has an image without a class of cars_meta\.mat"),
    (
        "StanfordCars",
        write_test_annotations(("00001.jpg", 0), labelled=False),
        r"has an image without a class of cars_meta\.mat.*labels come in cars_test_annos_withlabels\.mat",
    ),
    (
        "StanfordCars",
        lambda root: (root / "cars_test_annos_withlabels.mat").unlink(),
        r"cars_test_annos_withlabels\.mat cannot be read: No such file",
    ),
    (
        "StanfordCars",
        lambda root: os.truncate(root / "cars_test_annos_withlabels.mat", 200),
        r"cars_test_annos_withlabels\.mat cannot be read: ",
    ),
    (
        "StanfordCars",
        lambda root: savemat(root / "cars_test_annos_withlabels.mat", {"other": 1}),
        r"cars_test_annos_withlabels\.mat has no annotations",
    ),
    (
        "StanfordCars",
        lambda root: savemat(root / "devkit/cars_meta.mat", {"class_names": np.array(["a", "a", "b"], dtype=object)}),
        r"cars_meta\.mat names a class twice",
    ),
]


@pytest.mark.parametrize(("name", "damage", "message"), FAULTS)
def test_a_wrong_list_is_one_line(tmp_path: Path, name: str, damage: Callable[[Path], object], message: str) -> None:
    damage(written(name, tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        load(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_image_that_is_not_there_is_named_when_a_run_begins(tmp_path: Path) -> None:
    root = written("CUB200", tmp_path)
    (root / "images" / "001.Bird_1" / "Bird_1_0002_12.jpg").unlink()
    with pytest.raises(UserError, match=r"cannot read image .*Bird_1_0002_12\.jpg: No such file"):
        load("CUB200", tmp_path)[0].fingerprint  # noqa: B018
