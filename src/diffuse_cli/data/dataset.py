"""Pictures decoded once: a memory-mapped array under the cache directory, found again by the files' contents.

    <directory>/<key>/images.u8         N·R·R·3 bytes
    <directory>/<key>/index.jsonl       one line for each file, in order; written last: what it describes is complete
    <directory>/<key>.lock              held while the pictures are decoded
    <directory>/seen-<folder>.json      size, times and hash of each file, to save reading it again

The key is a hash of the files' contents, in order, and of how they are transformed; names and captions are not in it.
Knows nothing of how a picture is decoded, and never writes into the folder of the pictures.
"""

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, InUseError
from ..events import Noticed, Scanned
from ..files import durable
from . import decode_workers, images
from .captions import Found, Picture
from .folders import UNSUPPORTED_TYPE

FORMAT = 1                                      # of the files above
TRANSFORM = "upright srgb, centre square, lanczos or bicubic, 1"    # change it with anything that changes a pixel
FEW = 8                                         # fewer pictures than this are learnt by heart
_BATCH = 1000                                   # files hashed between two events
_PIECE = 16 * 2**20                             # bytes written at a time


@dataclass(frozen=True)
class Dataset:
    """Pictures and captions, in the order of the names; everything as long as `images` apart from the last two.

    `id` is a hash over the pixels and the captions, in order. `skipped` are (name, reason) of all other pictures.
    """

    images: np.ndarray[Any, np.dtype[np.uint8]]     # (N, R, R, 3), memory-mapped, read-only
    captions: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    hashes: tuple[str, ...]                     # SHA-256 of each decoded picture's R·R·3 bytes
    id: str
    skipped: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """One file of a cache: its contents' hash, and either the pixels' hash or the reason why it has none."""

    file_hash: str
    pixels_hash: str
    reason: str
    width: int
    height: int
    mode: str


Progress = Generator[Scanned | Noticed, None, Dataset]


def open_dataset(found: Found, *, resolution: int, directory: Path, strict: bool = False) -> Progress:
    """Decode what was found, or find it decoded: yields progress, returns the Dataset (`yield from` it).

    Raises DataError when more than half of the pictures cannot be used, those of unsupported types apart, or none is
    left, or with `strict` any. Of problems that are no reason to stop it yields one warning.
    """
    dataset = yield from scan(found, resolution=resolution, directory=directory)
    lost = tuple((name, reason) for name, reason in dataset.skipped if strict or reason != UNSUPPORTED_TYPE)
    total = len(dataset.names) + len(lost)
    if lost and (strict or 2 * len(lost) > total):
        name, reason = lost[0]
        raise DataError(skipped_line(lost, total),
                        hint=f"{name} is the first ({reason}); `diffuse data check {found.named}` lists them all")
    if problems := (*dataset.skipped, *found.problems):
        count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        yield Noticed(level="warning", message=f"{count} with the data ({_reasons(problems)}); "
                                               f"`diffuse data check {found.named}` lists them")
    return dataset


def scan(found: Found, *, resolution: int, directory: Path) -> Progress:
    """As `open_dataset`, but accepts any number of pictures that cannot be used, even all."""
    durable.make_directory(directory)
    file_hashes = yield from _hash_files(found, directory)
    key = _key(file_hashes, resolution)
    home = directory / key
    entries = _read_index(home, file_hashes, resolution)
    if entries is None:
        with contextlib.ExitStack() as held:
            yield from _wait_for_lock(held, directory / f"{key}.lock")
            entries = _read_index(home, file_hashes, resolution)        # the other process may have done it all
            if entries is None:
                entries = yield from _decode(found, file_hashes, home, resolution)
    return _dataset(found, entries, home, resolution)


def skipped_line(skipped: Iterable[tuple[str, str]], total: int) -> str:
    """'skipped 7 of 512 (truncated 4, not an image 3)'."""
    skipped = tuple(skipped)
    return f"skipped {len(skipped)} of {total} ({_reasons(skipped)})"


def _reasons(problems: Iterable[tuple[str, str]]) -> str:
    """'truncated 4, not an image 3'."""
    return ", ".join(f"{reason} {count}" for reason, count in Counter(reason for _, reason in problems).most_common())


