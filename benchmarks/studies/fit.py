"""How much of the subject of a picture survives when it becomes a square?

    python -m benchmarks.studies.fit [FOLDER]

FOLDER holds pictures with transparency; by default those of Debian's package tuxpaint-stamps-default. The subject is
what is more than a fifth opaque. For a crop and for padding, each picture is replaced by noise whose red says where the
subject is, which becomes a square without being resized; so every pixel of the subject that is left can be counted.

Two crops that the program does not have are measured as well: around the window with the strongest edges, and around
the window with the most of the subject, which no crop can surpass.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.fit_choice import choose_fit
from diffuse_cli.data.fitting import fitted_pixels

STAMPS = Path("/usr/share/tuxpaint/stamps")
OPAQUE = 51                                     # alpha above which a pixel belongs to the subject
EDGES, BEST = "crop where the edges are strongest", "best crop"


def subjects(folder: Path) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Each PNG with transparency, on white, and (H, W) bool where its subject is."""
    for path in sorted(folder.rglob("*.png")):
        with Image.open(path) as opened:
            if not opened.has_transparency_data:
                continue
            image = opened.convert("RGBA")
        alpha = image.getchannel("A")
        seen = Image.new("RGB", image.size, "white")
        seen.paste(image.convert("RGB"), mask=alpha)
        subject = np.asarray(alpha) > OPAQUE
        if subject.any():
            yield seen, subject


def kept_by(fit: str, subject: np.ndarray) -> float:
    """The share of the subject's pixels that are in the square."""
    height, width = subject.shape
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    noise[..., 0] = np.where(subject, 255, 0)
    side = min(height, width) if fit == "crop" else max(height, width)
    pixels = fitted_pixels(Image.fromarray(noise), side, Rendering(fit=fit, background="black"))
    return float((pixels[..., 0] == 255).sum() / subject.sum())


def kept_by_windows(seen: Image.Image, subject: np.ndarray) -> dict[str, float]:
    """The same for the two other crops."""
    grey = np.asarray(seen.convert("L"), np.float64)
    edges = np.abs(np.diff(grey, axis=0, prepend=grey[:1])) + np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    axis, side = int(subject.shape[0] > subject.shape[1]), min(subject.shape)
    inside = _windows(subject.sum(axis=axis), side) / subject.sum()
    strength = _windows(edges.sum(axis=axis), side)
    strongest = np.flatnonzero(strength >= 0.999 * strength.max())
    nearest = strongest[np.abs(strongest - (len(strength) - 1) / 2).argmin()]       # to the middle
    return {EDGES: float(inside[nearest]), BEST: float(inside.max())}


def _windows(along: np.ndarray, side: int) -> np.ndarray:
    """The sum of the values in each window of so many."""
    sums = np.concatenate([[0], along.cumsum()])
    return sums[side:] - sums[:-side]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=STAMPS)
    folder = parser.parse_args().folder
    found, begun = find_pictures(folder, captions="none"), time.monotonic()
    fit, why = choose_fit(found, Rendering(), 64)
    print(f"{len(found.pictures)} pictures, fit: {fit} — {why} ({time.monotonic() - begun:.1f} s)\n")
    kept: dict[str, list[float]] = {name: [] for name in ("crop", EDGES, BEST, "pad")}
    for seen, subject in subjects(folder):
        shares = {name: kept_by(name, subject) for name in ("crop", "pad")} | kept_by_windows(seen, subject)
        for name, share in shares.items():
            kept[name].append(share)
    print(f"| fit | share of the subject that is left, mean of {len(kept['crop'])} | pictures that lose over a third |")
    print("|---|---|---|")
    for name, of_fit in kept.items():
        print(f"| {name} | {np.mean(of_fit):.1%} | {np.mean(np.array(of_fit) < 2 / 3):.1%} |")


if __name__ == "__main__":
    main()
