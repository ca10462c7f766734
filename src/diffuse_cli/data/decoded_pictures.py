"""Decoded pictures: memory-mapped arrays under the cache directory, and the list of what is in them.

    <directory>/<key>/images.u8         N·H·W·C bytes, C = 3, or 4 with alpha; of several sizes, those of the first
    <directory>/<key>/images-WxH.u8     the same of each further size
    <directory>/<key>/index.jsonl       one line for each file, in order, with the hash of its pixels; written last, so
                                        the arrays are then complete

The key is a hash of the files' contents, in order, and of the way in which they are transformed. Names and captions are
not in it. `decode_workers` decodes the pictures; nothing is written into their folder.
"""

import contextlib
import hashlib
import itertools
import json
import math
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import DataError
from ..events import Noticed, Scanned
from ..files import durable, temporaries
from ..files.input_files import open_input
from ..picture_size import Size, nearest
from . import cached_pixels, decode_workers
from .colours import Rendering
from .file_hashes import REFUSED
from .file_tree import name_of_key, sort_key
from .listing import Dataset, PictureFile, PictureListing
from .remarks import Entry, Remarks
from .spilled import Column, SpilledList, SpilledTuples, packed, unpacked
from .split import numbers_of

FORMAT = 2                                      # of the files above
TRANSFORM = "upright srgb, centre square, lanczos or bicubic, 5"    # change it with anything that changes a pixel
_PIECE = 4 * 2**20                              # bytes that are read or written at once
_BATCH = 1000                                   # items of a long list that are handled at once

T = TypeVar("T")


def key_of(hashes: Iterable[str], sizes: tuple[Size, ...], rendering: Rendering) -> str:
    """The name under which pictures are kept. hashes: of the files' contents, in order"""
    options = asdict(rendering)
    for name in ("fit", "enlarge"):             # as in caches of versions that always cropped and enlarged
        if options[name] == getattr(Rendering, name):
            del options[name]
    shape = sizes[0].to_json() if len(sizes) == 1 else [size.to_json() for size in sizes]
    start = json.dumps([FORMAT, TRANSFORM, shape, options]).removesuffix("]")
    return _sha256(f"{start}, ".encode(), _json(hashes), b"]")[:32]


