"""Clip art of Debian's `openclipart-png` and `openclipart-svg`: pictures in the public domain, with captions.

A drawing is used if its own SVG says that it is in the public domain. Its caption is made of the title and the keywords
that its author gave it, of the colours that it has, and of what it was put on.
"""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from diffuse_cli.data.demo_scenes.tones import COLOURS, distance

from .textures import backdrop

LEFT_OUT = (
    "computer/icons",
    "computer/buttons",
    "logos",
    "special/gradients",
    "buttons",
    "signs_and_symbols/map_symbols",
)
MOST_PIXELS = 4_000_000  # of a file: larger ones take seconds to open
AT_MOST = {"shapes/stars": 60, "signs_and_symbols/flags": 150, "recreation/games": 120, "shapes/jigsaw": 12}
NO_WORDS = {
    "hash",
    "clipart",
    "clip",
    "art",
    "image",
    "svg",
    "png",
    "public",
    "domain",
    "unsorted",
    "by",
    "the",
    "of",
    "in",
    "collection",
    "icon",
    "icons",
    "theme",
    "open",
    "library",
    "drawing",
    "remix",
    "version",
    "and",
    "on",
    "is",
    "for",
    "to",
    "with",
    "special",
    "part",
    "web",
    "architetto",
    "francesco",
    "rollandin",
    "openclipart",
}

Image.MAX_IMAGE_PIXELS = None  # larger files than `MOST_PIXELS` are left out by their header


@dataclass(frozen=True)
class Drawing:
    """A drawing: its file, the words that name it, and its keywords."""

    path: Path
    title: str
    keywords: tuple[str, ...]


def find_drawings(png: Path, svg: Path) -> list[Drawing]:
    """The drawings below the folder `png` whose files of the same name below `svg` are in the public domain."""
    found: list[Drawing] = []
    counts: dict[str, int] = {}
    for path in sorted(png.rglob("*.png")):
        name = path.relative_to(png)
        folder = name.parent.as_posix()
        source = next(
            (file for suffix in (".svg", ".svgz", ".svg.gz") if (file := svg / name.with_suffix(suffix)).exists()),
            None,
        )
        if source is None or folder.startswith(LEFT_OUT) or counts.get(folder, 0) >= AT_MOST.get(folder, 10**6):
            continue
        with Image.open(path) as header:
            if header.width * header.height > MOST_PIXELS:
                continue
        text = source.read_bytes()
        text = gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text
        drawing = describe(path, folder, text.decode("utf-8", "replace"))
        if drawing is not None:
            counts[folder] = counts.get(folder, 0) + 1
            found.append(drawing)
    return found


def describe(path: Path, folder: str, source: str) -> Drawing | None:
    """The drawing of an SVG's text; None if it does not say that it is in the public domain."""
    if not re.search(r"license[^>]*PublicDomain", source):
        return None
    keywords = list(dict.fromkeys(word for raw in re.findall(r"<rdf:li>([^<]*)<", source) if (word := plain(raw))))
    titles = [plain(raw) for raw in re.findall(r"<dc:title>([^<]*)<", source)[:1]]
    title = titles[0] if titles else ""
    last = plain(folder.split("/")[-1])
    if not title or len(title) > 40:
        title = plain(path.stem) or (keywords[0] if keywords else last)
    singular = re.sub(r"(?<=[a-z]{2})s$", "", last)
    keywords = list(dict.fromkeys([*keywords, singular]))
    return Drawing(path, title, tuple(word for word in keywords if word and word != title)[:4])


def plain(words: str) -> str:
    """A name as words: "Cartoon_Tree 01 by Ann" → "cartoon tree"."""
    words = re.sub(r"\bby\b.*| - .*|\(.*", "", words, flags=re.IGNORECASE)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-zÀ-ÿ' ]+", " ", words).lower()
    return " ".join(word for word in words.split() if word not in NO_WORDS and len(word) > 1)


def opened(path: Path, side: int) -> Image.Image:
    """The drawing in a square of `side` pixels without its empty margin, RGBA with premultiplied edges."""
    with Image.open(path) as file:
        picture = file.convert("RGBA")
    box = picture.getchannel("A").getbbox()
    picture = picture.crop(box) if box else picture
    return ImageOps.contain(picture.convert("RGBa"), (side, side), Image.Resampling.LANCZOS).convert("RGBA")