def clear(directory: Path) -> int:
    """Empty the cache, apart from what is being written at this moment; returns the bytes freed."""
    freed = 0
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_dir():
            with contextlib.suppress(InUseError), durable.lock(directory / f"{path.name}.lock", doing="being emptied"):
                freed += sum(file.stat().st_size for file in path.iterdir())
                durable.remove_tree(path)
                with contextlib.suppress(OSError):      # Windows keeps what is open
                    (directory / f"{path.name}.lock").unlink()
        elif path.suffix == ".json":
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
    return freed


# ── Files → hashes of their contents ────────────────────────────────────────────────────────────────────────────────


def _hash_files(found: Found, directory: Path) -> Generator[Scanned, None, list[str]]:
    """SHA-256 of each file; of a file with the size and the times that it had last time, without reading it.

    A file that is refused before it is read gets "!" and the reason in the place of a hash.
    """
    folder = hashlib.sha256(os.fsencode(found.folder.resolve())).hexdigest()[:16]
    memory = directory / f"seen-{folder}.json"
    seen = _read_seen(memory)
    total, hashes, now = len(found.pictures), [], {}
    with ThreadPoolExecutor(decode_workers.cores()) as threads:
        for start in range(0, total, _BATCH):
            batch = found.pictures[start:start + _BATCH]
            for picture, stamped in zip(batch, threads.map(
                    lambda picture: _hash_file(picture.path, seen.get(picture.name)), batch), strict=True):
                hashes.append(stamped[-1])
                now[picture.name] = stamped
            yield Scanned(done=0, total=total)
    if now != seen:
        durable.write(memory, json.dumps({"format": FORMAT, "files": now}).encode())
    return hashes


def _hash_file(path: Path, before: list[Any] | None) -> list[Any]:
    """[size, modified, changed, hash] of a file, the times in nanoseconds; `before` if these are still the same."""
    try:
        if before is not None and before[:3] == _stamp(os.stat(path)):
            return before
        with images.open_regular(path) as file:
            stamp = _stamp(os.fstat(file.fileno()))
            return [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
    except images.ImageRefused as error:
        return [0, 0, 0, f"!{error.reason}"]
    except OSError:
        return [0, 0, 0, "!unreadable"]


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read_seen(memory: Path) -> dict[str, list[Any]]:
    """What was written last time; nothing when it is missing or damaged, which only costs time."""
    try:
        content = json.loads(memory.read_bytes())
        files = content["files"] if content["format"] == FORMAT else {}
        return {name: stamped for name, stamped in files.items() if len(stamped) == 4}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _key(file_hashes: list[str], resolution: int) -> str:
    facts = json.dumps([FORMAT, TRANSFORM, resolution, file_hashes])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


# ── Files → cache ───────────────────────────────────────────────────────────────────────────────────────────────────


def _wait_for_lock(held: contextlib.ExitStack, path: Path) -> Generator[Noticed, None, None]:
    told = False
    while True:
        try:
            held.enter_context(durable.lock(path, doing="decoding pictures"))
            return
        except InUseError:
            if not told:
                yield Noticed(message="another process is decoding the same pictures: waiting for it")
            told = True
            time.sleep(0.2)


def _decode(found: Found, file_hashes: list[str], home: Path, resolution: int,
            ) -> Generator[Scanned, None, list[_Entry]]:
    """Decode every file that has contents; images first, then the index, which makes them valid."""
    durable.make_directory(home)
    durable.remove_temporaries(home)
    total, entries = len(found.pictures), []
    readable = [picture.path for picture, file_hash in zip(found.pictures, file_hashes, strict=True)
                if not file_hash.startswith("!")]
    with durable.stream(home / "images.u8") as write, \
            contextlib.closing(decode_workers.decode_all(readable, resolution=resolution)) as decoded:
        rows = bytearray()
        for picture, file_hash in zip(found.pictures, file_hashes, strict=True):
            entry, pixels = _entry(picture, file_hash, decoded)
            entries.append(entry)
            rows += pixels
            if len(rows) >= _PIECE:
                write(bytes(rows))
                rows.clear()
            yield Scanned(done=len(entries), total=total)
        write(bytes(rows))
    body = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries).encode()
    durable.write(home / "index.jsonl", _index_header(body) + body)
    return entries


