"""Pictures by the number at the end of their names, for tables that say 42 or train2014_42.jpg for 000042.png."""

import posixpath
import re
from collections.abc import Mapping

import numpy as np

from .file_types import is_picture_name

_SPARSE = 2                                     # numbers between the lowest and the highest, for each that is there
_NUMBERED = re.compile(r"(.*?)(\d{1,18})", re.DOTALL)                   # a name with a number at its end
_PARTS = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"(\d{1,18})(\.0|\.[A-Za-z]\w{2,3})?")


def number_in(written: str) -> int | None:
    """The number that a value is: 42 for '42', '42.0', and '42.png'; None for any other."""
    match = _NUMBER.fullmatch(written.strip())
    return int(match[1]) if match else None


def are_the_same(listed: np.ndarray, existing: np.ndarray) -> bool:
    """Whether two series number the same pictures, and do not count two different things. Both: (N,) int64, ascending.

    They are equal; or both have many gaps, as numbers of large data sets do, and half of the shorter is in the other.
    """
    if np.array_equal(listed, existing):
        return True
    shared = np.intersect1d(listed, existing)
    return all(numbers[-1] - numbers[0] >= _SPARSE * len(numbers) for numbers in (listed, existing)) and (
        2 * len(shared) >= min(len(listed), len(existing)))


def words_and_digits(name: str) -> tuple[str, str] | None:
    """What stands before the number at the end of a file's name, and its digits: ('coco train2014', '0042').

    None for a name without such a number, or with folders.
    """
    match = _NUMBERED.fullmatch(posixpath.splitext(name)[0])
    return None if match is None or "/" in name else (" ".join(_PARTS.findall(match[1].casefold())), match[2])


def number_key(number: int) -> str:
    """A number as a text of 18 digits; such texts are in the order of the numbers."""
    return f"{number:018d}"


class PictureNumbers:
    """The numbers of pictures. numbers: (N,) int64, ascending. names: `number_key` → the picture with that number.

    words: before the number in all names; None if they differ. padded: whether zeros stand in front of a number.
    """

    def __init__(self, numbers: np.ndarray, names: Mapping[str, str], *, words: str | None = None,
                 padded: bool = False) -> None:
        self._numbers, self._names, self._words, self._padded = numbers, names, words, padded

    def __bool__(self) -> bool:
        return len(self._numbers) > 0

    def find(self, written: str) -> str | None:
        """The picture with this number."""
        number = number_in(written)
        return None if number is None else self._names.get(number_key(number))

    def number_in_name(self, written: str) -> int | None:
        """The number at the end of a name, if its words are those of the pictures, or one of the two has none.

        None for a number alone.
        """
        found = words_and_digits(written.strip())
        if found is None or not (found[0] or is_picture_name(written)):
            return None
        return int(found[1]) if found[0] in ("", self._words) or self._words == "" else None

    def find_in_name(self, written: str) -> str | None:
        """The picture with the number at the end of a name."""
        number = self.number_in_name(written)
        return None if number is None else self._names.get(number_key(number))

    def fit(self, found: np.ndarray) -> bool:
        """Whether a column with these numbers gives pictures, and does not count rows. found: (N,) int64, ascending."""
        if not self._padded or self._words is None:
            return False
        shared = int(np.isin(found, self._numbers).sum())
        if not shared:
            return False
        has_gaps = found[-1] - found[0] >= len(found)
        return shared == len(found) or (
            shared == len(self._numbers) and bool(has_gaps or found[0] == self._numbers[0]))

    def are_those_of(self, found: np.ndarray) -> bool:
        """Whether a column of names with these numbers at their ends gives pictures. found: (N,) int64, ascending."""
        return are_the_same(found, self._numbers)
