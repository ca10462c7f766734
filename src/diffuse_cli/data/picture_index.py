"""Which picture a written name means: exact paths, and paths of another machine, folder, spelling or format.

A name is matched leniently only where no other picture could be meant.
"""

import functools
import os
import posixpath
import re
import unicodedata
import urllib.parse
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from .file_types import picture_suffixes
from .picture_numbers import PictureNumbers, number_key, words_and_digits
from .spilled import SpilledDict, SpilledLists

# Names of folders that only say what kind of file is in them, in the layouts images/… and captions/….
KINDS = frozenset(("images", "image", "imgs", "img", "pictures", "pics", "photos", "jpg", "jpegs", "png", "pngs",
                    "captions", "caption", "caps", "labels", "label", "texts", "text", "txt", "txts", "tags", "prompts",
                    "prompt", "annotations", "descriptions", "description", "desc", "metadata", "meta"))

# Names of texts about a whole data set or program, and not about the picture that is called so.
NOT_SIDECARS = frozenset(("readme", "license", "licence", "notice", "classes", "labels", "requirements", "changelog",
                          "copyright", "credits", "authors", "sources", "index", "list",
                          # of albums in Google Takeout
                          "metadata", "shared_album_comments", "print_subscriptions", "user_generated_memory_titles"))
NEVER_CAPTIONS = NOT_SIDECARS - {"labels", "list", "index"}             # these may hold captions without names
# Names of texts that describe a whole folder, as `annotations.normalised` spells them.
FOLDER_TEXTS = frozenset(("caption", "captions", "prompt", "prompts", "label", "description", "text", "tag", "tags",
                          "class", "class_name", "class_prompt", "instance_prompt", "trigger", "trigger_word",
                          "trigger_words", "concept", "folder"))

_IN_ARCHIVE = re.compile(r"\.(?:zip|tar)/", re.IGNORECASE)
MAX_PATH = 4096                                 # letters of a path that a table may name; no system has longer ones
_LEADING = re.compile(r"(?:.*/)?upload/(?:.*/)?[0-9a-f]{8}-")           # of an uploaded file in Label Studio


def plain_path(written: str) -> str:
    """A path as tables write it, without what only says where it was or which caption stands there."""
    path = unicodedata.normalize("NFC", re.sub(r"#\d+$", "", written.strip())).replace("\\", "/")
    path = path.rpartition("/?d=")[2]           # a local file in Label Studio
    if path.lower().startswith("file:///"):
        path = urllib.parse.unquote(path[7:])
    return _IN_ARCHIVE.sub("/", path)           # images.zip/1.png


