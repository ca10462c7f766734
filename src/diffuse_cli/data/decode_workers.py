"""Decode pictures in processes of their own, so that a decoder which crashes, hangs or eats memory costs one file.

Each worker is a fresh Python that imports Pillow and NumPy, never torch and never the user's script (which therefore
needs no `if __name__` guard). It decodes one file at a time, so a second death is the fault of that file. Requests and
replies go through pipes; a worker whose parent is gone reads the end of its input and exits.
"""

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .colours import Rendering
from .containers import Location
from .picture_files import ImageRefused, read

SECONDS = 30.0                                  # maximum seconds for one picture
MEMORY = 2 * 2**30                              # maximum bytes that a worker allocates after its start
TOO_LONG, CRASHED, TOO_MUCH = "took too long", "crashed the decoder", "needs too much memory"
DEATHS = (TOO_LONG, CRASHED, TOO_MUCH)          # reasons with which the hash of the file may be missing
AHEAD = 8                                       # maximum pictures in flight for each worker
_PICTURES_PER_WORKER = 8                        # minimum pictures for which another worker is started

# The worker looks for modules in the directories of its parent, but never in the current directory.
BOOTSTRAP = "import sys; sys.path[:] = sys.argv[1:]; from diffuse_cli.data.decode_workers import serve; serve()"


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
    pixels: bytes = b""                         # R·R·3 bytes


def decode_all(
    paths: Sequence[Location], *, resolution: int, rendering: Rendering | None = None,
) -> Generator[Decoded, None, None]:
    """Decode every file to a square of `resolution` pixels, in order. Closing the generator ends the workers."""
    request = [resolution, asdict(rendering or Rendering())]
    count = max(1, min(cores(), len(paths) // _PICTURES_PER_WORKER))
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    workers = [_Worker() for _ in range(count)]
    for worker in workers:
        idle.put(worker)

    def decode_one(path: Location) -> Decoded:
        worker = idle.get()
        try:
            return worker.decode(path, request)
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(count, thread_name_prefix="decode") as threads:
        pending: deque[Future[Decoded]] = deque()
        try:
            for path in paths:
                pending.append(threads.submit(decode_one, path))
                if len(pending) >= AHEAD * count:
                    yield _result(pending.popleft())
            while pending:
                yield _result(pending.popleft())
        finally:
            for future in pending:
                future.cancel()
            for worker in workers:
                worker.close()


def decode_one(path: Path, *, resolution: int, rendering: Rendering | None = None) -> bytes:
    """The R·R·3 bytes of one picture, which is decoded as safely as those of a data set. Raises ImageRefused."""
    with contextlib.closing(decode_all([path], resolution=resolution, rendering=rendering)) as decoding:
        decoded = next(decoding)
    if decoded.reason:
        raise ImageRefused(decoded.reason)
    return decoded.pixels


def _result(future: "Future[Decoded]") -> Decoded:
    """Wait for a result, in short spells: on Windows, and rarely elsewhere, Ctrl-C does not interrupt a long wait."""
    while not wait([future], timeout=0.2).done:
        pass
    return future.result()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ── The parent's side ───────────────────────────────────────────────────────────────────────────────────────────────


class _Worker:
    """One process, started when it is first needed and again after each death. One thread at a time uses it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()           # between the thread that decodes and the thread that closes

    def decode(self, path: Location, request: list[Any]) -> Decoded:
        """Decode one file; try again if the process died of it, since a busy machine may have been the reason."""
        decoded = self._attempt(path, request)
        if decoded.reason in DEATHS and not self._closed:
            decoded = self._attempt(path, request)
        return decoded

    def _attempt(self, path: Location, request: list[Any]) -> Decoded:
        try:
            data = b"" if isinstance(path, Path) else read(path)       # of a member: this process reads its container
        except ImageRefused as error:
            return Decoded(reason=error.reason)
        process = self._running()
        if process is None:
            return Decoded(reason=CRASHED)
        late = threading.Event()
        timer = threading.Timer(SECONDS, _expire, (process, late))
        timer.daemon = True
        timer.start()
        try:
            decoded = self._request(process, path if isinstance(path, Path) else None, data, request)
            if decoded.reason == TOO_MUCH:      # the process may keep memory that the next picture needs
                self._end(process)
            return decoded
        except (OSError, EOFError, ValueError):
            self._end(process)
            return Decoded(reason=TOO_LONG if late.is_set() else CRASHED)
        finally:
            timer.cancel()

    def close(self) -> None:
        """End the process, even while another thread waits for it."""
        with self._lock:
            self._closed = True
            if self._process is not None:
                self._end(self._process)

    def _request(
        self, process: subprocess.Popen[bytes], path: Path | None, data: bytes, request: list[Any],
    ) -> Decoded:
        """Send one request, with the path of a file or its bytes, and read the reply.

        Raises OSError, EOFError or ValueError if the process has died.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        # The path travels as hexadecimal bytes: the two processes need not agree on the encoding of file names.
        name = "" if path is None else os.fsencode(path).hex()
        process.stdin.write(json.dumps([name, len(data), *request]).encode() + b"\n" + data)
        process.stdin.flush()
        header = json.loads(process.stdout.readline())
        size = header.pop("bytes")
        pixels = process.stdout.read(size)
        if len(pixels) < size:
            raise EOFError
        return Decoded(**header, pixels=pixels)

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


def _expire(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _start() -> subprocess.Popen[bytes]:
    """Start a worker and wait until it is ready. Raises RuntimeError if Python or Pillow cannot be started."""
    process = subprocess.Popen(
        [sys.executable, "-c", BOOTSTRAP, *filter(None, sys.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,              # libtiff, for example, prints to file descriptor 2
        start_new_session=True,                 # Ctrl-C is for the parent, which then ends its workers
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        _Worker._end(process)
        raise RuntimeError("the process that decodes pictures did not start")
    return process


# ── The worker's side ───────────────────────────────────────────────────────────────────────────────────────────────


def serve() -> None:
    """Answer requests until the input ends.

    A request is one JSON line, and the bytes of a picture if it names no path. A reply is one JSON line and the pixels.
    """
    from . import images

    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                               # a decoder may print to standard output, which is no reply
    _limit_memory()
    replies.write(b"ready\n")
    replies.flush()
    for line in sys.stdin.buffer:
        path, size, resolution, rendering = json.loads(line)
        decoded = Decoded()
        try:
            data = read(Path(os.fsdecode(bytes.fromhex(path)))) if path else sys.stdin.buffer.read(size)
            decoded = Decoded(file_hash=hashlib.sha256(data).hexdigest())
            image = images.decode_rgb(data, target=resolution, rendering=Rendering(**rendering))
            pixels = images.crop_and_resize(image, resolution).tobytes()
            (width, height), mode, facts = image.info["size"], image.info["mode"], image.info
            decoded = Decoded("", decoded.file_hash, width, height, mode, facts["peak"], facts["notes"], pixels)
        except ImageRefused as error:
            decoded = Decoded(error.reason, decoded.file_hash)
        except MemoryError:
            decoded = Decoded(TOO_MUCH, decoded.file_hash)
        header = asdict(decoded)
        del header["pixels"]
        replies.write(json.dumps({**header, "bytes": len(decoded.pixels)}).encode() + b"\n" + decoded.pixels)
        replies.flush()


def _limit_memory() -> None:
    """Limit the address space, if the system can, to its present size plus MEMORY."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = used + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
