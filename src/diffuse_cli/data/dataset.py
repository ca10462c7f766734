"""The data set of a training: pictures decoded once, into a memory-mapped array under the cache directory.

    <directory>/<key>/images.u8         N·R·R·3 bytes
    <directory>/<key>/index.jsonl       one line for each file, in order, with the hash of its pixels; written last, so
                                        the array is then complete
    <directory>/<key>.lock              held while the pictures are decoded

The key is a hash of the files' contents, in order, and of the way in which they are transformed. Names and captions are
not in it. `decode_workers` decodes the pictures; nothing is written into their folder.
"""

import contextlib
import hashlib
import json
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..errors import DataError, InUseError
from ..events import Noticed, Scanned
from ..files import durable, temporaries
from . import cached_pixels, decode_workers, garbage
from .colours import Rendering, background_colour
from .file_hashes import REFUSED, hash_files
from .file_types import PICTURE_LIKE, remedies
from .listing import Dataset, PictureFile, PictureListing
from .remarks import Entry, describe_litter, warnings_about

FORMAT = 2                                      # of the files above
TRANSFORM = "upright srgb, centre square, lanczos or bicubic, 4"    # change it with anything that changes a pixel
_PIECE = 16 * 2**20                             # bytes of pixels collected before they are written


Progress = Generator[Scanned | Noticed, None, Dataset]


def open_dataset(found: PictureListing, *, resolution: int, directory: Path, strict: bool = False,
                 rendering: Rendering | None = None) -> Progress:
    """Decode the pictures, or read them from the cache; yields progress, returns the Dataset (`yield from` it).

    Raises DataError if no picture is left or more than half cannot be used, not counting files whose suffix is that of
    an unsupported type, and with `strict` if any picture cannot be used. All other problems become one warning, as a
    `Noticed`. Raises UsageError if `rendering` names an unknown colour.
    """
    dataset = yield from decode_pictures(found, resolution=resolution, directory=directory, rendering=rendering)
    beside = {name for name, reason in found.unusable if reason in PICTURE_LIKE}
    lost = tuple((name, reason) for name, reason in dataset.skipped if strict or name not in beside)
    total = len(dataset.names) + len(lost)
    if lost and (strict or 2 * len(lost) > total):
        name, reason = lost[0]
        raise DataError(describe_skipped(lost, total),
                        hint="; ".join((f"{name} is the first ({reason})",
                                        f"`diffuse data check {found.requested_path}` lists them all",
                                        *remedies(reason for _, reason in lost))))
    if found.litter:
        yield Noticed(message=describe_litter(found.litter))
    if problems := (*dataset.skipped, *found.caption_problems):
        count = "1 problem" if len(problems) == 1 else f"{len(problems):,} problems"
        yield Noticed(level="warning", message=f"{count} with the data ({_reasons(problems)}); "
                                               f"`diffuse data check {found.requested_path}` lists them")
    return dataset


def decode_pictures(
    found: PictureListing, *, resolution: int, directory: Path, rendering: Rendering | None = None,
) -> Progress:
    """Decode the pictures as `open_dataset` does, but accept any number of unusable ones, even all."""
    rendering = rendering or Rendering()
    background_colour(rendering)                # refused here, once, and not in each worker
    durable.make_directory(directory)
    files = [(picture.name, picture.path) for picture in found.pictures]
    file_hashes = yield from hash_files(found.folder, files, directory=directory, threads=decode_workers.cores())
    key = _key(file_hashes, resolution, rendering)
    home = directory / key
    entries = yield from _read_cache(home, file_hashes, resolution)
    if entries is None:
        with contextlib.ExitStack() as held:
            yield from _wait_for_lock(held, directory / f"{key}.lock")
            entries = yield from _read_cache(home, file_hashes, resolution)     # another process may have decoded them
            if entries is None:
                entries = yield from _decode(found, file_hashes, home, resolution, rendering)
    return _dataset(found, entries, home, resolution, rendering)


def describe_skipped(skipped: Iterable[tuple[str, str]], total: int) -> str:
    """'skipped 7 of 512 (truncated 4, not a picture 3)'."""
    skipped = tuple(skipped)
    return f"skipped {len(skipped)} of {total} ({_reasons(skipped)})"


def _reasons(problems: Iterable[tuple[str, str]]) -> str:
    """'truncated 4, not a picture 3'."""
    return ", ".join(f"{reason} {count}" for reason, count in Counter(reason for _, reason in problems).most_common())


def clear_cache(directory: Path) -> int:
    """Empty the cache, except for arrays that are being written at this moment; returns the bytes freed."""
    freed = 0
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.is_dir():
            with contextlib.suppress(InUseError), durable.lock(directory / f"{path.name}.lock", doing="being emptied"):
                freed += sum(file.stat().st_size for file in path.iterdir())
                durable.remove_tree(path)
                with contextlib.suppress(OSError):      # Windows does not remove an open file
                    (directory / f"{path.name}.lock").unlink()
        elif path.suffix == ".json":            # the memory of `file_hashes`
            freed += path.stat().st_size
            path.unlink(missing_ok=True)
    return freed


