"""List the files below a folder: pictures, and other files, which may describe them.

Standard library only. Opens no file and writes nothing. Links to directories are followed once each (device and inode
are remembered), so loops end. Only regular files are listed, so that nobody opens a pipe or a device. Files are sorted
by the bytes of their NFC names: the order is the same on every machine, file system and locale.
"""

import contextlib
import importlib.util
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"))
# Formats that Pillow can read if a plugin is installed: the plugin's module, Pillow's name of the format, suffixes.
PLUGINS = (("pillow_heif.HeifImagePlugin", "HEIF", (".heic", ".heif")),
           ("pillow_jxl.JpegXLImagePlugin", "JXL", (".jxl",)))
# Suffixes of pictures that we do not open. Unlike other files of a folder, they are reported.
UNSUPPORTED = frozenset((".heic", ".heif", ".jxl", ".jfif", ".svg", ".eps", ".ps", ".psd", ".xcf", ".jp2", ".j2k",
                         ".fits", ".tga", ".ico", ".ppm", ".pgm", ".dds", ".exr", ".cr2", ".cr3", ".nef", ".arw",
                         ".dng", ".raf", ".orf"))
UNSUPPORTED_TYPE, UNREADABLE_FOLDER = "unsupported type", "unreadable folder"       # reasons in `Tree.unusable`
_SKIPPED_PREFIXES = (".", "__MACOSX", "Thumbs.db")      # how names begin that are ignored


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
        """The name with its directory, without its suffix."""
        head, dot, _ = self.name.rpartition(".")
        return head if dot else self.name

    @property
    def suffix(self) -> str:
        """'.png', in lower case; '' if there is none."""
        return os.path.splitext(self.name)[1].lower()


@dataclass(frozen=True)
class Tree:
    """The files below `root`, each tuple in the order of the names."""

    root: Path
    pictures: tuple[File, ...]
    others: tuple[File, ...]                    # all other regular files, where captions may be
    unusable: tuple[tuple[str, str], ...]       # (name, reason): pictures not to open, unreadable folders
    irregular: tuple[tuple[File, str], ...]     # (file, reason): others that are not regular files


def sort_key(name: str) -> bytes:
    """The bytes of a name: names are sorted by them, whatever the locale."""
    return name.encode("utf-8", "surrogateescape")


def portable_name(relative: str) -> str:
    """A relative path as the file system spells it → NFC; bytes that are not UTF-8 are kept as surrogates."""
    return unicodedata.normalize("NFC", os.fsencode(relative).decode("utf-8", "surrogateescape"))


def plugins() -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """The entries of PLUGINS that are installed."""
    return tuple(plugin for plugin in PLUGINS if importlib.util.find_spec(plugin[0].partition(".")[0]))


def picture_suffixes() -> frozenset[str]:
    """Suffixes of pictures that can be opened, in lower case, including those of installed plugins."""
    return SUFFIXES.union(*(suffixes for _, _, suffixes in plugins()))


def list_tree(folder: Path) -> Tree:
    """The pictures and other files below `folder`. Raises DataError if the folder itself cannot be read."""
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
    """(relative path, kind) of everything but directories; `kind` is "file", or says what is there instead.

    Appends the name of each folder that cannot be read to `unusable`.
    """
    files: list[tuple[str, str]] = []
    visited: set[tuple[int, int]] = set()
    for parent in folder.resolve().parents:     # a link to one of these, "/" for instance, would lead everywhere
        with contextlib.suppress(OSError):
            visited.add(_identity(parent))
    pending: list[str] = [""]
    links: list[str] = []
    while pending or links:
        if not pending:                         # links last: a directory is listed under its own name, if it has one
            links.sort(key=os.fsencode, reverse=True)
            pending.append(links.pop())
        directory = pending.pop()
        try:
            identity = _identity(folder / directory)
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(folder / directory) as entries:
                for entry in entries:
                    if entry.name.startswith(_SKIPPED_PREFIXES):
                        continue
                    relative = f"{directory}/{entry.name}" if directory else entry.name
                    kind = _kind(entry)
                    if kind == "directory":
                        (links if entry.is_symlink() else pending).append(relative)
                    else:
                        files.append((relative, kind))
        except OSError as error:
            if not directory:
                reason = (error.strerror or str(error)).lower()
                raise DataError(f"cannot read the folder {folder}: {reason}", hint="Check its permissions") from error
            unusable.append((portable_name(directory), UNREADABLE_FOLDER))
    return files


def _kind(entry: os.DirEntry[str]) -> str:
    """One of "directory", "file", "broken link" and "not a regular file"."""
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
