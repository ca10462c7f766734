"""Pictures inside parquet and Arrow files, as Hugging Face's the library datasets keeps them on disk. Needs pyarrow.

A row holds a picture's bytes in one column, and captions or classes in others.
"""

import io
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from .. import installing
from ..errors import DataError
from ..files.input_files import check_input
from ..files.strict_json import JsonError, loads_strict
from .containers import ARCHIVE_LIMIT, MEMBER_LIMIT, identity_of, judge_row_count, reading, rows_of_batches

ARROW_SUFFIXES = (".parquet", ".arrow")


class Cell:
    """A picture in a row of a file."""

    __slots__ = ("column", "container", "row")
    container: Path

    def __init__(self, container: Path, column: str, row: int) -> None:
        self.container, self.column, self.row = container, column, row

    def __str__(self) -> str:
        return f"{self.container}/{self.row}"

    def packed(self) -> tuple[tuple[Any, ...], tuple[str, int, int | None]]:
        """→ what the cells of a file share, what is its own"""
        return (Cell._of, self.container), (self.column, self.row, None)

    @staticmethod
    def _of(container: Path, column: str, row: int, _: None) -> "Cell":
        return Cell(container, column, row)

    def stat(self) -> os.stat_result:
        """The status of the container: a row changes with it."""
        return os.stat(self.container)

    def read_bytes(self) -> bytes:
        """The bytes of the picture. Raises OSError."""
        return _Pieces.read(self)

    def head(self, count: int) -> bytes:
        """The first `count` bytes. Raises OSError."""
        return self.read_bytes()[:count]

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The bytes of the picture as an open file."""
        return io.BytesIO(self.read_bytes())


class _Pieces:
    """The piece of a file that was read last stays in memory: rows are read in their order."""

    lock = threading.Lock()
    key: tuple[tuple[Path, int, int], str] | None = None
    start = 0
    piece: Any = None                           # an array of pyarrow
    table: "ArrowTable | None" = None

    @classmethod
    def read(cls, cell: Cell) -> bytes:
        """The bytes in a cell. Raises OSError."""
        with cls.lock:
            try:
                key = identity_of(cell.container), cell.column
                if cls.key != key or cls.table is None:
                    cls.table, cls.key, cls.piece = ArrowTable(cell.container), key, None
                if cls.piece is None or not cls.start <= cell.row < cls.start + len(cls.piece):
                    cls.start, cls.piece = cls.table.piece_with(cell.row, cell.column)
                with reading(cell.container.name, cell.container):
                    value = cls.piece[cell.row - cls.start].as_py()
            except DataError as error:
                raise OSError(error.what) from error
        data = _contents(value)
        if not isinstance(data, bytes) or len(data) > MEMBER_LIMIT:
            raise OSError("no picture in this row")
        return data


class ArrowTable:
    """A parquet or Arrow file. Raises DataError if it cannot be read, or pyarrow is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import pyarrow
            from pyarrow import ipc, parquet
        except ImportError as error:
            raise DataError(f"{path.name} needs pyarrow", hint=installing.extra("parquet")) from error
        with reading(path.name, path):
            check_input(path, limit=ARCHIVE_LIMIT)
            if path.suffix.lower() == ".parquet":
                self._file, self._table = parquet.ParquetFile(path), None
                self.schema, self.rows = self._file.schema_arrow, self._file.metadata.num_rows
            else:
                source = pyarrow.memory_map(str(path))
                try:
                    self._table = ipc.open_stream(source).read_all()   # maps the file, without reading the pictures
                except pyarrow.ArrowInvalid:
                    self._table = ipc.open_file(source).read_all()
                self._file, self.schema, self.rows = None, self._table.schema, self._table.num_rows
            judge_row_count(self.rows, path.stat().st_size, path.name)
            self.names = self.schema.names      # which raises for one that is not UTF-8

    def piece_with(self, row: int, column: str) -> tuple[int, Any]:
        """Some rows of a column, among them `row`. → the number of the first of them, the values"""
        start = 0
        with reading(self.path.name, self.path):
            if self._table is not None:
                return 0, _checked(self._table.column(column))
            for group in range(self._file.metadata.num_row_groups):
                count = self._file.metadata.row_group(group).num_rows
                if row < start + count:
                    piece = self._file.read_row_group(group, columns=[column], use_threads=False)
                    return start, _checked(piece.column(column))
                start += count
        raise DataError(f"{self.path.name} has no row {row}")

    def columns_of_bytes(self) -> list[str]:
        """The columns that may hold the contents of pictures."""
        import pyarrow

        def holds_bytes(kind: Any) -> bool:
            if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
                return holds_bytes(kind.value_type)
            return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind) or (
                pyarrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0))

        return [str(field.name) for field in self.schema if holds_bytes(field.type)]

    def image_column(self) -> str | None:
        """The first column whose first value that is not empty is the contents of a picture, or None."""
        for name in self.columns_of_bytes() if self.rows else ():
            with reading(self.path.name, self.path):
                contents = (_contents(value.as_py()) for value in self.piece_with(0, name)[1])
                first = next(filter(None, contents), None)
            if isinstance(first, bytes) and is_picture(first):
                return name
        return None

    def is_list(self, column: str) -> bool:
        """Whether a column holds lists, of pictures for instance, of which the first counts."""
        import pyarrow

        kind = self.schema.field(column).type
        return bool(pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind))

    def texts(self, without: str) -> Iterator[dict[str, Any]]:
        """The rows without the column of pictures; numbers of classes become their names."""
        import pyarrow

        names = self._class_names()
        columns = [name for name, field in zip(self.names, self.schema, strict=True)
                   if name != without and not pyarrow.types.is_binary(field.type)]
        with reading(self.path.name, self.path):
            batches = iter(self._table.select(columns).to_batches(1024)) if self._table is not None else \
                self._file.iter_batches(batch_size=1024, columns=columns, use_threads=False)
        for row in rows_of_batches(batches, self.path.name, self.path):
            yield {key: names[key][value]
                   if key in names and type(value) is int and 0 <= value < len(names[key]) else value
                   for key, value in row.items()}

    def names_in_rows(self, image: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some columns of the rows: of the column of pictures, `image`, the path that stands beside the bytes, if any.
        """
        import pyarrow.compute

        kind = self.schema.field(image).type
        has_path = image in columns and pyarrow.types.is_struct(kind) and kind.get_field_index("path") >= 0
        others = [name for name in columns if name != image and name in self.names]
        with reading(self.path.name, self.path):
            if self._table is not None:
                arrays = {name: self._table.column(name) for name in others}
                if has_path:
                    arrays[image] = pyarrow.compute.struct_field(self._table.column(image), "path")
                batches = iter(pyarrow.table(arrays).to_batches(1024))
            else:
                wanted = [*others, f"{image}.path"] if has_path else others
                batches = self._file.iter_batches(batch_size=1024, columns=wanted, use_threads=False)
        return rows_of_batches(batches, self.path.name, self.path)

    def _class_names(self) -> dict[str, list[str]]:
        """Column → the names of its classes, from what the library datasets writes into the file."""
        try:
            features = loads_strict((self.schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
            return {column: list(map(str, feature["names"])) for column, feature in features.items()
                    if isinstance(feature, dict) and isinstance(feature.get("names"), list)}
        except (JsonError, KeyError, TypeError, AttributeError):
            return {}


def holds_pictures(path: Path) -> bool:
    """Whether a parquet or Arrow file has a column of pictures; not if it cannot be read."""
    try:
        return ArrowTable(path).image_column() is not None
    except DataError:
        return False


def _contents(value: Any) -> Any:
    """The bytes of a picture in a value of a column of pictures: themselves, beside a path, or the first of a list."""
    if isinstance(value, list):
        value = value[0] if value else None
    return value.get("bytes") if isinstance(value, dict) else value


def _checked(column: Any) -> Any:
    """A column of pyarrow, once its offsets are known to lie within its memory."""
    column.validate(full=True)
    return column


def is_picture(data: bytes) -> bool:
    """Whether bytes begin like a picture of a usual format."""
    return data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*")) or (
        data.startswith(b"RIFF") and data[8:12] == b"WEBP") or data[4:10] == b"ftypav"
