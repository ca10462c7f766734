"""The demo data set: captioned pictures of coloured objects, drawn from nothing but a seed.

`scene` decides on the content of a picture, `draw` paints it at any resolution, `write_demo_folder` fills a folder with
pictures. Two pictures of "a red car" differ in proportions, pose, shade, place and size. A tenth of the pairs of colour
and object is held out, and normally not drawn, so that composition can be measured: does a model that was trained on
red cars and blue buses draw a red bus? Outlines are in `shapes`, backdrops in `backdrops`, colours in `tones`.
"""

import json
import math
import random
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image, ImageDraw, ImageFilter

from ...checks import MAX_SIDE, MIN_SIDE, check_choice, check_range
from ...config import SEED_RANGE
from ...errors import UsageError
from ...files import durable
from . import backdrops, shapes, tones
from .outlines import Polygon, turn
from .tones import COLOURS, RGB

__all__ = ["BACKDROPS", "COLOURS", "HELD_OUT", "OBJECTS", "SIZES", "Scene", "draw", "random_scene", "scene_with",
           "write_demo_folder"]

T = TypeVar("T")

OBJECTS = tuple(shapes.SHAPES)
BACKDROPS = tuple(backdrops.BACKDROPS)
SIZES = ("small", "medium", "large")
PAIRS = tuple((colour, thing) for colour in COLOURS for thing in OBJECTS)

# Diagonals of the colour × object table, so that no colour and no object loses more than a few of its pairs.
HELD_OUT = frozenset((colour, thing) for row, colour in enumerate(COLOURS) for column, thing in enumerate(OBJECTS)
                     if (column + 3 * row) % 10 == 2)

# Diagonal of the object's bounding box / diagonal of the picture, so that a slender key is as big as a round apple.
_EXTENT = {"small": (0.46, 0.52), "medium": (0.6, 0.67), "large": (0.76, 0.84)}
_WIDEST = 0.92                                  # maximum longer side of the object / side of the picture
_STRAY = 0.4                                    # share of the free room, around its middle, in which objects are placed
_MARGIN = 0.04                                  # width kept free on every side / side of the picture
_SUPERSAMPLING = 4                              # factor by which pictures are painted larger before they are averaged
_RIM = 0.012                                    # radius of the blur that makes the rim around objects / side

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
    """The content of a picture and its caption. `pose` is the seed of everything else: proportions, shade, place."""

    object: str
    colour: str
    backdrop: str
    size: str
    caption: str
    pose: str


# ── The content of a picture ──────────────────────────────────────────────────────────────────────────────────────────


def random_scene(seed: int, index: int, *, pairs: str = "seen") -> Scene:
    """Scene number `index` of the data set `seed`; `pairs` says which (colour, object): "seen", "held-out" or "all".

    A pure function of its arguments. Raises UsageError for any other `pairs`.
    """
    check_choice("pairs", pairs, ("seen", "held-out", "all"))
    candidates = [pair for pair in PAIRS if pairs == "all" or (pair in HELD_OUT) == (pairs == "held-out")]
    colour, thing = _pick(_rng(seed, index, "pair"), candidates)
    return scene_with(colour, thing, seed=seed, index=index)


def scene_with(colour: str, object: str, *, seed: int, index: int) -> Scene:
    """A scene with the given colour and object; all else follows from `seed` and `index`. Raises UsageError."""
    check_choice("colour", colour, tuple(COLOURS))
    check_choice("object", object, OBJECTS)
    rng = _rng(seed, index, "scene")
    backdrop, size = _pick(rng, BACKDROPS), _pick(rng, SIZES)
    caption = _caption(rng, colour, object, backdrop, size)
    return Scene(object, colour, backdrop, size, caption, pose=f"{seed}/{index}")


def _rng(*key: object) -> random.Random:
    """A random generator for one purpose. All draws come from `random()`, whose stream Python promises to keep."""
    return random.Random("/".join(map(str, key)))


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def _caption(rng: random.Random, colour: str, thing: str, backdrop: str, size: str) -> str:
    """One of many wordings. About half of them name the size and the backdrop; none names a medium size."""
    sizes = _SIZE_WORDS[size]
    words = [_pick(rng, sizes)] if sizes and rng.random() < 0.6 else []
    words += [_pick(rng, _COLOUR_WORDS.get(colour, (colour,))), thing]
    opening = _pick(rng, _OPENINGS).split()
    if opening and opening[-1] == "a" and words[0][0] in "aeiou":
        opening[-1] = "an"
    place = [_pick(rng, _PLACES[backdrop])] if rng.random() < (0.15 if backdrop == "plain" else 0.6) else []
    return " ".join(opening + words + place)


# ── Painting ────────────────────────────────────────────────────────────────────────────────────────────────────────


