"""Does a model of several sizes learn as fast as one of squares?

    python -m benchmarks.studies.buckets [FOLDER] [--resolution N] [--steps N] [--seeds N ...] [--out DIR]

FOLDER holds pictures of mixed shapes; by default those of Debian's package tuxpaint-stamps-default. A tenth of them, by
their names, is held out. For each seed two models are trained on the others, with equal options but for `--fit pad` and
`--fit buckets`. Both are measured on the held-out pictures whose bucket is the square: these have the same pixels for
both models, and get the same noise. Pictures of every size of the last model are drawn.
"""

import argparse
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from diffuse_cli import api
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.dataset import decode_pictures
from diffuse_cli.data.listing import Dataset
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.evaluation.noise_curve import noise_curve
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures import image_files
from diffuse_cli.pictures.pixels import from_pixels
from diffuse_cli.pictures.sheets import grid
from diffuse_cli.storage import home_directory

STAMPS = Path("/usr/share/tuxpaint/stamps")
FITS = ("pad", "buckets")
HELD_OUT = "test"                               # the folder of pictures that are held out
DRAWN = 8                                       # pictures of each size


def parted(folder: Path, target: Path) -> None:
    """Links to all pictures, and to the texts beside them, in a folder to train on and another one to hold out."""
    for path in sorted(folder.rglob("*.png")):
        name = path.relative_to(folder).as_posix()
        part = HELD_OUT if int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10 == 0 else "train"
        for file in (path, path.with_suffix(".txt")):
            if file.exists():
                link = target / part / file.relative_to(folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(file)


def decoded(folder: Path, sizes: tuple[Size, ...], fit: str) -> Dataset:
    """The pictures in a folder."""
    steps = decode_pictures(find_pictures(folder), resolution=sizes, directory=home_directory.cache_directory(),
                            rendering=Rendering(fit=fit))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value                    # type: ignore[no-any-return]


def noise_loss(loaded: api.LoadedModel, dataset: Dataset, positions: np.ndarray) -> float:
    """The mean squared error of the noise on these pictures, which have one size, with their first captions."""
    model = loaded.model
    captions = [next(iter(dataset.captions[position]), "") for position in positions.tolist()]
    curve = noise_curve(
        model.network, config=model.config, images=from_pixels(dataset.pixels(positions)),
        schedule=make_schedule(model.config.schedule, model.config.network.schedule_side),
        tokens=None if model.tokenizer is None else encode(model.tokenizer, captions),
        device=torch.device("cpu"), micro_batch=32, precision="fp32")
    return sum(curve) / len(curve)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", type=Path, default=STAMPS)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="a new directory for models and drawn pictures")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="buckets-"))
    out.mkdir(exist_ok=True)
    os.environ["DIFFUSE_HOME"] = str(out / "home")
    parted(options.folder, out / "pictures")
    square = Size(options.resolution, options.resolution)
    losses: dict[str, list[float]] = {fit: [] for fit in FITS}
    for seed in options.seeds:
        for fit in FITS:
            list(api.train(out / "pictures", name=f"{fit}-{seed}", fit=fit, resolution=options.resolution,
                           steps=options.steps, seed=seed, held_out=HELD_OUT, preset="nano", init="none", batch_size=16,
                           device="cpu", preview_every="100%"))
        loaded = api.load(f"buckets-{seed}", device="cpu")
        buckets = decoded(out / "pictures" / HELD_OUT, loaded.sizes, "buckets")
        squares = decoded(out / "pictures" / HELD_OUT, (square,), "pad")
        positions = buckets.by_size(np.arange(len(buckets.names)))[loaded.sizes.index(square)]
        positions = positions[(squares.pixels(positions) == buckets.pixels(positions)).all((1, 2, 3))]
        for fit in FITS:
            losses[fit].append(noise_loss(api.load(f"{fit}-{seed}", device="cpu"), squares, positions))
        print(f"seed {seed}: " + ", ".join(f"{fit} {of_fit[-1]:.4f}" for fit, of_fit in losses.items())
              + f"; {len(positions)} of {len(buckets.names)} held-out pictures", flush=True)
    print(f"\n| fit | noise loss on squares, {options.steps} steps, seeds {options.seeds} | mean |\n|---|---|---|")
    for fit, of_fit in losses.items():
        print(f"| {fit} | {', '.join(f'{loss:.4f}' for loss in of_fit)} | {np.mean(of_fit):.4f} |")
    prompts = list(dict.fromkeys(texts[0] for texts in buckets.captions if texts))[:DRAWN]
    for size in loaded.sizes:
        drawn = [loaded.sample(prompt, seed=0, size=size)[0] for prompt in prompts]
        path = out / f"drawn-{size}.png"
        path.write_bytes(image_files.encode(grid(np.stack([np.asarray(picture) for picture in drawn]))))
        print(path)


if __name__ == "__main__":
    main()