class PictureIndex:
    """The pictures of a data set by name. names: gives their POSIX paths relative to the data set.

    written_names: of `folders.Tree`; if there are such names, pictures are found by these alone. root: the folder of
    the data set, if a path of a file that exists elsewhere cannot mean one of its pictures.
    """

    def __init__(self, names: Callable[[], Iterable[str]],
                 written_names: Callable[[list[str]], SpilledDict[str]] | None = None,
                 root: Path | None = None) -> None:
        self._root = root
        self.notes: list[str] = []              # what there is to say about the names, once one was looked for
        self._all_names, self._written_names = names, written_names
        self._is_prepared = False
        self._by_file, self._by_stem, self._by_kind = SpilledLists(), SpilledLists(), SpilledLists()
        self._suffixes = picture_suffixes()

    def _names(self) -> Iterable[str]:
        return self._known or self._all_names()

    @functools.cached_property
    def _known(self) -> SpilledDict[str]:
        return self._written_names(self.notes) if self._written_names else SpilledDict()

    def written_names(self, pictures: Iterable[str]) -> Iterable[tuple[str, str]]:
        """What tables may call the pictures, each with the picture's name."""
        return self._known.items() if self._known else ((name, name) for name in pictures)

    def _prepare(self) -> None:
        """Look at the names, with the first question."""
        if self._is_prepared:
            return
        self._is_prepared = True
        for name in self._names():
            file = posixpath.basename(name).casefold()
            self._by_file.add(file, name)
            self._by_stem.add(posixpath.splitext(file)[0], name)
            self._by_kind.add(without_kinds(posixpath.splitext(name)[0]), name)

    def find(self, written: str, *, directory: str = "") -> str | None:
        """The picture that a table in `directory` means by `written`, or None.

        `written` may be a path below that directory, a path of another machine or an address, each with or without its
        suffix, in another case, or with the number of a caption as in "1000.jpg#2". A folder in it must not contradict
        the picture's folders.
        """
        if len(written) > MAX_PATH:
            return None
        self._prepare()
        path = plain_path(written)
        if self._root and os.path.isabs(path) and os.path.isfile(path) and not Path(path).is_relative_to(self._root):
            return None
        found = self._find(path, directory) or (
            self._find(plain, directory)
            if (plain := urllib.parse.unquote(_LEADING.sub("", path))) != path else None)
        return found and self._known.get(found, found)

    def _find(self, path: str, directory: str) -> str | None:
        exact = posixpath.normpath(posixpath.join(directory, path))
        if exact in self._by_file.get(posixpath.basename(exact).casefold()):
            return exact
        if exact.startswith("../"):             # outside of the data set
            return None
        if re.match(r"[a-z][a-z0-9+.-]*://", path, re.IGNORECASE):
            path = re.sub(r"[?#].*$", "", path)
        parents, file = posixpath.split(posixpath.normpath(path).casefold())
        if not file or file == ".":
            return None
        found = self._by_file.get(file)
        if not found:
            stem, suffix = posixpath.splitext(file)
            found = self._by_stem.get(stem if suffix in self._suffixes else file)
        names = [name for name in dict.fromkeys(found) if _agree(parents, posixpath.dirname(name).casefold())]
        return _only(names, directory)

    def fits_several(self, written: str) -> bool:
        """Whether `written`, which `find` does not find, is the name of pictures in several folders."""
        self._prepare()
        parents, file = posixpath.split(unicodedata.normalize("NFC", written).replace("\\", "/").casefold())
        return len(written) <= MAX_PATH and sum(
            _agree(parents, posixpath.dirname(name).casefold()) for name in dict.fromkeys(self._by_file.get(file))) > 1

    @functools.cached_property
    def numbers(self) -> PictureNumbers:
        """The number at the end of each picture's name: 42 for "000042.png".

        Empty if a name has none, or a number is there twice.
        """
        names: SpilledDict[str] = SpilledDict()
        numbers, all_words, padded = array("q"), set[str](), False
        for name in self._names():
            found = words_and_digits(posixpath.basename(name))
            if found is None:
                return PictureNumbers(np.empty(0, np.int64), {})
            words, digits = found
            if len(all_words) < 2:
                all_words.add(words)
            padded = padded or digits[0] == "0" < digits
            numbers.append(int(digits))
            names[number_key(int(digits))] = self._known.get(name, name)
        found_once = np.unique(np.array(numbers, np.int64))
        return PictureNumbers(found_once if len(found_once) == len(numbers) else found_once[:0], names,
                              words=all_words.pop() if len(all_words) == 1 else None, padded=padded)

    def find_parallel(self, base: str) -> str | None:
        """The picture images/a/1.png that belongs to the text captions/a/1 (`base`, without its suffix), or None.

        A text in such a folder also belongs to the only picture of its name, wherever it lies.
        """
        self._prepare()
        found = list(dict.fromkeys(self._by_kind.get(without_kinds(base))))
        if not found and not KINDS.isdisjoint(_parts(base.casefold())[:-1]):
            return self.find_only(base)
        return found[0] if len(found) == 1 else None

    def find_only(self, base: str) -> str | None:
        """The only picture that is called as `base` is, without suffixes and folders; None if there are several."""
        self._prepare()
        found = list(dict.fromkeys(self._by_stem.get(posixpath.basename(base).casefold())))
        return found[0] if len(found) == 1 else None


def _only(names: list[str], directory: str) -> str | None:
    """The only name, or the only one in the directory."""
    if len(names) > 1:
        names = [name for name in names if posixpath.dirname(name) == directory]
    return names[0] if len(names) == 1 else None


def _agree(written: str, existing: str) -> bool:
    """Whether two folders' paths, compared from their ends, differ nowhere: one may be longer than the other."""
    return all(one == other for one, other in zip(_parts(written)[::-1], _parts(existing)[::-1], strict=False))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def without_kinds(base: str) -> str:
    """A path without the folders that only say what kind of file is in them, in small letters."""
    *folders, stem = _parts(base.casefold())
    return "/".join((*(part for part in folders if part not in KINDS), stem))


def names_in(text: bytes, index: PictureIndex) -> int:
    """How many pictures the words of a text name with their suffixes, among the first words that look like files."""
    words = re.findall(r"[^\s\"'()<>\[\]{}|=:,;`]{1,200}\.\w{3,5}\b", text.decode("utf-8", "replace"))
    return sum(index.find(word) is not None for word in dict.fromkeys(words[:200]))
