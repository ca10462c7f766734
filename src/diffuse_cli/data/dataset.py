"""The data set of a training: pictures decoded once, into memory-mapped arrays under the cache directory.

    <directory>/<key>/images.u8         N·H·W·C bytes, C = 3, or 4 with alpha; of several sizes, those of the first
    <directory>/<key>/images-WxH.u8     the same of each further size
    <directory>/<key>/index.jsonl       one line for each file, in order, with the hash of its pixels; written last, so
                                        the arrays are then complete
    <directory>/<key>.lock              held while the pictures are decoded

The key is a hash of the files' contents, in order, and of the way in which they are transformed. Names and captions are
not in it. `decode_workers` decodes the pictures; nothing is written into their folder.
"""

import contextlib
import hashlib
import itertools
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import DataError, InUseError, StorageError
from ..events import Noticed, Scanned
from ..files import durable, locks, temporaries
from ..files.input_files import open_input
from ..picture_size import Resolution, Size, nearest, sizes_of
from . import cached_pixels, decode_workers
from .colours import Rendering, background_colour
from .file_hashes import REFUSED, hash_files
from .file_tree import name_of_key, sort_key
from .file_types import PICTURE_LIKE, remedies
from .listing import Dataset, PictureFile, PictureListing
from .picture_files import TOO_SMALL
from .remarks import Entry, Remarks, describe_litter
from .spilled import Column, SpilledList, SpilledTuples, packed, unpacked
from .split import numbers_of

FORMAT = 2                                      # of the files above
TRANSFORM = "upright srgb, centre square, lanczos or bicubic, 4"    # change it with anything that changes a pixel
_PIECE = 4 * 2**20                              # bytes that are read or written at once
_BATCH = 1000                                   # items of a long list that are handled at once

T = TypeVar("T")
Progress = Generator[Scanned | Noticed, None, Dataset]


def open_dataset(found: PictureListing, *, resolution: Resolution, directory: Path, strict: bool = False,
                 rendering: Rendering | None = None, verified: bool = False) -> Progress:
    """Decode the pictures, or read them from the cache; yields progress, returns the Dataset (`yield from` it).

    resolution: of the decoded pictures; an int is the side of squares; of several sizes, each gets the nearest.
    verified: whether the cache was compared with its hashes just now. Raises DataError if no picture is left or more
    than half cannot be used, not counting files whose suffix is that of an unsupported type, and with `strict` if any
    picture cannot be used. All other problems become one warning, as a `Noticed`. Raises UsageError if `rendering`
    names an unknown colour.
    """
    dataset = yield from decode_pictures(found, resolution=resolution, directory=directory, rendering=rendering,
                                         verified=verified)
    small = {(name, reason): None for name, reason in dataset.skipped if reason.startswith(TOO_SMALL)}
    if small and not dataset.names:
        raise DataError(f"all {len(small):,} pictures in {found.folder} are {next(iter(small))[1]}",
                        hint="An upscaler learns from pictures as large as it draws: use a smaller --factor")
    beside = {name for name, reason in (*((name, reason) for name, reason in found.unusable
                                          if reason in PICTURE_LIKE), *small)}
    lost = tuple((name, reason) for name, reason in dataset.skipped if strict or name not in beside)
    total = len(dataset.names) + len(lost)
    if lost and (strict or 2 * len(lost) > total):
        name, reason = lost[0]
        raise DataError(describe_skipped(lost, total),
                        hint="; ".join((f"{name} is the first ({reason})",
                                        f"{found.check_command} lists them all",
                                        *remedies(reason for _, reason in lost))))
    if found.litter:
        yield Noticed(message=describe_litter(found.litter))
    if small:
        yield Noticed(message=f"{len(small):,} of {len(small) + len(dataset.names):,} pictures are "
                              f"{next(iter(small))[1]}, and left out")
    if problems := (*(one for one in dataset.skipped if one not in small), *found.caption_problems):
        count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        yield Noticed(level="warning", message=f"{count} with the data ({_reasons(problems)}); "
                                               f"{found.check_command} lists them")
    return dataset


