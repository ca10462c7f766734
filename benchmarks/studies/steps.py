"""Are few steps enough? The same model and prompts are sampled in several ways, and a judge scores the pictures.

The usual way of a pipeline, 50 DDIM steps guided at every step, stands beside the program's own, and the even grid of
many steps beside the levels of few. A distilled model has one way, its own. The judge measures how far the pictures are
from real ones, and whether they show what the prompts ask for.

    python -m benchmarks.studies.steps demo --count 512 --classifier classifier.safetensors
    python -m benchmarks.studies.steps demo-4-steps --count 512 --classifier classifier.safetensors
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from benchmarks.judging.judges import labelled_prompts, make_judge, print_result
from diffuse_cli import __version__
from diffuse_cli.config import SAMPLERS, Sampling
from diffuse_cli.diffusion import sampling_times
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint, registry

FEW = (1, 2, 3, 4, 6, 8, 10)
EVEN = ", even grid"                            # ending of the ways that take the grid of many steps
ALL_LEVELS = (0.0, 1e9)                         # guidance interval, as sigma/alpha: guidance at every step
WAYS = {
    **{f"{steps} steps{grid}": Sampling(steps=steps) for steps in FEW for grid in ("", EVEN)},
    **{f"{steps} DDIM steps{grid}": Sampling(sampler="ddim", steps=steps) for steps in FEW for grid in ("", EVEN)},
    **{f"{steps} steps": Sampling(steps=steps) for steps in (12, 14, 16, 20, 25, 50)},
    "20 steps, guided throughout": Sampling(guidance_interval=ALL_LEVELS),
    "20 DDIM steps": Sampling(sampler="ddim", steps=20),
    "50 DDIM steps, guided throughout": Sampling(sampler="ddim", steps=50, guidance_interval=ALL_LEVELS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS,
                        help="instead of --ways: few steps of these, on both grids, and 20")
    parser.add_argument("--count", type=int, default=512, help="pictures of each way")
    parser.add_argument("--classifier", type=Path, help="keep the classifier in this .safetensors file")
    parser.add_argument("--quick", action="store_true", help="train the judge on fewer scenes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    model = checkpoint.load_model(registry.resolve(options.model), torch.device("cpu"))
    judge, floor = make_judge("scenes", options.count, quick=options.quick, file=options.classifier,
                              resolution=model.config.network.resolution.width)
    prompts = labelled_prompts("scenes", options.count)
    results = [print_result("real scenes", floor)]
    ways = {name: WAYS[name] for name in options.ways}
    if options.samplers:
        ways = {f"{steps} steps of {sampler}{grid}": Sampling(sampler=sampler, steps=steps)
                for sampler in options.samplers for steps in (*FEW, 20) for grid in (EVEN, "")[steps == 20 :]}
    if model.config.student is not None:
        ways = {"as distilled": Sampling.of(model.config)}
    for name in ways:
        sampling = dataclasses.replace(ways[name], batch_size=32)
        requests = [SampleRequest(prompt=prompt, seed=seed, sampling=sampling)
                    for seed, prompt in enumerate(prompts.captions)]
        begun = time.process_time()
        few = 0 if name.endswith(EVEN) else sampling_times.FEW_STEPS
        with mock.patch.object(sampling_times, "FEW_STEPS", few):
            pixels = np.stack([sample.pixels for sample in generate.generate(model, requests)])
        cost = (time.process_time() - begun) / options.count
        score = judge.score(dataclasses.replace(prompts, pixels=pixels))
        results.append(print_result(name, {"cpu_seconds": cost, **score}))
    if options.json:
        options.json.write_text(json.dumps({
            "date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__,
            "sha256": model.sha256, "count": options.count, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
