"""Do pictures show what the prompt asks for? A classifier looks at pictures of colours and objects of the demo data.

The classifier is trained here, on new scenes that no model was trained on (another seed, all pairs of colour and
object). Its accuracy on further scenes is the ceiling of the figures.

    python -m benchmarks.studies.prompt_accuracy demo32 --count 400 --sheet docs/pictures/demo32.png
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.judging.classifier import agreement, make_classifier, make_prompts
from diffuse_cli import __version__
from diffuse_cli.config import Sampling
from diffuse_cli.pictures import image_files, pixels, sheets
from diffuse_cli.sampling import generate
from diffuse_cli.storage import checkpoint, registry


def generate_pictures(model: checkpoint.Model, prompts: list[str], seed: int, sampling: Sampling) -> np.ndarray:
    """One picture of each prompt, picture k with seed + k, (N, R, R, 3) uint8."""
    text, null = generate.encode_prompts(model, prompts)
    assert text is not None
    batches: list[np.ndarray] = []
    for start in range(0, len(prompts), sampling.batch_size):
        part = text[start : start + sampling.batch_size]
        seeds = [seed + start + k for k in range(len(part))]
        *_, last = generate.reverse_diffusion(model.network, model.config, text=part, negative=null, seeds=seeds,
                                              sampling=sampling)
        batches.append(pixels.to_pixels(last.noisy))
    return np.concatenate(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=400, help="pictures of seen pairs, and as many of held-out pairs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first picture")
    parser.add_argument("--sampler", default="dpmpp-2m", help="a distilled model has a sampler, steps and guidance of "
                        "its own, and ignores these three")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--guidance", type=float, nargs="*", default=[Sampling.guidance], help="one or more scales")
    parser.add_argument("--classifier", type=Path, help="keep the classifier in this .safetensors file")
    parser.add_argument("--sheet", type=Path, help="write the first 64 pictures of seen pairs to this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    model = checkpoint.load_model(registry.resolve(options.model), torch.device("cpu"))
    begun = time.monotonic()
    classifier, ceiling = make_classifier(model.config.network.resolution.width, file=options.classifier)
    results = [{"pairs": "real scenes", **ceiling}]
    print(f"classifier ready after {time.monotonic() - begun:.0f} s: {results[0]}", flush=True)
    student = model.config.student
    for guidance in options.guidance if student is None else [student.guidance]:
        sampling = Sampling(sampler=options.sampler, steps=options.steps, guidance=guidance, batch_size=32) \
            if student is None else Sampling.of(model.config, batch_size=32)
        for pairs in ("seen", "held-out"):
            prompts, colours, objects = make_prompts(pairs, options.count)
            images = generate_pictures(model, prompts, options.seed, sampling)
            figures = agreement(classifier, pixels.from_pixels(images), colours, objects)
            results.append({"pairs": pairs, "guidance": guidance, "sampler": sampling.sampler,
                            "steps": sampling.number_of_steps, "count": options.count, **figures})
            print(results[-1], flush=True)
            if options.sheet and pairs == "seen":
                options.sheet.parent.mkdir(parents=True, exist_ok=True)
                options.sheet.write_bytes(image_files.encode(sheets.tile(images[:64])))
    report = {"date": time.strftime("%Y-%m-%d"), "model": model.training.to_json(),
              "sha256": model.sha256, "seed": options.seed,
              "version": __version__, "torch": torch.__version__, "machine": platform.machine(), "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
