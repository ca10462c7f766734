"""Decode pictures in processes of their own, so that a decoder which crashes, hangs or eats memory costs one file.

Each worker is a fresh Python that runs `decode_server`, never torch and never the user's script (which therefore needs
no `if __name__` guard). Files travel in batches. When a process dies of a batch, the files without an answer are
decoded again one at a time, so a further death is the fault of that file. Requests and replies go through pipes; a
worker whose parent is gone reads the end of its input and exits.
"""

import contextlib
import itertools
import json
import os
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import python_process
from ..errors import DataError, OutOfMemoryError
from ..picture_size import Resolution, Size, nearest, sizes_of
from .colours import Rendering
from .containers import Location
from .picture_files import TOO_MUCH, ImageRefused, read

SECONDS = 30.0                                  # maximum seconds for one picture
BATCH_SHARE = 1 / 3                             # of SECONDS, after which a batch is given up, and each file tried alone
BUDGET = 300.0                                  # seconds that files which took too long may cost, besides as much time
#                                                 as all other files took; a folder full of them would take hours
TOO_LONG, CRASHED = "took too long", "crashed the decoder"
DEATHS = (TOO_LONG, CRASHED, TOO_MUCH)          # reasons with which the hash of the file may be missing
AHEAD = 2                                       # maximum batches in flight for each worker
_BATCH = 16                                     # maximum pictures of a request
_BATCH_BYTES = 16 * 2**20                       # bytes of members of containers, after which a request is sent
_PICTURES_PER_WORKER = 8                        # minimum pictures for which another worker is started
# Pillow keeps up to 16 MiB for the next picture: to get new memory for each costs a quarter of the time.
_KEEP_MEMORY = {"PILLOW_BLOCKS_MAX": "4", "PILLOW_BLOCK_SIZE": "4m"}

BOOTSTRAP = "from diffuse_cli.data.decode_server import serve; serve()"


@dataclass(frozen=True)
class Decoded:
    """The result for one file: its pixels, or the reason why there are none."""

    reason: str = ""                            # empty if the file was decoded
    file_hash: str = ""                         # SHA-256 of the bytes that were read
    width: int = 0                              # of the picture in the file; so are `height` and `mode`
    height: int = 0
    mode: str = ""
    peak: int = 0                               # highest value of a picture of 16 bits, otherwise 0
    notes: list[str] = field(default_factory=list)      # those of `colours`
    pixels_hash: str = ""                       # SHA-256 of `pixels`; empty if there are none
    pixels: bytes = b""                         # H·W·C bytes, with the C channels of the rendering