@dataclass(frozen=True)
class DecodedPictures:
    """What the cache holds, or shall hold, of the pictures of a listing."""

    found: PictureListing
    hashes: Sequence[str]                       # of the files' contents, or why a file cannot be read
    directory: Path                             # of the files above
    sizes: tuple[Size, ...]
    rendering: Rendering

    # ── Files → cache ───────────────────────────────────────────────────────────────────────────────────────────────

    def write(self) -> Generator[Scanned, None, None]:
        """Decode every file that could be read; write the arrays first, then the index, which makes the arrays valid.

        Raises DataError if a file has changed since it was hashed, StorageError.
        """
        durable.make_directory(self.directory)
        durable.remove_temporaries(self.directory)
        for other in self.directory.parent.iterdir():
            temporaries.remove_abandoned(other)         # of trainings that were killed and never started again
        readable = (picture.path for picture, file_hash in zip(self.found.pictures, self.hashes, strict=True)
                    if not file_hash.startswith(REFUSED))
        decoding = decode_workers.decode_all(readable, resolution=self.sizes, rendering=self.rendering)
        lines, checksum = SpilledList(), hashlib.sha256()
        with contextlib.ExitStack() as streams, contextlib.closing(decoding) as decoded:
            writes = [streams.enter_context(durable.stream(path)) for path in self._arrays()]
            pieces = [bytearray() for _ in self.sizes]
            for picture, file_hash in zip(self.found.pictures, self.hashes, strict=True):
                entry, pixels = _next_entry(picture, file_hash, decoded)
                line = json.dumps(vars(entry)).encode() + b"\n"
                lines.append((line,))
                checksum.update(line)
                number = 0 if entry.reason else self._size_number(entry)
                pieces[number] += pixels
                if len(pieces[number]) >= _PIECE:
                    writes[number](bytes(pieces[number]))
                    pieces[number].clear()
                yield Scanned(done=len(lines), total=len(self.found.pictures))
            for write, piece in zip(writes, pieces, strict=True):
                write(bytes(piece))
        with durable.stream(self._index) as write:
            write(_index_header(checksum.hexdigest()))
            for batch in _batches(line for line, in lines):
                write(b"".join(batch))

    @property
    def _index(self) -> Path:
        return self.directory / "index.jsonl"

    def _arrays(self) -> list[Path]:
        """The file of the pictures of each size."""
        return [self.directory / "images.u8", *(self.directory / f"images-{size}.u8" for size in self.sizes[1:])]

    def _size_number(self, entry: Entry) -> int:
        """Which of the sizes the picture of an entry has."""
        return self.sizes.index(nearest(self.sizes, (entry.width, entry.height)))

    # ── Cache → data set ────────────────────────────────────────────────────────────────────────────────────────────

    def read_intact(self) -> Generator[Scanned | Noticed, None, Dataset | None]:
        """The data set, if there is a complete and undamaged cache of files with these hashes; yields progress."""
        dataset = self.read()
        if dataset is None:
            return None
        intact = True
        for number, (path, array) in enumerate(zip(self._arrays(), dataset.arrays, strict=True)):
            hashes_of_size: Iterable[str] = dataset.pixel_hashes
            if dataset.size_numbers is not None:
                hashes_of_size = itertools.compress(dataset.pixel_hashes, (dataset.size_numbers == number).tolist())
            intact = intact and (yield from cached_pixels.verify(
                path, hashes_of_size, total=len(array), size=self.rendering.channels * self.sizes[number].pixels,
                threads=decode_workers.cores()))
        if not intact:
            yield Noticed(level="warning", message="the cache of decoded pictures is damaged: they are decoded again")
        return dataset if intact else None

    def read(self) -> Dataset | None:
        """The data set, if there is a complete cache of files with these hashes."""
        try:
            with open_input(self._index, limit=sys.maxsize) as index:
                header, start = index.readline(), index.tell()
                if header != _index_header(_sha256(iter(lambda: index.read(_PIECE), b""))):
                    return None
                index.seek(start)
                rows, remarks = SpilledList(), Remarks(self.sizes, self.rendering)
                skipped, numbers = list(self.found.unusable), bytearray()
                for picture, own, file_hash, line in zip(
                        self.found.pictures.names(), self.found.pictures.captions, self.hashes, index, strict=True):
                    entry = Entry(**json.loads(line))
                    if entry.file_hash != file_hash:
                        return None
                    if entry.reason:
                        skipped.append((picture, entry.reason))
                    else:
                        rows.append((sort_key(picture), packed(own), bytes.fromhex(entry.pixels_hash)))
                        remarks.add(picture, entry)
                        numbers.append(self._size_number(entry))
            arrays = self._mapped(numbers)
        except (OSError, ValueError, TypeError):
            return None
        return None if arrays is None else _data_set(
            rows, remarks, arrays, skipped=skipped, size_numbers=np.frombuffer(numbers, np.uint8))

    def _mapped(self, numbers: bytearray) -> list[np.ndarray] | None:
        """The pictures of each size, (N, H, W, C) uint8; None if a file has another length.

        numbers: which of the sizes each picture has
        """
        shapes = [(numbers.count(number), size.height, size.width, self.rendering.channels)
                  for number, size in enumerate(self.sizes)]
        if any(file.stat().st_size != math.prod(shape) for file, shape in zip(self._arrays(), shapes, strict=True)):
            return None
        return [np.memmap(file, np.uint8, "r", shape=shape) if shape[0] else np.empty(shape, np.uint8)
                for file, shape in zip(self._arrays(), shapes, strict=True)]


def _index_header(checksum: str) -> bytes:
    """checksum: SHA-256 of the lines below."""
    return json.dumps({"format": FORMAT, "sha256": checksum}).encode() + b"\n"


