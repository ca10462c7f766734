"""Are few steps enough? The same model and prompts, drawn as it comes and as a pipeline usually does: 50 DDIM steps,
guided at every one. `judges` say how far the pictures are from real ones, and what they show.

    python -m benchmarks.studies.steps demo --count 512 --classifier classifier.safetensors
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.judging.judges import judge_of, said, wanted
from diffuse_cli import __version__
from diffuse_cli.config import Sampling
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint, registry

EVERYWHERE = (0.0, 1e9)
WAYS = {
    **{f"{steps} steps": Sampling(steps=steps) for steps in (8, 10, 12, 14, 16, 20, 25, 50)},
    "20 steps, guided throughout": Sampling(guidance_interval=EVERYWHERE),
    "20 DDIM steps": Sampling(sampler="ddim", steps=20),
    "50 DDIM steps, guided throughout": Sampling(sampler="ddim", steps=50, guidance_interval=EVERYWHERE),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--classifier", type=Path, help="keep the classifier in this .safetensors file")
    parser.add_argument("--quick", action="store_true", help="a judge that learnt less")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    model = checkpoint.load_model(registry.resolve(options.model), torch.device("cpu"))
    judge, floor = judge_of("scenes", options.count, quick=options.quick, kept=options.classifier,
                            resolution=model.config.network.resolution)
    asked = wanted("scenes", options.count)
    results = [said("real scenes", floor)]
    for name in options.ways:
        sampling = dataclasses.replace(WAYS[name], batch_size=32)
        every = [SampleRequest(prompt=prompt, seed=seed, sampling=sampling)
                 for seed, prompt in enumerate(asked.captions)]
        begun = time.process_time()
        pixels = np.stack([one.pixels for one in generate.generate(model, every)])
        cost = (time.process_time() - begun) / options.count
        results.append(said(name, {"cpu_seconds": cost, **judge.ask(dataclasses.replace(asked, pixels=pixels))}))
    if options.json:
        options.json.write_text(json.dumps({
            "date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__,
            "sha256": model.sha256, "count": options.count, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
