"""Where a folder dataset lies and what its folders are: ``<data_dir>/<directory>/<environment>/<class>/<image>``.

Reads folder names only, no image, and loads no torch.
"""

from __future__ import annotations

from pathlib import Path

from domainbed_adm.datasets.cards import CARDS, DatasetCard
from domainbed_adm.errors import UserError, did_you_mean, unknown_name

_SHOWN = 12


def dataset_root(card: DatasetCard, data_dir: str | Path | None) -> Path:
    """Return the folder ``<data_dir>/<card.directory>`` of a dataset.

    Args:
        card: the dataset; its ``directory`` is one folder name.
        data_dir: what the user gave as ``--data_dir``; ``~`` is expanded.

    Raises:
        UserError: no data_dir, a data_dir or dataset folder that is not there, or a name that is no folder name. The
            message says what was looked for and what is there, and for a name without a card the nearest known name.
    """
    name = card.directory or card.name
    if name in {"", ".", ".."} or Path(name).name != name:
        raise UserError(f"dataset must be a known name or the name of one folder in data_dir, not {name!r}")
    folder = existing_data_dir(card, data_dir)
    root = folder / name
    if not root.is_dir():
        present = _subfolders(folder)
        more = f" and {len(present) - _SHOWN} more" if len(present) > _SHOWN else ""
        listed = f"the folders {', '.join(present[:_SHOWN])}{more}" if present else "no folders"
        raise UserError(f"dataset {card.name}: no folder {root}; {folder} holds {listed}.{_hint(card, present)}")
    return root


def existing_data_dir(card: DatasetCard, data_dir: str | Path | None) -> Path:
    """Return ``data_dir`` as a path that is a folder.

    Raises:
        UserError: it was not given, or there is no such folder.
    """
    if data_dir is None:
        if card.name not in CARDS:
            raise UserError(f"{unknown_name(CARDS, card.name, 'dataset')}. For a folder of your own, give --data_dir")
        raise UserError(
            f"dataset {card.name} is read from disk: give --data_dir, the folder that holds {_wanted(card)}"
        )
    folder = expanded(data_dir)
    if not folder.is_dir():
        raise UserError(f"data_dir {folder} is no folder; it should hold {_wanted(card)}.{_hint(card, [])}")
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


def environments(root: Path) -> list[str]:
    """Return the sorted names of the environments (domains) of the dataset folder ``root``, hidden ones left out.

    Raises:
        UserError: there are fewer than two, or ``root`` cannot be read.
    """
    names = _subfolders(root)
    if len(names) < 2:
        raise UserError(
            f"dataset folder {root} needs at least two domains (<domain>/<class>/<image>), has {names or 'none'}"
        )
    return names


def _subfolders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"folder {error.filename} cannot be read: {error.strerror}") from error


def _wanted(card: DatasetCard) -> str:
    return f"{card.directory}/<domain>/<class>/<image>" if card.directory else f"the files of {card.name}"


def _hint(card: DatasetCard, present: list[str]) -> str:
    """The known dataset, or the folder there, whose name is nearest to one without a card."""
    return "" if card.name in CARDS else did_you_mean([*present, *CARDS], card.name)
