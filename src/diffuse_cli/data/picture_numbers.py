"""Pictures by the number at the end of their names, for tables that say 42 and mean 000042.png."""

import re
from collections.abc import Mapping

import numpy as np

_SPARSE = 2                                     # numbers between the lowest and the highest, for each that is there
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


def number_key(number: int) -> str:
    """A number as a text of 18 digits; such texts are in the order of the numbers."""
    return f"{number:018d}"


class PictureNumbers:
    """The numbers of pictures. numbers: (N,) int64, ascending. names: `number_key` → the picture with that number."""

    def __init__(self, numbers: np.ndarray, names: Mapping[str, str]) -> None:
        self._numbers, self._names = numbers, names

    def __bool__(self) -> bool:
        return len(self._numbers) > 0

    def find(self, written: str) -> str | None:
        """The picture with this number."""
        number = number_in(written)
        return None if number is None else self._names.get(number_key(number))

    def first(self) -> tuple[int, str]:
        """The lowest number, and its picture."""
        number = int(self._numbers[0])
        return number, self._names[number_key(number)]

    def fit(self, found: np.ndarray) -> bool:
        """Whether a column with these numbers gives pictures, and does not count rows. found: (N,) int64, ascending."""
        shared = int(np.isin(found, self._numbers).sum())
        if not shared:
            return False
        has_gaps = found[-1] - found[0] >= len(found)
        return shared == len(found) or (
            shared == len(self._numbers) and bool(has_gaps or found[0] == self._numbers[0]))