def decode_pictures(
    found: PictureListing, *, resolution: Resolution, directory: Path, rendering: Rendering | None = None,
    verified: bool = False,
) -> Progress:
    """Decode the pictures as `open_dataset` does, but accept any number of unusable ones, even all."""
    rendering, sizes = rendering or Rendering(), sizes_of(resolution)
    background_colour(rendering)                # refused here, once, and not in each worker
    durable.make_directory(directory)
    hashes = yield from hash_files(found.folder, found.pictures, directory=directory, threads=decode_workers.cores())
    key = _key(hashes, sizes, rendering)
    home = directory / key
    dataset = _read(found, hashes, home, sizes, rendering) if verified else (
        yield from _read_intact(found, hashes, home, sizes, rendering))
    if dataset is None:
        with contextlib.ExitStack() as held:
            yield from _wait_for_lock(held, directory / f"{key}.lock")
            # Another process may have decoded them
            dataset = yield from _read_intact(found, hashes, home, sizes, rendering)
            if dataset is None:
                yield from _decode(found, hashes, home, sizes, rendering)
                dataset = _read(found, hashes, home, sizes, rendering)
    if dataset is None:
        raise StorageError(f"{home} changed while it was being read", hint="Run the same command again")
    return dataset


def describe_skipped(skipped: Iterable[tuple[str, str]], total: int) -> str:
    """'skipped 7 of 512 (truncated 4, not a picture 3)'."""
    skipped = tuple(skipped)
    return f"skipped {len(skipped):,} of {total:,} ({_reasons(skipped)})"


def _reasons(problems: Iterable[tuple[str, str]]) -> str:
    """'truncated 4, not a picture 3'."""
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reason for _, reason in problems).most_common())


def clear_cache(directory: Path) -> int:
    """Empty the cache, except for arrays that are being written at this moment; returns the bytes freed."""
    freed = 0
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_dir():
            with contextlib.suppress(InUseError), locks.lock(directory / f"{path.name}.lock", doing="being emptied"):
                freed += sum(file.stat().st_size for file in path.iterdir())
                durable.remove_tree(path)
                with contextlib.suppress(OSError):      # Windows does not remove an open file
                    (directory / f"{path.name}.lock").unlink()
        elif path.suffix in (".json", ".jsonl"):            # the memory of `file_hashes`
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
    return freed


# ── Files → cache ───────────────────────────────────────────────────────────────────────────────────────────────────


def _key(hashes: Iterable[str], sizes: tuple[Size, ...], rendering: Rendering) -> str:
    options = asdict(rendering)
    for name in ("fit", "enlarge"):             # as in caches of versions that always cropped and enlarged
        if options[name] == getattr(Rendering, name):
            del options[name]
    shape = sizes[0].to_json() if len(sizes) == 1 else [size.to_json() for size in sizes]
    start = json.dumps([FORMAT, TRANSFORM, shape, options]).removesuffix("]")
    return _sha256(f"{start}, ".encode(), _json(hashes), b"]")[:32]


def _wait_for_lock(held: contextlib.ExitStack, path: Path) -> Generator[Noticed, None, None]:
    """Wait for the lock and leave it to `held`; one message says so if it takes time."""
    waiting = False
    while True:
        try:
            held.enter_context(locks.lock(path, doing="decoding pictures"))
            return
        except InUseError:
            if not waiting:
                yield Noticed(message="another process is decoding the same pictures: waiting for it")
            waiting = True
            time.sleep(0.2)


def _decode(
    found: PictureListing, hashes: Sequence[str], home: Path, sizes: tuple[Size, ...], rendering: Rendering,
) -> Generator[Scanned, None, None]:
    """Decode every file that could be read; write the arrays first, then the index, which makes the arrays valid."""
    durable.make_directory(home)
    durable.remove_temporaries(home)
    for other in home.parent.iterdir():
        temporaries.remove_abandoned(other)     # of trainings that were killed and never started again
    readable = (picture.path for picture, file_hash in zip(found.pictures, hashes, strict=True)
                if not file_hash.startswith(REFUSED))
    decoding = decode_workers.decode_all(readable, resolution=sizes, rendering=rendering)
    lines, checksum = SpilledList(), hashlib.sha256()
    with contextlib.ExitStack() as streams, contextlib.closing(decoding) as decoded:
        writes = [streams.enter_context(durable.stream(path)) for path in _array_files(home, sizes)]
        pieces = [bytearray() for _ in sizes]
        for picture, file_hash in zip(found.pictures, hashes, strict=True):
            entry, pixels = _next_entry(picture, file_hash, decoded)
            line = json.dumps(vars(entry)).encode() + b"\n"
            lines.append((line,))
            checksum.update(line)
            number = 0 if entry.reason else _size_number(entry, sizes)
            pieces[number] += pixels
            if len(pieces[number]) >= _PIECE:
                writes[number](bytes(pieces[number]))
                pieces[number].clear()
            yield Scanned(done=len(lines), total=len(found.pictures))
        for write, piece in zip(writes, pieces, strict=True):
            write(bytes(piece))
    with durable.stream(home / "index.jsonl") as write:
        write(_index_header(checksum.hexdigest()))
        for batch in _batches(line for line, in lines):
            write(b"".join(batch))


