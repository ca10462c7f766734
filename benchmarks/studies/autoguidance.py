"""Is an early snapshot of a run a better guide than the empty caption? (Karras et al. 2024, "a bad version of itself")

Draws captions of demo scenes, guided by the null caption and by the snapshot, at several scales; `judges` say how well.

    python -m benchmarks.studies.autoguidance demo32 early.safetensors --scales 1.5 2 3 --count 512

A model without captions is not guided but by a snapshot; what is seen in its pictures then means nothing.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.judging.judges import judge_of, said, wanted
from diffuse_cli import __version__
from diffuse_cli.config import Sampling
from diffuse_cli.diffusion.guidance import classifier_free, within_range
from diffuse_cli.diffusion.samplers import Denoised, Denoiser, run_sampler
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.pictures import pixels
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling.generate import encode_prompts, guided_denoiser
from diffuse_cli.sampling.steps import sampling_times_of
from diffuse_cli.storage import checkpoint, registry


def guided(model: checkpoint.Model, guide: checkpoint.Model | None, prompts: list[str], sampling: Sampling) -> Denoiser:
    """The model guided by its own empty caption, or by another model that is told the same prompts."""
    schedule = make_schedule(model.config.schedule, model.config.network.resolution)
    text, null = encode_prompts(model, prompts)
    if guide is None:
        return guided_denoiser(model.network, model.config, schedule, text=text, null=null, sampling=sampling)
    alone = dataclasses.replace(sampling, guidance=1.0)
    strong = guided_denoiser(model.network, model.config, schedule, text=text, null=null, sampling=alone)
    weak = guided_denoiser(guide.network, guide.config, schedule, sampling=alone,
                           **dict(zip(("text", "null"), encode_prompts(guide, prompts), strict=True)))

    def both(noisy: Tensor, t: float) -> tuple[Denoised, Denoised]:
        return strong(noisy, t), weak(noisy, t)

    return classifier_free(strong, both, schedule=schedule, scale=sampling.guidance,
                           interval=sampling.interval_at(model.config.network.resolution))


def draw(model: checkpoint.Model, guide: checkpoint.Model | None, prompts: list[str], sampling: Sampling) -> np.ndarray:
    """One picture of each prompt, picture k with seed k."""
    network, size = model.config.network, sampling.batch_size
    schedule, made = make_schedule(model.config.schedule, network.resolution), []
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        seeds = range(start, start + len(part))

        def noise(step: int, seeds: range = seeds) -> Tensor:
            keys = torch.tensor([randomness.key(seed, "sample", step) for seed in seeds])
            return randomness.normal(keys, (network.channels, network.resolution, network.resolution))

        *_, last = run_sampler(sampling.sampler, within_range(guided(model, guide, part, sampling)), noise(-1),
                               sampling_times_of(model.config, sampling), schedule, fresh_noise=noise)
        made.append(pixels.to_pixels(last.noisy))
    return np.concatenate(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("guides", nargs="+", help="models to guide with")
    parser.add_argument("--data", choices=["scenes", "digits"], default="scenes", help="that they learnt")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.5, 2.0, 3.0])
    parser.add_argument("--intervals", choices=["default", "all"], nargs="+", default=["default"])
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--classifier", type=Path, help="keep the classifier in this .safetensors file")
    parser.add_argument("--quick", action="store_true", help="a judge that learnt less")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    cpu = torch.device("cpu")
    model = checkpoint.load_model(registry.resolve(options.model), cpu)
    guides = {"null caption": None} if model.tokenizer else {}
    guides |= {name: checkpoint.load_model(registry.resolve(name), cpu) for name in options.guides}
    resolution = model.config.network.resolution
    judge, floor = judge_of(options.data, options.count, quick=options.quick, resolution=resolution,
                            kept=options.classifier)
    asked = wanted(options.data, options.count)
    results = [said("real scenes", floor)]
    runs = [("none", None, 1.0, "default")] + [
        (name, guide, scale, interval) for interval in options.intervals for name, guide in guides.items()
        for scale in options.scales]
    for name, guide, scale, interval in runs:
        sampling = Sampling(guidance=scale, batch_size=32,
                            guidance_interval=None if interval == "default" else (0.0, 1e9))
        found = judge.ask(dataclasses.replace(asked, pixels=draw(model, guide, asked.captions, sampling)))
        results.append(said(f"{Path(name).stem}, scale {scale:g}, {interval}", {
            "guide": name, "scale": scale, "interval": interval, **found}))
    if options.json:
        options.json.write_text(json.dumps({
            "date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__,
            "model": model.sha256, "step": model.training.get("step"), "count": options.count, "results": results,
            "guides": {name: guide.training.get("step") for name, guide in guides.items() if guide}}, indent=2) + "\n")


if __name__ == "__main__":
    main()
