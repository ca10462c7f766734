"""Scenes of solid things with photographic light: ray-marched, with sun, sky, soft shadows and haze.

Papers: Hart 1996 ("Sphere tracing") for the march.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffuse_cli.data.demo_scenes.tones import COLOURS

from .textures import Picture, fractal, surface, tone
from .things import THINGS, Distance, Parts, Points

MARCH_STEPS, SHADOW_STEPS, FAR = 44, 16, 9.0
LIGHTS: dict[str, tuple[tuple[float, ...], tuple[float, ...], float]] = {  # sun, sky, strength of the sun
    "": ((1, 0.96, 0.88), (0.55, 0.7, 0.95), 1.0),
    "at sunset": ((1, 0.55, 0.25), (0.75, 0.45, 0.5), 0.9),
    "at night": ((0.35, 0.42, 0.7), (0.05, 0.07, 0.17), 0.7),
    "in the fog": ((0.8, 0.82, 0.85), (0.78, 0.8, 0.83), 0.4),
    "in a studio": ((1, 1, 1), (0.72, 0.72, 0.74), 0.8),
}
MATERIALS = {
    "": (0.15, 12.0),
    "shiny": (0.7, 40.0),
    "metal": (0.9, 14.0),
    "wooden": (0.1, 6.0),
    "striped": (0.15, 12.0),
}


@dataclass(frozen=True)
class Placed:
    """A thing in the scene: its parts, where it stands, its angle, and colour of every ink."""

    parts: Parts
    x: float
    z: float
    angle: float
    inks: dict[str, Picture]
    material: str


def _measure(placed: list[Placed], p: Points) -> tuple[Distance, NDArray[np.int64]]:
    """The distance of points to the nearest part, and its number among all parts."""
    distances = []
    for thing in placed:
        cos, sin = np.cos(thing.angle), np.sin(thing.angle)
        x, z = p[:, 0] - thing.x, p[:, 2] - thing.z
        local = np.stack([x * cos + z * sin, p[:, 1], z * cos - x * sin], -1)
        distances += [part(local) for part, _ in thing.parts]
    table = np.stack(distances)
    nearest = table.argmin(0)
    return np.take_along_axis(table, nearest[None], 0)[0], nearest


def _march(placed: list[Placed], origin: Points, rays: Points, steps: int, far: float) -> tuple[Distance, Distance]:
    """→ how far each ray goes until it meets a part (`far` if it does not), and how near it came, for soft shadows."""
    travelled = np.full(len(rays), 0.02, np.float32)
    nearest = np.ones(len(rays), np.float32)
    active = np.arange(len(rays))
    for _ in range(steps):
        distance, _ = _measure(placed, origin[active] + rays[active] * travelled[active, None])
        nearest[active] = np.minimum(nearest[active], 10 * distance / travelled[active])
        travelled[active] += np.maximum(distance, 0.004)
        active = active[(distance > 0.004) & (travelled[active] < far)]
        if not len(active):
            break
    travelled[active] = np.where(travelled[active] < far, travelled[active], far)
    return np.minimum(travelled, far), np.clip(nearest, 0, 1)


@dataclass(frozen=True)
class Surfaces:
    """What every ray meets first; arrays with a row for each ray."""

    is_part: NDArray[np.bool_]
    is_ground: NDArray[np.bool_]
    reach: Distance                             # from the camera
    places: Points
    colours: Points
    normals: Points
    gloss: Distance                             # strength and sharpness of the highlight
    sharpness: Distance


def _camera(rng: np.random.Generator, side: int, *, far: bool) -> tuple[Points, Points, Points]:
    """A camera that looks at the middle of the scene, and a sun. → the eye (3,), a ray for each pixel, the sun (3,)"""
    turn, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.65)
    eye = np.array([np.cos(turn) * np.cos(height), np.sin(height) + 0.15, np.sin(turn) * np.cos(height)], np.float32)
    eye = eye * rng.uniform(2.3, 3.2) * (1.3 if far else 1)
    aim = np.array([0, rng.uniform(0.35, 0.5), 0], np.float32)
    forward = (aim - eye) / np.linalg.norm(aim - eye)
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    v, u = (np.mgrid[:side, :side].astype(np.float32) + 0.5) / side - 0.5
    rays = (forward + 0.52 * (u[..., None] * right - v[..., None] * up)).reshape(-1, 3).astype(np.float32)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    turns = rng.uniform(-1.8, 1.8), rng.uniform(0.5, 1.4), rng.uniform(-1.8, 1.8)
    sun = np.array([np.cos(turn + turns[0]), turns[1], np.sin(turn + turns[2])], np.float32)
    return eye, rays, sun / np.linalg.norm(sun)


def _surfaces(placed: list[Placed], eye: Points, rays: Points, rng: np.random.Generator) -> Surfaces:
    """The first surface on every ray: a part, the ground, or the sky. Normals are central differences."""
    origin = np.broadcast_to(eye, rays.shape).astype(np.float32)
    to_part, _ = _march(placed, origin, rays, MARCH_STEPS, FAR)
    to_ground = np.where(rays[:, 1] < -1e-3, -eye[1] / np.minimum(rays[:, 1], -1e-3), FAR * 4)
    is_part = (to_part < FAR) & (to_part < to_ground)
    is_ground = ~is_part & (to_ground < FAR * 4)
    reach = np.where(is_part, to_part, to_ground)
    places = origin + rays * reach[:, None]
    colours, normals = np.zeros_like(rays), np.zeros_like(rays)
    normals[:, 1] = 1
    gloss, sharpness = np.zeros(len(rays), np.float32), np.full(len(rays), 10, np.float32)
    if is_part.any():
        met = places[is_part]
        numbers = _measure(placed, met)[1]
        owners = [thing for thing in placed for _ in thing.parts]
        inks = [thing.inks[ink] if ink in thing.inks else tone(rng, ink, 0.03)
                for thing in placed for _, ink in thing.parts]
        materials = [MATERIALS[thing.material] for thing in owners]
        steps = np.eye(3, dtype=np.float32) * 0.004
        slope = np.stack([_measure(placed, met + step)[0] - _measure(placed, met - step)[0] for step in steps], -1)
        normals[is_part] = slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
        gloss[is_part], sharpness[is_part] = np.array(materials, np.float32).T[:, numbers]
        colours[is_part] = np.stack(inks)[numbers] * _bands(met, [owners[number].material for number in numbers])
    colours[is_ground] = _ground(rng)[tuple((places[is_ground][:, [0, 2]] * 20).astype(int).T % 64)]
    return Surfaces(is_part, is_ground, reach, places, colours, normals, gloss, sharpness)


def _bands(places: Points, materials: list[str]) -> Points:
    """Light and dark bands of striped and wooden things, factors of the colour (n, 1)."""
    wide = np.array([{"striped": 9.0, "wooden": 25.0}.get(material, 0.0) for material in materials])
    bands = np.where(np.sin((places[:, 1] + 0.15 * places[:, 0]) * wide * 2) > 0.2, 1.0, 0.62)
    factors: Points = np.where(wide > 0, bands, 1)[:, None]
    return factors


def _ground(rng: np.random.Generator) -> Picture:
    """A texture of 64 pixels, or one colour."""
    if rng.random() < 0.35:
        return surface(rng, 64)[0]
    colour: Picture = np.broadcast_to(tone(rng, str(rng.choice(list(COLOURS)))) * 0.9, (64, 64, 3))
    return colour


def render(placed: list[Placed], light: str, rng: np.random.Generator, side: int) -> Image.Image:
    """The scene as a picture of `side` pixels; camera, sun and ground follow from `rng`."""
    sun_colour, sky, strength = (np.array(value, np.float32) for value in LIGHTS[light])
    eye, rays, sun = _camera(rng, 2 * side, far=len(placed) > 1)
    met = _surfaces(placed, eye, rays, rng)
    solid = met.is_part | met.is_ground

    # The sun where it is not hidden, and a mirrored highlight
    shadow = np.ones(len(rays), np.float32)
    lit = np.flatnonzero(solid & (met.reach < 7))
    start = met.places[lit] + met.normals[lit] * 0.02
    hidden, nearest = _march(placed, start, np.broadcast_to(sun, start.shape).astype(np.float32), SHADOW_STEPS, 3.0)
    shadow[lit] = np.where(hidden < 3.0, 0, nearest)
    facing = np.clip(met.normals @ sun, 0, 1) * shadow
    half = sun - rays
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    glint = met.gloss * np.clip((met.normals * half).sum(-1), 0, 1) ** met.sharpness * shadow
    shade = strength * sun_colour * facing[:, None] + sky * (0.35 + 0.35 * met.normals[:, 1:2])

    # The sky, haze that grows with the distance, and a little grain
    above = np.clip(rays[:, 1:2] * 1.6 + 0.25, 0, 1)
    heaven = sky * (0.55 + 0.45 * above) + (1 - above) * 0.35 * sun_colour
    haze = (1 - np.exp(-met.reach / (4 if light == "in the fog" else 22)))[:, None]
    seen = met.colours * shade + glint[:, None] * sun_colour * strength
    picture = np.where(solid[:, None], seen * (1 - haze) + heaven * haze, heaven)
    picture += (fractal(rng, 2 * side, 2 * side / 3, octaves=1).reshape(-1, 1) - 0.5) * rng.choice([0, 0.03])
    levels = np.clip(picture, 0, 1) ** (1 / 1.25) * 255
    return Image.fromarray(levels.reshape(2 * side, 2 * side, 3).round().astype(np.uint8)).reduce(2)


def random_solids(rng: np.random.Generator, side: int) -> tuple[Image.Image, list[str]]:
    """One thing, or two beside each other: a picture and its captions."""
    two = rng.random() < 0.3
    placed: list[Placed] = []
    names: list[str] = []
    bare: list[str] = []
    for index in range(2 if two else 1):
        name, colour = str(rng.choice(list(THINGS))), str(rng.choice(list(COLOURS)))
        material = str(rng.choice(list(MATERIALS), p=[0.6, 0.1, 0.1, 0.1, 0.1]))
        main = tone(rng, colour, 0.05)
        inks = {"main": main, "dark": main * 0.55, "light": main + (1 - main) * 0.5}
        parts = THINGS[name](lambda low, high: float(rng.uniform(low, high)))
        x, z, angle = (index - 0.5) * 1.2 if two else 0, float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0, 6.3))
        placed.append(Placed(parts, x, z, angle, inks, material))
        words = " ".join(word for word in (material, colour, name) if word)
        names.append(f"{'an' if words[0] in 'aeiou' else 'a'} {words}")
        bare.append(f"{'an' if name[0] in 'aeiou' else 'a'} {name}")
    light = str(rng.choice(list(LIGHTS), p=[0.5, 0.12, 0.12, 0.08, 0.18]))
    joined = " next to ".join(names) if rng.random() < 0.4 else " and ".join(names)
    captions = [
        joined,
        f"{joined} {light}".strip(),
        f"a 3d render of {joined}",
        f"a photo of {' and '.join(bare)} {light}".strip(),
    ]
    return render(placed, light, rng, side), list(dict.fromkeys(captions))
