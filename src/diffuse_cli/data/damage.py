"""Files that are damaged, but whose pixels are whole: the same file without the damage.

Pillow refuses a PNG for a wrong checksum beside the pixels, and every format for a missing byte at the end. What is
returned here is decoded like any other file: nothing is guessed that was a pixel.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from .file_types import HEAD, format_of, what_else

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}      # PNG's colour type → channels
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))    # Adam7
_PIECE = 2**20                                  # bytes of pixels that are inflated at once
_NEEDED = (b"PLTE", b"tRNS")                    # chunks without which pixels have no colours
_KEPT = (*_NEEDED, b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"eXIf")        # chunks that change how pixels look
_IN_ORDER = ("BMP", "GIF", "TIFF", "TGA", "PPM", "QOI", "PCX", "DDS", "SGI", "SUN")      # formats that store row by row
_CHUNK = re.compile(rb"IDAT|IEND|PLTE|tRNS")
_PREFIX = 2**16                                 # maximum bytes before a picture
_BEGINNING = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR|\xff\xd8\xff[\xdb\xe0-\xe2\xed\xee\xfe]|GIF8[79]a|RIFF....WEBPVP8"
                        rb"|\0\0\0.ftypavi[fs]", re.DOTALL)
# What a file may seem to be by its first bytes, if a picture follows.
_SEEMS = ("not a picture", "text", "web page", "error message", "link as a text", "only zeros")

# ── Bytes before a picture ──────────────────────────────────────────────────────────────────────────────────────────


def without_prefix(data: bytes) -> bytes:
    """A picture without what stands before it, as headers of a server or the message of a program; else the same bytes.

    Files of another kind, which may hold pictures, are left as they are.
    """
    head = data[:HEAD]
    if format_of(head) is not None or what_else(head) not in _SEEMS:
        return data
    found = _BEGINNING.search(data, 0, _PREFIX)
    return data[found.start():] if found else data


# ── PNG ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def mended_png(data: bytes) -> list[bytes]:
    """A PNG with the same pixels and none of the damage around them; none if a pixel is missing or doubtful.

    Two are returned: with what the file says about its colours, and without, in case that is nonsense.
    """
    if data[12:16] != b"IHDR" or len(data) < 33:
        return []
    header = data[16:29]
    kept: dict[bytes, bytes] = {}
    stream, sound = bytearray(), True
    for name, body, is_sound in _chunks(data):
        if name == b"IDAT":
            stream += body
            sound = sound and is_sound
        elif name in _KEPT and (is_sound or name in _NEEDED):
            kept.setdefault(name, body)
    size = _raw_size(header)
    if size is None or not _is_whole(bytes(stream), size, sound):
        return []
    needed = {name: body for name, body in kept.items() if name in _NEEDED}
    return [_png([(b"IHDR", header), *around.items(), (b"IDAT", bytes(stream)), (b"IEND", b"")])
            for around in (kept, needed)]


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return _PNG + b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
                           for name, body in chunks)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bool]]:
    """(name, contents, whether its checksum is right) of the chunks after IHDR.

    After a chunk with a wrong checksum, whose length may be wrong as well, the next chunk that matters is looked for.
    """
    position = 33
    while position + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[position:position + 8])
        start, end = position + 8, position + 8 + length
        body = data[start:end]
        is_sound = data[end:end + 4] == struct.pack(">I", zlib.crc32(name + body))
        follows = data[end + 8:end + 12].isalpha() or (name == b"IDAT" and end + 12 > len(data))
        if name == b"IEND" and length == 0:
            return
        if is_sound or follows:
            yield name, body, is_sound
            position = end + 4
            continue
        found = _CHUNK.search(data, position + 8)
        if found is None:
            return
        position = found.start() - 4


def _raw_size(header: bytes) -> int | None:
    """Bytes of the pixels of a PNG before compression, with a byte for each row; None if its header is impossible."""
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if kind not in _CHANNELS or bits not in (1, 2, 4, 8, 16) or not width or not height:
        return None
    size = 0
    for x, y, step_x, step_y in _PASSES if interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(width - x) // step_x), -(-(height - y) // step_y)
        if columns > 0 and rows > 0:
            size += rows * (1 + (columns * bits * _CHANNELS[kind] + 7) // 8)
    return size


def _is_whole(stream: bytes, size: int, sound: bool) -> bool:
    """Whether the stream inflates to `size` bytes, and a checksum vouches for them: the chunks', or its own.

    sound: whether the checksums of the chunks are right. If the end of the stream is cut off, there is no checksum; a
    stream that still gives every byte is believed.
    """
    inflater, total = zlib.decompressobj(), 0
    try:
        piece = inflater.decompress(stream, _PIECE)
        while piece and total <= size:
            total += len(piece)
            piece = inflater.decompress(inflater.unconsumed_tail, _PIECE)
    except zlib.error:                          # a wrong checksum at the end among others
        return sound and total >= size
    return total >= size


# ── Files without their end ─────────────────────────────────────────────────────────────────────────────────────────


def with_other_ends(data: bytes, format: str | None, *, pixels: int) -> list[bytes]:
    """The file with different ends in the place of bytes that are missing; none if more is missing than an end.

    Pixels that are alike with every end are in the file, and the others are not. pixels: their number in the picture;
    the ends are long enough for 4 % of them. But they are not much longer than the file: some decoders need a
    microsecond for each byte, and 16 bytes may declare 179 megapixels.
    """
    size = min(pixels // 2, len(data)) + 1024
    falling, alternating = bytes(range(254, 0, -1)) * (size // 254 + 1), b"\xaa\x55" * (size // 2)
    if format == "JPEG":
        # The first end is empty: libjpeg leaves grey what it does not find. A 255 begins a marker, and is half of one.
        start, end = data.rstrip(b"\xff"), b"\xff\xd9"
        return [start + end, start + falling + end, start + alternating + end] if _has_every_scan(data) else []
    return [data + bytes(size), data + falling] if format in _IN_ORDER else []


def lacks_end(data: bytes, format: str | None) -> bool:
    """Whether a WebP, AVIF, JPEG 2000 or ICNS is shorter than it says of itself. Nothing of these is read then."""
    if format in ("WEBP", "ICNS") and len(data) >= 8:
        size = struct.unpack("<I" if format == "WEBP" else ">I", data[4:8])[0]
        return bool(len(data) < size + (8 if format == "WEBP" else 0))
    if format == "JPEG2000" and data.startswith(b"\xff\x4f"):         # the code alone, which ends with a mark
        return not data.rstrip(b"\0").endswith(b"\xff\xd9")
    position = 0
    while format in ("AVIF", "JPEG2000") and position < len(data):      # boxes with their sizes
        size = int.from_bytes(data[position:position + 4], "big")
        if size == 0:                           # to the end
            return format == "JPEG2000" and not data.rstrip(b"\0").endswith(b"\xff\xd9")
        if size == 1:
            size = int.from_bytes(data[position + 8:position + 16], "big")
        position += max(size, 8)
    return position > len(data)


def _has_every_scan(data: bytes) -> bool:
    """Whether every scan of a JPEG has begun: progressive ones build a picture up from a blurred one."""
    components: set[int] = set()
    begun: set[tuple[int, int]] = set()         # (component, coefficient) whose last bit is in a scan
    position = 2
    while marker := re.compile(rb"\xff+([\xc0-\xcf\xda-\xfe])", re.DOTALL).search(data, position):
        length = int.from_bytes(data[marker.end():marker.end() + 2], "big")
        body = data[marker.end() + 2:marker.end() + length]
        kind = marker[1][0]
        if kind in (0xc0, 0xc1, 0xc2) and len(body) >= 6:
            components = set(body[6::3])
        elif kind == 0xda and body and len(body) >= 4 + 2 * body[0]:
            first, last, bits = body[-3:]
            if bits & 15 == 0:
                coefficients = range(first, min(last, 63) + 1)
                begun |= {(one, index) for one in body[1:1 + 2 * body[0]:2] for index in coefficients}
        position = marker.end() + length
    return bool(components) and len(begun) == 64 * len(components)