def _array_files(home: Path, sizes: tuple[Size, ...]) -> list[Path]:
    """The file of the pictures of each size."""
    return [home / "images.u8", *(home / f"images-{size}.u8" for size in sizes[1:])]


def _size_number(entry: Entry, sizes: tuple[Size, ...]) -> int:
    """Which of the sizes the picture of an entry has."""
    return sizes.index(nearest(sizes, (entry.width, entry.height)))


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


# ── Cache → data set ────────────────────────────────────────────────────────────────────────────────────────────────


def _read_intact(
    found: PictureListing, hashes: Iterable[str], home: Path, sizes: tuple[Size, ...], rendering: Rendering,
) -> Generator[Scanned | Noticed, None, Dataset | None]:
    """The data set, if there is a complete and undamaged cache of files with these hashes; yields progress."""
    dataset = _read(found, hashes, home, sizes, rendering)
    if dataset is None:
        return None
    intact = True
    for number, (path, array) in enumerate(zip(_array_files(home, sizes), dataset.arrays, strict=True)):
        hashes_of_size: Iterable[str] = dataset.pixel_hashes
        if dataset.size_numbers is not None:
            hashes_of_size = itertools.compress(dataset.pixel_hashes, (dataset.size_numbers == number).tolist())
        intact = intact and (yield from cached_pixels.verify(
            path, hashes_of_size, total=len(array), size=rendering.channels * sizes[number].pixels,
            threads=decode_workers.cores()))
    if not intact:
        yield Noticed(level="warning", message="the cache of decoded pictures is damaged: they are decoded again")
    return dataset if intact else None


def _read(found: PictureListing, hashes: Iterable[str], home: Path, sizes: tuple[Size, ...], rendering: Rendering,
          ) -> Dataset | None:
    """The data set, if there is a complete cache of files with these hashes."""
    try:
        with open_input(home / "index.jsonl", limit=sys.maxsize) as index:
            header, start = index.readline(), index.tell()
            if header != _index_header(_sha256(iter(lambda: index.read(_PIECE), b""))):
                return None
            index.seek(start)
            rows, remarks, skipped = SpilledList(), Remarks(sizes, rendering), list(found.unusable)
            numbers = bytearray()
            for picture, own, file_hash, line in zip(
                    found.pictures.names(), found.pictures.captions, hashes, index, strict=True):
                entry = Entry(**json.loads(line))
                if entry.file_hash != file_hash:
                    return None
                if entry.reason:
                    skipped.append((picture, entry.reason))
                else:
                    rows.append((sort_key(picture), packed(own), bytes.fromhex(entry.pixels_hash)))
                    remarks.add(picture, entry)
                    numbers.append(_size_number(entry, sizes))
        files = _array_files(home, sizes)
        shapes = [(numbers.count(number), size.height, size.width, rendering.channels)
                  for number, size in enumerate(sizes)]
        if any(file.stat().st_size != math.prod(shape) for file, shape in zip(files, shapes, strict=True)):
            return None
    except (OSError, ValueError, TypeError):
        return None
    images, *others = (np.memmap(file, np.uint8, "r", shape=shape) if shape[0] else np.empty(shape, np.uint8)
                       for file, shape in zip(files, shapes, strict=True))
    names, hashes_of_pixels = rows.column(0, name_of_key), rows.column(2, bytes.hex)
    captions, copies = _shared_captions(rows)
    pairs = [(names[copy], names[original]) for copy, original in copies[:1].tolist()]
    return Dataset(
        images=images, captions=captions, names=names, pixel_hashes=hashes_of_pixels,
        content_id=_sha256(b"[", _json(hashes_of_pixels), b", ", _json(captions), b"]"),
        skipped=tuple(skipped), warnings=tuple(remarks.warnings(len(copies), *pairs)), other_images=tuple(others),
        size_numbers=np.frombuffer(numbers, np.uint8) if others else None)


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