def _next_entry(
    picture: PictureFile, file_hash: str, decoded: Iterator[decode_workers.Decoded],
) -> tuple[Entry, bytes]:
    """The index entry of a picture, with its pixels. Raises DataError if the file has changed since it was hashed."""
    if file_hash.startswith(REFUSED):
        return Entry(file_hash, "", file_hash.removeprefix(REFUSED)), b""
    result = next(decoded)
    if result.file_hash != file_hash and result.reason not in decode_workers.DEATHS:
        raise DataError(f"{picture.name} changed while it was being read", hint="Run the same command again")
    entry = Entry(file_hash, result.pixels_hash, result.reason, result.width, result.height, result.mode, result.peak,
                  result.notes)
    return entry, result.pixels


def _data_set(rows: SpilledList, remarks: Remarks, arrays: list[np.ndarray], *, skipped: list[tuple[str, str]],
              size_numbers: np.ndarray) -> Dataset:
    """rows: key of the name, captions and hash of the pixels of each usable picture; the rest as in `Dataset`."""
    images, *others = arrays
    names, hashes_of_pixels = rows.column(0, name_of_key), rows.column(2, bytes.hex)
    captions, copies = _shared_captions(rows)
    pairs = [(names[copy], names[original]) for copy, original in copies[:1].tolist()]
    return Dataset(
        images=images, captions=captions, names=names, pixel_hashes=hashes_of_pixels,
        content_id=_sha256(b"[", _json(hashes_of_pixels), b", ", _json(captions), b"]"),
        skipped=tuple(skipped), warnings=tuple(remarks.warnings(len(copies), *pairs)), other_images=tuple(others),
        size_numbers=size_numbers if others else None)


def _shared_captions(rows: SpilledList) -> tuple[Column[tuple[str, ...]], np.ndarray]:
    """The captions of each picture: those of all pictures with the same pixels, as alternatives of one another.

    rows: name, captions and hash of pixels of each picture. → the captions; (C, 2) int64 the position of each picture
    with the pixels of an earlier one, ascending, and the position of the first with these pixels
    """
    numbers = numbers_of(rows.column(2, bytes))
    ordered = np.sort(numbers)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(repeated):
        return rows.column(1, unpacked), np.empty((0, 2), np.int64)
    places = np.flatnonzero(np.isin(numbers, repeated))                 # (P,), positions of pictures that are not alone
    _, first, inverse = np.unique(numbers[places], return_index=True, return_inverse=True)
    pairs = np.stack([places, places[first[inverse]]], axis=1)          # (P, 2)

    # The captions of each group, and a list with the group's hash in the place of a picture's own captions
    group = SpilledList((rows[place][2], rows[place][1]) for place in places.tolist())
    group.sort(1)
    shared = SpilledTuples((pixels.hex(), tuple(dict.fromkeys(caption for _, text in of_group
                                                            for caption in unpacked(text))))
                         for pixels, of_group in itertools.groupby(group, lambda row: row[0]))
    is_shared = np.zeros(len(rows), bool)
    is_shared[places] = True
    own = SpilledList((pixels if together else text,) for (_, text, pixels), together in zip(
        rows, is_shared, strict=True))
    return own.column(0, lambda value: unpacked(value) if isinstance(value, str) else shared[value.hex()]), \
        pairs[pairs[:, 0] != pairs[:, 1]]


# ── Hashes of long lists ────────────────────────────────────────────────────────────────────────────────────────────


def _sha256(*pieces: bytes | Iterable[bytes]) -> str:
    """SHA-256 of bytes that are given in pieces, in hexadecimal digits."""
    result = hashlib.sha256()
    for piece in pieces:
        for part in [piece] if isinstance(piece, bytes) else piece:
            result.update(part)
    return result.hexdigest()


def _json(items: Iterable[Any]) -> Iterator[bytes]:
    """The bytes of `json.dumps(list(items))`, piece by piece."""
    yield b"["
    for number, batch in enumerate(_batches(items)):
        yield (b", " if number else b"") + json.dumps(batch)[1:-1].encode()
    yield b"]"


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(items)
    while batch := list(itertools.islice(waiting, _BATCH)):
        yield batch
