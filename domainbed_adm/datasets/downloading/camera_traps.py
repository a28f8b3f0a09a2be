"""Sort camera-trap images into ``location_<location>/<category>/`` by their annotations, as DomainBed does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from domainbed_adm.datasets.downloading.mirrors import CameraTraps
from domainbed_adm.errors import UserError


def sort_images(unpacked: Path, layout: CameraTraps, target: Path) -> None:
    """Copy the images of the locations and categories to keep out of the unpacked archives.

    An image with annotations of two categories goes to both; one that several annotations give the same category
    goes there once.

    Args:
        unpacked: folder of the unpacked archives.
        layout: where they hold images and annotations (COCO's JSON), and what to keep.
        target: folder to make.

    Raises:
        UserError: an annotation file is missing or holds something else, or an image is missing.
        OSError: the disk is full or cannot be written.
    """
    places: set[tuple[str, str, str]] = set()
    try:
        for file in sorted((unpacked / layout.annotations).glob("*.json")):
            places |= _places(json.loads(file.read_bytes()), layout)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the annotations in {layout.annotations} are not COCO's: {error!r:.200}") from error
    if not places:
        raise UserError(f"{layout.annotations}/*.json name no image of the locations and categories to keep")
    for location, category, name in sorted(places):
        image, folder = unpacked / layout.images / name, target / f"location_{location}" / category
        if not image.is_file():
            raise UserError(f"the archives lack the image {image.relative_to(unpacked)}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, folder / image.name)


def _places(table: dict[str, Any], layout: CameraTraps) -> set[tuple[str, str, str]]:
    """Location, category and file name of each image to keep of one annotation file."""
    categories = {entry["id"]: entry["name"] for entry in table["categories"]}
    images = {entry["id"]: entry for entry in table["images"] if str(entry["location"]) in layout.locations}
    places = set()
    for annotation in table["annotations"]:
        image, category = images.get(annotation["image_id"]), categories[annotation["category_id"]]
        if image is not None and category in layout.categories:
            places.add((str(image["location"]), str(category), str(image["file_name"])))
    return places