def draw(scene: Scene, resolution: int) -> Image.Image:
    """The picture of `scene`: RGB, `resolution` pixels square, the same picture at any resolution.

    It is painted four times larger and averaged, so edges are smooth. Raises UsageError if `resolution` is outside the
    range of --resolution.
    """
    check_range("--resolution", resolution, MIN_SIDE, MAX_SIDE)
    rng = _rng(scene.pose, "look")
    main = tones.shaded(scene.colour, rng.uniform(-1, 1))
    parts = _placed(rng, scene)
    left, _, right, feet = shapes.bounds(parts)
    place = backdrops.Place(left, right, feet, main)
    backdrop = backdrops.BACKDROPS[scene.backdrop](_rng(scene.pose, scene.backdrop).uniform, place)

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


def _placed(rng: random.Random, scene: Scene) -> list[shapes.Part]:
    """The object's parts in picture units (0 to 1): stretched, flipped, tilted, scaled to its size and placed."""
    shape = shapes.SHAPES[scene.object]
    stretch = rng.uniform(0.88, 1.14) * (-1 if rng.random() < 0.5 else 1)
    tilt = shape.tilt * rng.uniform(-1, 1)
    parts = [shapes.Part(ink, turn([(x * stretch, y) for x, y in points], tilt))
             for ink, points in shape.parts(rng.uniform)]
    left, top, right, bottom = shapes.bounds(parts)
    wide, high = right - left, bottom - top
    scale = min(rng.uniform(*_EXTENT[scene.size]) * math.sqrt(2) / math.hypot(wide, high), _WIDEST / max(wide, high))
    dx = _MARGIN + _somewhere(rng) * (1 - 2 * _MARGIN - wide * scale) - left * scale
    dy = _MARGIN + _somewhere(rng) * (1 - 2 * _MARGIN - high * scale) - top * scale
    return [shapes.Part(ink, [(x * scale + dx, y * scale + dy) for x, y in points]) for ink, points in parts]


def _somewhere(rng: random.Random) -> float:
    """Share of the free room that lies left of the object or above it, in [0, 1]; 0.5 places it in the middle."""
    return 0.5 + _STRAY * rng.uniform(-0.5, 0.5)


def _gradient(stops: list[tuple[float, RGB]], side: int) -> Image.Image:
    """A square picture of `side` pixels whose rows go through the tones of `stops`, (y, tone), from top to bottom."""
    rows = bytearray()
    for row in range(side):
        y = (row + 0.5) / side
        after = next(index for index, (at, _) in enumerate(stops) if at >= y)
        (y0, above), (y1, below) = stops[after - 1], stops[after]
        rows += bytes(tones.mix(above, below, (y - y0) / (y1 - y0)))
    return Image.frombytes("RGB", (1, side), bytes(rows)).resize((side, side))


def _fill(canvas: Image.Image, polygons: Iterable[tuple[RGB | int, Polygon]]) -> None:
    """Fill (tone, polygon) in picture units on the canvas, the later over the earlier ones."""
    pen, side = ImageDraw.Draw(canvas), canvas.width
    for tone, points in polygons:
        pen.polygon([(x * side - 0.5, y * side - 0.5) for x, y in points], fill=tone)


# ── A folder of pictures ────────────────────────────────────────────────────────────────────────────────────────────


def write_demo_folder(directory: Path, *, count: int, resolution: int, seed: int = 0) -> Generator[int, None, None]:
    """Fill a new or empty folder with `count` pictures and their `metadata.jsonl`; yields the number of pictures done.

    Raises UsageError, before anything is written, if the folder is not empty or a number is out of range, and
    StorageError if the disk does not take a file. If it ends early for any reason, even that the caller closes the
    generator, nothing is left in the folder: the files are drawn beside it, and moved there at the end.
    """
    check_range("-n", count, 1, 100_000)
    check_range("--resolution", resolution, MIN_SIDE, MAX_SIDE)
    check_range("--seed", seed, *SEED_RANGE)
    try:
        occupied = directory.exists() and (not directory.is_dir() or any(directory.iterdir()))
    except OSError as error:
        durable.fail(error, directory)
    if occupied:
        raise UsageError(f"{directory} already holds something", hint="Name a new or an empty folder")
    with durable.staging(directory.absolute(), mode=0o755) as staging:
        names = yield from _draw_files(staging, count=count, resolution=resolution, seed=seed)
        with durable.directory_to_fill(directory, mode=0o755):
            durable.move_all(staging, directory, names)


def _draw_files(
    directory: Path, *, count: int, resolution: int, seed: int,
) -> Generator[int, None, list[str]]:
    """Write the metadata and the pictures. → the names of the files, the metadata first

    So the pictures need no fsync: training refuses a folder that lists pictures which do not exist.
    """
    scenes = {f"{index:05d}.png": random_scene(seed, index) for index in range(count)}
    rows = [json.dumps({"file_name": name, "text": content.caption, "colour": content.colour,
                        "object": content.object, "backdrop": content.backdrop, "size": content.size})
            for name, content in scenes.items()]
    durable.write(directory / "metadata.jsonl", ("\n".join(rows) + "\n").encode(), mode=0o644)
    for done, (name, content) in enumerate(scenes.items(), 1):
        try:
            draw(content, resolution).save(directory / name)
        except OSError as error:
            durable.fail(error, directory / name)
        yield done
    return ["metadata.jsonl", *scenes]
