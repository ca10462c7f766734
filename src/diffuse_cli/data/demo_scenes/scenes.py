"""The demo data set: captioned pictures of coloured objects, drawn from nothing but a seed.

`scene` decides what is in a picture, `draw` paints it at any resolution, `write_demo` fills a folder with them. Two
pictures of "a red car" differ in proportions, pose, shade, place and size. A tenth of the (colour, object) pairs is
held out of what is normally drawn, so that composition can be measured: has a model that saw red cars and blue buses
learnt what a red bus is? This module knows words and paint; outlines are in `shapes`, places in `backdrops`.
"""

import contextlib
import json
import math
import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFilter

from ...checks import check_choice, check_range
from ...config import RESOLUTION_RANGE, SEED_RANGE
from ...errors import UsageError
from ...files import durable
from . import backdrops, shapes, tones
from .outlines import Polygon, turn
from .tones import COLOURS, RGB

__all__ = ["BACKDROPS", "COLOURS", "HELD_OUT", "OBJECTS", "SIZES", "Scene", "draw", "scene", "scene_of", "write_demo"]

T = TypeVar("T")

OBJECTS = tuple(shapes.SHAPES)
BACKDROPS = tuple(backdrops.BACKDROPS)
SIZES = ("small", "medium", "large")
PAIRS = tuple((colour, thing) for colour in COLOURS for thing in OBJECTS)

# Diagonals of the colour × object table: no colour and no object loses more than a few of its pairs.
HELD_OUT = frozenset((colour, thing) for row, colour in enumerate(COLOURS) for column, thing in enumerate(OBJECTS)
                     if (column + 3 * row) % 10 == 2)

# Diagonal of the object's bounding box / diagonal of the picture: a slender key is as big as a round apple.
_EXTENT = {"small": (0.46, 0.52), "medium": (0.6, 0.67), "large": (0.76, 0.84)}
_WIDEST = 0.92                                  # longer side / picture
_STRAY = 0.4                                    # share of the free room, about its middle, that objects are put into
_MARGIN = 0.04                                  # kept free on every side / picture
_SUPERSAMPLING = 4                              # paint so many times larger, then average
_RIM = 0.012                                    # reach of the outline / picture

_OPENINGS = ("a",) * 8 + ("", "", "the", "a picture of a", "a drawing of a")
_SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": (), "large": ("big", "large")}
_COLOUR_WORDS = {"grey": ("grey", "grey", "grey", "gray")}
_PLACES = {
    "plain": ("on a plain background",), "sky": ("in the sky", "up in the sky", "among clouds"),
    "grass": ("on grass", "on the grass", "in a meadow"), "sea": ("in the sea", "at sea", "on the water"),
    "night": ("at night", "at night", "under the stars"), "room": ("in a room", "indoors", "in a room"),
}


@dataclass(frozen=True)
class Scene:
    """What is in a picture and how its caption says it. `pose` seeds everything else: proportions, shade, place."""

    object: str
    colour: str
    backdrop: str
    size: str
    caption: str
    pose: str


# ── What is in the picture ──────────────────────────────────────────────────────────────────────────────────────────


def scene(seed: int, index: int, *, pairs: str = "seen") -> Scene:
    """Scene number `index` of the data set `seed`, with a pair of `pairs`: "seen", "held-out" or "all".

    A pure function of its arguments. Raises UsageError for another word in `pairs`.
    """
    check_choice("pairs", pairs, ("seen", "held-out", "all"))
    wanted = [pair for pair in PAIRS if pairs == "all" or (pair in HELD_OUT) == (pairs == "held-out")]
    colour, thing = _pick(_dice(seed, index, "pair"), wanted)
    return scene_of(colour, thing, seed=seed, index=index)


def scene_of(colour: str, object: str, *, seed: int, index: int) -> Scene:
    """A scene with the given pair; everything else follows from `seed` and `index`. Raises UsageError."""
    check_choice("colour", colour, tuple(COLOURS))
    check_choice("object", object, OBJECTS)
    dice = _dice(seed, index, "scene")
    backdrop, size = _pick(dice, BACKDROPS), _pick(dice, SIZES)
    caption = _caption(dice, colour, object, backdrop, size)
    return Scene(object, colour, backdrop, size, caption, pose=f"{seed}/{index}")


def _dice(*where: object) -> random.Random:
    """A generator for one purpose. Only its `random()` is used: Python promises that stream for good."""
    return random.Random("/".join(map(str, where)))


def _pick(dice: random.Random, options: Sequence[T]) -> T:
    return options[int(dice.random() * len(options))]


def _caption(dice: random.Random, colour: str, thing: str, backdrop: str, size: str) -> str:
    """One of many wordings. Size and backdrop are said about half the time, and never when there is nothing to say."""
    sizes = _SIZE_WORDS[size]
    words = [_pick(dice, sizes)] if sizes and dice.random() < 0.6 else []
    words += [_pick(dice, _COLOUR_WORDS.get(colour, (colour,))), thing]
    opening = _pick(dice, _OPENINGS).split()
    if opening and opening[-1] == "a" and words[0][0] in "aeiou":
        opening[-1] = "an"
    place = [_pick(dice, _PLACES[backdrop])] if dice.random() < (0.15 if backdrop == "plain" else 0.6) else []
    return " ".join(opening + words + place)


# ── Painting it ─────────────────────────────────────────────────────────────────────────────────────────────────────


