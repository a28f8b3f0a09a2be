"""Which images lie in a dataset folder, and what is out of place, by names alone; loads no torch.

Training, ``predict`` and ``verify_data`` list images by the same rule: files that end as images do, in a folder and
its subfolders; hidden files and folders, whose names begin with a dot, are ignored. Links to files, to a domain and to
a class folder are followed; a link to a folder further down is not, because it would give one image several times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from domainbed_adm.datasets.images import is_image_name

#: Files that file managers leave in folders; like hidden files they are ignored and counted.
LITTER = ("thumbs.db", "desktop.ini", "icon\r")


@dataclass(frozen=True)
class Problem:
    """One file or folder with which something is wrong.

    Attributes:
        path: of the file or folder.
        kind: broken, empty, duplicate, misplaced or count.
        reason: what is wrong, and where it helps what to do.
    """

    path: Path
    kind: str
    reason: str


@dataclass
class Listing:
    """The images of one folder and its subfolders; none is opened.

    Attributes:
        images: sorted by folder and then by name, as torchvision's ``ImageFolder`` sorts them.
        unreadable: what cannot be read or followed, so that images may be missing.
        others: files that are no images.
        hidden: number of hidden files and folders, and of file managers' litter.
    """

    images: list[Path] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    hidden: int = 0


@dataclass
class Inventory:
    """What lies in a dataset folder.

    Attributes:
        images: image files by domain and class; subfolders of a class folder belong to it.
        problems: what is out of place or empty.
        notes: what is worth knowing and not wrong.
        hidden: number of hidden files and folders, and of file managers' litter.
    """

    images: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hidden: int = 0


def list_images(folder: Path) -> Listing:
    """List the image files of a folder and its subfolders."""
    listing = Listing()
    _list_into(listing, folder)
    listing.images.sort(key=lambda path: (str(path.parent), path.name))
    return listing


def _list_into(listing: Listing, folder: Path) -> None:
    entries, hidden, unreadable = _entries(folder)
    listing.hidden += hidden
    listing.unreadable += unreadable
    for entry in entries:
        path, reason = folder / entry.name, ""
        if entry.is_dir(follow_symlinks=False):
            _list_into(listing, path)
        elif entry.is_dir():
            reason = "link to a folder, which is not followed: put the images themselves there, or remove it"
        elif not is_image_name(entry.name):
            listing.others.append(path)
        elif entry.is_file():
            listing.images.append(path)
        elif entry.is_symlink():
            reason = "link to a file that is not there: remove it"
        else:
            reason = "no regular file: remove it"
        if reason:
            listing.unreadable.append(Problem(path, "broken", reason))


def _entries(folder: Path) -> tuple[list[os.DirEntry[str]], int, list[Problem]]:
    """What a folder holds, sorted; how many hidden entries were left out; and a problem where it cannot be read."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        return [], 0, [Problem(folder, "broken", f"folder cannot be read: {error.strerror}")]
    visible = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in LITTER]
    return visible, len(entries) - len(visible), []


def take_inventory(root: Path) -> Inventory:
    """List the images below a dataset folder, ``<root>/<domain>/<class>/<image>``, without opening one.

    Args:
        root: the dataset folder.

    Returns:
        The images and all that is out of place, in the order of the paths. Files that are no images are noted beside
        the domain and class folders, where packers put a README, and are misplaced among images.
    """
    inventory = Inventory()
    for domain in _folders(inventory, root, "domain"):
        classes = inventory.images[domain.name] = {}
        for label in _folders(inventory, domain, "class"):
            listing = list_images(label)
            classes[label.name] = listing.images
            inventory.hidden += listing.hidden
            inventory.problems += listing.unreadable
            reason = "no image file among images: move or remove it"
            inventory.problems += [Problem(path, "misplaced", reason) for path in listing.others]
            if not listing.images:
                reason = "class folder without an image: fill it or remove it"
                inventory.problems.append(Problem(label, "empty", reason))
        if not classes:
            reason = "domain folder without a class folder (<domain>/<class>)"
            inventory.problems.append(Problem(domain, "empty", reason))
    labels = sorted({label for classes in inventory.images.values() for label in classes})
    for domain_name, classes in inventory.images.items():
        absent = [label for label in labels if label not in classes]
        if absent and classes:
            inventory.notes.append(f"{root / domain_name} lacks the class {', '.join(absent)}")
    return inventory


def _folders(inventory: Inventory, folder: Path, level: str) -> Iterator[Path]:
    """The folders of one level; a file there is misplaced where it is an image."""
    entries, hidden, unreadable = _entries(folder)
    inventory.hidden += hidden
    inventory.problems += unreadable
    for entry in entries:
        path = folder / entry.name
        if entry.is_dir():
            yield path
        elif is_image_name(entry.name):
            reason = f"image beside the {level} folders, unused: move it to <domain>/<class>/ or remove it"
            inventory.problems.append(Problem(path, "misplaced", reason))
        else:
            inventory.notes.append(f"{path} is no image: ignored")
