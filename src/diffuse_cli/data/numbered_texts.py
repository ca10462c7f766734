"""Texts that have the numbers of pictures and other words: caption_0001.txt beside image_0001.png."""

import posixpath
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .caption_columns import is_caption_name
from .name_words import words_of_name
from .picture_index import KINDS, without_kinds
from .picture_numbers import are_the_same, number_key
from .spilled import SpilledDict

_LAST_NUMBER = re.compile(r"(.*\D|)(\d{1,18})(\D*)", re.DOTALL)         # "image ", "12" and ")" in "image (12)"
_WORD = re.compile(r"[^\W\d_]+")


@dataclass
class _Folder:
    """The files of one folder. words: what stands around their numbers, the same in all of them."""

    words: tuple[str, str]
    numbers: "array[int]" = field(default_factory=lambda: array("q"))

    def sorted_numbers(self) -> np.ndarray:
        """The numbers, ascending: (N,) int64."""
        return np.sort(np.array(self.numbers, np.int64))


class NumberedFiles:
    """The files in folders in which all are called alike but for numbers. Folders of KINDS are left out of paths."""

    def __init__(self, names: Iterable[str]) -> None:
        folders: dict[str, _Folder | None] = {}         # None: not all are called alike, or two have one number
        self.names: SpilledDict[str] = SpilledDict()    # folder/number → the file
        for name in names:
            folder, _, stem = without_kinds(posixpath.splitext(name)[0]).rpartition("/")
            if (match := _LAST_NUMBER.fullmatch(stem)) is None:
                if any(letter.isdecimal() for letter in stem):
                    folders[folder] = None
                continue                        # readme.txt, cover.jpg
            words, key = (match[1], match[3]), f"{folder}/{number_key(int(match[2]))}"
            found = folders.setdefault(folder, _Folder(words))
            if found is None or found.words != words or key in self.names:
                folders[folder] = None
                continue
            self.names[key] = name
            found.numbers.append(int(match[2]))
        self.folders = {folder: found for folder, found in folders.items() if found is not None}


def match_by_number(texts: Iterable[str], pictures: Callable[[], NumberedFiles], *, loosely: bool = False,
                    ) -> Iterator[tuple[str, str]]:
    """Pairs of a picture and the text with its number, folder by folder, where no text can mean another picture.

    All texts of a folder must be called alike but for their numbers, by words that say nothing or what captions do, and
    all pictures in it, or in the folder beside it as in images/ and captions/, as well. Their numbers must be the same,
    as `are_the_same` says. loosely: only half of the numbers must be.
    """
    of_texts = NumberedFiles(texts)
    for folder, found in of_texts.folders.items():
        of_pictures = pictures()
        beside = folder if folder in of_pictures.folders else next(iter(of_pictures.folders)) if (
            len(of_texts.folders) == len(of_pictures.folders) == 1) else None
        if beside is None or not _says_no_more(found.words, of_pictures.folders[beside].words):
            continue
        numbers, existing = found.sorted_numbers(), of_pictures.folders[beside].sorted_numbers()
        shared = np.intersect1d(numbers, existing)
        if len(shared) > 1 and (are_the_same(numbers, existing) or (
                loosely and 2 * len(shared) >= min(len(numbers), len(existing)))):
            for number in map(number_key, map(int, shared)):
                yield of_pictures.names[f"{beside}/{number}"], of_texts.names[f"{folder}/{number}"]


def _says_no_more(text: tuple[str, str], picture: tuple[str, str]) -> bool:
    """Whether the words of texts are those of pictures, or only say that they are captions; 'dog_' does not."""
    known = KINDS.union(_WORD.findall(" ".join(picture)))
    words = [word for word in _WORD.findall(" ".join(text)) if word not in known and not is_caption_name(word)]
    return not words_of_name(" ".join(words))