def main_colours(picture: Image.Image) -> list[str]:
    """The named colours of an RGBA picture that fill at least a fifth of it, the largest first, at most two."""
    pixels = np.asarray(picture.resize((24, 24)).convert("RGBA")).reshape(-1, 4)
    pixels = pixels[pixels[:, 3] > 127][:, :3]
    if not len(pixels):
        return []
    names = [min(COLOURS, key=lambda name: distance((int(red), int(green), int(blue)), COLOURS[name]))
             for red, green, blue in pixels]
    shares = sorted(((names.count(name) / len(names), name) for name in set(names)), reverse=True)
    return [name for share, name in shares if share > 0.2][:2]


def tinted(picture: Image.Image, name: str) -> Image.Image:
    """The picture in shades of one named colour."""
    light = np.asarray(picture.convert("L"), np.float32)[..., None] / 255
    colour = np.array(COLOURS[name], np.float32)
    toned = np.where(light < 0.6, light / 0.6 * colour, colour + (light - 0.6) / 0.4 * (255 - colour))
    return Image.fromarray(np.dstack([toned.round().astype(np.uint8), np.asarray(picture.getchannel("A"))]), "RGBA")


def _place(rng: np.random.Generator, canvas: Image.Image, drawing: Image.Image, middle: float, room: float) -> None:
    """Paste a drawing around `middle` (share of the width) within a share `room` of the side, turned a little."""
    side = canvas.width
    if rng.random() < 0.4:
        drawing = ImageOps.mirror(drawing)
    if rng.random() < 0.3:
        drawing = (
            drawing.convert("RGBa")
            .rotate(rng.uniform(-12, 12), Image.Resampling.BICUBIC, expand=True)
            .convert("RGBA")
        )
    size = side * room * rng.uniform(0.8, 1.0)
    drawing = ImageOps.contain(drawing.convert("RGBa"), (round(size), round(size)), Image.Resampling.LANCZOS).convert(
        "RGBA"
    )
    left = round(side * middle - drawing.width / 2 + rng.normal(0, 0.02) * side)
    top = round((side - drawing.height) * np.clip(rng.normal(0.5, 0.15), 0, 1))
    canvas.alpha_composite(drawing, (max(0, left), max(0, top)))


def composed(rng: np.random.Generator, drawings: list[Drawing], side: int) -> tuple[Image.Image, list[str]]:
    """One drawing, or two beside each other, on white or on a backdrop: a picture and its captions."""
    ground, where = (np.ones((side, side, 3), np.float32), "") if rng.random() < 0.6 else backdrop(rng, side)
    canvas = Image.fromarray((ground * 255).round().astype(np.uint8)).convert("RGBA")
    two = len(drawings) == 2
    named: list[tuple[str, str, Drawing]] = []  # (colours, title, drawing)
    for index, drawing in enumerate(drawings):
        picture = opened(drawing.path, side)
        if rng.random() < 0.15:
            colour = str(rng.choice(list(COLOURS)))
            picture = tinted(picture, colour)
            colours = [colour]
        else:
            colours = main_colours(picture)
        _place(rng, canvas, picture, (0.27 + 0.46 * index) if two else 0.5, 0.54 if two else 0.98)
        named.append((" and ".join(colours), drawing.title, drawing))
    subject = " and ".join(article(rng, title) for _, title, _ in named)
    coloured = " and ".join(
        article(rng, f"{colours} {title}" if colours and title not in COLOURS else title)
        for colours, title, _ in named
    )
    captions = [f"{subject} {where}".strip(), f"{coloured} {where}".strip()]
    if not two:
        words = list(named[0][2].keywords)
        rng.shuffle(words)
        captions += [named[0][1], ", ".join([named[0][1], *words, *([where] if where else [])])]
    return canvas.convert("RGB"), list(dict.fromkeys(captions))


def article(rng: np.random.Generator, words: str) -> str:
    """The words with "a" or "an" before them, usually."""
    if rng.random() < 0.3 or words.endswith("s"):
        return words
    return f"{'an' if words[:1] in 'aeiou' else 'a'} {words}"
