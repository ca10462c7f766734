"""The safetensors file: reads and writes it, with a seal that shows whether a byte has changed.

Uses the standard library only: models are listed and verified without torch. `safetensors_header` judges the header
before anything else is read. Does not know whether the numbers are finite.

The seal is the SHA-256 of the whole file. It is stored in the file's own header, and computed with 64 zeros in its
place: so it protects every byte of the file, including the header.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelError, system_reason
from ..files.input_files import open_input
from .safetensors_header import (
    COPY_AGAIN,
    ITEM_BYTES,
    MAX_FILE_BYTES,
    MAX_HEADER_BYTES,
    SEAL,
    SEAL_KEY,
    UNSEALED,
    Entry,
    Header,
    judged_header,
    judged_length,
    parse_json,
)

_PIECE_BYTES = 2**20


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading. Every error inside the block becomes a ModelError that names the file.

    Header, seal and tensors that are read inside one such block belong to one and the same file, whatever happens to
    its name meanwhile.
    """
    try:
        with open_input(path, limit=MAX_FILE_BYTES) as file:
            yield file
    except OSError as error:
        raise ModelError(f"cannot read {path}: {system_reason(error)}") from error
    except ModelError as error:
        raise ModelError(f"cannot use {path}: {error.what}", hint=error.hint) from error


def read_header(source: Path | BinaryIO) -> Header:
    """Parse and judge a header without reading the tensors. Raises ModelError."""
    if isinstance(source, Path):
        with opened(source) as file:
            return read_header(file)
    size = os.fstat(source.fileno()).st_size
    source.seek(0)
    length = judged_length(source.read(64), size)
    source.seek(8)
    return judged_header(_read_exactly(source, length), size)


def verify_seal(source: Path | BinaryIO) -> bool:
    """Read the whole file, a piece at a time, and compare it with its seal.

    → True if no byte has changed since the file was sealed, False if it is not one of ours and has no seal. Raises
    ModelError when the header is not sound or a byte has changed.
    """
    if isinstance(source, Path):
        with opened(source) as file:
            return verify_seal(file)
    header = read_header(source)
    source.seek(0)
    digest = _digest_of_head(header, _read_exactly(source, header.data_start))
    for piece in _data_pieces(source, header):
        digest.update(piece)
    return _check_seal(header, digest)


def read_sealed(file: BinaryIO, header: Header) -> Iterator[tuple[str, Entry, bytearray]]:
    """Read the tensors of an opened file whose header was judged. → (name, entry, bytes), one tensor at a time

    The seal is checked on these very bytes after the last tensor: believe none of them before. The header decides how
    much memory is allocated: compare it with the expected tensors first. Raises ModelError.
    """
    file.seek(0)
    digest = _digest_of_head(header, _read_exactly(file, header.data_start))
    for name, entry in header.tensors.items():
        data = bytearray(entry.end - entry.start)
        if file.readinto(data) != len(data):                       # type: ignore[attr-defined]
            raise _cut_short()
        digest.update(data)
        yield name, entry, data
    _check_seal(header, digest)


# ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


RawTensor = tuple[str, str, tuple[int, ...], bytes | memoryview]         # (name, dtype, shape, bytes)


def canonical_order(tensors: Iterable[RawTensor]) -> list[RawTensor]:
    """Sort tensors as they are written: the largest items first, then by name. So every tensor is aligned."""
    return sorted(tensors, key=lambda tensor: (-ITEM_BYTES[tensor[1]], tensor[0]))


def encode(tensors: Sequence[RawTensor], metadata: dict[str, str]) -> list[bytes | memoryview]:
    """→ the pieces of a complete, sealed safetensors file. They are not joined: a big file is never in memory twice.

    Equal contents give equal files, because the metadata is sorted.
    """
    ordered = canonical_order(tensors)
    fields: dict[str, Any] = {"__metadata__": _unsealed(metadata)}
    end = 0
    for name, dtype, shape, data in ordered:
        start, end = end, end + memoryview(data).nbytes
        assert end - start == math.prod(shape) * ITEM_BYTES[dtype], f"{name}: {dtype} {shape} is {end - start} bytes"
        assert name not in fields, f"two tensors are called {name}"
        fields[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    head = _head(fields)
    digest = hashlib.sha256(head)
    for *_, data in ordered:
        digest.update(data)
    return [_with_seal(head, digest), *(data for *_, data in ordered)]


def sealed(file: BinaryIO) -> Iterator[bytes]:
    """Seal an opened file that has no seal, as the safetensors library writes it. → the pieces of the sealed file

    Raises ModelError if the file is not sound.
    """
    header = read_header(file)
    file.seek(8)
    fields = parse_json(_read_exactly(file, header.data_start - 8), limit=MAX_HEADER_BYTES)
    head = _head({**fields, "__metadata__": _unsealed(header.metadata)})
    digest = hashlib.sha256(head)
    for piece in _data_pieces(file, header):
        digest.update(piece)
    yield _with_seal(head, digest)
    file.seek(header.data_start)
    yield from _data_pieces(file, header)


def _unsealed(metadata: dict[str, str]) -> dict[str, str]:
    """The metadata in its written order, with a place for the seal."""
    return dict(sorted({**metadata, SEAL_KEY: UNSEALED}.items()))


def _head(fields: dict[str, Any]) -> bytes:
    """The bytes of a file before its tensors: the header's length and the header, padded to a multiple of 8."""
    raw = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def _with_seal(head: bytes, digest: "hashlib._Hash") -> bytes:
    """The head with the digest in place of the seal's zeros."""
    place = SEAL.search(head)
    assert place is not None, "the header has no place for a seal"
    return head[: place.start(1)] + digest.hexdigest().encode() + head[place.end(1) :]


# ── Small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _digest_of_head(header: Header, start: bytes) -> "hashlib._Hash":
    """Begin the hash of a file with the bytes before its tensors, with zeros in place of the seal."""
    place = header.seal_start
    return hashlib.sha256(start if place is None else start[:place] + UNSEALED.encode() + start[place + 64 :])


def _check_seal(header: Header, digest: "hashlib._Hash") -> bool:
    """Compare the seal with the hash of the whole file. → False if there is no seal. Raises ModelError."""
    if header.seal_start is None:
        return False
    if digest.hexdigest() != header.metadata[SEAL_KEY]:
        raise ModelError("it is damaged: its bytes differ from what was sealed", hint=COPY_AGAIN)
    return True


def _data_pieces(file: BinaryIO, header: Header) -> Iterator[bytes]:
    """Read the bytes of all tensors, in pieces, from a file whose position is the first of them."""
    left = header.size - header.data_start
    while left:
        piece = _read_exactly(file, min(left, _PIECE_BYTES))
        left -= len(piece)
        yield piece


def _read_exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise _cut_short()
    return data


def _cut_short() -> ModelError:
    return ModelError("it was cut short while it was read", hint=COPY_AGAIN)
