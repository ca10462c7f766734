"""The material of the foundation: a folder of pictures with captions, drawn from a seed.

Picture number i of a kind depends on the seed, the kind and i alone, so that the folder can be made in pieces.
"""

import argparse
import json
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

from diffuse_cli.data.demo_scenes import scenes

from .clip_art import Drawing, composed, find_drawings
from .solids import random_solids
from .textures import surface

COUNTS = {"drawing": 12_000, "drawings": 3_000, "solid": 7_000, "scene": 7_000, "texture": 1_000}
PNG, SVG = Path("/usr/share/openclipart/png"), Path("/usr/share/openclipart/svg")
_drawings: list[Drawing] = []  # found once in each process


def draw(kind: str, index: int, *, seed: int, side: int) -> tuple[Image.Image, list[str]]:
    """Picture number `index` of a kind in `COUNTS`, `side` pixels wide and high, and its captions."""
    rng = np.random.default_rng([seed, list(COUNTS).index(kind), index])
    if kind == "solid":
        return random_solids(rng, side)
    if kind == "scene":
        scene = scenes.random_scene(seed, index, pairs="seen")
        return scenes.draw(scene, side), [scene.caption]
    if kind == "texture":
        values, caption = surface(rng, side)
        return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8)), [caption]
    if kind == "drawing":  # every drawing as often as any other
        return composed(rng, [_drawings[index % len(_drawings)]], side)
    return composed(rng, [_drawings[number] for number in rng.choice(len(_drawings), 2)], side)


def _start(png: Path, svg: Path) -> None:
    _drawings[:] = find_drawings(png, svg)


def _write(job: tuple[str, int, int, int, Path]) -> str:
    """Draw and write one picture → its row of metadata.jsonl."""
    kind, index, seed, side, directory = job
    name = f"{kind}/{index:05}.png"
    picture, captions = draw(kind, index, seed=seed, side=side)
    (directory / kind).mkdir(exist_ok=True)
    picture.save(directory / name)
    return json.dumps({"file_name": name, "text": captions})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--png", type=Path, default=PNG, help="pictures of openclipart-png")
    parser.add_argument("--svg", type=Path, default=SVG, help="drawings of openclipart-svg, which hold the captions")
    options = parser.parse_args()
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    jobs = [
        (kind, index, options.seed, options.side, directory)
        for kind, count in COUNTS.items()
        for index in range(count)
    ]
    with Pool(options.processes, _start, (options.png, options.svg)) as pool:
        rows = pool.map(_write, jobs, chunksize=50)
    (directory / "metadata.jsonl").write_text("".join(row + "\n" for row in rows))


if __name__ == "__main__":
    main()
