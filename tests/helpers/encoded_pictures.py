"""Files of pictures, made in memory, among them some that Pillow would not write."""

import io
import struct
import zlib

import numpy as np


def encoded(image, format, **options):
    """The bytes of a file that Pillow writes."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png(pixels, *, kind=2, bits=8, chunks=()):
    """A PNG of an array (H, W, C) of 8 or 16 bits; `chunks`, (name, contents), stand before the pixels."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2" if bits == 16 else np.uint8).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, contents) for name, contents in body)


def png_chunk(name, contents):
    return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))


def tiff(values, *, photometric=1, planar=False, extra=None, order="<", subfile=0):
    """An uncompressed TIFF of an array (H, W, C) of any type of numbers. extra: the tag ExtraSamples."""
    height, width, bands = values.shape
    values = values.astype(values.dtype.newbyteorder(order))
    planes = [values[..., index] for index in range(bands)] if planar else [values]
    strips = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    starts = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {254: [subfile], 256: [width], 257: [height], 258: [values.dtype.itemsize * 8] * bands, 259: [1],
            262: [photometric], 273: starts, 277: [bands], 278: [height], 279: [*map(len, strips)],
            284: [1 + planar], 339: [kind] * bands} | ({338: extra} if extra is not None else {})
    body = b"".join(strips)
    body += bytes(len(body) % 2)
    first = 8 + len(body)
    entries, tail = b"", b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(packed) > 4:
            packed, tail = struct.pack(f"{order}I", first + 6 + 12 * len(tags) + len(tail)), tail + packed
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return (mark + struct.pack(f"{order}I", first) + body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)
            + tail)
