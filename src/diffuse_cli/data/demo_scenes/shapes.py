"""The objects of the demo data set as filled outlines: one small function for each object.

A shape is a list of `Part`s painted in order, each an ink and a closed polygon. In coordinates x points right and y
down; their unit is arbitrary, because `scenes` scales a shape by its bounding box. Each function varies its proportions
with `u`, a uniform draw between two numbers, so that no two cars are alike. An ink names a role ("main" is the colour
in the caption); `tones` gives it a colour. Standard library only.
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .outlines import Polygon, box, circle, ellipse, mirror, ribbon, smooth, turn

Uniform = Callable[[float, float], float]


class Part(NamedTuple):
    """One filled polygon. Inks: main, shade, light; dark, pale, glass, glow, wood, leaf."""

    ink: str
    points: Polygon


class Shape(NamedTuple):
    """How an object is drawn."""

    parts: Callable[[Uniform], list[Part]]
    tilt: float                                 # maximum angle by which it leans to either side, in degrees


def bounds(parts: Iterable[Part]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of everything in `parts`."""
    xs, ys = zip(*(point for part in parts for point in part.points), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def wheel(x: float, y: float, radius: float) -> list[Part]:
    """A tyre with a pale hub."""
    return [Part("dark", circle(x, y, radius)), Part("pale", circle(x, y, radius * 0.42))]


# ── Vehicles, and a balloon ─────────────────────────────────────────────────────────────────────────────────────────


def car(u: Uniform) -> list[Part]:
    roof, shift, radius, sill = u(-0.64, -0.46), u(-0.14, 0.1), u(0.2, 0.25), u(0.4, 0.5)
    rear, front, top = -0.64 + shift + u(-0.1, 0.1), 0.62 + shift, roof + 0.13
    return [
        Part("main", [(rear, 0.0), (rear + 0.2, roof), (front - 0.36, roof), (front, 0.0)]),
        Part("main", box(-1, -0.05, 1, sill, corner=0.17)),
        Part("shade", box(-0.97, sill - 0.13, 0.97, sill, corner=0.05)),
        Part("glass", [(rear + 0.19, -0.05), (rear + 0.29, top), (shift - 0.1, top), (shift - 0.1, -0.05)]),
        Part("glass", [(shift + 0.04, -0.05), (shift + 0.04, top), (front - 0.41, top), (front - 0.19, -0.05)]),
        Part("glow", ellipse(0.9, 0.12, 0.08, 0.07)),
        *wheel(-0.55, sill, radius), *wheel(0.55, sill, radius),
    ]


def truck(u: Uniform) -> list[Part]:
    load, cab, radius, split = u(-0.75, -0.55), u(-0.38, -0.22), u(0.17, 0.22), u(0.22, 0.38)
    return [
        Part("dark", box(-0.95, 0.36, 0.95, 0.5)),
        Part("main", box(-1, load, split, 0.4, corner=0.05)),
        *(Part("shade", box(x, load + 0.1, x + 0.06, 0.3)) for x in (-0.75, -0.45, -0.15)),
        Part("main", [(split + 0.08, 0.44), (split + 0.08, cab), (0.76, cab), (1.0, 0.08), (1.0, 0.44)]),
        Part("glass", [(split + 0.19, 0.06), (split + 0.19, cab + 0.1), (0.71, cab + 0.1), (0.86, 0.06)]),
        Part("glow", box(0.9, 0.2, 1.0, 0.3)),
        *wheel(-0.68, 0.48, radius), *wheel(-0.2, 0.48, radius), *wheel(0.68, 0.48, radius),
    ]


def bus(u: Uniform) -> list[Part]:
    roof, radius, panes = u(-0.68, -0.54), u(0.17, 0.22), round(u(2.6, 4.4))
    pitch = 1.36 / panes
    return [
        Part("main", box(-1, roof, 1, 0.48, corner=0.16)),
        Part("shade", box(-0.98, 0.16, 0.98, 0.26)),
        *(Part("glass", box(-0.88 + i * pitch, roof + 0.18, -1.02 + (i + 1) * pitch, -0.02, corner=0.05))
          for i in range(panes)),
        Part("glass", box(0.6, roof + 0.18, 0.92, 0.06, corner=0.06)),
        Part("glow", ellipse(0.93, 0.37, 0.06, 0.06)),
        *wheel(-0.55, 0.48, radius), *wheel(0.55, 0.48, radius),
    ]


def boat(u: Uniform) -> list[Part]:
    mast, deck, reach, jib = u(-0.12, 0.12), u(0.3, 0.4), u(0.68, 0.85), u(0.5, 0.72)
    luff = mast + 0.07
    return [
        Part("dark", box(mast - 0.035, -1, mast + 0.035, deck + 0.1)),
        Part("main", smooth((luff, -0.95), (mast + 0.5, -0.4), (reach, 0.16), (mast + 0.4, 0.19), (luff, 0.18))),
        Part("pale", [(mast - 0.07, -0.78), (mast - 0.07, 0.18), (mast - jib, 0.18)]),
        Part("main", [(-1, deck), (1, deck - 0.06), (0.62, 0.82), (-0.66, 0.82)]),
        Part("light", [(-0.97, deck + 0.05), (0.96, deck), (0.89, deck + 0.12), (-0.9, deck + 0.15)]),
    ]


def rocket(u: Uniform) -> list[Part]:
    belly, window, fin, flame = u(0.3, 0.4), u(-0.35, -0.15), u(0.28, 0.4), u(0.85, 1.05)
    right = [(belly * 0.7, 0.2), (belly + fin, 0.66), (belly * 0.75, 0.56)]
    return [
        Part("glow", smooth((-0.2, 0.5), (0.2, 0.5), (0.11, 0.75), (0, flame), (-0.11, 0.75))),
        Part("shade", right), Part("shade", mirror(right)),
        Part("main", smooth((0, -1), (belly * 0.8, -0.5), (belly, 0.05), (belly * 0.62, 0.58), (0, 0.6),
                            (-belly * 0.62, 0.58), (-belly, 0.05), (-belly * 0.8, -0.5))),
        Part("light", smooth((-0.06, -0.8), (-belly * 0.62, -0.4), (-belly * 0.75, 0.1), (-belly * 0.5, -0.2))),
        Part("pale", circle(0, window, 0.19)), Part("glass", circle(0, window, 0.13)),
    ]


def balloon(u: Uniform) -> list[Part]:
    wide, sway = u(0.5, 0.62), u(-0.16, 0.16)
    string = smooth((0, 0.34), (sway, 0.55), (-sway, 0.8), (sway / 2, 1.0), closed=False)
    return [
        Part("dark", ribbon(string, 0.045)),
        Part("shade", [(0, 0.22), (0.12, 0.38), (-0.12, 0.38)]),
        Part("main", smooth((0, -1), (wide * 0.8, -0.78), (wide, -0.35), (wide * 0.6, 0.08), (0, 0.3),
                            (-wide * 0.6, 0.08), (-wide, -0.35), (-wide * 0.8, -0.78))),
        Part("light", turn(ellipse(-wide * 0.48, -0.58, 0.1, 0.2), 25, around=(-wide * 0.48, -0.58))),
    ]


# ── Plants and animals ──────────────────────────────────────────────────────────────────────────────────────────────


def tree(u: Uniform) -> list[Part]:
    trunk, wide = u(0.1, 0.15), u(0.6, 0.8)
    stem = Part("wood", [(-trunk * 0.8, 0.1), (trunk * 0.8, 0.1), (trunk * 1.3, 1), (-trunk * 1.3, 1)])
    if u(0, 1) < 0.35:                          # a fir
        tiers = [(-1.0, -0.35, 0.55), (-0.65, 0.1, 0.78), (-0.25, 0.62, 1.0)]
        firs = [Part("main" if tier % 2 else "shade", [(0, top), (wide * half, foot), (-wide * half, foot)])
                for tier, (top, foot, half) in reversed(list(enumerate(tiers, 1)))]
        return [stem, *firs]
    lobes = [(-wide * 0.55, -0.18), (wide * 0.55, -0.16), (0, 0.0), (-wide * 0.32, -0.6), (wide * 0.36, -0.58)]
    crown = [Part("main", circle(x, y, u(0.38, 0.46))) for x, y in lobes]
    return [stem, *crown, Part("light", ellipse(-wide * 0.35, -0.62, 0.2, 0.16)),
            Part("shade", ellipse(wide * 0.4, 0.02, 0.2, 0.13))]


def flower(u: Uniform) -> list[Part]:
    petals, size, bend, heart = round(u(4.6, 7.4)), u(0.2, 0.26), u(-0.15, 0.15), u(0.17, 0.22)
    stalk = smooth((0, -0.3), (bend, 0.3), (0, 1), closed=False)
    leaf = smooth((bend, 0.72), (bend + 0.25, 0.45), (bend + 0.5, 0.4), (bend + 0.32, 0.66))
    reach = 0.36
    turns = [360 / petals * petal for petal in range(petals)]
    return [
        Part("leaf", ribbon(stalk, 0.09)), Part("leaf", leaf), Part("leaf", mirror((x - 2 * bend, y) for x, y in leaf)),
        *(Part("main", turn(ellipse(reach, -0.42, 0.3, size), angle, around=(0, -0.42))) for angle in turns),
        *(Part("shade", turn(ellipse(0.3, -0.42, 0.1, 0.05), angle, around=(0, -0.42))) for angle in turns),
        Part("glow", circle(0, -0.42, heart)),
    ]


def mushroom(u: Uniform) -> list[Part]:
    stem, height, foot = u(0.2, 0.28), u(0.85, 1.0), u(1.05, 1.4)
    spots = [(-0.5, -0.2, 0.13), (0.05, -0.5, 0.16), (0.52, -0.15, 0.12), (-0.1, -0.08, 0.1)]
    return [
        Part("pale", smooth((-stem, 0), (stem, 0), (stem * foot, 0.62), (0, 0.75), (-stem * foot, 0.62))),
        Part("main", [*ellipse(0, 0.1, 0.95, height, start=180, stop=360), *ellipse(0, 0.1, 0.95, 0.16, stop=180)]),
        Part("shade", ellipse(0, 0.1, 0.8, 0.12, stop=180)),
        *(Part("pale", ellipse(x, y, radius * u(0.9, 1.2), radius * 0.9)) for x, y, radius in spots),
    ]


def fish(u: Uniform) -> list[Part]:
    deep, fin, tail = u(0.42, 0.58), u(0.18, 0.32), u(0.34, 0.5)
    return [
        Part("shade", smooth((-0.45, 0), (-0.95, -tail), (-0.82, 0), (-0.95, tail))),
        Part("shade", smooth((-0.3, -deep * 0.7), (-0.05, -deep - fin), (0.4, -deep * 0.7))),
        Part("main", smooth((-0.6, 0), (-0.2, -deep * 0.8), (0.3, -deep), (0.8, -deep * 0.5), (1, 0.04),
                            (0.75, deep * 0.6), (0.3, deep), (-0.2, deep * 0.75))),
        Part("light", smooth((-0.3, deep * 0.4), (0.25, deep * 0.55), (0.75, deep * 0.4), (0.3, deep * 0.86))),
        Part("shade", smooth((0.0, 0.02), (-0.25, 0.2), (-0.3, 0.36), (0.1, 0.24))),
        Part("pale", circle(0.62, -0.1, 0.15)), Part("dark", circle(0.65, -0.1, 0.085)),
    ]


def bird(u: Uniform) -> list[Part]:
    head, wing, tail = u(0.3, 0.37), u(0.3, 0.42), u(-0.3, 0.05)
    return [
        Part("dark", box(-0.08, 0.5, -0.02, 0.88)), Part("dark", box(0.15, 0.5, 0.21, 0.88)),
        Part("shade", [(-0.45, 0.0), (-1.0, tail), (-0.95, tail + 0.26), (-0.4, 0.36)]),
        Part("glow", [(0.68, -0.5), (1.02, -0.34), (0.68, -0.26)]),
        Part("main", smooth((-0.6, 0.1), (-0.1, -0.22), (0.3, -0.35), (0.62, -0.05),
                            (0.5, 0.4), (0.05, 0.62), (-0.42, 0.42))),
        Part("main", circle(0.46, -0.4, head)),
        Part("light", smooth((0.55, 0.0), (0.5, 0.35), (0.1, 0.54), (0.3, 0.25))),
        Part("shade", turn(smooth((0.2, 0.0), (-0.15, -0.1), (-0.6, 0.1), (-0.2, wing)), u(-12, 18))),
        Part("pale", circle(0.54, -0.46, 0.11)), Part("dark", circle(0.56, -0.46, 0.065)),
    ]


def cat(u: Uniform) -> list[Part]:
    plump, ear, swing, look = u(0.42, 0.52), u(0.26, 0.36), u(0.2, 0.34), u(-0.03, 0.03)
    tail = smooth((0.3, 0.84), (0.72, 0.8), (0.8, 0.4), (0.8 + swing, 0.1), closed=False)
    corner = [(0.1, -0.78), (0.42, -0.9 - ear), (0.5, -0.5)]
    inner = [(0.23, -0.82), (0.38, -0.84 - ear / 2), (0.43, -0.66)]
    eyes = [(-0.2, -0.45), (0.2, -0.45)]
    return [
        Part("shade", ribbon(tail, 0.17)),
        Part("main", smooth((-0.22, -0.25), (0.22, -0.25), (plump, 0.5), (0.4, 0.92), (-0.4, 0.92), (-plump, 0.5))),
        Part("light", ellipse(0, 0.42, 0.2, 0.32)),
        Part("main", corner), Part("main", mirror(corner)), Part("light", inner), Part("light", mirror(inner)),
        Part("main", ellipse(0, -0.45, 0.52, 0.43)),
        *(Part("pale", ellipse(x, y, 0.13, 0.13)) for x, y in eyes),
        *(Part("dark", ellipse(x + look, y, 0.07, 0.1)) for x, y in eyes),
        Part("dark", [(-0.07, -0.28), (0.07, -0.28), (0, -0.2)]),
        Part("shade", ellipse(-0.17, 0.9, 0.16, 0.08)), Part("shade", ellipse(0.17, 0.9, 0.16, 0.08)),
    ]


def butterfly(u: Uniform) -> list[Part]:
    span, drop, spot = u(0.8, 1.0), u(0.55, 0.75), u(0.12, 0.18)
    upper = smooth((0.04, -0.1), (0.3, -0.62), (span * 0.85, -0.78), (span, -0.4), (0.62, 0.04), (0.05, 0.1))
    lower = smooth((0.05, 0.0), (0.55, 0.02), (span * 0.8, 0.3), (0.5, drop), (0.22, 0.5))
    feeler = ribbon(smooth((0.02, -0.4), (0.12, -0.68), (0.3, -0.85), closed=False), 0.045)
    half = [Part("shade", lower), Part("main", upper), Part("light", circle(span * 0.68, -0.4, spot)),
            Part("light", circle(0.48, 0.3, spot * 0.8)), Part("dark", feeler)]
    return [*half, *(Part(ink, mirror(points)) for ink, points in half), Part("dark", ellipse(0, 0.02, 0.075, 0.48))]


def apple(u: Uniform) -> list[Part]:
    wide, waist, lean = u(0.8, 0.95), u(0.55, 0.7), u(-0.12, 0.12)
    return [
        Part("wood", ribbon([(0, -0.4), (lean, -0.9)], 0.11)),
        Part("leaf", smooth((lean / 2, -0.68), (0.25, -0.98), (0.58, -0.92), (0.32, -0.66))),
        Part("main", smooth((0, -0.5), (0.42, -0.68), (wide, -0.2), (waist, 0.6), (0.25, 0.84), (0, 0.76),
                            (-0.25, 0.84), (-waist, 0.6), (-wide, -0.2), (-0.42, -0.68))),
        Part("light", turn(ellipse(-0.5, -0.22, 0.11, 0.24), 20, around=(-0.5, -0.22))),
        Part("shade", smooth((wide - 0.1, -0.1), (waist - 0.02, 0.5), (0.2, 0.74), (0.5, 0.4))),
    ]


# ── Houses and things ────────────────────────────────────────────────────────────────────────────────────────────────


def house(u: Uniform) -> list[Part]:
    wide, eaves, ridge, door = u(0.68, 0.85), u(-0.2, 0.0), u(-1.0, -0.8), u(-0.15, 0.15)
    pane = wide * 0.6
    return [
        Part("dark", box(wide * 0.42, ridge + 0.08, wide * 0.66, eaves)),
        Part("main", box(-wide, eaves - 0.05, wide, 0.85)),
        Part("shade", [(-wide - 0.15, eaves + 0.04), (door, ridge), (wide + 0.15, eaves + 0.04)]),
        Part("wood", [*ellipse(door, 0.4, 0.16, 0.14, start=180, stop=360), (door + 0.16, 0.85), (door - 0.16, 0.85)]),
        *(Part("pale", box(door + x - 0.17, 0.2, door + x + 0.17, 0.54)) for x in (-pane, pane)),
        *(Part("glass", box(door + x - 0.12, 0.25, door + x + 0.12, 0.49)) for x in (-pane, pane)),
    ]


def ball(u: Uniform) -> list[Part]:
    bulge, half = u(0.25, 0.55), u(0.1, 0.16)
    seams = [[(side * (edge + bulge * (y * y - 0.3)), y * 0.98) for y in (-0.96, -0.7, -0.35, 0, 0.35, 0.7, 0.96)]
             for side in (-1, 1) for edge in (0.3,)]
    inside = [[(max(-math.sqrt(1 - y * y), min(math.sqrt(1 - y * y), x)), y) for x, y in seam] for seam in seams]
    return [
        Part("main", circle(0, 0, 1)),
        Part("shade", [*ellipse(0, 0, 1, 1, start=0, stop=150), *ellipse(-0.12, -0.16, 1, 1, start=140, stop=10)]),
        *(Part("pale", ribbon(seam, half)) for seam in inside),
        Part("light", turn(ellipse(-0.52, -0.5, 0.2, 0.13), -40, around=(-0.52, -0.5))),
    ]


def cup(u: Uniform) -> list[Part]:
    foot, top, grip = u(0.45, 0.62), u(-0.65, -0.45), u(0.22, 0.3)
    return [
        Part("shade", ribbon(ellipse(0.68, 0.08, grip, 0.33), 0.16)),
        Part("main", [(-0.68, top), (0.68, top), *smooth((foot, 0.7), (foot - 0.12, 0.8), closed=False),
                      *smooth((0.12 - foot, 0.8), (-foot, 0.7), closed=False)]),
        Part("light", [(-0.5, top + 0.25), (-0.36, top + 0.25), (-foot + 0.26, 0.62), (-foot + 0.14, 0.62)]),
        Part("light", ellipse(0, top, 0.68, 0.17)), Part("wood", ellipse(0, top + 0.02, 0.56, 0.11)),
    ]


def umbrella(u: Uniform) -> list[Part]:
    high, rim, hook = u(0.75, 0.95), u(0.02, 0.1), u(0.14, 0.2)
    crook = [(0, -0.1), (0, 0.72), *ellipse(hook, 0.74, hook, 0.2, start=180, stop=20)]

    def dome(wide: float) -> Polygon:
        return ellipse(0, rim, wide, high, start=180, stop=360)

    scallops = [ellipse(-0.75 + 0.5 * i, rim, 0.25, 0.12, start=0, stop=-180) for i in range(4)]
    cloth = [*dome(1.0), *(point for scallop in reversed(scallops) for point in scallop)]
    middle = [*dome(0.5), *scallops[2], *scallops[1]]
    far = [*ellipse(0, rim, 1, high, start=300), *scallops[3], *ellipse(0, rim, 0.5, high, start=360, stop=300)]
    return [
        Part("dark", ribbon(crook, 0.08)), Part("dark", box(-0.035, rim - high - 0.12, 0.035, rim - high + 0.1)),
        Part("main", cloth), Part("light", middle), Part("shade", far),
    ]


def star(u: Uniform) -> list[Part]:
    inner = u(0.42, 0.55)
    tips = [turn([(0, -1 if tip % 2 == 0 else -inner)], 36 * tip)[0] for tip in range(10)]
    facets = [[(0.0, 0.0), tips[tip], tips[tip + 1]] for tip in range(0, 10, 2)]
    return [Part("main", tips), *(Part("light", facet) for facet in facets)]


def heart(u: Uniform) -> list[Part]:
    wide, cleft, tip = u(0.9, 1.05), u(-0.55, -0.38), u(0.85, 1.0)
    right = smooth((0, cleft), (0.3, -0.78), (0.72, -0.76), (wide, -0.35), (wide * 0.72, 0.2), (0.04, tip),
                   closed=False)
    return [
        Part("main", right + mirror(right)[::-1]),
        Part("light", turn(ellipse(-0.55, -0.42, 0.13, 0.22), 30, around=(-0.55, -0.42))),
        Part("shade", smooth((wide - 0.08, -0.2), (wide * 0.68, 0.16), (0.12, tip - 0.14), (0.5, 0.2))),
    ]


def key(u: Uniform) -> list[Part]:
    bow, shaft, bit = u(0.36, 0.44), u(0.15, 0.19), u(0.24, 0.34)
    return [
        Part("main", box(-0.3, -shaft / 2, 1, shaft / 2, corner=0.06)),
        Part("main", box(0.52, 0, 0.68, bit, corner=0.03)),
        Part("main", box(0.82, 0, 0.98, bit * u(0.8, 1.2), corner=0.03)),
        Part("shade", box(-0.2, -shaft * 0.75, -0.06, shaft * 0.75)),
        Part("main", ribbon(circle(-0.6, 0, bow - 0.1), 0.22)),
        Part("light", ribbon(ellipse(-0.6, 0, bow - 0.06, bow - 0.06, start=190, stop=280), 0.06)),
    ]


def hat(u: Uniform) -> list[Part]:
    top, taper, brim = u(-0.8, -0.5), u(0.4, 0.62), u(0.2, 0.28)
    return [
        Part("shade", ellipse(0, 0.42, 1, brim)), Part("main", ellipse(0, 0.36, 1, brim)),
        Part("main", [*smooth((-0.6, 0.38), (-0.56, 0.0), (-taper, top), closed=False),
                      *ellipse(0, top, taper, 0.14, start=180, stop=360),
                      *smooth((taper, top), (0.56, 0.0), (0.6, 0.38), closed=False),
                      *ellipse(0, 0.38, 0.6, 0.15, stop=180)]),
        Part("dark", [(-0.58, 0.12), *ellipse(0, 0.12, 0.58, 0.13, start=180, stop=0), (0.6, 0.36),
                      *ellipse(0, 0.36, 0.6, 0.15, start=0, stop=180)]),
        Part("light", smooth((-taper + 0.12, top + 0.08), (-taper + 0.3, top + 0.06), (-0.3, 0.08), (-0.46, 0.04))),
    ]


def crown(u: Uniform) -> list[Part]:
    height, flare = u(-0.75, -0.5), u(0.02, 0.16)
    right = [(0.4, height), (0.8 + flare, height + 0.15)]
    tips = [*mirror(right)[::-1], (0.0, height - 0.1), *right]
    dips = [(x, -0.06) for x in (-0.56, -0.2, 0.2, 0.56)]
    zigzag = [point for pair in zip(tips, [*dips, (0.74, 0.6)], strict=True) for point in pair]
    return [
        Part("main", [*zigzag, (-0.74, 0.6)]),
        Part("shade", box(-0.76, 0.36, 0.76, 0.62, corner=0.06)),
        *(Part("light", circle(x, y, 0.1)) for x, y in tips),
        *(Part("pale", ellipse(x, 0.49, 0.09, 0.08)) for x in (-0.45, 0.0, 0.45)),
    ]


def chair(u: Uniform) -> list[Part]:
    wide, seat, back, leg = u(0.46, 0.56), u(0.1, 0.2), u(0.86, 1.0), u(0.13, 0.17)
    edge, depth = wide + 0.16, 0.18             # the front of the seat is wider than its back
    return [
        *(Part("shade", box(x - leg / 2, seat, x + leg / 2, 0.8)) for x in (-wide + 0.1, wide - 0.1)),
        *(Part("main", box(x - leg / 2, -back, x + leg / 2, seat)) for x in (-wide, wide)),
        *(Part("shade", box(x - 0.06, -back + 0.1, x + 0.06, seat)) for x in (-wide / 3, wide / 3)),
        Part("main", box(-wide - leg / 2, -back, wide + leg / 2, -back + 0.26, corner=0.08)),
        Part("light", [(-wide, seat - depth), (wide, seat - depth), (edge, seat + 0.06), (-edge, seat + 0.06)]),
        Part("main", box(-edge, seat + 0.04, edge, seat + 0.22, corner=0.03)),
        *(Part("main", box(x - leg / 2, seat + 0.1, x + leg / 2, 1)) for x in (-edge + 0.1, edge - 0.1)),
    ]


SHAPES: dict[str, Shape] = {
    "car": Shape(car, 6), "truck": Shape(truck, 5), "bus": Shape(bus, 5), "boat": Shape(boat, 9),
    "house": Shape(house, 3), "tree": Shape(tree, 4), "flower": Shape(flower, 12), "fish": Shape(fish, 18),
    "bird": Shape(bird, 10), "cat": Shape(cat, 5), "ball": Shape(ball, 90), "balloon": Shape(balloon, 14),
    "cup": Shape(cup, 8), "umbrella": Shape(umbrella, 22), "mushroom": Shape(mushroom, 9), "star": Shape(star, 25),
    "heart": Shape(heart, 16), "key": Shape(key, 70), "hat": Shape(hat, 12), "rocket": Shape(rocket, 35),
    "apple": Shape(apple, 12), "crown": Shape(crown, 9), "butterfly": Shape(butterfly, 25), "chair": Shape(chair, 3),
}
