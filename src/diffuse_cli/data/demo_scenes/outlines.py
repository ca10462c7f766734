"""Closed outlines as lists of points: ellipses, boxes, smooth curves and ribbons; turned and mirrored.

In coordinates x points right and y points down, in any unit. Angles are in degrees and run clockwise. Standard library
only.
"""

import math
from collections.abc import Iterable

Point = tuple[float, float]
Polygon = list[Point]


def ellipse(x: float, y: float, rx: float, ry: float, *, start: float = 0.0, stop: float = 360.0) -> Polygon:
    """The ellipse around (x, y), or its segment from angle `start` to `stop` (degrees, clockwise from the right)."""
    steps = max(8, round(abs(stop - start) / 9))
    angles = [math.radians(start + (stop - start) * step / steps) for step in range(steps + 1)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def circle(x: float, y: float, radius: float) -> Polygon:
    """A full circle."""
    return ellipse(x, y, radius, radius)


def box(left: float, top: float, right: float, bottom: float, *, corner: float = 0.0) -> Polygon:
    """An upright rectangle; its corners are rounded with the radius `corner`."""
    if not corner:
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    centres = ((right - corner, bottom - corner, 0), (left + corner, bottom - corner, 90),
               (left + corner, top + corner, 180), (right - corner, top + corner, 270))
    return [point for x, y, start in centres for point in ellipse(x, y, corner, corner, start=start, stop=start + 90)]


def smooth(*points: Point, closed: bool = True) -> Polygon:
    """The Catmull-Rom curve through `points`. If not `closed`, it starts at the first and ends at the last point."""
    count, curve = len(points), []
    for index in range(count if closed else count - 1):
        p0, p1, p2, p3 = (points[near % count if closed else min(max(near, 0), count - 1)]
                          for near in range(index - 1, index + 3))
        for t in (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875):
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            x, y = (sum(w * p[axis] for w, p in zip(weights, (p0, p1, p2, p3), strict=True)) / 2 for axis in (0, 1))
            curve.append((x, y))
    return curve if closed else [*curve, points[-1]]


def ribbon(path: Iterable[Point], width: float) -> Polygon:
    """The outline of a line of the given width along `path`. On a closed path (last point = first) it has a hole."""
    path = list(path)
    closed = math.dist(path[0], path[-1]) < 1e-6
    left, right = [], []
    for index, (x, y) in enumerate(path):
        before = path[index - 1] if index else path[-2 if closed else 0]
        after = path[index + 1] if index + 1 < len(path) else path[1 if closed else -1]
        length = math.dist(before, after) or 1.0
        dx, dy = (after[0] - before[0]) / length * width / 2, (after[1] - before[1]) / length * width / 2
        left.append((x + dy, y - dx))
        right.append((x - dy, y + dx))
    return left + right[::-1]


def turn(points: Iterable[Point], degrees: float, *, around: Point = (0.0, 0.0)) -> Polygon:
    """`points` turned clockwise around a point."""
    cos, sin, (x0, y0) = math.cos(math.radians(degrees)), math.sin(math.radians(degrees)), around
    return [(x0 + (x - x0) * cos - (y - y0) * sin, y0 + (x - x0) * sin + (y - y0) * cos) for x, y in points]


def mirror(points: Iterable[Point]) -> Polygon:
    """`points` with left and right exchanged."""
    return [(-x, y) for x, y in points]
