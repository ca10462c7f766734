"""Captions from names: those of the folders that a picture lies in, and its file's own.

Names that cameras, programs and web sites give say nothing, and mean no caption.
"""

import dataclasses
import itertools
import posixpath
import re
from collections import Counter
from collections.abc import Mapping

from .caption_text import tidy
from .code_pages import NAME_PAGES, guess_among
from .containers import File
from .file_tree import FileList, Tree
from .name_words import words_of_name
from .source_captions import SourceCaptions
from .spilled import SpilledDict, SpilledTuples
from .split import splits_among

WORDY_NAMES = 0.8                               # minimum share of file names that hold a word, to be captions
LABELLED = 0.5                                  # minimum share of pictures in folders with words, for the same
_COMMON = 0.95                                  # share of pictures in a folder from which its name tells nothing apart

_ID = re.compile(r"n\d{8}|\d{1,9}|(?:/[mg]/|m\.)0\w{1,8}")             # of WordNet, of a list, of Freebase
_WORD = re.compile(r"[^\W\d_]{3,}|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")       # 猫 is a word
_ARCHIVE = re.compile(r"\.(?:zip|tar)(?=/|$)", re.IGNORECASE)           # in the names of cats.zip beside cats.tar
_FOREIGN = re.compile("[\udc80-\udcff]")                                # a byte of a name that is not UTF-8
_SAMPLE = 1000                                  # names by which their encoding is guessed
_REPEATS = re.compile(r"^[1-9]\d*_(?=\S)")                                 # 10_sks dog: each picture ten times


def read_names(tree: Tree, *, template: str, folders: bool = True, files: bool = True,
               class_names: Mapping[str, str] | None = None, in_shards: bool = True) -> SourceCaptions:
    """A caption for each picture from the names of its folders and of its file, put into `template`.

    "{folder}" stands for the words of the folders, "{name}" for those of the file and "{label}" for both. Folders count
    if they tell pictures apart, or have a number in front. Names of files count if nearly all hold words that differ.
    folders, files: whether those names may count. class_names: names of folders → the words they stand for. in_shards:
    whether the paths and names that shards hold for their rows may count, which must be read. The source is `present`
    if any names count.
    """
    if tree.written_names and in_shards:
        names: SpilledDict[str] = SpilledDict()         # a row → its first name
        for written, name in tree.written_names([]).items():
            if name not in names:
                names[name] = written
        rows = SpilledDict((written, name) for name, written in names.items())
        called = dataclasses.replace(tree, pictures=FileList(File(written, tree.root) for written in rows),
                                     written_names=None)
        source = read_names(called, template=template, folders=folders, files=files, class_names=class_names)
        source.by_name = SpilledTuples((rows[written], captions) for written, captions in source.by_name.items())
        return source
    encoding = _encoding_of_names(tree)
    labels = _folder_labels(tree, class_names or {}, encoding) if folders else {}
    words = _file_words(tree, encoding) if files else SpilledDict[str]()
    first = next((text for _, text in words.items()), "")
    same = bool(first) and len(tree.pictures) > 1 and all(
        text.casefold() == first.casefold() for _, text in words.items())
    has_names = bool(words) and not same
    source = SourceCaptions("folder name" if labels and not has_names else "file name" if has_names and not labels
                            else "folder and file name", present=bool(labels) or has_names)
    if source.present and encoding:
        source.notes.append(f"names of folders or files are not UTF-8 and were read as {encoding}")
    for picture in tree.pictures.names() if source.present else ():
        folder, name = labels.get(picture.rpartition("/")[0], ""), words.get(picture, "") if has_names else ""
        name = _without_repetition(folder.split(), name.split())
        label = f"{folder} {name}"
        if label.strip():
            source.by_name[picture] = (
                tidy(template.replace("{label}", label).replace("{folder}", folder).replace("{name}", name)),)
    if same and not labels:
        source.notes.append(f"the names of all files say “{first}”, which tells no picture from another; "
                            f"--caption \"{first}\" would use it")
    numbered = sorted({part for directory in tree.directories if _REPEATS.match(
        part := posixpath.basename(directory))}) if labels else []
    if numbered:
        source.warnings.append(f"the number in front of {numbered[0]!r} is not part of the caption, "
                               "and pictures are not repeated")
    return source


def _without_repetition(folder: list[str], name: list[str]) -> str:
    """The words of a file's name without those at its beginning that end its folder's: horse/horse-asleep.jpg."""
    for length in range(min(len(folder), len(name)), 0, -1):
        if [word.casefold() for word in folder[-length:]] == [word.casefold() for word in name[:length]]:
            return " ".join(name[length:])
    return " ".join(name)