def draw(scene: Scene, resolution: int) -> Image.Image:
    """The picture of `scene`: RGB, `resolution` pixels square, the same picture at any resolution.

    Painted four times larger and averaged, so edges are smooth. Raises UsageError outside the range of --resolution.
    """
    check_range("--resolution", resolution, *RESOLUTION_RANGE)
    look = _dice(scene.pose, "look")
    main = tones.shaded(scene.colour, look.uniform(-1, 1))
    parts = _placed(look, scene)
    left, _, right, feet = shapes.bounds(parts)
    place = backdrops.Place(left, right, feet, main)
    backdrop = backdrops.BACKDROPS[scene.backdrop](_dice(scene.pose, scene.backdrop).uniform, place)

    side = resolution * _SUPERSAMPLING
    canvas = _gradient(backdrop.stops, side)
    _fill(canvas, backdrop.behind)
    canvas = canvas.filter(ImageFilter.BoxBlur(side * 0.008))               # soft, as if out of focus
    silhouette = Image.new("L", (side, side))
    _fill(silhouette, [(255, points) for _, points in parts])
    grown = silhouette.filter(ImageFilter.BoxBlur(side * _RIM)).point(lambda value: 255 * (value > 40))
    canvas.paste(tones.outline(main, backdrop.ground), mask=grown)
    inks = tones.inks(main)
    _fill(canvas, [(inks[ink], points) for ink, points in parts])
    _fill(canvas, backdrop.front)
    return canvas.reduce(_SUPERSAMPLING)


def _placed(look: random.Random, scene: Scene) -> list[shapes.Part]:
    """The object's parts in picture units (0 to 1): stretched, flipped, tilted, scaled to its size, put somewhere."""
    shape = shapes.SHAPES[scene.object]
    stretch = look.uniform(0.88, 1.14) * (-1 if look.random() < 0.5 else 1)
    tilt = shape.tilt * look.uniform(-1, 1)
    parts = [shapes.Part(ink, turn([(x * stretch, y) for x, y in points], tilt))
             for ink, points in shape.parts(look.uniform)]
    left, top, right, bottom = shapes.bounds(parts)
    wide, high = right - left, bottom - top
    scale = min(look.uniform(*_EXTENT[scene.size]) * math.sqrt(2) / math.hypot(wide, high), _WIDEST / max(wide, high))
    dx = _MARGIN + _somewhere(look) * (1 - 2 * _MARGIN - wide * scale) - left * scale
    dy = _MARGIN + _somewhere(look) * (1 - 2 * _MARGIN - high * scale) - top * scale
    return [shapes.Part(ink, [(x * scale + dx, y * scale + dy) for x, y in points]) for ink, points in parts]


def _somewhere(look: random.Random) -> float:
    """In [0, 1]: where in the room that it leaves free an object is; 0.5 is the middle."""
    return 0.5 + _STRAY * look.uniform(-0.5, 0.5)


def _gradient(stops: list[tuple[float, RGB]], side: int) -> Image.Image:
    """A picture whose rows run through `stops`."""
    rows = bytearray()
    for row in range(side):
        y = (row + 0.5) / side
        after = next(index for index, (at, _) in enumerate(stops) if at >= y)
        (y0, above), (y1, below) = stops[after - 1], stops[after]
        rows += bytes(tones.mix(above, below, (y - y0) / (y1 - y0)))
    return Image.frombytes("RGB", (1, side), bytes(rows)).resize((side, side))


def _fill(canvas: Image.Image, polygons: Iterable[tuple[RGB | int, Polygon]]) -> None:
    """Fill polygons, given in picture units, one over another."""
    pen, side = ImageDraw.Draw(canvas), canvas.width
    for tone, points in polygons:
        pen.polygon([(x * side - 0.5, y * side - 0.5) for x, y in points], fill=tone)


# ── A folder of pictures ────────────────────────────────────────────────────────────────────────────────────────────


def write_demo(directory: Path, *, count: int, resolution: int, seed: int = 0) -> Generator[int, None, None]:
    """Fill a new or empty folder with `count` pictures and their `metadata.jsonl`; yields how many are done.

    Raises UsageError, before anything is written, when the folder holds something or a number is out of range;
    StorageError when the disk does not take it. Whatever ends it before it is done, even that nobody asks for the next
    picture: what it has made is removed, and nothing else.
    """
    check_range("-n", count, 1, 100_000)
    check_range("--resolution", resolution, *RESOLUTION_RANGE)
    check_range("--seed", seed, *SEED_RANGE)
    try:
        taken = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    except OSError as error:
        durable.fail(error, directory)
    if taken:
        raise UsageError(f"{directory} already holds something", hint="Name a new or an empty folder")
    made: list[Path] = []
    with durable.directory_to_fill(directory, mode=0o755):
        try:
            yield from _fill_folder(directory, made, count=count, resolution=resolution, seed=seed)
        except BaseException:
            for path in made:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise


def _fill_folder(
    directory: Path, made: list[Path], *, count: int, resolution: int, seed: int,
) -> Generator[int, None, None]:
    """Describe and draw the pictures; each file is in `made` before it is there.

    The descriptions come first: training refuses a folder that lists pictures which are not there, such as this one
    after a kill, and the pictures need no fsync.
    """
    shown = {f"{index:05d}.png": scene(seed, index) for index in range(count)}
    rows = [json.dumps({"file_name": name, "text": one.caption, "colour": one.colour, "object": one.object,
                        "backdrop": one.backdrop, "size": one.size}) for name, one in shown.items()]
    made.append(directory / "metadata.jsonl")
    durable.write(made[-1], ("\n".join(rows) + "\n").encode(), mode=0o644)
    for done, (name, one) in enumerate(shown.items(), 1):
        made.append(directory / name)
        try:
            draw(one, resolution).save(made[-1])
        except OSError as error:
            durable.fail(error, made[-1])
        yield done
