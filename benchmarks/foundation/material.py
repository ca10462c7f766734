"""The material of the foundation: a folder of pictures with captions, drawn from a seed.

Picture number i of a kind depends on the seed, the kind and i alone, so that the folder can be made in pieces.
"""

import argparse
import json
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

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
    """Draw and write one picture, which holds its captions, unless it is there → its row of metadata.jsonl."""
    kind, index, seed, side, directory = job
    name = f"{kind}/{index:05}.png"
    path = directory / name
    if not path.exists():
        picture, captions = draw(kind, index, seed=seed, side=side)
        path.parent.mkdir(exist_ok=True)
        texts = PngImagePlugin.PngInfo()
        texts.add_text("captions", json.dumps(captions))
        picture.save(path.with_suffix(".part"), "PNG", pnginfo=texts)
        path.with_suffix(".part").replace(path)
    with Image.open(path) as written:
        return json.dumps({"file_name": name, "text": json.loads(written.info["captions"])})


def make(
    directory: Path, counts: dict[str, int], *, side: int, seed: int, processes: int, png: Path, svg: Path,
) -> None:
    """Draw so many pictures of each kind, and write metadata.jsonl last. Those that are there are not drawn again."""
    directory.mkdir(parents=True, exist_ok=True)
    jobs = [(kind, index, seed, side, directory) for kind, count in counts.items() for index in range(count)]
    with Pool(processes, _start, (png, svg)) as pool:
        rows = pool.map(_write, jobs, chunksize=20)
    (directory / "metadata.jsonl").write_text("".join(row + "\n" for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--png", type=Path, default=PNG, help="pictures of openclipart-png")
    parser.add_argument("--svg", type=Path, default=SVG, help="drawings of openclipart-svg, which hold the captions")
    options = parser.parse_args()
    make(
        options.directory, COUNTS, side=options.side, seed=options.seed, processes=options.processes, png=options.png,
        svg=options.svg,
    )


if __name__ == "__main__":
    main()
