"""Which files lie below a folder: pictures, and what may describe them.

Standard library only. Opens nothing, writes nothing, and knows nothing of captions or pixels. Directory links are
followed once (device and inode are remembered), so loops end; only regular files are listed, so no pipe or device is
ever opened. The order is that of the bytes of NFC names: the same on every machine, file system and locale.
"""

import contextlib
import importlib.util
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"))
# Formats that Pillow reads once a plugin is installed: the plugin's module, Pillow's name of the format, suffixes.
PLUGINS = (("pillow_heif.HeifImagePlugin", "HEIF", (".heic", ".heif")),
           ("pillow_jxl.JpegXLImagePlugin", "JXL", (".jxl",)))
# Pictures all the same, which we do not open: worth a word, unlike the other files of a folder.
UNSUPPORTED = frozenset((".heic", ".heif", ".jxl", ".jfif", ".svg", ".eps", ".ps", ".psd", ".xcf", ".jp2", ".j2k",
                         ".fits", ".tga", ".ico", ".ppm", ".pgm", ".dds", ".exr", ".cr2", ".cr3", ".nef", ".arw",
                         ".dng", ".raf", ".orf"))
UNSUPPORTED_TYPE, UNREADABLE_FOLDER = "unsupported type", "unreadable folder"       # reasons
_SKIPPED_NAMES = ("__MACOSX", "Thumbs.db")


@dataclass(frozen=True, slots=True)
class File:
    """A regular file: `name` is its NFC POSIX path relative to the folder."""

    name: str
    path: Path

    @property
    def directory(self) -> str:
        """'' or 'some/folder', without a slash at the end."""
        return self.name.rpartition("/")[0]

    @property
    def base(self) -> str:
        """The name without its suffix, directory included."""
        head, dot, _ = self.name.rpartition(".")
        return head if dot else self.name

    @property
    def suffix(self) -> str:
        """'.png', in lower case; '' when there is none."""
        return os.path.splitext(self.name)[1].lower()


@dataclass(frozen=True)
class Tree:
    """What lies below `root`, each list in order; `unusable` are (name, reason) of what else should be pictures."""

    root: Path
    pictures: tuple[File, ...]
    others: tuple[File, ...]
    unusable: tuple[tuple[str, str], ...]
    irregular: tuple[tuple[File, str], ...]     # what would be among `others`, and why it is not opened


def sort_key(name: str) -> bytes:
    """Names are ordered by their bytes, whatever the locale."""
    return name.encode("utf-8", "surrogateescape")


def portable_name(relative: str) -> str:
    """A file system's spelling of a relative path → NFC, with bytes that are not UTF-8 kept as surrogates."""
    return unicodedata.normalize("NFC", os.fsencode(relative).decode("utf-8", "surrogateescape"))


def plugins() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """Those of PLUGINS that are installed."""
    return tuple(plugin for plugin in PLUGINS if importlib.util.find_spec(plugin[0].partition(".")[0]))


def picture_suffixes() -> frozenset[str]:
    """Suffixes that are opened, in lower case, with those of installed plugins."""
    return SUFFIXES.union(*(suffixes for _, _, suffixes in plugins()))


def list_tree(folder: Path) -> Tree:
    """Everything of interest below `folder`. Raises DataError when it cannot be read at all."""
    readable = picture_suffixes()
    files: list[tuple[bool, File]] = []
    unusable: list[tuple[str, str]] = []
    irregular: list[tuple[File, str]] = []
    for relative, kind in _walk(folder, unusable):
        file = File(portable_name(relative), folder / relative)
        is_picture = file.suffix in readable
        if kind != "file":
            if is_picture:
                unusable.append((file.name, kind))
            else:
                irregular.append((file, kind))
        elif file.suffix in UNSUPPORTED - readable:
            unusable.append((file.name, UNSUPPORTED_TYPE))
        else:
            files.append((is_picture, file))
    files.sort(key=lambda entry: (sort_key(entry[1].name), os.fsencode(entry[1].path)))
    return Tree(folder, tuple(file for is_picture, file in files if is_picture),
                tuple(file for is_picture, file in files if not is_picture),
                tuple(sorted(unusable, key=lambda problem: sort_key(problem[0]))),
                tuple(sorted(irregular, key=lambda problem: sort_key(problem[0].name))))


def _walk(folder: Path, unusable: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """(relative path, kind) of all that is no directory; kind is "file" or what is wrong with it."""
    found: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    for parent in folder.resolve().parents:     # a link to one of these, "/" for instance, would lead everywhere
        with contextlib.suppress(OSError):
            seen.add(_identity(parent))
    pending: list[str] = [""]
    links: list[str] = []
    while pending or links:
        if not pending:                         # links last: what has a name of its own keeps it
            links.sort(key=os.fsencode, reverse=True)
            pending.append(links.pop())
        directory = pending.pop()
        try:
            identity = _identity(folder / directory)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(folder / directory) as entries:
                for entry in entries:
                    if entry.name.startswith((".", *_SKIPPED_NAMES)):
                        continue
                    relative = f"{directory}/{entry.name}" if directory else entry.name
                    kind = _kind(entry)
                    if kind == "directory":
                        (links if entry.is_symlink() else pending).append(relative)
                    else:
                        found.append((relative, kind))
        except OSError as error:
            if not directory:
                reason = (error.strerror or str(error)).lower()
                raise DataError(f"cannot read the folder {folder}: {reason}", hint="Check its permissions") from error
            unusable.append((portable_name(directory), UNREADABLE_FOLDER))
    return found


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "directory"
        if entry.is_file():
            return "file"
        return "broken link" if entry.is_symlink() and not os.path.exists(entry.path) else "not a regular file"
    except OSError:                             # a link to itself
        return "broken link"


def _identity(directory: Path) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino
