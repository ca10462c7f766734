"""The colours of the demo data set: those with names, and the tones that go with each of them.

The named colours are far enough apart to be told from one another in a 32-pixel picture, whatever their shade. The inks
of a shape follow from its main colour, so that wheels show on a black car and windows on a white bus. Standard library
only.
"""

import math

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (218, 38, 42), "orange": (250, 138, 20), "yellow": (253, 218, 40), "green": (42, 160, 68),
    "cyan": (40, 208, 214), "blue": (38, 88, 214), "purple": (128, 52, 176), "pink": (250, 140, 190),
    "brown": (128, 72, 34), "black": (38, 38, 44), "white": (248, 248, 246), "grey": (140, 143, 148),
}

# Tones of each ink; the first that stands out from the main colour is used.
_INKS: dict[str, tuple[RGB, ...]] = {
    "dark": ((52, 50, 58), (118, 118, 130)),
    "pale": ((250, 246, 234), (176, 188, 206)),
    "glass": ((186, 226, 246), (62, 82, 112)),
    "glow": ((255, 206, 62), (120, 72, 40)),
    "wood": ((122, 80, 50), (72, 46, 34)),
    "leaf": ((96, 150, 72), (36, 84, 48)),
}
_STANDS_OUT = 150.0                             # minimum `distance` of a tone that stands out


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """`first` with a `share` (0 to 1) of `second` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def distance(first: RGB, second: RGB) -> float:
    """How different two colours look: 0 (the same) to 765 (black and white), by the "redmean" approximation."""
    red = (first[0] + second[0]) / 2 / 256
    dr, dg, db = (a - b for a, b in zip(first, second, strict=True))
    return math.sqrt((2 + red) * dr**2 + 4 * dg**2 + (3 - red) * db**2)


def shaded(name: str, shade: float) -> RGB:
    """The named colour, darker (`shade` down to -1) or lighter (up to 1), by so little that the name still fits."""
    if shade < 0:
        return mix(COLOURS[name], (0, 0, 0), 0.09 * -shade)
    return mix(COLOURS[name], (255, 255, 255), 0.14 * shade)


def inks(main: RGB) -> dict[str, RGB]:
    """The tone of every ink for an object of colour `main`."""
    bright = max(main) > 90
    chosen = {ink: next((tone for tone in tones if distance(tone, main) > _STANDS_OUT), tones[-1])
              for ink, tones in _INKS.items()}
    return chosen | {
        "main": main,
        "shade": mix(main, (30, 16, 48), 0.18) if bright else mix(main, (255, 255, 255), 0.1),
        "light": mix(main, (255, 240, 222), 0.24 if bright else 0.17),
    }


def outline(main: RGB, ground: RGB) -> RGB:
    """The rim around an object: a dark or a bright tone of its colour, whichever differs more from `ground`."""
    return max(mix(main, (18, 12, 30), 0.7), mix(main, (255, 255, 255), 0.55), key=lambda rim: distance(rim, ground))
