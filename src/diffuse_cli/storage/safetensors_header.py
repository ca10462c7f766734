"""The header of a safetensors file: which tensors there are, where their bytes lie, and our metadata. Bytes in, judged.

A model file may come from anywhere. Every limit is therefore enforced before anything is allocated or believed, and
each defect is a `ModelError` in one line. The safetensors library accepts more than this module does (see
docs/decisions.md). Opens no file, and does not know the meaning of the tensors or of our metadata.

The layout of a file: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes without gap or
overlap. Ours have a seal in the metadata, which `safetensors_file` makes and checks.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from ..errors import ModelError
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
SEAL = re.compile(rb'"' + re.escape(SEAL_KEY.encode()) + rb'":"([0-9a-f]{64})"')
COPY_AGAIN = "Copy or download it again"

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


def judged_length(start: bytes, size: int) -> int:
    """The length of the header in bytes. start: the first 64 bytes of the file; size: of all. Raises ModelError."""
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES) or start[8:9] != b"{":
        defect = _why_not_safetensors(start, length, size)
        raise ModelError(defect, hint=COPY_AGAIN if "short" in defect else "Give a model in a .safetensors file")
    return length


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


def judged_header(raw: bytes, size: int) -> Header:
    """Parse and judge the JSON text of a header. size: of the whole file, in bytes. Raises ModelError."""
    fields = _object(parse_json(raw, limit=MAX_HEADER_BYTES), "the header")
    metadata = _judged_metadata(fields.pop("__metadata__", {}))
    return Header(metadata=metadata, tensors=_judged_tensors(fields, size - 8 - len(raw)), data_start=8 + len(raw),
                  size=size, seal_start=_seal_start(raw, metadata))


def parse_json(text: str | bytes, *, limit: int = MAX_JSON_BYTES, infinities: bool = False) -> Any:
    """As `loads_strict`, for the JSON in the files of a model. Raises ModelError."""
    comma, brace = (",", "{") if isinstance(text, str) else (b",", b"{")
    if text.count(comma) > MAX_ENTRIES or text.count(brace) > 2 * MAX_TENSORS:      # type: ignore[arg-type]
        raise ModelError("its JSON has too many entries", hint="Only models made by diffuse can be used")
    try:
        return loads_strict(text, limit=limit, infinities=infinities)
    except JsonError as error:
        raise ModelError(str(error), hint=COPY_AGAIN) from error


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
            raise ModelError(f"the bytes of the tensor {name} overlap others or leave a gap", hint=COPY_AGAIN)
        end = entry.end
    if end != data_bytes:
        raise ModelError(f"it should have {end:,} bytes of tensors, but has {data_bytes:,}", hint=COPY_AGAIN)
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
        raise ModelError(f"the tensor {name} has a shape that does not fit its bytes", hint=COPY_AGAIN)
    return Entry(dtype=dtype, shape=tuple(shape), start=offsets[0], end=offsets[1])


def _are_integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)      # True is not a size


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{place} is not a JSON object", hint=COPY_AGAIN)
    return value


def _seal_start(raw: bytes, metadata: dict[str, str]) -> int | None:
    if SEAL_KEY not in metadata:
        if any(key.startswith("diffuse.") for key in metadata):
            raise ModelError("it was made by diffuse, but its seal is missing", hint=COPY_AGAIN)
        return None
    # A quote inside a JSON string is escaped: so this pattern cannot occur within another value.
    match = SEAL.search(raw)
    if match is None or match[1].decode() != metadata[SEAL_KEY]:
        raise ModelError("its seal is damaged", hint=COPY_AGAIN)
    return 8 + match.start(1)
