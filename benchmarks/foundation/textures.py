"""Procedural textures and backdrops: noise turned into cloth, stone, wood, grass, clouds and the like, with captions.

Pictures are float32 arrays (side, side, 3) in [0, 1].
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from diffuse_cli.data.demo_scenes.tones import COLOURS

Field = NDArray[np.float32]  # (side, side), about 0 to 1
Picture = NDArray[np.float32]  # (side, side, 3), 0 to 1


def tone(rng: np.random.Generator, name: str, spread: float = 0.08) -> Picture:
    """The named colour, changed a little: (3,)."""
    colour = np.array(COLOURS[name], np.float32) / 255
    changed: Picture = np.clip(colour + rng.normal(0, spread, 3).astype(np.float32), 0, 1)
    return changed


def value_noise(rng: np.random.Generator, side: int, cells: float, *, stretch: float = 1.0) -> Field:
    """Smooth noise with about `cells` bumps along the side; `stretch` makes bumps longer from top to bottom."""
    grid = rng.random((int(cells / stretch) + 3, int(cells) + 3)).astype(np.float32)
    rows = np.arange(side, dtype=np.float32) / side * cells / stretch
    columns = np.arange(side, dtype=np.float32) / side * cells
    top, left = rows.astype(int), columns.astype(int)
    down, right = (smooth(place - whole).astype(np.float32) for place, whole in ((rows, top), (columns, left)))
    upper, lower = (grid[row][:, left] * (1 - right) + grid[row][:, left + 1] * right for row in (top, top + 1))
    field: Field = upper * (1 - down[:, None]) + lower * down[:, None]
    return field


def smooth(share: Field) -> Field:
    """0 to 1 with level ends: 3s² - 2s³."""
    eased: Field = share * share * (3 - 2 * share)
    return eased


def fractal(rng: np.random.Generator, side: int, cells: float, *, octaves: int = 4, stretch: float = 1.0) -> Field:
    """Noise of several scales, each half as strong as the one before, stretched to fill 0 to 1."""
    total = sum(value_noise(rng, side, cells * 2**k, stretch=stretch) / 2**k for k in range(octaves))
    total = np.asarray(total, np.float32)
    field: Field = (total - total.min()) / max(float(np.ptp(total)), 1e-6)
    return field


def between(field: Field, low: Picture, high: Picture) -> Picture:
    """A colour for every value of a field: `low` at 0, `high` at 1."""
    picture: Picture = low + field[..., None] * (high - low)
    return np.clip(picture, 0, 1)


def _grid(side: int, rng: np.random.Generator, cells: float) -> tuple[Field, Field]:
    """Coordinates in cells, turned by a random angle or not at all."""
    angle = rng.choice([0.0, 0.0, float(rng.uniform(0, np.pi))])
    y, x = np.mgrid[:side, :side].astype(np.float32) / side * cells
    turned = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return turned[0].astype(np.float32), turned[1].astype(np.float32)


def stripes(rng: np.random.Generator, side: int) -> Field:
    """Even stripes."""
    return np.clip(np.sin(_grid(side, rng, rng.uniform(3, 9))[0] * 2 * np.pi) * 4 + 0.5, 0, 1)


def checks(rng: np.random.Generator, side: int) -> Field:
    """A board of squares."""
    x, y = _grid(side, rng, rng.uniform(2, 6))
    return np.clip(np.sin(x * np.pi * 2) * np.sin(y * np.pi * 2) * 8 + 0.5, 0, 1)


def dots(rng: np.random.Generator, side: int) -> Field:
    """Round dots on a grid."""
    x, y = _grid(side, rng, rng.uniform(3, 7))
    return np.clip((rng.uniform(0.25, 0.4) - np.hypot(x % 1 - 0.5, y % 1 - 0.5)) * 12, 0, 1)


def bricks(rng: np.random.Generator, side: int) -> Field:
    """0 in the joints of a brick wall, about 1 on the bricks."""
    rows = rng.uniform(5, 10)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side * rows
    x = x / 2 + (y.astype(int) % 2) * 0.5
    joint = (np.minimum(x % 1, 1 - x % 1) * 2 < 0.09) | (np.minimum(y % 1, 1 - y % 1) < 0.09)
    return np.where(joint, 0, 0.55 + 0.45 * fractal(rng, side, 12)).astype(np.float32)


def wood(rng: np.random.Generator, side: int) -> Field:
    """Grain that runs from top to bottom."""
    rings = fractal(rng, side, 4, stretch=6) * rng.uniform(4, 9)
    return np.clip(0.6 * (rings % 1) + 0.4 * fractal(rng, side, 30, stretch=10), 0, 1).astype(np.float32)


def marble(rng: np.random.Generator, side: int) -> Field:
    """Thin dark veins."""
    veins = np.abs(np.sin(fractal(rng, side, 3) * 9 + np.mgrid[:side, :side][1] / side * 6))
    return np.sqrt(veins).astype(np.float32)


PATTERNS: dict[str, tuple[Callable[[np.random.Generator, int], Field], tuple[str, ...]]] = {
    "stripes": (stripes, ("striped", "stripes")),
    "checks": (checks, ("checkered", "chequered")),
    "dots": (dots, ("dotted", "spotted", "polka dot")),
}


def _named(rng: np.random.Generator, low: str, high: str, field: Field) -> Picture:
    return between(field, tone(rng, low), tone(rng, high))


def surface(rng: np.random.Generator, side: int) -> tuple[Picture, str]:
    """A texture that fills the picture, and its caption."""
    kind = str(
        rng.choice(
            [
                "wood",
                "marble",
                "bricks",
                "grass",
                "sand",
                "stone",
                "water",
                "clouds",
                "pattern",
                "pattern",
                "cloth",
                "leaves",
                "rust",
                "snow",
                "fire",
                "stars",
            ]
        )
    )
    noise = fractal(rng, side, rng.uniform(3, 9))
    fine = fractal(rng, side, side / 3, octaves=2)
    if kind == "wood":
        return between(wood(rng, side), np.array([0.32, 0.18, 0.09]), np.array([0.76, 0.53, 0.32])), "wood grain"
    if kind == "marble":
        return between(marble(rng, side), np.array([0.3, 0.3, 0.34]), np.array([0.95, 0.94, 0.92])), "white marble"
    if kind == "bricks":
        return between(bricks(rng, side), np.array([0.75, 0.72, 0.68]), np.array([0.62, 0.26, 0.17])), "a brick wall"
    if kind == "grass":
        blades = fractal(rng, side, side / 3, stretch=4)
        return between(blades * 0.8 + noise * 0.2, np.array([0.08, 0.25, 0.05]), np.array([0.5, 0.75, 0.25])), "grass"
    if kind == "sand":
        return between(0.6 * fine + 0.4 * noise, np.array([0.72, 0.58, 0.38]), np.array([0.95, 0.85, 0.65])), "sand"
    if kind == "stone":
        return between(
            0.5 * fine + 0.5 * noise, np.array([0.28, 0.28, 0.3]), np.array([0.72, 0.71, 0.68])
        ), "grey stone"
    if kind == "water":
        waves = fractal(rng, side, 5, stretch=0.25)
        return between(waves, np.array([0.03, 0.2, 0.4]), np.array([0.5, 0.8, 0.95])), "water with waves"
    if kind == "clouds":
        return between(
            np.clip(noise * 2 - 0.6, 0, 1), np.array([0.3, 0.55, 0.9]), np.array([1, 1, 1])
        ), "clouds in a blue sky"
    if kind == "leaves":
        return between(
            np.abs(np.sin(noise * 20)) * 0.7 + fine * 0.3, np.array([0.05, 0.2, 0.05]), np.array([0.45, 0.7, 0.2])
        ), "green leaves"
    if kind == "rust":
        return between(
            np.clip(noise * 1.5 - 0.2, 0, 1), np.array([0.4, 0.42, 0.45]), np.array([0.6, 0.27, 0.08])
        ), "rusty metal"
    if kind == "snow":
        return between(noise * 0.7 + fine * 0.3, np.array([0.75, 0.82, 0.92]), np.array([1, 1, 1])), "snow"
    if kind == "fire":
        flames = fractal(rng, side, 6, stretch=3) * (0.3 + 0.7 * np.linspace(0, 1, side, dtype=np.float32)[:, None])
        hot = np.stack(
            [np.clip(flames * 3, 0, 1), np.clip(flames * 2.2 - 0.5, 0, 1), np.clip(flames * 3 - 2, 0, 1)], -1
        )
        return hot.astype(np.float32), "fire, flames in the dark"
    if kind == "stars":
        sky = (rng.random((side, side)) > 0.985) * rng.uniform(0.5, 1, (side, side))
        return np.clip(
            sky[..., None] + np.array([0.03, 0.03, 0.12]) + noise[..., None] * 0.1, 0, 1
        ), "stars in the night sky"
    low, high = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    if kind == "cloth":
        threads = np.sin(np.arange(side) * np.pi / 1.5)
        weave = np.clip((threads[:, None] + threads) / 4 + 0.5, 0, 1).astype(np.float32) * 0.4 + noise * 0.6
        return between(weave, tone(rng, low) * 0.6, tone(rng, low)), f"{low} cloth"
    draw, words = PATTERNS[str(rng.choice(list(PATTERNS)))]
    return _named(rng, low, high, draw(rng, side)), f"{words[0]} pattern, {low} and {high}"


def backdrop(rng: np.random.Generator, side: int) -> tuple[Picture, str]:
    """A ground to put things on, and the words that say so; most are plain or fade from one tone to another."""
    name = str(rng.choice(list(COLOURS)))
    if rng.random() < 0.55:
        return np.broadcast_to(tone(rng, name), (side, side, 3)).astype(np.float32), f"on a {name} background"
    if rng.random() < 0.5:
        fade = np.linspace(0, 1, side, dtype=np.float32)[:, None] * np.ones(side, np.float32)
        return between(
            fade, tone(rng, name), np.clip(tone(rng, name) + rng.uniform(0.1, 0.35), 0, 1)
        ), f"on a {name} background"
    picture, caption = surface(rng, side)
    return picture, f"on {caption}"
