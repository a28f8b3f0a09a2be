"""The table of mirrors: where each dataset is fetched from, as YAML data that a user's file extends."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError, unknown_name

TABLE = Path(__file__).with_name("mirrors.yaml")


@dataclass(frozen=True)
class Archive:
    """One archive file; ``size`` in bytes and ``sha256`` in lower case are None where they are not known."""

    file: str
    urls: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class CameraTraps:
    """How images are sorted by the location and category of their annotations, as TerraIncognita's are.

    ``images`` and ``annotations`` are folders of the unpacked archives.
    """

    images: str
    annotations: str
    locations: tuple[str, ...]
    categories: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """How to get one dataset; ``root`` is the unpacked folder that becomes the dataset's, "." for all of it."""

    dataset: str
    archives: tuple[Archive, ...]
    root: str = "."
    rename: dict[str, str] = field(default_factory=dict)
    camera_traps: CameraTraps | None = None


def load_sources(files: list[Path]) -> dict[str, Source]:
    """Read the package's table and then the user's files, whose entries replace those of the same name.

    Raises:
        UserError: a file cannot be read, or does not say what it must; the message names the file and the entry.
    """
    sources: dict[str, Source] = {}
    for file in [TABLE, *files]:
        sources.update(_read(expanded(file)))
    return sources


def _read(file: Path) -> dict[str, Source]:
    try:
        table = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"mirrors {file} cannot be read: {' '.join(str(error).split())[:300]}") from error
    sources = {}
    for name, entry in _Entry(file, "").mapping(table).items():
        place = _Entry(file, str(name))
        if not isinstance(name, str) or not is_file_name(name):
            raise place.error("is no name of a dataset")
        sources[name] = _source(place, name, entry)
    return sources


def _source(place: _Entry, name: str, entry: Any) -> Source:
    facts = place.mapping(entry, "archives root rename camera_traps", required="archives")
    archives = tuple(_archive(place, archive) for archive in place.items(facts["archives"], "archives"))
    files = [archive.file for archive in archives]
    if len(set(files)) < len(files):
        raise place.error("names one archive file twice")
    rename = place.mapping(facts.get("rename", {}))
    return Source(
        name,
        archives,
        place.inner_path(facts.get("root", ".")),
        {place.inner_path(old): place.inner_path(new) for old, new in rename.items()},
        _camera_traps(place, facts["camera_traps"]) if "camera_traps" in facts else None,
    )


def _archive(place: _Entry, entry: Any) -> Archive:
    facts = place.mapping(entry, "file urls size sha256", required="file urls")
    file, size, sha256 = facts["file"], facts.get("size"), facts.get("sha256")
    if not isinstance(file, str) or not is_file_name(file):
        raise place.error(f"file must be a plain file name, not {reprlib.repr(file)}")
    if size is not None and (type(size) is not int or size < 1):
        raise place.error(f"size must be a number of bytes, not {reprlib.repr(size)}")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", str(sha256)):
        raise place.error(f"sha256 must be 64 hexadecimal digits in quotes, not {reprlib.repr(sha256)}")
    urls = place.items(facts["urls"], "urls")
    for url in urls:
        if not _is_web_address(url):
            raise place.error(f"urls must be http:// or https:// addresses, not {reprlib.repr(url)}")
    return Archive(file, tuple(urls), size, None if sha256 is None else str(sha256).lower())


def _camera_traps(place: _Entry, entry: Any) -> CameraTraps:
    keys = "images annotations locations categories"
    facts = place.mapping(entry, keys, required=keys)
    names = {key: tuple(map(str, place.items(facts[key], key))) for key in ("locations", "categories")}
    for name in [*names["locations"], *names["categories"]]:
        if not is_file_name(name):
            raise place.error(f"locations and categories become folders; {name!r} is no folder name")
    return CameraTraps(place.inner_path(facts["images"]), place.inner_path(facts["annotations"]), **names)


@dataclass(frozen=True)
class _Entry:
    """One dataset's entry of a table, for checks whose errors name it."""

    file: Path
    name: str

    def error(self, what: str) -> UserError:
        name = self.name if self.name.isprintable() else repr(self.name)
        return UserError(f"mirrors {self.file}: {name + ': ' if name else ''}{what}"[:500])

    def mapping(self, value: Any, keys: str = "", required: str = "") -> dict[Any, Any]:
        if not isinstance(value, dict):
            raise self.error(f"must be a mapping, not {reprlib.repr(value)}")
        for key in value if keys else ():
            if key not in keys.split():
                raise self.error(unknown_name(keys.split(), str(key), "key"))
        for key in required.split():
            if key not in value:
                raise self.error(f"lacks {key}")
        return value

    def items(self, value: Any, key: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self.error(f"{key} must be a list of one or more, not {reprlib.repr(value)}")
        return value

    def inner_path(self, value: Any) -> str:
        if not isinstance(value, str) or not is_inner_path(value):
            raise self.error(f"a folder must lie inside the archives, not {reprlib.repr(value)}")
        return value


def is_file_name(name: str) -> bool:
    """Whether ``name`` is one plain, visible name of a file or folder, on every system."""
    return is_inner_path(name) and len(PurePosixPath(name).parts) == 1 and not name.startswith((".", "-"))


def is_inner_path(name: str) -> bool:
    r"""Whether ``name`` is a relative path that stays where it begins, on every system.

    >>> [is_inner_path(name) for name in (".", "a/b", "a/../b", "/a", "C:a", "a\\..\\b")]
    [True, True, False, False, False, False]
    """
    windows = PureWindowsPath(name)
    plain = name and not re.search(r"[\\\x00-\x1f\x7f]", name)
    return bool(plain) and not windows.drive and not windows.root and ".." not in windows.parts


def _is_web_address(url: Any) -> bool:
    if not isinstance(url, str) or re.search(r"[\s\x00-\x1f\x7f]", url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