# ── Files → cache ───────────────────────────────────────────────────────────────────────────────────────────────────


def _key(file_hashes: list[str], resolution: int, rendering: Rendering) -> str:
    facts = json.dumps([FORMAT, TRANSFORM, resolution, asdict(rendering), file_hashes])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def _wait_for_lock(held: contextlib.ExitStack, path: Path) -> Generator[Noticed, None, None]:
    """Wait for the lock and leave it to `held`; one message says so if it takes time."""
    waiting = False
    while True:
        try:
            held.enter_context(durable.lock(path, doing="decoding pictures"))
            return
        except InUseError:
            if not waiting:
                yield Noticed(message="another process is decoding the same pictures: waiting for it")
            waiting = True
            time.sleep(0.2)


def _decode(
    found: PictureListing, file_hashes: list[str], home: Path, resolution: int, rendering: Rendering,
) -> Generator[Scanned, None, list[Entry]]:
    """Decode every file that could be read; write the array first, then the index, which makes the array valid."""
    durable.make_directory(home)
    durable.remove_temporaries(home)
    for other in home.parent.iterdir():
        temporaries.remove_abandoned(other)     # of trainings that were killed and never started again
    total, entries = len(found.pictures), []
    readable = [picture.path for picture, file_hash in zip(found.pictures, file_hashes, strict=True)
                if not file_hash.startswith(REFUSED)]
    decoding = decode_workers.decode_all(readable, resolution=resolution, rendering=rendering)
    with durable.stream(home / "images.u8") as write, contextlib.closing(decoding) as decoded:
        piece = bytearray()
        for picture, file_hash in zip(found.pictures, file_hashes, strict=True):
            entry, pixels = _next_entry(picture, file_hash, decoded)
            entries.append(entry)
            piece += pixels
            if len(piece) >= _PIECE:
                write(bytes(piece))
                piece.clear()
            yield Scanned(done=len(entries), total=total)
        write(bytes(piece))
    body = "".join(json.dumps(vars(entry)) + "\n" for entry in entries).encode()
    durable.write(home / "index.jsonl", _index_header(body) + body)
    return entries


def _index_header(body: bytes) -> bytes:
    return json.dumps({"format": FORMAT, "sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n"


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


def _read_cache(
    home: Path, file_hashes: list[str], resolution: int,
) -> Generator[Scanned | Noticed, None, list[Entry] | None]:
    """The entries of a complete and undamaged cache of these files; None if there is none."""
    entries = _read_index(home, file_hashes)
    if entries is None:
        return None
    hashes = [entry.pixels_hash for entry in entries if not entry.reason]
    intact = yield from cached_pixels.verify(
        home / "images.u8", hashes, size=3 * resolution**2, threads=decode_workers.cores())
    if not intact:
        yield Noticed(level="warning", message="the cache of decoded pictures is damaged: they are decoded again")
    return entries if intact else None


@garbage.paused()
def _read_index(home: Path, file_hashes: list[str]) -> list[Entry] | None:
    """The entries of a complete index of these files; None if there is none."""
    try:
        header, end, body = (home / "index.jsonl").read_bytes().partition(b"\n")
        if header + end != _index_header(body):
            return None
        entries = [Entry(**json.loads(line)) for line in body.splitlines()]
    except (OSError, ValueError, TypeError):
        return None
    return entries if [entry.file_hash for entry in entries] == file_hashes else None


# ── Cache → data set ────────────────────────────────────────────────────────────────────────────────────────────────


@garbage.paused()
def _dataset(
    found: PictureListing, entries: list[Entry], home: Path, resolution: int, rendering: Rendering,
) -> Dataset:
    pairs = list(zip(found.pictures, entries, strict=True))
    used = [(picture, entry) for picture, entry in pairs if not entry.reason]
    hashes = tuple(entry.pixels_hash for _, entry in used)
    captions = _shared_captions([picture.captions for picture, _ in used], hashes)
    shape = (len(used), resolution, resolution, 3)
    return Dataset(
        images=np.memmap(home / "images.u8", np.uint8, "r", shape=shape) if used else np.empty(shape, np.uint8),
        captions=captions,
        names=tuple(picture.name for picture, _ in used),
        pixel_hashes=hashes,
        content_id=hashlib.sha256(json.dumps([hashes, captions]).encode()).hexdigest(),
        skipped=(*found.unusable, *((picture.name, entry.reason) for picture, entry in pairs if entry.reason)),
        warnings=tuple(warnings_about([(picture.name, entry) for picture, entry in used], resolution, rendering)),
    )


def _shared_captions(captions: list[tuple[str, ...]], hashes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The captions of each picture: those of all pictures with the same pixels, as alternatives of one another."""
    shared: dict[str, dict[str, None]] = {}
    for alternatives, pixels in zip(captions, hashes, strict=True):
        shared.setdefault(pixels, {}).update(dict.fromkeys(alternatives))
    return tuple(tuple(shared[pixels]) for pixels in hashes)
