"""Lists and dictionaries of any length: the newest entries are in memory, all others in a temporary file.

`spilled_table` keeps the file. A collection of few entries has none. One thread at a time uses a collection.
"""

import operator
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

from .spilled_table import Row, Table, as_bytes, as_text

IN_MEMORY = 2000                                # entries of a collection that are in memory, at most
_CHUNK = 500                                    # rows that are read at once, if the next ones are probably needed
_FEW = 4                                        # rows that are read otherwise
_FIRST = operator.itemgetter(0)

T = TypeVar("T")
V = TypeVar("V")


class SpilledList(Sequence[Row]):
    """A list of rows, each of as many values."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._newest: list[Row] = []
        self._table: Table | None = None
        self._stored = 0                        # rows in the table
        for row in rows:
            self.append(row)

    def append(self, row: Row) -> None:
        """Add a row to the end."""
        self._newest.append(row)
        if len(self._newest) >= IN_MEMORY:
            self._store()

    def sort(self, columns: int) -> None:
        """Sort by the first columns, which hold bytes. Rows that are equal in these stay in their order."""
        if self._table is None:
            self._newest.sort(key=lambda row: row[:columns])
            return
        self._store()
        order = ", ".join(f"v{number}" for number in range(columns))
        self._table.run(f"CREATE TABLE sorted AS SELECT * FROM entries ORDER BY {order}, rowid")
        self._table.run("DROP TABLE entries")
        self._table.run("ALTER TABLE sorted RENAME TO entries")

    def values(self, number: int) -> Iterator[Any]:
        """One value of each row, which takes less time than whole rows."""
        for start in range(0, self._stored, _CHUNK):
            assert self._table is not None
            chunk = self._table.read(f"SELECT v{number} FROM entries WHERE rowid > ? AND rowid <= ?", start,
                                     min(start + _CHUNK, self._stored))
            yield from map(_FIRST, chunk)
        yield from map(operator.itemgetter(number), self._newest)

    def column(self, number: int, decode: Callable[[Any], T]) -> "Column[T]":
        """One value of each row, as `decode` returns it."""
        return Column(self, number, decode)

    def __len__(self) -> int:
        return self._stored + len(self._newest)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        if self._table is None or position >= self._stored:
            return self._newest[position - self._stored]
        return self._table.read("SELECT * FROM entries WHERE rowid = ?", position + 1)[0]

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, self._stored, _CHUNK):
            assert self._table is not None
            yield from self._table.read("SELECT * FROM entries WHERE rowid > ? AND rowid <= ?", start,
                                        min(start + _CHUNK, self._stored))
        yield from self._newest

    def _store(self) -> None:
        if not self._newest:
            return
        columns = range(len(self._newest[0]))
        if self._table is None:
            self._table = Table(", ".join(f"v{number}" for number in columns))
        self._table.write(f"INSERT INTO entries VALUES ({', '.join('?' for _ in columns)})", self._newest)
        self._stored += len(self._newest)
        self._newest.clear()


class Column(Sequence[T]):
    """One value of each row of a list. Equal to every sequence of equal values."""

    def __init__(self, rows: SpilledList, number: int, decode: Callable[[Any], T]) -> None:
        self._rows, self._number, self._decode = rows, number, decode

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            return tuple(self._decode(row[self._number]) for row in self._rows[index])
        return self._decode(self._rows[index][self._number])

    def __iter__(self) -> Iterator[T]:
        return map(self._decode, self._rows.values(self._number))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(
            one == another for one, another in zip(self, other, strict=True))

    __hash__ = None                             # type: ignore[assignment]


class _Keyed:
    """Entries by key: the newest ones, and a table of the others. Questions in the order of the keys are fast."""

    _columns = "key BLOB, value"

    def __init__(self) -> None:
        self._table: Table | None = None
        self._ahead: dict[str, list[Any]] = {}                         # all entries from _start to before _end
        self._start: str = ""                                          # texts have the order of their UTF-8
        self._end: str | None = ""                                     # None: all to the last

    def _stored(self, key: str) -> list[Any]:
        """The values of a key in the table, in the order in which they came."""
        if self._table is None:
            return []
        found = self._ahead.get(key)
        if found is not None:
            return found
        if key < self._start or (self._end is not None and key >= self._end):
            self._read_ahead(key)
        return self._ahead.get(key, [])

    def _read_ahead(self, key: str) -> None:
        """Keep the entries of this key, and of some keys after it: many if the last question was about those before."""
        assert self._table is not None
        number = _CHUNK if key == self._end else _FEW
        rows = self._table.read(
            "SELECT key, value FROM entries WHERE key >= ? ORDER BY key, rowid LIMIT ?", as_bytes(key), number)
        self._start, self._end, self._ahead = key, None, {}
        if len(rows) == number:
            self._end = as_text(rows[-1][0])                             # a key of which not all values may be here
            if self._end == key:
                rows = self._table.read("SELECT key, value FROM entries WHERE key = ? ORDER BY rowid", as_bytes(key))
                self._end = key + "\0"
        for stored, value in rows:
            found = as_text(stored)
            if self._end is None or found < self._end:
                self._ahead.setdefault(found, []).append(value)

    def _write(self, rows: Iterable[Row], conflict: str = "") -> None:
        if self._table is None:
            self._table = Table(self._columns)
        self._table.write(f"INSERT INTO entries VALUES (?, ?) {conflict}", rows)
        self._forget()

    def _forget(self) -> None:
        self._ahead, self._start, self._end = {}, "", ""


class SpilledDict(_Keyed, Mapping[str, V]):
    """A dictionary, in the order in which its keys came first. Values are texts or None, unless a class says how others
    become such.
    """

    _columns = "key BLOB NOT NULL UNIQUE, value"

    def _encode(self, value: V) -> Any:
        return value

    def _decode(self, stored: Any) -> V:
        return stored                           # type: ignore[no-any-return]

    def __init__(self, entries: Iterable[tuple[str, V]] = ()) -> None:
        super().__init__()
        self._newest: dict[str, V] = {}
        self.update(entries)

    def __setitem__(self, key: str, value: V) -> None:
        self._newest[key] = value
        if len(self._newest) >= IN_MEMORY:
            self._store()

    def update(self, entries: Iterable[tuple[str, V]]) -> None:
        """Set the values of keys."""
        for key, value in entries:
            self[key] = value

    def __getitem__(self, key: str) -> V:
        if key in self._newest:
            return self._newest[key]
        if found := self._stored(key):
            return self._decode(found[0])
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return key in self._newest or (isinstance(key, str) and bool(self._stored(key)))

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._pairs())

    def items(self) -> ItemsView[str, V]:
        """Pairs of key and value."""
        return _Items(self)

    def __len__(self) -> int:
        if self._table is None:
            return len(self._newest)
        self._store()
        return int(self._table.read("SELECT COUNT(*) FROM entries")[0][0])

    def __bool__(self) -> bool:
        return bool(self._newest) or self._table is not None

    def _pairs(self) -> Iterator[tuple[str, V]]:
        if self._table is None:
            yield from self._newest.items()
            return
        self._store()
        last = 0
        while rows := self._table.read(
                f"SELECT rowid, key, value FROM entries WHERE rowid > ? ORDER BY rowid LIMIT {_CHUNK}", last):
            yield from ((as_text(key), self._decode(value)) for _, key, value in rows)
            last = rows[-1][0]

    def _store(self) -> None:
        self._write([(as_bytes(key), self._encode(value)) for key, value in self._newest.items()],
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        self._newest.clear()


def packed(texts: tuple[str, ...]) -> str:
    """Texts of one line each, none of them empty, as one text."""
    return "\n".join(texts)


def unpacked(text: str) -> tuple[str, ...]:
    """The texts that were packed."""
    return tuple(text.split("\n")) if text else ()


class SpilledTuples(SpilledDict[tuple[str, ...]]):
    """A dictionary whose values are texts of one line each, none of them empty."""

    def _encode(self, value: tuple[str, ...]) -> str:
        return packed(value)

    def _decode(self, stored: str) -> tuple[str, ...]:
        return unpacked(stored)


class _Items(ItemsView[str, V]):
    """The pairs of a SpilledDict, read in their order and not key by key."""

    _mapping: SpilledDict[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return self._mapping._pairs()


class SpilledLists(_Keyed):
    """A dictionary from texts to lists of texts, to which texts are added."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__()
        self._newest: dict[str, list[str]] = {}
        self._count = 0                         # texts in `_newest`
        self._indexed = False
        for key, value in pairs:
            self.add(key, value)

    def add(self, key: str, value: str) -> None:
        """Add a text to the end of a list."""
        self._newest.setdefault(key, []).append(value)
        self._count += 1
        if self._count >= IN_MEMORY:
            self._write((as_bytes(key), as_bytes(value)) for key, values in self._newest.items() for value in values)
            self._newest.clear()
            self._count = 0

    def get(self, key: str) -> list[str]:
        """The list of a key; empty if there is none."""
        if self._table is not None and not self._indexed:              # late, so that all keys are sorted at once
            self._table.run("CREATE INDEX by_key ON entries (key)")
            self._indexed = True
        return [*map(as_text, self._stored(key)), *self._newest.get(key, ())]

    def __contains__(self, key: str) -> bool:
        return bool(self.get(key))
