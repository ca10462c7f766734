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
_NAMES_OF_LANGUAGES = """ar cs da de el en es et fa fi fr he hi hr hu it ja ko lt lv nb nl pl pt ro ru sk sl sv th tr
    uk vi zh eng deu ger fra fre spa ita por rus jpn zho chi kor english german french spanish italian portuguese dutch
    polish russian chinese japanese korean"""
LANGUAGES = frozenset(_NAMES_OF_LANGUAGES.split())
_MAX_SERIES = 16                                # of a folder, in several languages for instance


@dataclass
class _Series:
    """Files of one folder that are called alike but for their numbers. words: what stands around the numbers."""

    words: tuple[str, str]
    numbers: "array[int]" = field(default_factory=lambda: array("q"))

    def sorted_numbers(self) -> np.ndarray:
        """The numbers, ascending: (N,) int64."""
        return np.sort(np.array(self.numbers, np.int64))

    def language(self) -> str | None:
        """The language that the words name: en."""
        return next((word for word in _WORD.findall(" ".join(self.words).lower()) if word in LANGUAGES), None)


class NumberedFiles:
    """The files in folders in which all are called alike but for numbers. Folders of KINDS are left out of paths.

    several: whether a folder may have several such series, as in languages, whose folders are then among the words.
    """

    def __init__(self, names: Iterable[str], *, several: bool = False) -> None:
        folders: dict[str, dict[tuple[str, str], _Series] | None] = {}   # None: two have one number, or too many series
        self._names: SpilledDict[str] = SpilledDict()
        for name in names:
            folder, _, stem = without_kinds(posixpath.splitext(name)[0]).rpartition("/")
            above, _, last = folder.rpartition("/")
            if several and last.lower() in LANGUAGES:
                folder, stem = above, f"{last}/{stem}"
            if (match := _LAST_NUMBER.fullmatch(stem)) is None:
                if any(letter.isdecimal() for letter in stem):
                    folders[folder] = None
                continue                        # readme.txt, cover.jpg
            found, number = _Series((match[1], match[3])), int(match[2])
            if (of_folder := folders.setdefault(folder, {})) is None:
                continue
            found = of_folder.setdefault(found.words, found)
            if (key := self._key(folder, found, number)) in self._names or len(of_folder) > (
                    _MAX_SERIES if several else 1):
                folders[folder] = None
                continue
            self._names[key] = name
            found.numbers.append(number)
        self.folders = {folder: list(found.values()) for folder, found in folders.items() if found}

    def name(self, folder: str, series: _Series, number: int) -> str:
        """The file of a series with this number."""
        return self._names[self._key(folder, series, number)]

    @staticmethod
    def _key(folder: str, series: _Series, number: int) -> str:
        return f"{folder}/{'0'.join(series.words)}/{number_key(number)}"


def match_by_number(texts: Iterable[str], pictures: Callable[[], NumberedFiles], *, spare: SpilledDict[None],
                    loosely: bool = False) -> Iterator[tuple[str, str]]:
    """Pairs of a picture and the text with its number, folder by folder, where no text can mean another picture.

    All texts of a folder must be called alike but for their numbers, by words that say nothing or what captions do, and
    all pictures in it, or in the folder beside it as in images/ and captions/, as well. Their numbers must be the same,
    as `are_the_same` says. Of texts in several languages, those without one or the English ones count. loosely: only
    half of the numbers must be the same, and of several series of texts the first counts. spare: gets the texts of the
    other series with these numbers.
    """
    of_texts = NumberedFiles(texts, several=True)
    for folder, several in of_texts.folders.items():
        of_pictures = pictures()
        beside = folder if folder in of_pictures.folders else next(iter(of_pictures.folders)) if (
            len(of_texts.folders) == len(of_pictures.folders) == 1) else None
        if beside is None or (series := _chosen(several, loosely=loosely)) is None:
            continue
        (of_beside,) = of_pictures.folders[beside]
        if not _says_no_more(series.words, of_beside.words):
            continue
        numbers, existing = series.sorted_numbers(), of_beside.sorted_numbers()
        shared = np.intersect1d(numbers, existing)
        if len(shared) > 1 and (are_the_same(numbers, existing) or (
                loosely and 2 * len(shared) >= min(len(numbers), len(existing)))):
            for number in map(int, shared):
                yield of_pictures.name(beside, of_beside, number), of_texts.name(folder, series, number)
            for other in (one for one in several if one is not series):
                spare.update((of_texts.name(folder, other, number), None)
                             for number in np.intersect1d(other.sorted_numbers(), existing).tolist())


def _chosen(several: list[_Series], *, loosely: bool) -> _Series | None:
    """The series of texts that counts, if it is clear which one does."""
    plain = [series for series in several if series.language() is None]
    english = [series for series in several if (series.language() or "").startswith("en")]
    if len(found := plain or english or several) == 1:
        return found[0]
    alike = all(np.array_equal(one.sorted_numbers(), several[0].sorted_numbers()) for one in several)
    return min(several, key=lambda series: series.words) if loosely and alike else None


def _says_no_more(text: tuple[str, str], picture: tuple[str, str]) -> bool:
    """Whether the words of texts are those of pictures, or only say that they are captions; 'dog_' does not."""
    known = KINDS.union(LANGUAGES, _WORD.findall(" ".join(picture)))
    words = [word for word in _WORD.findall(" ".join(text)) if word not in known and not is_caption_name(word)]
    return not words_of_name(" ".join(words))
