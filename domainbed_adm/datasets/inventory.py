"""Which images lie in a dataset folder, and what is out of place, by names alone; loads no torch.

Training and ``verify_data`` list images by the same rule: files that end as images do, in a class folder and its
subfolders; hidden files and folders, whose names begin with a dot, are ignored. Links to files, to a domain and to
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
class Inventory:
    """What lies in a dataset folder.

    Attributes:
        images: image files by domain and class; subfolders of a class folder belong to it.
        problems: what is out of place, empty, or cannot be read or followed.
        notes: what is worth knowing and not wrong.
        hidden: number of hidden files and folders, and of file managers' litter.
    """

    images: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hidden: int = 0

    def add(self, path: Path, kind: str, reason: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(path, kind, reason))


def take_inventory(root: Path) -> Inventory:
    """List the images below a dataset folder, ``<root>/<domain>/<class>/<image>``, without opening one.

    Args:
        root: the dataset folder.

    Returns:
        The images, sorted by folder and then by name, as torchvision's ``ImageFolder`` sorts them; and all that is out
        of place. Files that are no images are noted beside the domain and class folders, where packers put a README,
        and are misplaced among images.
    """
    inventory = Inventory()
    for domain in _folders(inventory, root, "domain"):
        classes = inventory.images[domain.name] = {}
        for label in _folders(inventory, domain, "class"):
            images = sorted(_images(inventory, label), key=lambda path: (str(path.parent), path.name))
            classes[label.name] = images
            if not images:
                inventory.add(label, "empty", "class folder without an image: fill it or remove it")
        if not classes:
            inventory.add(domain, "empty", "domain folder without a class folder (<domain>/<class>)")
    labels = sorted({label for classes in inventory.images.values() for label in classes})
    for domain_name, classes in inventory.images.items():
        absent = [label for label in labels if label not in classes]
        if absent and classes:
            inventory.notes.append(f"{root / domain_name} lacks the class {', '.join(absent)}")
    return inventory


def _folders(inventory: Inventory, folder: Path, level: str) -> Iterator[Path]:
    """The folders of one level; a file there is misplaced where it is an image."""
    for entry in _entries(inventory, folder):
        path = folder / entry.name
        if entry.is_dir():
            yield path
        elif is_image_name(entry.name):
            reason = f"image beside the {level} folders, unused: move it to <domain>/<class>/ or remove it"
            inventory.add(path, "misplaced", reason)
        else:
            inventory.notes.append(f"{path} is no image: ignored")


def _images(inventory: Inventory, folder: Path) -> Iterator[Path]:
    """The images of a class folder and its subfolders."""
    for entry in _entries(inventory, folder):
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _images(inventory, path)
        elif entry.is_dir():
            reason = "link to a folder, which is not followed: put the images themselves there, or remove it"
            inventory.add(path, "broken", reason)
        elif not is_image_name(entry.name):
            inventory.add(path, "misplaced", "no image file among images: move or remove it")
        elif entry.is_file():
            yield path
        elif entry.is_symlink():
            inventory.add(path, "broken", "link to a file that is not there: remove it")
        else:
            inventory.add(path, "broken", "no regular file: remove it")


def _entries(inventory: Inventory, folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, sorted, without what is hidden; nothing, and a problem, where it cannot be read."""
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        inventory.add(folder, "broken", f"folder cannot be read: {error.strerror}")
        return []
    visible = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in LITTER]
    inventory.hidden += len(entries) - len(visible)
    return visible
