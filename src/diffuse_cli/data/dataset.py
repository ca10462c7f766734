"""The data set of a training: its pictures decoded once, or read from the cache, with everything said of them."""

import contextlib
import time
from collections import Counter
from collections.abc import Generator, Iterable
from pathlib import Path

from ..errors import DataError, InUseError, StorageError
from ..events import Noticed, Scanned
from ..files import durable, locks
from ..picture_size import Resolution, sizes_of
from .colours import Rendering, background_colour
from .decode_workers import cores
from .decoded_pictures import DecodedPictures, key_of
from .file_hashes import hash_files
from .file_types import PICTURE_LIKE, remedies
from .listing import Dataset, PictureListing
from .picture_files import TOO_SMALL
from .remarks import describe_litter

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
    hashes = yield from hash_files(found.folder, found.pictures, directory=directory, threads=cores())
    key = key_of(hashes, sizes, rendering)
    pictures = DecodedPictures(found, hashes, directory / key, sizes, rendering)
    dataset = pictures.read() if verified else (yield from pictures.read_intact())
    if dataset is None:
        with contextlib.ExitStack() as held:
            yield from _wait_for_lock(held, directory / f"{key}.lock")
            dataset = yield from pictures.read_intact()                # another process may have decoded them
            if dataset is None:
                yield from pictures.write()
                dataset = pictures.read()
    if dataset is None:
        raise StorageError(f"{pictures.directory} changed while it was being read", hint="Run the same command again")
    return dataset


def describe_skipped(skipped: Iterable[tuple[str, str]], total: int) -> str:
    """'skipped 7 of 512 (truncated 4, not a picture 3)'."""
    skipped = tuple(skipped)
    return f"skipped {len(skipped):,} of {total:,} ({_reasons(skipped)})"


def _reasons(problems: Iterable[tuple[str, str]]) -> str:
    """'truncated 4, not a picture 3'."""
    return ", ".join(f"{reason} {count:,}" for reason, count in Counter(reason for _, reason in problems).most_common())


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
