"""The backdrops of the demo data set: simple, soft places in which an object stands.

A backdrop is a vertical gradient, polygons behind the object and polygons in front of it, in a picture that spans 0 to
1 in both directions (y points down). Each function gets a random draw `u` and the object's place and colour, and picks
tones from which the object stands out. Standard library only.
"""

from typing import NamedTuple

from .outlines import Polygon, box, circle, ellipse
from .shapes import Uniform
from .tones import RGB, distance, mix

WHITE: RGB = (255, 255, 255)


class Backdrop(NamedTuple):
    """What is painted around an object; polygons with their tones, the later ones over the earlier ones."""

    stops: list[tuple[float, RGB]]              # (y, tone) of the gradient, y rising from 0 to 1; equal y make an edge
    behind: list[tuple[RGB, Polygon]]
    front: list[tuple[RGB, Polygon]]
    ground: RGB                                 # the tone behind most of the object


class Place(NamedTuple):
    """Where the object stands: its left, right and lower edge, in picture units; and its main colour."""

    left: float
    right: float
    feet: float
    colour: RGB


def _choose(u: Uniform, place: Place, tones: tuple[RGB, ...]) -> RGB:
    """A random one of the tones that differ clearly from the object's colour, or else of the two that differ most."""
    clear = [tone for tone in tones if distance(tone, place.colour) > 190]
    clear = clear or sorted(tones, key=lambda tone: -distance(tone, place.colour))[:2]
    return clear[int(u(0, len(clear)))]


def _horizon(u: Uniform, place: Place) -> float:
    return min(0.8, max(0.35, place.feet - u(0.1, 0.3)))


def _shadow(place: Place, tone: RGB) -> tuple[RGB, Polygon]:
    half = (place.right - place.left) / 2
    return mix(tone, (24, 24, 50), 0.28), ellipse(place.left + half, place.feet - 0.01, half * 0.95, 0.035)


def plain(u: Uniform, place: Place) -> Backdrop:
    tone = _choose(u, place, ((242, 232, 214), (214, 230, 240), (240, 220, 226), (222, 236, 216), (228, 222, 240),
                              (176, 204, 226), (228, 186, 186), (190, 208, 170)))
    return Backdrop([(0, mix(tone, WHITE, 0.25)), (1, mix(tone, (120, 120, 140), u(0.02, 0.14)))],
                    [_shadow(place, tone)], [], tone)


def sky(u: Uniform, place: Place) -> Backdrop:
    tone = _choose(u, place, ((124, 184, 238), (150, 204, 242), (176, 214, 244), (246, 204, 176)))
    clouds: list[tuple[RGB, Polygon]] = []
    for _ in range(round(u(1.6, 4.4))):
        x, y, wide = u(0, 1), u(0.06, 0.94), u(0.1, 0.18)
        puffs = ((-0.8, 0.1, 0.6), (0, -0.15, 0.85), (0.8, 0.1, 0.6), (0, 0.25, 0.9))
        clouds += [(mix(tone, WHITE, 0.75), ellipse(x + dx * wide, y + dy * wide, size * wide, size * wide * 0.55))
                   for dx, dy, size in puffs]
    return Backdrop([(0, tone), (1, mix(tone, WHITE, 0.55))], clouds, [], mix(tone, WHITE, 0.3))


def grass(u: Uniform, place: Place) -> Backdrop:
    horizon = _horizon(u, place)
    tone = _choose(u, place, ((150, 204, 104), (172, 212, 112), (132, 192, 96), (196, 216, 128)))
    air = mix((186, 222, 246), (250, 240, 220), u(0, 0.8))
    hill = mix(tone, (96, 150, 140), 0.3)
    hills = [(hill, ellipse(u(0, 1), horizon + 0.06, u(0.3, 0.5), u(0.1, 0.2))) for _ in range(2)]
    meadow = [(tone, box(0, horizon, 1, horizon + 0.3))]
    blades: list[tuple[RGB, Polygon]] = []
    for _ in range(round(u(7, 12))):
        x, lean, tall = u(0, 1), u(-0.03, 0.03), u(0.04, 0.08)
        y = min(1.0, place.feet + u(0.015, 0.12))
        blades.append((mix(tone, (30, 90, 40), u(0.2, 0.45)), [(x - 0.014, y), (x + lean, y - tall), (x + 0.014, y)]))
    near = mix(tone, (60, 130, 60), 0.3)
    return Backdrop([(0, mix(air, (120, 180, 240), 0.3)), (horizon, air), (horizon, tone), (1, near)],
                    [*hills, *meadow, _shadow(place, tone)], blades, mix(air, tone, 0.5))


