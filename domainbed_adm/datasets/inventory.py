"""What lies in a dataset folder and where, by names alone: images, and what is out of place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from domainbed_adm.datasets.images import EXTENSIONS, hidden

#: Files that file managers leave in folders; like hidden files they are ignored and counted.
LITTER = ("thumbs.db", "desktop.ini", "icon\r")


@dataclass(frozen=True)
class Problem:
    """One file or folder with which something is wrong.

    Attributes:
        path: of the file or folder.
        kind: broken, empty, double, misplaced or count.
        reason: what is wrong, and where it helps what to do.
    """

    path: Path
    kind: str
    reason: str


@dataclass
class Inventory:
    """What lies in a dataset folder.

    Attributes:
        images: image files by domain and class; subfolders of a class folder belong to it, as in training.
        problems: what is out of place or empty.
        notes: what is worth knowing and not wrong.
        hidden: number of hidden files and folders, and of file managers' litter: ignored, as in training.
    """

    images: dict[str, dict[str, list[Path]]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hidden: int = 0

    def misplaced(self, path: Path, reason: str) -> None:
        """Add what lies where it should not."""
        self.problems.append(Problem(path, "misplaced", reason))


def take_inventory(root: Path) -> Inventory:
    """List the images below a dataset folder, ``<root>/<domain>/<class>/<image>``, without opening one.

    Args:
        root: the dataset folder.

    Returns:
        The images and all that is out of place, in the order of the paths. Files that are no images are noted beside
        the domain and class folders, where packers put a README, and are misplaced among images.
    """
    found = Inventory()
    for domain in _folders(found, root, "domain"):
        classes = found.images[domain.name] = {}
        for label in _folders(found, domain, "class"):
            classes[label.name] = list(_images(found, label, (label.resolve(),)))
            if not classes[label.name]:
                found.problems.append(Problem(label, "empty", "class folder without an image: fill it or remove it"))
        if not classes:
            found.problems.append(Problem(domain, "empty", "domain folder without a class folder (<domain>/<class>)"))
    labels = sorted({label for classes in found.images.values() for label in classes})
    for domain_name, classes in found.images.items():
        absent = [label for label in labels if label not in classes]
        if absent and classes:
            found.notes.append(f"{root / domain_name} lacks the class {', '.join(absent)}")
    return found


def _entries(found: Inventory, folder: Path) -> list[Path]:
    """What a folder holds, sorted, without what is hidden; a folder that cannot be read is a problem."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        found.problems.append(Problem(folder, "broken", f"folder cannot be read: {error.strerror}"))
        return []
    ignored = [entry for entry in entries if hidden(Path(entry.name)) or entry.name.lower() in LITTER]
    found.hidden += len(ignored)
    return [entry for entry in entries if entry not in ignored]


def _folders(found: Inventory, folder: Path, level: str) -> Iterator[Path]:
    """The folders of one level; a file there is misplaced where it is an image."""
    for entry in _entries(found, folder):
        if entry.is_dir():
            yield entry
        elif _is_image_name(entry):
            found.misplaced(
                entry, f"image beside the {level} folders, unused: move it to <domain>/<class>/ or remove it"
            )
        else:
            found.notes.append(f"{entry} is no image: ignored")


def _images(found: Inventory, folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """The image files of a class folder and of its subfolders; ``above`` guards against links in a circle."""
    for entry in _entries(found, folder):
        if entry.is_dir():
            target = entry.resolve()
            if target in above:
                found.misplaced(entry, "link to a folder above it: remove it")
            else:
                yield from _images(found, entry, (*above, target))
        elif not _is_image_name(entry):
            found.misplaced(entry, "no image file among images: move or remove it")
        elif entry.is_file():
            yield entry
        elif entry.is_symlink():
            found.problems.append(Problem(entry, "broken", "link to a file that is not there"))
        else:
            found.misplaced(entry, "no regular file: remove it")


def _is_image_name(path: Path) -> bool:
    return path.name.lower().endswith(EXTENSIONS)