def _index_header(body: bytes) -> bytes:
    return json.dumps({"format": FORMAT, "sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n"


def _entry(picture: Picture, file_hash: str, decoded: Iterator[decode_workers.Decoded]) -> tuple[_Entry, bytes]:
    """The next line of the index, with its pixels. Raises DataError when the file is no longer what was hashed."""
    if file_hash.startswith("!"):
        return _Entry(file_hash, "", file_hash[1:], 0, 0, ""), b""
    result = next(decoded)
    if result.file_hash != file_hash and result.reason not in decode_workers.DEATHS:
        raise DataError(f"{picture.name} changed while it was being read", hint="Run the same command again")
    pixels_hash = hashlib.sha256(result.pixels).hexdigest() if result.pixels else ""
    return _Entry(file_hash, pixels_hash, result.reason, result.width, result.height, result.mode), result.pixels


def _read_index(home: Path, file_hashes: list[str], resolution: int) -> list[_Entry] | None:
    """The entries of a complete cache for these files; None when there is none."""
    try:
        header, end, body = (home / "index.jsonl").read_bytes().partition(b"\n")
        if header + end != _index_header(body):
            return None
        entries = [_Entry(**json.loads(line)) for line in body.splitlines()]
        used = sum(not entry.reason for entry in entries)
        whole = (home / "images.u8").stat().st_size == used * resolution * resolution * 3
    except (OSError, ValueError, TypeError):
        return None
    return entries if whole and [entry.file_hash for entry in entries] == file_hashes else None


# ── Cache → data set ────────────────────────────────────────────────────────────────────────────────────────────────


def _dataset(found: Found, entries: list[_Entry], home: Path, resolution: int) -> Dataset:
    pairs = list(zip(found.pictures, entries, strict=True))
    used = [(picture, entry) for picture, entry in pairs if not entry.reason]
    hashes = tuple(entry.pixels_hash for _, entry in used)
    captions = _merged([picture.captions for picture, _ in used], hashes)
    shape = (len(used), resolution, resolution, 3)
    return Dataset(
        images=np.memmap(home / "images.u8", np.uint8, "r", shape=shape) if used else np.empty(shape, np.uint8),
        captions=captions,
        names=tuple(picture.name for picture, _ in used),
        hashes=hashes,
        id=hashlib.sha256(json.dumps([hashes, captions]).encode()).hexdigest(),
        skipped=(*found.unusable, *((picture.name, entry.reason) for picture, entry in pairs if entry.reason)),
        warnings=tuple(_warnings(used, resolution)),
    )


def _merged(captions: list[tuple[str, ...]], hashes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Pictures with the same pixels share their captions, as alternatives of one another."""
    shared: dict[str, dict[str, None]] = {}
    for texts, pixels in zip(captions, hashes, strict=True):
        shared.setdefault(pixels, {}).update(dict.fromkeys(texts))
    return tuple(tuple(shared[pixels]) for pixels in hashes)


def _warnings(used: list[tuple[Picture, _Entry]], resolution: int) -> Iterator[str]:
    """What a person may want to look at, counted, with one example each."""
    if 0 < len(used) < FEW:
        yield f"{counted(len(used))}: the model will memorise {'it' if len(used) == 1 else 'them'}"
    first: dict[str, str] = {}
    copies = [(picture.name, original) for picture, entry in used
              if (original := first.setdefault(entry.pixels_hash, picture.name)) != picture.name]
    if copies:
        name, original = copies[0]
        yield f"{counted(len(copies))} with the pixels of another, {name} (as {original}) for one"
    remarks: tuple[tuple[str, Callable[[int, int, str], bool]], ...] = (
        ("longer than 3:1, of which only the centre square is kept", lambda short, long, mode: long > 3 * short),
        (f"enlarged more than twice to {resolution} pixels", lambda short, long, mode: 2 * short < resolution),
        ("of real numbers, stretched from lowest to highest", lambda short, long, mode: mode == "F"),
    )
    for what, applies in remarks:
        names = [picture.name for picture, entry in used
                 if applies(min(entry.width, entry.height), max(entry.width, entry.height), entry.mode)]
        if names:
            yield f"{counted(len(names))} {what}, {names[0]} for one"


def counted(number: int) -> str:
    return "1 image" if number == 1 else f"{number:,} images"
