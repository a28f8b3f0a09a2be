import numpy as np

from benchmarks.images import CLASSES, draw, make_images
from domainbed_adm.datasets import get_dataset_class


def test_a_folder_has_the_numbers_asked_for_and_is_made_once(tmp_path, capsys):
    folder = make_images(tmp_path, {"a": 8, "b": 7, "c": 9, "d": 14}, 32)
    dataset = get_dataset_class("PACS")(str(folder), [0], {"image_size": 32})
    assert list(map(len, dataset.datasets)) == [8, 7, 9, 14]
    assert np.bincount(dataset[3].targets).tolist() == [2] * CLASSES
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")}
    assert "making 38 images" in capsys.readouterr().out
    assert make_images(tmp_path, {"a": 8, "b": 7, "c": 9, "d": 14}, 32) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.jpg")} == times
    assert capsys.readouterr().out == ""


def test_images_are_a_function_of_their_arguments():
    image = draw(1, 2, 40, seed=3)
    assert image.shape == (40, 40, 3)
    assert np.array_equal(image, draw(1, 2, 40, seed=3))
    for other in (draw(2, 2, 40, seed=3), draw(1, 3, 40, seed=3), draw(1, 2, 40, seed=4)):
        assert not np.array_equal(image, other)
