"""Colour profiles for pictures that say what their colours are, but carry no profile: by cICP, cHRM, gAMA or Exif.

Each becomes an ICC profile, so that the library which converts by profiles converts these as well.
"""

import functools
import re
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Values = np.ndarray[Any, Any]

SRGB, HIGH_RANGE = 0.0, -1.0                    # in the place of a gamma: the curve of sRGB, and one of bright displays

_D65 = (0.3127, 0.3290)
_BT709 = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
# Numbers of ITU-T H.273, which cICP and AVIF hold: primaries, as x and y of white, red, green and blue; and curves.
_PRIMARIES = {1: _BT709, 9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
              12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)}
_CURVES = {1: SRGB, 4: 2.2, 5: 2.8, 6: SRGB, 8: 1.0, 13: SRGB, 14: SRGB, 15: SRGB, 16: HIGH_RANGE, 18: HIGH_RANGE}
_D50 = (0.9642, 1.0, 0.8249)                    # XYZ of white in ICC profiles
_BRADFORD = ((0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296))
_POINTS = 1024                                  # of a curve

_CICP = re.compile(rb"\0\0\0\x04cICP(.)(.)", re.DOTALL)
_NCLX = re.compile(rb"colrnclx\0(.)\0(.)", re.DOTALL)
# Adobe RGB in Exif, in both byte orders: the tag ColorSpace is 2, or that of interoperability is "R03".
_EXIF_ADOBE = (b"\x01\xa0\x03\0\x01\0\0\0\x02\0", b"\xa0\x01\0\x03\0\0\0\x01\0\x02",
               b"\x01\0\x02\0\x04\0\0\0R03", b"\0\x01\0\x02\0\0\0\x04R03")


def note_colours(data: bytes, info: dict[Any, Any], format: str | None) -> None:
    """Add "rgb" to the `info` of a picture whose file says what its colours are, without a profile: (primaries, gamma).

    data: the file. primaries: eight numbers, x and y of white, red, green and blue. gamma: the exponent from values to
    light; or SRGB or HIGH_RANGE.
    """
    if format == "PNG" and (code := _CICP.search(data, 33, max(33, data.find(b"IDAT")))):
        _note_code(info, code)                  # goes before everything else in a PNG
    elif info.get("icc_profile") or "srgb" in info:
        return
    elif format == "AVIF" and (code := _NCLX.search(data, 0, 4096)):
        _note_code(info, code)
    elif "chromaticity" in info:
        gamma = info.get("gamma")
        info["rgb"] = tuple(info["chromaticity"]), 1 / gamma if isinstance(gamma, float) and gamma > 0 else SRGB
    elif isinstance(exif := info.get("exif"), bytes) and any(entry in exif for entry in _EXIF_ADOBE):
        info["rgb"] = _ADOBE, 563 / 256


def _note_code(info: dict[Any, Any], code: "re.Match[bytes]") -> None:
    primaries, curve = _PRIMARIES.get(code[1][0]), _CURVES.get(code[2][0])
    if primaries is not None and curve is not None:
        info["rgb"] = primaries, curve


@functools.lru_cache(maxsize=16)
def icc_profile(primaries: tuple[float, ...], gamma: float) -> bytes | None:
    """The ICC profile for what `note_colours` found; None if the numbers mean nothing."""
    import numpy as np

    if len(primaries) != 8 or not all(0 <= value <= 1 for value in primaries) or min(primaries[1::2]) < 0.01:
        return None
    if gamma and not 0.3 <= gamma <= 10:
        return None
    white, *colours = (np.array([x / y, 1, (1 - x - y) / y])
                       for x, y in zip(primaries[::2], primaries[1::2], strict=True))
    matrix = np.stack(colours, axis=1)
    if abs(np.linalg.det(matrix)) < 1e-3:
        return None
    matrix = matrix * np.linalg.solve(matrix, white)                    # red, green and blue add up to white
    cone = np.array(_BRADFORD)
    adapted = np.linalg.inv(cone) @ np.diag((cone @ _D50) / (cone @ white)) @ cone @ matrix
    steps = np.linspace(0, 1, _POINTS)
    light = steps**gamma if gamma else np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    curve = b"curv\0\0\0\0" + struct.pack(">I", _POINTS) + np.round(65535 * light).astype(">u2").tobytes()
    tags = [(b"wtpt", _xyz(_D50)), *((name, _xyz(column)) for name, column in zip(
        (b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True)), *((name, curve) for name in (b"rTRC", b"gTRC", b"bTRC"))]
    return _file(tags)


def _xyz(values: Any) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(65536 * float(value))) for value in values)


def _file(tags: list[tuple[bytes, bytes]]) -> bytes:
    """An ICC profile of version 2 for a display, with these tags."""
    start = 128 + 4 + 12 * len(tags)
    table, body = b"", b""
    for name, content in tags:
        table += struct.pack(">4sII", name, start + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s12x4s28x", start + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp")
    white = b"".join(struct.pack(">i", round(65536 * value)) for value in _D50)
    return (header + white).ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