def _encoding_of_names(tree: Tree) -> str:
    """The code page of names that are not UTF-8, as an old archive leaves them; "" without such names."""
    names = itertools.chain(tree.directories, (name.rpartition("/")[2] for name in tree.pictures.names()))
    foreign = list(itertools.islice((name for name in names if _FOREIGN.search(name)), _SAMPLE))
    words = dict.fromkeys(word for name in foreign for word in re.split(r"[/ ._-]+", name) if _FOREIGN.search(word))
    return (guess_among(" ".join(words).encode("utf-8", "surrogateescape"), NAME_PAGES) or "") if words else ""


def _spelt(name: str, encoding: str) -> str:
    """A name with its bytes in an encoding, if they are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode(encoding, "replace") if _FOREIGN.search(name) else name


def _folder_labels(tree: Tree, class_names: Mapping[str, str], encoding: str) -> dict[str, str]:
    """Folder → its words and those of the folders above, without names below which nearly all pictures lie.

    A name may be in many places, as in cat/images/1.png. {} if they are no labels. encoding: of names not in UTF-8.
    """
    folders = {directory: _ARCHIVE.sub("", _spelt(directory, encoding)).split("/") if directory else []
               for directory in tree.directories}
    inside: Counter[str] = Counter()            # a folder's name → the pictures below folders with this name
    for directory, parts in folders.items():
        inside.update(dict.fromkeys(parts, tree.directories[directory]))
    shelves: dict[str, set[str]] = {}           # a folder of one letter, as in a/abbey → those in it
    for parts in folders.values():
        for part, below in itertools.pairwise([*parts, ""]):
            if len(part) == 1:
                shelves.setdefault(part, set()).add(below)
    common = _COMMON * (len(tree.pictures) - tree.directories[""])
    splits = splits_among(tree.directories)
    words: dict[str, str] = {}                  # a folder's name → its words

    def words_of(parts: list[str]) -> str:
        if parts and _REPEATS.match(parts[-1]):                         # reg/1_dog is a dog
            return words_of_name(_REPEATS.sub("", parts[-1]), numbers=True)
        result = []
        for part in parts:
            is_shelf = len(part) == 1 and all(below.casefold().startswith(part.casefold()) for below in shelves[part])
            if part in class_names:
                result.append(class_names[part])
            elif inside[part] < common and not is_shelf and part not in splits:
                if part not in words:
                    words[part] = part if part.lower() == "train" else words_of_name(
                        _REPEATS.sub("", part), numbers=True)
                result.append(words[part])
        return " ".join(filter(None, result))

    labels = {directory: label for directory, parts in folders.items() if (label := words_of(parts))}
    is_certain = any(part in class_names or (part is parts[-1] and _REPEATS.match(part))
                     for parts in folders.values() for part in parts)
    enough = sum(tree.directories[directory] for directory in labels) >= LABELLED * len(tree.pictures)
    return labels if enough and (len(set(labels.values())) >= 2 or is_certain) else {}


def _file_words(tree: Tree, encoding: str) -> SpilledDict[str]:
    """Picture → the words of its file's name, if it holds any; empty if too few do.

    Among names with words, a name that is one word is also one that would say nothing elsewhere: camera.png, ox.png.
    """
    words: SpilledDict[str] = SpilledDict()
    wordy = 0
    for name in tree.pictures.names():
        stem = _spelt(posixpath.splitext(posixpath.basename(name))[0], encoding)
        text = words_of_name(stem)
        if is_wordy := bool(_WORD.search(text)):
            wordy += 1
        if is_wordy or (len(stem) > 1 and stem.isalpha()):
            words[name] = text or stem
    return words if wordy >= WORDY_NAMES * len(tree.pictures) else SpilledDict()


def is_id(text: str) -> bool:
    """Whether a name or caption is a number or an id of WordNet or Freebase, which needs a name to mean anything."""
    return bool(_ID.fullmatch(text))


def id_among_folders(tree: Tree) -> str:
    """The first folder of pictures whose name is an id, if most pictures lie in such folders; "" otherwise."""
    found = {directory: part for directory in tree.directories if is_id(part := posixpath.basename(directory))}
    pictures = sum(tree.directories[directory] for directory in found)
    return next(iter(found.values())) if 2 * pictures > len(tree.pictures) and len(set(found.values())) > 1 else ""
