"""Where a folder dataset lies and what it holds: ``<data_dir>/<directory>/<environment>/<class>/<image>``.

Goes by names alone and loads no torch. Training and ``verify_data`` list images by the same rule: files that end as
images do, in a class folder and its subfolders; hidden files and folders, whose names begin with a dot, are ignored.
Links to files, to a domain and to a class folder are followed; a link to a folder further down is not, because it would
give one image several times.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from domainbed_adm.datasets.cards import CARDS, FOLDERS, DatasetCard
from domainbed_adm.errors import UserError, did_you_mean, unknown_name

#: Folder of the decoded images beside the datasets.
FOLDER = ".decoded"
#: Ends of the names of image files, torchvision's.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
#: Files that file managers leave in folders; like hidden files they are ignored and counted.
_LITTER = ("thumbs.db", "desktop.ini", "icon\r")
#: How many of the folders in data_dir a message names.
_SHOWN = 12


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image: it ends as images do, and is not hidden.

    >>> [is_image_name(name) for name in ("a.JPG", "a.txt", "._a.jpg")]
    [True, False, False]
    """
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def dataset_root(card: DatasetCard, data_dir: str | Path | None) -> Path:
    """Return the folder ``<data_dir>/<card.directory>`` of a dataset.

    Raises:
        UserError: no data_dir, a data_dir or dataset folder that is not there, or a name that is no folder name. The
            message says what was looked for and what is there, and for a name without a card the nearest known name.

    Of a set that comes in two formats it is the folder of the other one where the first is not there.
    """
    name = card.directory or card.name
    if name in {"", ".", ".."} or Path(name).name != name:
        raise UserError(f"dataset must be a known name or the name of one folder in data_dir, not {name!r}")
    folder = existing_data_dir(card, data_dir)
    root = folder / name
    if card.other_directory and not root.is_dir() and (folder / card.other_directory).is_dir():
        return folder / card.other_directory
    if not root.is_dir():
        present = subfolders(folder)
        more = f" and {len(present) - _SHOWN} more" if len(present) > _SHOWN else ""
        listed = f"the folders {', '.join(present[:_SHOWN])}{more}" if present else "no folders"
        raise UserError(f"dataset {card.name}: no folder {root}; {folder} holds {listed}.{_hint(card, present)}")
    return root


def existing_data_dir(card: DatasetCard, data_dir: str | Path | None) -> Path:
    """Return ``data_dir``, in which ``~`` is expanded, as a path that is a folder.

    Raises:
        UserError: it was not given, or there is no such folder.
    """
    wanted = f"{card.directory}/<domain>/<class>/<image>" if card.path == FOLDERS else f"the files of {card.name}"
    if data_dir is None:
        if card.name not in CARDS:
            raise UserError(f"{unknown_name(CARDS, card.name, 'dataset')}. For a folder of your own, give --data_dir")
        raise UserError(f"dataset {card.name} is read from disk: give --data_dir, the folder that holds {wanted}")
    folder = expanded(data_dir)
    if not folder.is_dir():
        raise UserError(f"data_dir {folder} is no folder; it should hold {wanted}.{_hint(card, [])}")
    return folder


def expanded(path: str | Path) -> Path:
    """A path of the user's, with ``~`` expanded.

    Raises:
        UserError: it begins with ``~`` and a name that no user has.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such user; give the path without ~") from error


def environments(card: DatasetCard, root: Path) -> list[str]:
    """Names of the environments (domains): the card's, which stand in the folders' sorted order, or the folders'.

    Raises:
        UserError: there are fewer than two folders or not as many as the card has, or ``root`` cannot be read.
    """
    folders = subfolders(root)
    if len(folders) < 2:
        raise UserError(
            f"dataset folder {root} needs at least two domains (<domain>/<class>/<image>), has {folders or 'none'}"
        )
    if card.environments is not None and len(folders) != len(card.environments):
        raise UserError(
            f"{card.name} has {len(card.environments)} domains ({', '.join(card.environments)}), "
            f"but {root} holds {len(folders)} folders: {', '.join(folders)}"
        )
    return list(card.environments or folders)


def subfolders(folder: Path) -> list[str]:
    """The names of the folders in ``folder`` that are not hidden, sorted.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"folder {error.filename} cannot be read: {error.strerror}") from error


def _hint(card: DatasetCard, present: list[str]) -> str:
    """The known dataset, or the folder there, whose name is nearest to one without a card."""
    return "" if card.name in CARDS else did_you_mean([*present, *CARDS], card.name)


@dataclass(frozen=True)
class Problem:
    """What is wrong with one file or folder; its kind is broken, empty, duplicate, misplaced or count."""

    path: Path
    kind: str
    reason: str


@dataclass
class Inventory:
    """What lies in a dataset folder.

    Attributes:
        images: image files by domain and class; subfolders of a class folder belong to it. Sorted by folder and then
            by name, as torchvision's ``ImageFolder`` sorts them.
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

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What a folder holds, sorted, without what is hidden; nothing, and a problem, where it cannot be read."""
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            self.add(folder, "broken", f"folder cannot be read: {error.strerror}")
            return []
        visible = [entry for entry in entries if not entry.name.startswith(".") and entry.name.lower() not in _LITTER]
        self.hidden += len(entries) - len(visible)
        return visible


def take_inventory(root: Path) -> Inventory:
    """List the images below a dataset folder without opening one, and all that is out of place.

    Files that are no images are noted beside the domain and class folders, where packers put a README, and are
    misplaced among images.
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
    labels = sorted(set().union(*inventory.images.values()))
    for name, classes in inventory.images.items():
        absent = [label for label in labels if label not in classes]
        if absent and classes:
            inventory.notes.append(f"{root / name} lacks the class {', '.join(absent)}")
    return inventory


def _folders(inventory: Inventory, folder: Path, level: str) -> Iterator[Path]:
    for entry in inventory.entries(folder):
        path = folder / entry.name
        if entry.is_dir():
            yield path
        elif is_image_name(entry.name):
            reason = f"image beside the {level} folders, unused: move it to <domain>/<class>/ or remove it"
            inventory.add(path, "misplaced", reason)
        else:
            inventory.notes.append(f"{path} is no image: ignored")


def _images(inventory: Inventory, folder: Path) -> Iterator[Path]:
    for entry in inventory.entries(folder):
        path = folder / entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _images(inventory, path)
        elif entry.is_dir():
            inventory.add(
                path, "broken", "link to a folder, not followed: put the images themselves there, or remove it"
            )
        elif not is_image_name(entry.name):
            inventory.add(path, "misplaced", "no image file among images: move or remove it")
        elif entry.is_file():
            yield path
        elif entry.is_symlink():
            inventory.add(path, "broken", "link to a file that is not there: remove it")
        else:
            inventory.add(path, "broken", "no regular file: remove it")