def sea(u: Uniform, place: Place) -> Backdrop:
    horizon = _horizon(u, place)
    tone = _choose(u, place, ((70, 150, 190), (64, 164, 186), (96, 168, 214), (120, 190, 200)))
    air = mix((200, 228, 244), (252, 222, 196), u(0, 1))
    deep = mix(tone, (20, 70, 130), 0.35)
    crests = [(mix(tone, WHITE, u(0.25, 0.5)), ellipse(u(0, 1), u(horizon + 0.03, 1), u(0.06, 0.14), 0.008))
              for _ in range(round(u(5, 9)))]
    wave, middle, half = mix(tone, WHITE, 0.12), (place.left + place.right) / 2, (place.right - place.left) / 2
    water = [(mix(tone, WHITE, 0.7), ellipse(middle, place.feet, half * 1.12, 0.034)),
             (wave, ellipse(middle, place.feet + 0.016, half * 1.16, 0.034))]
    sun = [(mix(air, (255, 246, 200), 0.8), circle(u(0.1, 0.9), horizon - u(0.0, 0.25), u(0.06, 0.1)))]
    surface = [(tone, box(0, horizon, 1, horizon + 0.12))]
    return Backdrop([(0, mix(air, (120, 180, 240), 0.25)), (horizon, air), (horizon, tone), (1, deep)],
                    [*sun, *surface, *crests], water, mix(air, tone, 0.5))


def night(u: Uniform, place: Place) -> Backdrop:
    tone = mix((30, 36, 90), (58, 40, 104), u(0, 1))
    horizon = _horizon(u, place)
    stars = [(mix(tone, (255, 250, 214), u(0.6, 1.0)), circle(u(0, 1), u(0, horizon), u(0.006, 0.013)))
             for _ in range(round(u(14, 24)))]
    x, y, radius, bite = u(0.1, 0.9), u(0.1, 0.24), u(0.07, 0.1), u(0.3, 0.6)
    moon = [((250, 242, 206), circle(x, y, radius)),
            (mix(tone, WHITE, 0.04), circle(x + bite * radius, y - 0.3 * radius, radius * 0.85))]
    land = mix(tone, (16, 40, 60), 0.5)
    hills = [(land, ellipse(u(0, 1), 1.0, u(0.5, 0.9), 1.0 - horizon)) for _ in range(2)]
    return Backdrop([(0, tone), (1, mix(tone, (96, 88, 160), 0.45))], [*stars, *moon, *hills], [], tone)


def room(u: Uniform, place: Place) -> Backdrop:
    wall = _choose(u, place, ((246, 226, 194), (204, 222, 222), (240, 208, 196), (214, 210, 232), (226, 232, 200)))
    floor = mix((206, 164, 116), (176, 150, 132), u(0, 1))
    horizon = _horizon(u, place)
    x, wide, y = u(0.05, 0.7), u(0.2, 0.28), u(0.02, 0.12)
    corners = [(x + wide * across, y + wide * down) for across in (0.08, 0.54) for down in (0.08, 0.54)]
    window = [(mix(wall, WHITE, 0.75), box(x, y, x + wide, y + wide)),
              *(((176, 214, 238), box(a, b, a + wide * 0.38, b + wide * 0.38)) for a, b in corners)]
    board = [(mix(wall, WHITE, 0.6), box(0, horizon - 0.025, 1, horizon))]
    rug = [(mix(floor, WHITE, 0.22), ellipse((place.left + place.right) / 2, min(0.97, place.feet), 0.52, 0.1))]
    return Backdrop([(0, mix(wall, WHITE, 0.2)), (horizon, wall), (horizon, mix(floor, WHITE, 0.15)), (1, floor)],
                    [*window, *board, *rug, _shadow(place, floor)], [], wall)


BACKDROPS = {"plain": plain, "sky": sky, "grass": grass, "sea": sea, "night": night, "room": room}
