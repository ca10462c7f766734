"""The safetensors file as bytes: parses and judges its header, makes and checks its seal, and encodes it canonically.

A model file may come from anywhere. Every limit is therefore enforced before anything is allocated or believed, and
each defect is a `ModelError` in one line. The safetensors library accepts more than this module does (see
docs/decisions.md). Uses the standard library only: models are listed and verified without torch. Does not know the
meaning of the tensors or of our metadata, nor whether the numbers are finite.

The layout: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes without gap or overlap.
The seal is the SHA-256 of the whole file. It is stored in the file's own header, and computed with 64 zeros in its
place: so it protects every byte of the file, including the header.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import ModelError, system_reason
from ..files.input_files import open_input
from ..files.strict_json import MAX_JSON_BYTES, JsonError, loads_strict

SEAL_KEY = "diffuse.seal"
UNSEALED = "0" * 64                             # stands in place of the seal while the seal is computed

MAX_FILE_BYTES = 64 * 2**30
MAX_HEADER_BYTES = 8 * 2**20
MAX_TENSORS = 32_768
MAX_ENTRIES = 600_000                           # values in a JSON text; to parse more would take seconds
MAX_DIMENSIONS = 8

ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}

_TENSOR_NAME = re.compile(r"[A-Za-z0-9_.]{1,256}")
_METADATA_NAME = re.compile(r"(?:format|(?:diffuse|modelspec)\.[A-Za-z0-9_.]{1,128})")
_SEAL = re.compile(rb'"' + re.escape(SEAL_KEY.encode()) + rb'":"([0-9a-f]{64})"')
_PIECE_BYTES = 2**20
_COPY_AGAIN = "Copy or download it again"

_IMPOSTORS = (                                  # first bytes of other files that are often renamed to .safetensors
    (b"PK\x03\x04", "this is a zip archive, probably a PyTorch pickle; diffuse never loads pickles"),
    (b"\x80", "this is a PyTorch pickle; diffuse never loads pickles"),
    (b"\x89HDF", "this is an HDF5 file, not a safetensors file"),
    (b"GGUF", "this is a GGUF file, not a safetensors file"),
    (b"version https://git-lfs", "this looks like a Git LFS pointer, not the file itself; run `git lfs pull`"),
    (b"<", "this looks like a web page saved under a wrong name"),
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where one tensor lies: its bytes are `[start, end)` after the header."""

    dtype: str                                  # a key of ITEM_BYTES
    shape: tuple[int, ...]                      # () for a scalar; never a zero
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header that passed every check. `tensors` are in the order of their bytes."""

    metadata: dict[str, str]
    tensors: dict[str, Entry]
    data_start: int                             # offset of the first tensor in the file
    size: int                                   # of the file, in bytes
    seal_start: int | None                      # offset of the seal's 64 digits in the file; None: not sealed

    @property
    def parameters(self) -> int:
        """Number of elements of all tensors."""
        return sum(math.prod(entry.shape) for entry in self.tensors.values())


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
    start = source.read(64)
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES) or start[8:9] != b"{":
        defect = _why_not_safetensors(start, length, size)
        raise ModelError(defect, hint=_COPY_AGAIN if "short" in defect else "Give a model in a .safetensors file")
    source.seek(8)
    raw = _read_exactly(source, length)
    fields = _object(parse_json(raw, limit=MAX_HEADER_BYTES), "the header")
    metadata = _judged_metadata(fields.pop("__metadata__", {}))
    return Header(metadata=metadata, tensors=_judged_tensors(fields, size - 8 - length), data_start=8 + length,
                  size=size, seal_start=_seal_start(raw, metadata))


def parse_json(text: str | bytes, *, limit: int = MAX_JSON_BYTES, infinities: bool = False) -> Any:
    """As `loads_strict`, for the JSON in the files of a model. Raises ModelError."""
    comma, brace = (",", "{") if isinstance(text, str) else (b",", b"{")
    if text.count(comma) > MAX_ENTRIES or text.count(brace) > 2 * MAX_TENSORS:      # type: ignore[arg-type]
        raise ModelError("its JSON has too many entries", hint="Only models made by diffuse can be used")
    try:
        return loads_strict(text, limit=limit, infinities=infinities)
    except JsonError as error:
        raise ModelError(str(error), hint=_COPY_AGAIN) from error


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
    place = _SEAL.search(head)
    assert place is not None, "the header has no place for a seal"
    return head[: place.start(1)] + digest.hexdigest().encode() + head[place.end(1) :]


# ── Judging ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _judged_metadata(fields: Any) -> dict[str, str]:
    for key, value in _object(fields, "the metadata").items():
        if not _METADATA_NAME.fullmatch(key):
            raise ModelError(f"unknown metadata {key[:60]!r}", hint="Only files made by diffuse can be used")
        if not isinstance(value, str):
            raise ModelError(f"the metadata {key!r} is not text")
    return dict(fields)


def _judged_tensors(fields: dict[str, Any], data_bytes: int) -> dict[str, Entry]:
    """Check every tensor by itself, then all together: they must tile the data without gap, overlap or rest."""
    if len(fields) > MAX_TENSORS:
        raise ModelError(f"it has {len(fields):,} tensors, at most {MAX_TENSORS:,} are allowed")
    entries = {name: _judged_entry(name, value) for name, value in fields.items()}
    entries = dict(sorted(entries.items(), key=lambda item: item[1].start))
    end = 0
    for name, entry in entries.items():
        if entry.start != end:
            raise ModelError(f"the bytes of the tensor {name} overlap others or leave a gap", hint=_COPY_AGAIN)
        end = entry.end
    if end != data_bytes:
        raise ModelError(f"it should have {end:,} bytes of tensors, but has {data_bytes:,}", hint=_COPY_AGAIN)
    return entries


def _judged_entry(name: str, value: Any) -> Entry:
    if not _TENSOR_NAME.fullmatch(name):
        raise ModelError(f"a tensor has the impossible name {name[:60]!r}")
    fields = _object(value, f"the tensor {name}")
    if set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ModelError(f"the tensor {name} needs dtype, shape and data_offsets, nothing else")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise ModelError(f"the tensor {name} has the unknown dtype {str(dtype)[:20]!r}")
    if not _are_integers(shape) or len(shape) > MAX_DIMENSIONS or min(shape, default=1) < 1:
        raise ModelError(f"the tensor {name} has an impossible shape")
    if not _are_integers(offsets) or len(offsets) != 2 or offsets[0] < 0:
        raise ModelError(f"the tensor {name} has impossible offsets")
    if offsets[1] - offsets[0] != math.prod(shape) * ITEM_BYTES[dtype]:
        raise ModelError(f"the tensor {name} has a shape that does not fit its bytes", hint=_COPY_AGAIN)
    return Entry(dtype=dtype, shape=tuple(shape), start=offsets[0], end=offsets[1])


def _are_integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)      # True is not a size


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{place} is not a JSON object", hint=_COPY_AGAIN)
    return value


def _seal_start(raw: bytes, metadata: dict[str, str]) -> int | None:
    if SEAL_KEY not in metadata:
        if any(key.startswith("diffuse.") for key in metadata):
            raise ModelError("it was made by diffuse, but its seal is missing", hint=_COPY_AGAIN)
        return None
    # A quote inside a JSON string is escaped: so this pattern cannot occur within another value.
    match = _SEAL.search(raw)
    if match is None or match[1].decode() != metadata[SEAL_KEY]:
        raise ModelError("its seal is damaged", hint=_COPY_AGAIN)
    return 8 + match.start(1)


def _digest_of_head(header: Header, start: bytes) -> "hashlib._Hash":
    """Begin the hash of a file with the bytes before its tensors, with zeros in place of the seal."""
    place = header.seal_start
    return hashlib.sha256(start if place is None else start[:place] + UNSEALED.encode() + start[place + 64 :])


def _check_seal(header: Header, digest: "hashlib._Hash") -> bool:
    """Compare the seal with the hash of the whole file. → False if there is no seal. Raises ModelError."""
    if header.seal_start is None:
        return False
    if digest.hexdigest() != header.metadata[SEAL_KEY]:
        raise ModelError("it is damaged: its bytes differ from what was sealed", hint=_COPY_AGAIN)
    return True


def _why_not_safetensors(start: bytes, length: int, size: int) -> str:
    """What the file is instead, or what it lacks, in a sentence."""
    for magic, description in _IMPOSTORS:
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(magic):
            return description
    if size < 8:
        return f"{size} bytes are too short for a safetensors file"
    if 0 < size - 8 < length <= MAX_HEADER_BYTES:
        return f"its header should be {length:,} bytes long, but the file is cut short"
    return "this is not a safetensors file"


# ── Small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


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
    return ModelError("it was cut short while it was read", hint=_COPY_AGAIN)
