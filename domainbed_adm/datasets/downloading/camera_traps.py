"""Sort camera-trap images into ``location_<location>/<category>/`` by their annotations, as DomainBed does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from domainbed_adm.datasets.downloading.mirrors import CameraTraps, is_file_name
from domainbed_adm.errors import UserError


def sort_images(unpacked: Path, layout: CameraTraps, target: Path) -> None:
    """Copy the images of the chosen locations and categories out of the unpacked archives.

    An image with annotations of two categories goes to both; one that several annotations give the same category
    goes there once.

    Args:
        unpacked: folder of the unpacked archives.
        layout: where they hold images and annotations (COCO's JSON), and what is chosen.
        target: folder to make.

    Raises:
        UserError: an annotation file is missing or holds something else, or an image is missing.
    """
    folder = unpacked / layout.annotations
    files = sorted(folder.glob("*.json"))
    if not files:
        raise UserError(f"the archives hold no annotations {layout.annotations}/*.json")
    try:
        tables = [json.loads(file.read_bytes()) for file in files]
        chosen = {place for table in tables for place in _places(table, layout)}
        for location, category, name in sorted(chosen):
            if not is_file_name(name):
                raise UserError(f"the annotations name the image {name!r}, which is no file name")
            place = target / f"location_{location}" / category
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(unpacked / layout.images / name, place / name)
    except FileNotFoundError as error:
        raise UserError(f"the archives lack the image {error.filename}") from error
    except OSError as error:
        raise UserError(f"images cannot be sorted into {target}: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError, RecursionError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"the annotations in {layout.annotations} are not COCO's: {error!r:.200}") from error
    if not chosen:
        raise UserError("the annotations name no image of the chosen locations and categories")


def _places(table: dict[str, Any], layout: CameraTraps) -> set[tuple[str, str, str]]:
    """Location, category and file name of each chosen image of one annotation file."""
    categories = {entry["id"]: entry["name"] for entry in table["categories"]}
    images = {entry["id"]: entry for entry in table["images"] if str(entry["location"]) in layout.locations}
    places = set()
    for annotation in table["annotations"]:
        image, category = images.get(annotation["image_id"]), categories[annotation["category_id"]]
        if image is not None and category in layout.categories:
            places.add((str(image["location"]), str(category), str(image["file_name"])))
    return places