def decode_all(
    paths: Iterable[Location], *, resolution: Resolution, rendering: Rendering | None = None,
) -> Generator[Decoded, None, None]:
    """Decode every file to the size `resolution`, in order. Closing the generator ends the workers.

    resolution: an int is the side of squares; of several sizes, each picture gets the nearest. Raises DataError if
    files that take too long have cost more time than BUDGET, and than all other files.
    """
    request = [sizes_of(resolution), asdict(rendering or Rendering())]
    waiting = iter(paths)
    first = list(itertools.islice(waiting, 2 * cores() * _BATCH))       # a number that keeps all workers busy
    waiting = itertools.chain(first, waiting)
    count = max(1, min(cores(), len(first) // _PICTURES_PER_WORKER))
    size = max(1, min(_BATCH, len(first) // (2 * count)))               # few files: each worker gets some of them
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    times = _Times()
    workers = [_Worker(times) for _ in range(count)]
    for worker in workers:
        idle.put(worker)

    def decode_batch(batch: Sequence[Location]) -> list[Decoded]:
        worker = idle.get()
        try:
            return worker.decode(batch, request)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(count, thread_name_prefix="decode") as threads:
        pending: deque[Future[list[Decoded]]] = deque()
        try:
            while batch := list(itertools.islice(waiting, size)):
                pending.append(threads.submit(decode_batch, batch))
                if len(pending) >= AHEAD * count:
                    yield from _result(pending.popleft())
            while pending:
                yield from _result(pending.popleft())
        finally:
            for future in pending:
                future.cancel()
            for worker in workers:
                worker.close()


def decode_one(path: Path, *, resolution: Resolution, rendering: Rendering | None = None) -> tuple[Size, bytes]:
    """The size of one picture and its H·W·C bytes, decoded as safely as those of a data set. Raises ImageRefused."""
    with contextlib.closing(decode_all([path], resolution=resolution, rendering=rendering)) as decoding:
        decoded = next(decoding)
    if decoded.reason:
        raise ImageRefused(decoded.reason)
    return nearest(sizes_of(resolution), (decoded.width, decoded.height)), decoded.pixels


def _result(future: "Future[list[Decoded]]") -> list[Decoded]:
    """Wait for results, in short spells: on Windows, and rarely elsewhere, Ctrl-C does not interrupt a long wait."""
    while not wait([future], timeout=0.2).done:
        pass
    return future.result()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ── The parent's side ───────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _File:
    """A picture as it is sent: its path, or its bytes if it is in a container, which only this process reads."""

    path: str                                   # as hexadecimal bytes: the processes may differ in encodings of names
    data: bytes


def _requests(batch: Sequence[Location]) -> Iterator[list[_File] | Decoded]:
    """The files of a batch in order, as many at a time as one request has; alone the result of an unreadable one."""
    files: list[_File] = []
    size = 0
    for path in batch:
        if isinstance(path, Path):
            files.append(_File(os.fsencode(path).hex(), b""))
            continue
        try:
            data = read(path)
        except ImageRefused as error:
            if files:
                yield files
            yield Decoded(reason=error.reason)
            files, size = [], 0
            continue
        if files and size + len(data) > _BATCH_BYTES:
            yield files
            files, size = [], 0
        files.append(_File("", data))
        size += len(data)
    if files:
        yield files


class _Times:
    """The seconds that all workers of one data set spent: on files that took too long, and on all others."""

    def __init__(self) -> None:
        self._lost, self._used, self._lock = 0.0, 0.0, threading.Lock()

    def add(self, *, lost: float = 0.0, used: float = 0.0) -> None:
        """Count seconds. Raises DataError once those that were lost exceed BUDGET, and those that were used."""
        with self._lock:
            self._lost += lost
            self._used += used
            if self._lost > max(BUDGET, self._used):
                raise DataError(f"pictures that take over {SECONDS:.0f} s to decode have cost "
                                f"{self._lost / 60:.0f} minutes",
                                hint="Take them out: `diffuse data check` on a part of the pictures lists those in it")


class _Worker:
    """One process, started when it is first needed and again after each death. One thread at a time uses it."""

    def __init__(self, times: _Times) -> None:
        self._times = times
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()           # between the thread that decodes and the thread that closes

    def decode(self, batch: Sequence[Location], request: list[Any]) -> list[Decoded]:
        """Decode files, in order."""
        results: list[Decoded] = []
        for files in _requests(batch):
            if isinstance(files, Decoded):
                results.append(files)
            else:
                results += self._decode(files, request)
        return results

    def _decode(self, files: list[_File], request: list[Any]) -> list[Decoded]:
        """Decode the files of one request. A file of which the process died is tried again, since a busy machine may
        have been the reason; after the death of a batch, each file without an answer is tried alone.
        """
        results, death = self._attempt(files, request)
        left = files[len(results):]
        if not left:
            return results
        if death == TOO_MUCH or len(files) == 1:            # the first one is at fault
            again, death = self._attempt(left[:1], request)
            results += again or [Decoded(reason=death)]
            return results + (self._decode(left[1:], request) if left[1:] else [])
        return results + [decoded for one in left for decoded in self._decode([one], request)]

    def _attempt(self, files: list[_File], request: list[Any]) -> tuple[list[Decoded], str]:
        """The results of the first files, and the reason why there are no more; it is empty if these are all."""
        process = self._running()
        if process is None:
            return [], CRASHED
        seconds = SECONDS if len(files) == 1 else SECONDS * BATCH_SHARE
        begun, late, results = time.monotonic(), threading.Event(), list[Decoded]()
        try:
            with _time_limit(process, late, seconds):
                _send(process, files, request)
            while len(results) < len(files):
                with _time_limit(process, late, seconds):
                    results += _receive(process, len(files) - len(results), *request)
                if results[-1].reason == TOO_MUCH:          # the process may keep memory that the next picture needs
                    self._end(process)
                    return results[:-1], TOO_MUCH
        except (OSError, EOFError, ValueError, TypeError):
            self._end(process)
            if late.is_set():
                self._times.add(lost=seconds)
            return results, TOO_LONG if late.is_set() else CRASHED
        self._times.add(used=time.monotonic() - begun)
        return results, ""

    def close(self) -> None:
        """End the process, even while another thread waits for it."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._end(self._process)

    def _running(self) -> subprocess.Popen[bytes] | None:
        """The process, started if it does not run; None once the worker is closed."""
        with self._lock:
            if self._closed:
                return None
            if self._process is None or self._process.poll() is not None:
                self._process = _start()
            return self._process

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _send(process: subprocess.Popen[bytes], files: list[_File], request: list[Any]) -> None:
    """Send one request, as `decode_server` describes it. Raises OSError if the process has died."""
    assert process.stdin is not None
    header = json.dumps([*request, [[file.path, len(file.data)] for file in files]])
    process.stdin.write(header.encode() + b"\n" + b"".join(file.data for file in files))
    process.stdin.flush()


def _receive(
    process: subprocess.Popen[bytes], most: int, sizes: tuple[Size, ...], rendering: dict[str, Any],
) -> list[Decoded]:
    """Read one reply, to at most `most` files. Raises EOFError, ValueError or TypeError if the process has died."""
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    results = []
    for reason, file_hash, width, height, mode, peak, notes, pixels_hash in facts:
        if not reason and min(width, height) < 1:
            raise ValueError(f"a picture of {width} x {height} pixels")
        size = 0 if reason else Rendering(**rendering).channels * nearest(sizes, (width, height)).pixels
        pixels = process.stdout.read(size)
        if len(pixels) < size:
            raise EOFError
        results.append(Decoded(reason, file_hash, width, height, mode, peak, notes, pixels_hash, pixels))
    if not 0 < len(results) <= most:
        raise ValueError(f"{len(results)} results")
    return results


@contextlib.contextmanager
def _time_limit(process: subprocess.Popen[bytes], late: threading.Event, seconds: float) -> Iterator[None]:
    """Kill the process, and set `late`, if the block is not done after so many seconds."""
    timer = threading.Timer(seconds, _expire, (process, late))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _expire(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _start() -> subprocess.Popen[bytes]:
    """Start a worker and wait until it is ready. Raises OutOfMemoryError if that fails."""
    process = subprocess.Popen(
        python_process.command(BOOTSTRAP),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,              # libtiff, for example, prints to file descriptor 2
        start_new_session=True,                 # Ctrl-C is for the parent, which then ends its workers
        env=python_process.environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", **_KEEP_MEMORY),
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        _Worker._end(process)
        raise OutOfMemoryError("the process that decodes pictures did not start",
                               hint="Close other programs, or raise the limits of the system (`ulimit`)")
    return process
