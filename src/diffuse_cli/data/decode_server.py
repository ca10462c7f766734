"""What a decoding process does: it answers requests of `decode_workers` until its input ends.

It imports little, because a folder of a few hundred pictures takes no longer than the imports of NumPy. It never
imports torch, nor the user's script.

A request is one line of JSON, [[[width, height], …], rendering, [[path, size], …]], and the bytes of the pictures that
have no path. Each picture gets the nearest of the widths and heights. A reply is one line of JSON with facts about some
of these pictures, in order, and their pixels. A request may take several replies: one is sent as soon as the last is
PATIENCE seconds old, so that slow pictures are answered alone.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import IO, Any

from ..picture_size import Size, nearest
from . import fitting, images
from .colours import Rendering
from .picture_files import TOO_MUCH, ImageRefused, read

MEMORY = 2 * 2**30                              # maximum bytes that a worker allocates after its start
PATIENCE = 0.1                                  # seconds of work after which a reply is sent
_LARGE = 2**20                                  # bytes of pixels after which a reply is sent


def serve() -> None:
    """Answer requests until the input ends, or until a picture has taken too much memory."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)                               # a decoder may print to standard output, which is no reply
    _limit_memory()
    warnings.simplefilter("ignore")
    replies.write(b"ready\n")
    replies.flush()
    for line in sys.stdin.buffer:
        sizes, rendering, files = json.loads(line)
        # All of it is read before the first reply: else both sides could wait for each other with full pipes.
        members = [b"" if path else sys.stdin.buffer.read(size) for path, size in files]
        if not _answer(replies, files, members, [Size(*size) for size in sizes], Rendering(**rendering)):
            return


def _answer(
    replies: IO[bytes], files: list[Any], members: list[bytes], sizes: list[Size], rendering: Rendering,
) -> bool:
    """Decode the pictures of one request and reply. → False if one took too much memory, which ends the request.

    The process may keep memory that the next picture needs.
    """
    facts: list[Any] = []
    pictures: list[bytes] = []
    begun, waiting = time.monotonic(), 0
    for index, (path, _) in enumerate(files):
        fact, pixels = _decode(path, members[index], sizes, rendering)
        members[index] = b""
        facts.append(fact)
        pictures.append(pixels)
        waiting += len(pixels)
        ends = index + 1 == len(files) or fact[0] == TOO_MUCH
        if ends or waiting > _LARGE or time.monotonic() - begun > PATIENCE:
            replies.write(json.dumps(facts).encode() + b"\n" + b"".join(pictures))
            replies.flush()
            if fact[0] == TOO_MUCH:
                return False
            facts, pictures, begun, waiting = [], [], time.monotonic(), 0
    return True


def _decode(path: str, data: bytes, sizes: list[Size], rendering: Rendering) -> tuple[list[Any], bytes]:
    """One picture, at a path in hexadecimal or in `data` → the first fields of `decode_workers.Decoded`, and pixels."""
    file_hash = ""
    try:
        if path:
            data = read(Path(os.fsdecode(bytes.fromhex(path))))
        file_hash = hashlib.sha256(data).hexdigest()
        image = images.decode_rgb(data, target=max(map(max, sizes)), rendering=rendering)
        (width, height), mode, facts = image.info["size"], image.info["mode"], image.info
        pixels = fitting.fitted(image, nearest(sizes, (width, height)), rendering).tobytes()
        pixels_hash = hashlib.sha256(pixels).hexdigest()
        return ["", file_hash, width, height, mode, facts["peak"], facts["notes"], pixels_hash], pixels
    except ImageRefused as error:
        return [error.reason, file_hash, 0, 0, "", 0, [], ""], b""
    except MemoryError:
        return [TOO_MUCH, file_hash, 0, 0, "", 0, [], ""], b""


def _limit_memory() -> None:
    """Limit the address space, if the system can, to its present size plus MEMORY."""
    with contextlib.suppress(AttributeError, ImportError, OSError, ValueError):
        import resource

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = used + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
