"""A table in a temporary file, which SQLite keeps in the system's folder for such files, or where TMPDIR says.

It is gone when the process ends, however that happens.
"""

import sqlite3
import weakref
from collections.abc import Iterable
from typing import Any, NoReturn

from ..errors import StorageError

_CACHE = 512                                    # KiB of a file that SQLite keeps in memory

Row = tuple[Any, ...]                           # of texts, bytes, whole numbers and None


class Table:
    """The table `entries` in a temporary file of its own. All methods raise StorageError."""

    def __init__(self, columns: str) -> None:
        try:
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            _fail(error)
        weakref.finalize(self, self._connection.close)
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", f"PRAGMA cache_size = -{_CACHE}",
                          f"CREATE TABLE entries ({columns})", "BEGIN"):
            self.run(statement)

    def run(self, statement: str) -> None:
        """Run a statement without a result."""
        self.read(statement)

    def read(self, statement: str, *values: Any) -> list[Row]:
        """The rows of a result."""
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            _fail(error)

    def write(self, statement: str, rows: Iterable[Row]) -> None:
        """Run a statement for each row of values."""
        try:
            self._connection.executemany(statement, rows)
        except sqlite3.Error as error:
            _fail(error)


def _fail(error: sqlite3.Error) -> NoReturn:
    raise StorageError(f"cannot keep the list of pictures in the folder for temporary files: {error}",
                       hint="Make room there, or name another folder in the environment variable TMPDIR") from error


def as_bytes(text: str) -> bytes:
    """A text as it is stored; bytes sort as texts do."""
    return text.encode("utf-8", "surrogatepass")                       # bytes of names that are no UTF-8 are surrogates


def as_text(data: bytes) -> str:
    """The inverse of `as_bytes`."""
    return data.decode("utf-8", "surrogatepass")

