"""Solid things as signed distance fields: primitives, and the animals, vehicles and tools that are made of them.

Points are arrays (n, 3); y points up, the ground is y = 0, and things are about one unit high. A distance field gives
the distance of points to a surface, negative inside.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]
Distance = NDArray[np.float32]
Solid = Callable[[Points], Distance]


# ── Primitives ──────────────────────────────────────────────────────────────────────────────────────────────────────


def ball(x: float, y: float, z: float, radius: float) -> Solid:
    """A sphere."""
    return lambda p: np.linalg.norm(p - np.array([x, y, z], np.float32), axis=-1) - radius


def egg(x: float, y: float, z: float, rx: float, ry: float, rz: float) -> Solid:
    """An ellipsoid; the distance is approximate."""
    radii = np.array([rx, ry, rz], np.float32)

    def distance(p: Points) -> Distance:
        q = (p - np.array([x, y, z], np.float32)) / radii
        return (np.linalg.norm(q, axis=-1) - 1) * float(radii.min())

    return distance


def block(x: float, y: float, z: float, rx: float, ry: float, rz: float, *, corner: float = 0.02) -> Solid:
    """A box with round edges; rx, ry, rz are half of its sides."""
    half = np.array([rx - corner, ry - corner, rz - corner], np.float32)

    def distance(p: Points) -> Distance:
        q = np.abs(p - np.array([x, y, z], np.float32)) - half
        return np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(-1), 0) - corner

    return distance


def rod(x: float, low: float, high: float, z: float, bottom: float, top: float, *, corner: float = 0.01) -> Solid:
    """An upright cylinder or cone from height `low` to `high`, with the radii `bottom` and `top`."""
    middle, half = (low + high) / 2, (high - low) / 2

    def distance(p: Points) -> Distance:
        share = np.clip((p[:, 1] - low) / max(high - low, 1e-6), 0, 1)
        side = np.hypot(p[:, 0] - x, p[:, 2] - z) - (bottom + (top - bottom) * share)
        slope = half * 2 / np.hypot(half * 2, bottom - top)
        cap = np.abs(p[:, 1] - middle) - half
        return np.maximum(side * slope, cap) - corner

    return distance


def bar(start: tuple[float, float, float], end: tuple[float, float, float], radius: float) -> Solid:
    """A rod with round ends between two points."""
    a, b = np.array(start, np.float32), np.array(end, np.float32)

    def distance(p: Points) -> Distance:
        share = np.clip((p - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-6), 0, 1)
        return np.linalg.norm(p - a - share[:, None] * (b - a), axis=-1) - radius

    return distance


def ring(x: float, y: float, z: float, radius: float, thick: float, *, axis: int = 1) -> Solid:
    """A torus around the coordinate axis `axis`."""

    def distance(p: Points) -> Distance:
        q = p - np.array([x, y, z], np.float32)
        flat = np.delete(q, axis, axis=-1)
        return np.hypot(np.linalg.norm(flat, axis=-1) - radius, q[:, axis]) - thick

    return distance


def hollow(solid: Solid, inner: Solid) -> Solid:
    """What is left of `solid` without `inner`."""
    return lambda p: np.maximum(solid(p), -inner(p))


# ── Things ──────────────────────────────────────────────────────────────────────────────────────────────────────────

# A thing is a list of (part, ink). Ink: "main", "dark", "light", or a colour's name. u draws from (low, high).
Parts = list[tuple[Solid, str]]
Uniform = Callable[[float, float], float]


def _wheels(y: float, dx: float, dz: float) -> Parts:
    return [(ring(sx * dx, y, sz * dz, y * 0.62, y * 0.36, axis=2), "black") for sx in (-1, 1) for sz in (-1, 1)]


def _legs(dx: float, dz: float, high: float, thick: float, ink: str) -> Parts:
    return [
        (bar((sx * dx, thick, sz * dz), (sx * dx, high, sz * dz), thick), ink) for sx in (-1, 1) for sz in (-1, 1)
    ]


def _animal(u: Uniform, *, tall: float, neck: float, ears: float, tail: float, snout: float) -> Parts:
    leg, long = tall * u(0.9, 1.1), u(0.34, 0.4)
    head = leg + 0.2 + neck
    return [
        *_legs(long * 0.7, 0.1, leg + 0.08, 0.05, "main"),
        (egg(0, leg + 0.14, 0, long, 0.17, 0.17), "main"),
        (bar((long * 0.75, leg + 0.18, 0), (long + 0.06, head, 0), 0.08), "main"),
        (egg(long + 0.1, head, 0, 0.15, 0.13, 0.13), "main"),
        (egg(long + 0.1 + snout, head - 0.04, 0, 0.09, 0.07, 0.07), "light"),
        (ball(long + 0.2 + snout * 0.5, head + 0.05, 0.08, 0.025), "black"),
        (ball(long + 0.2 + snout * 0.5, head + 0.05, -0.08, 0.025), "black"),
        (ball(long + 0.19 + snout, head - 0.02, 0, 0.03), "black"),
        (bar((long + 0.05, head + 0.1, 0.08), (long + 0.03, head + 0.1 + ears, 0.1), 0.035), "dark"),
        (bar((long + 0.05, head + 0.1, -0.08), (long + 0.03, head + 0.1 + ears, -0.1), 0.035), "dark"),
        (bar((-long, leg + 0.18, 0), (-long - tail * 0.6, leg + 0.2 + tail, 0), 0.03), "dark"),
    ]


def _car(u: Uniform) -> Parts:
    return [
        (block(0, 0.24, 0, 0.5, 0.12, 0.24, corner=0.06), "main"),
        (block(u(-0.08, 0), 0.42, 0, 0.27, 0.12, 0.2, corner=0.07), "cyan"),
        (block(u(-0.08, 0), 0.53, 0, 0.24, 0.02, 0.18), "main"),
        *_wheels(0.12, 0.3, 0.23),
    ]


def _tree(u: Uniform) -> Parts:
    return [
        (rod(0, 0, 0.5, 0, 0.08, 0.06), "brown"),
        *((ball(u(-0.2, 0.2), u(0.6, 0.9), u(-0.2, 0.2), u(0.2, 0.28)), "main") for _ in range(5)),
    ]


THINGS: dict[str, Callable[[Uniform], Parts]] = {
    "ball": lambda u: [(ball(0, r := u(0.35, 0.5), 0, r), "main")],
    "cube": lambda u: [(block(0, s := u(0.3, 0.4), 0, s, s, s), "main")],
    "cylinder": lambda u: [(rod(0, 0, u(0.7, 1), 0, r := u(0.22, 0.35), r), "main")],
    "cone": lambda u: [(rod(0, 0, u(0.8, 1), 0, u(0.3, 0.4), 0.01), "main")],
    "ring": lambda u: [(ring(0, t := u(0.09, 0.14), 0, 0.36, t), "main")],
    "pyramid": lambda u: [
        (rod(0, k * 0.1, k * 0.1 + 0.09, 0, 0.5 - k * 0.06, 0.5 - k * 0.06), "main") for k in range(8)
    ],
    "egg": lambda u: [(egg(0, 0.42, 0, 0.3, 0.42, 0.3), "main")],
    "cup": lambda u: [
        (hollow(rod(0, 0, 0.6, 0, 0.28, 0.32), rod(0, 0.06, 0.8, 0, 0.23, 0.27)), "main"),
        (ring(0.36, 0.32, 0, 0.16, 0.045, axis=2), "main"),
    ],
    "bowl": lambda u: [
        (hollow(hollow(ball(0, 0.42, 0, 0.42), ball(0, 0.44, 0, 0.36)), block(0, 0.82, 0, 1, 0.4, 1)), "main")
    ],
    "bottle": lambda u: [
        (rod(0, 0, 0.55, 0, 0.17, 0.17), "main"),
        (rod(0, 0.55, 0.72, 0, 0.17, 0.06), "main"),
        (rod(0, 0.72, 0.92, 0, 0.06, 0.06), "main"),
        (rod(0, 0.92, 1, 0, 0.07, 0.07), "dark"),
    ],
    "vase": lambda u: [
        (hollow(egg(0, 0.36, 0, 0.28, 0.36, 0.28), rod(0, 0.6, 2, 0, 0.1, 0.1)), "main"),
        (hollow(rod(0, 0.62, 0.85, 0, 0.1, 0.18), rod(0, 0.6, 1, 0, 0.06, 0.15)), "main"),
    ],
    "table": lambda u: [(block(0, 0.55, 0, 0.5, 0.035, 0.35), "main"), *_legs(0.42, 0.28, 0.55, 0.035, "main")],
    "chair": lambda u: [
        (block(0, 0.4, 0, 0.24, 0.035, 0.24), "main"),
        *_legs(0.2, 0.2, 0.4, 0.03, "dark"),
        (block(-0.22, 0.72, 0, 0.03, 0.28, 0.22), "main"),
    ],
    "lamp": lambda u: [
        (rod(0, 0, 0.05, 0, 0.2, 0.2), "dark"),
        (rod(0, 0.05, 0.6, 0, 0.03, 0.03), "dark"),
        (rod(0, 0.55, 0.9, 0, 0.3, 0.16), "main"),
    ],
    "house": lambda u: [
        (block(0, 0.3, 0, 0.4, 0.3, 0.32), "main"),
        *((block(0, 0.62 + k * 0.05, 0, 0.46, 0.03, 0.38 - k * 0.055), "dark") for k in range(7)),
        (block(0.41, 0.18, 0, 0.01, 0.17, 0.08), "brown"),
        (block(0.41, 0.35, 0.2, 0.01, 0.07, 0.06), "cyan"),
    ],
    "tower": lambda u: [
        (rod(0, 0, 0.8, 0, 0.2, 0.18), "main"),
        (rod(0, 0.8, 0.88, 0, 0.24, 0.24), "dark"),
        (rod(0, 0.88, 1.25, 0, 0.23, 0.01), "main"),
    ],
    "tree": _tree,
    "fir tree": lambda u: [
        (rod(0, 0, 0.2, 0, 0.06, 0.06), "brown"),
        *((rod(0, 0.15 + k * 0.25, 0.5 + k * 0.25, 0, 0.38 - k * 0.09, 0.03), "main") for k in range(4)),
    ],
    "mushroom": lambda u: [
        (rod(0, 0, 0.42, 0, 0.13, 0.1), "white"),
        (hollow(egg(0, 0.4, 0, 0.38, 0.32, 0.38), block(0, 0.2, 0, 1, 0.2, 1)), "main"),
    ],
    "snowman": lambda u: [
        (ball(0, 0.3, 0, 0.3), "main"),
        (ball(0, 0.72, 0, 0.21), "main"),
        (ball(0, 1.02, 0, 0.15), "main"),
        (bar((0.13, 1.02, 0), (0.28, 1, 0), 0.025), "orange"),
        (rod(0, 1.14, 1.16, 0, 0.17, 0.17), "black"),
        (rod(0, 1.16, 1.3, 0, 0.1, 0.1), "black"),
    ],
    "car": _car,
    "truck": lambda u: [
        (block(-0.15, 0.4, 0, 0.36, 0.24, 0.22, corner=0.03), "main"),
        (block(0.36, 0.32, 0, 0.14, 0.16, 0.2, corner=0.04), "light"),
        (block(0.42, 0.4, 0, 0.09, 0.06, 0.18), "cyan"),
        *_wheels(0.11, 0.33, 0.2),
    ],
    "bus": lambda u: [
        (block(0, 0.42, 0, 0.55, 0.26, 0.2, corner=0.05), "main"),
        (block(0, 0.5, 0, 0.48, 0.08, 0.21), "cyan"),
        *_wheels(0.11, 0.35, 0.2),
    ],
    "train": lambda u: [
        (block(-0.2, 0.4, 0, 0.22, 0.26, 0.2), "main"),
        (bar((-0.1, 0.32, 0), (0.4, 0.32, 0), 0.16), "main"),
        (rod(0.34, 0.45, 0.7, 0, 0.05, 0.07), "dark"),
        (block(-0.2, 0.68, 0, 0.26, 0.03, 0.24), "dark"),
        *_wheels(0.11, 0.28, 0.17),
    ],
    "aeroplane": lambda u: [
        (egg(0, 0.6, 0, 0.55, 0.12, 0.12), "main"),
        (block(0.02, 0.6, 0, 0.12, 0.02, 0.55), "light"),
        (block(-0.45, 0.62, 0, 0.08, 0.015, 0.2), "light"),
        (block(-0.47, 0.74, 0, 0.07, 0.13, 0.015), "main"),
        (egg(0.3, 0.67, 0, 0.12, 0.07, 0.08), "cyan"),
    ],
    "boat": lambda u: [
        (hollow(egg(0, 0.3, 0, 0.55, 0.3, 0.22), block(0, 0.65, 0, 1, 0.35, 1)), "main"),
        (rod(0, 0.2, 1, 0, 0.02, 0.02), "brown"),
        (block(0.14, 0.65, 0, 0.13, 0.25, 0.01), "white"),
    ],
    "rocket": lambda u: [
        (rod(0, 0.2, 0.7, 0, 0.16, 0.15), "main"),
        (rod(0, 0.7, 1.05, 0, 0.15, 0.01), "dark"),
        (ball(0.13, 0.6, 0, 0.06), "cyan"),
        *(
            (block(sx * 0.2, 0.2, sz * 0.2, 0.02 + 0.1 * abs(sx), 0.16, 0.02 + 0.1 * abs(sz)), "dark")
            for sx, sz in ((1, 0), (-1, 0), (0, 1), (0, -1))
        ),
    ],
    "dog": lambda u: _animal(u, tall=0.3, neck=0.14, ears=-0.1, tail=0.25, snout=0.14),
    "cat": lambda u: _animal(u, tall=0.24, neck=0.12, ears=0.1, tail=0.4, snout=0.07),
    "horse": lambda u: _animal(u, tall=0.5, neck=0.36, ears=0.09, tail=-0.3, snout=0.16),
    "pig": lambda u: _animal(u, tall=0.16, neck=0.02, ears=0.05, tail=0.1, snout=0.13),
    "rabbit": lambda u: [
        (egg(0, 0.24, 0, 0.26, 0.24, 0.2), "main"),
        (ball(0.22, 0.5, 0, 0.17), "main"),
        (egg(0.18, 0.78, 0.08, 0.05, 0.2, 0.05), "main"),
        (egg(0.18, 0.78, -0.08, 0.05, 0.2, 0.05), "main"),
        (ball(0.36, 0.54, 0.08, 0.025), "black"),
        (ball(0.36, 0.54, -0.08, 0.025), "black"),
        (ball(-0.26, 0.22, 0, 0.08), "white"),
        (egg(0.1, 0.06, 0.14, 0.16, 0.06, 0.06), "main"),
    ],
    "bird": lambda u: [
        (egg(0, 0.45, 0, 0.3, 0.2, 0.18), "main"),
        (ball(0.26, 0.66, 0, 0.14), "main"),
        (bar((0.38, 0.65, 0), (0.48, 0.63, 0), 0.03), "orange"),
        (ball(0.33, 0.71, 0.1, 0.025), "black"),
        (bar((-0.2, 0.48, 0), (-0.5, 0.55, 0), 0.06), "dark"),
        (egg(-0.02, 0.5, 0.16, 0.2, 0.1, 0.04), "dark"),
        (bar((0, 0.3, 0.06), (0, 0.02, 0.06), 0.02), "orange"),
        (bar((0, 0.3, -0.06), (0, 0.02, -0.06), 0.02), "orange"),
    ],
    "fish": lambda u: [
        (egg(0, 0.4, 0, 0.38, 0.24, 0.12), "main"),
        (block(-0.44, 0.4, 0, 0.08, 0.18, 0.02), "dark"),
        (ball(0.24, 0.46, 0.09, 0.035), "black"),
        (block(0, 0.66, 0, 0.14, 0.07, 0.015), "dark"),
    ],
    "duck": lambda u: [
        (egg(0, 0.24, 0, 0.34, 0.22, 0.22), "main"),
        (ball(0.24, 0.54, 0, 0.16), "main"),
        (egg(0.42, 0.52, 0, 0.1, 0.035, 0.07), "orange"),
        (ball(0.34, 0.6, 0.09, 0.025), "black"),
        (bar((-0.28, 0.3, 0), (-0.42, 0.42, 0), 0.05), "main"),
    ],
    "flower": lambda u: [
        (bar((0, 0, 0), (0, 0.65, 0), 0.025), "green"),
        *((ball(0.2 * np.cos(k * 1.05), 0.75 + 0.2 * np.sin(k * 1.05), 0, 0.12), "main") for k in range(6)),
        (ball(0, 0.75, 0.05, 0.11), "yellow"),
        (egg(0.12, 0.25, 0, 0.14, 0.04, 0.05), "green"),
    ],
    "apple": lambda u: [
        (egg(0, 0.36, 0, 0.38, 0.36, 0.38), "main"),
        (bar((0, 0.66, 0), (0.05, 0.86, 0), 0.025), "brown"),
        (egg(0.14, 0.82, 0, 0.12, 0.035, 0.06), "green"),
    ],
    "pear": lambda u: [
        (egg(0, 0.3, 0, 0.32, 0.3, 0.32), "main"),
        (egg(0, 0.6, 0, 0.2, 0.26, 0.2), "main"),
        (bar((0, 0.8, 0), (0.04, 1, 0), 0.02), "brown"),
    ],
    "cake": lambda u: [
        (rod(0, 0, 0.3, 0, 0.42, 0.42), "main"),
        (rod(0, 0.3, 0.36, 0, 0.43, 0.43), "light"),
        *(
            (
                bar(
                    (0.25 * np.cos(k * 1.26), 0.38, 0.25 * np.sin(k * 1.26)),
                    (0.25 * np.cos(k * 1.26), 0.58, 0.25 * np.sin(k * 1.26)),
                    0.02,
                ),
                "red",
            )
            for k in range(5)
        ),
    ],
    "book": lambda u: [
        (block(0, 0.08, 0, 0.38, 0.08, 0.28), "main"),
        (block(0.02, 0.08, 0.02, 0.37, 0.06, 0.27), "white"),
    ],
    "box": lambda u: [(hollow(block(0, 0.28, 0, 0.4, 0.28, 0.3), block(0, 0.4, 0, 0.36, 0.36, 0.26)), "main")],
    "hat": lambda u: [
        (rod(0, 0, 0.04, 0, 0.5, 0.5), "main"),
        (rod(0, 0.04, 0.38, 0, 0.3, 0.26), "main"),
        (rod(0, 0.05, 0.13, 0, 0.305, 0.3), "dark"),
    ],
    "bell": lambda u: [
        (hollow(egg(0, 0.3, 0, 0.3, 0.5, 0.3), block(0, -0.2, 0, 1, 0.3, 1)), "main"),
        (rod(0, 0.08, 0.16, 0, 0.4, 0.3), "main"),
        (ball(0, 0.82, 0, 0.07), "dark"),
        (ball(0, 0.06, 0, 0.08), "dark"),
    ],
    "robot": lambda u: [
        (block(0, 0.5, 0, 0.22, 0.24, 0.16), "main"),
        (block(0, 0.92, 0, 0.16, 0.14, 0.14), "main"),
        *_legs(0.11, 0, 0.3, 0.06, "dark"),
        (bar((0, 0.66, 0.24), (0.16, 0.4, 0.3), 0.05), "dark"),
        (bar((0, 0.66, -0.24), (0.16, 0.4, -0.3), 0.05), "dark"),
        (ball(0.16, 0.95, 0.07, 0.035), "yellow"),
        (ball(0.16, 0.95, -0.07, 0.035), "yellow"),
        (bar((0, 1.06, 0), (0, 1.2, 0), 0.015), "dark"),
    ],
    "teapot": lambda u: [
        (egg(0, 0.32, 0, 0.34, 0.3, 0.34), "main"),
        (bar((0.3, 0.26, 0), (0.56, 0.5, 0), 0.055), "main"),
        (ring(-0.36, 0.34, 0, 0.16, 0.04, axis=2), "main"),
        (ball(0, 0.66, 0, 0.06), "dark"),
    ],
    "candle": lambda u: [(rod(0, 0, 0.65, 0, 0.14, 0.14), "main"), (egg(0, 0.78, 0, 0.045, 0.11, 0.045), "orange")],
    "bench": lambda u: [
        (block(0, 0.34, 0, 0.16, 0.03, 0.5), "main"),
        (block(-0.17, 0.58, 0, 0.02, 0.13, 0.5), "main"),
        *_legs(0.12, 0.42, 0.34, 0.03, "dark"),
    ],
    "staircase": lambda u: [
        (block(-0.4 + k * 0.2, (5 - k) * 0.07, 0, 0.1, (5 - k) * 0.07, 0.3), "main") for k in range(5)
    ],
    "guitar": lambda u: [
        (egg(0, 0.22, 0, 0.25, 0.22, 0.06), "main"),
        (egg(0, 0.5, 0, 0.19, 0.17, 0.06), "main"),
        (block(0, 0.88, 0.03, 0.035, 0.3, 0.025), "dark"),
        (ball(0, 0.44, 0.06, 0.06), "black"),
    ],
    "pillar": lambda u: [
        (rod(0, 0, 0.1, 0, 0.26, 0.22), "main"),
        (rod(0, 0.1, 1, 0, 0.16, 0.14), "main"),
        (rod(0, 1, 1.1, 0, 0.2, 0.26), "main"),
    ],
}
