"""The table of mirrors: where each dataset is fetched from, as YAML that a user's own file extends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError, one_line

TABLE = Path(__file__).with_name("mirrors.yaml")

FileName = Annotated[str, msgspec.Meta(pattern=r"^\w[^/\\]*$")]
InnerPath = Annotated[str, msgspec.Meta(pattern=r"^(?!/|.*\.\.).")]
WebAddress = Annotated[str, msgspec.Meta(pattern=r"^https?://[^\s/]+")]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{64}$")]


class Archive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One archive file.

    Attributes:
        file: its name on disk.
        urls: addresses, tried in this order.
        size: bytes, or None where it is not known.
        sha256: its checksum, or None where it is not known.
    """

    file: FileName
    urls: Annotated[tuple[WebAddress, ...], msgspec.Meta(min_length=1)]
    size: Annotated[int, msgspec.Meta(gt=0)] | None = None
    sha256: Sha256 | None = None


class CameraTraps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How images are sorted by the location and category of their annotations, as TerraIncognita's are.

    Attributes:
        images: folder of the unpacked archives that holds the images.
        annotations: folder of the unpacked archives that holds the annotations.
        locations: the domains to keep.
        categories: the classes to keep.
    """

    images: InnerPath
    annotations: InnerPath
    locations: tuple[FileName, ...]
    categories: tuple[FileName, ...]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to get one dataset.

    Attributes:
        archives: unpacked into one folder.
        root: the unpacked folder that becomes the dataset's; "." for all of it.
        rename: old and new names of folders below ``root``.
        camera_traps: how to sort the images, where the archives are not laid out as a dataset.
    """

    archives: Annotated[tuple[Archive, ...], msgspec.Meta(min_length=1)]
    root: InnerPath = "."
    rename: dict[InnerPath, InnerPath] = {}
    camera_traps: CameraTraps | None = None


def load_sources(files: Sequence[Path]) -> dict[str, Source]:
    """Read the package's table and then the user's files, whose entries replace those of the same name.

    Raises:
        UserError: a file cannot be read, or an entry is not as :class:`Source` says; the message names both.
    """
    sources: dict[str, Source] = {}
    for file in [TABLE, *files]:
        try:
            table: Any = yaml.safe_load(expanded(file).read_text(encoding="utf-8"))
            entries = msgspec.convert(table, dict[FileName, Any])
        except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
            raise UserError(f"mirrors {file} cannot be read: {one_line(error)}") from error
        for dataset, entry in entries.items():
            try:
                sources[dataset] = msgspec.convert(entry, Source)
            except msgspec.ValidationError as error:
                raise UserError(f"mirrors {file}: {dataset}: {error}; {TABLE} shows the format") from error
    return sources
