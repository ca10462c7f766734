"""Is an early snapshot of a run a better guide than the empty caption?

Karras et al. 2024, "Guiding a Diffusion Model with a Bad Version of Itself". Captions of demo scenes are sampled with
both guides at several scales, and a judge scores the pictures.

    python -m benchmarks.studies.autoguidance demo32 early.safetensors --scales 1.5 2 3 --count 512

A model without captions is guided by snapshots alone, and the judge's colours and objects mean nothing for it.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.judging.judges import labelled_prompts, make_judge, print_result
from diffuse_cli import __version__
from diffuse_cli.config import Sampling
from diffuse_cli.diffusion.guidance import classifier_free, within_range
from diffuse_cli.diffusion.samplers import Denoised, Denoiser, run_sampler
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.pictures import pixels
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling.generate import encode_prompts
from diffuse_cli.sampling.guided import guided_denoiser
from diffuse_cli.sampling.steps import sampling_times_of
from diffuse_cli.storage import checkpoint, registry

ALL_LEVELS = (0.0, 1e9)                         # guidance interval, as sigma/alpha: guidance at every step


def guided_by(
    model: checkpoint.Model, guide: checkpoint.Model | None, prompts: list[str], sampling: Sampling
) -> Denoiser:
    """The model's denoiser, guided away from another model with the same prompts; None: from the empty caption."""
    schedule = make_schedule(model.config.schedule, model.config.network.schedule_side)
    text, null = encode_prompts(model, prompts)
    if guide is None:
        return guided_denoiser(model.network, model.config, schedule, text=text, negative=null, sampling=sampling)
    unguided = dataclasses.replace(sampling, guidance=1.0)
    guide_text, guide_null = encode_prompts(guide, prompts)
    strong = guided_denoiser(model.network, model.config, schedule, text=text, negative=null, sampling=unguided)
    weak = guided_denoiser(
        guide.network, guide.config, schedule, text=guide_text, negative=guide_null, sampling=unguided)

    def both(noisy: Tensor, t: float) -> tuple[Denoised, Denoised]:
        return strong(noisy, t), weak(noisy, t)

    return classifier_free(strong, both, schedule=schedule, scale=sampling.guidance,
                           interval=sampling.interval_at(model.config.network.schedule_side))


def generate_pictures(
    model: checkpoint.Model, guide: checkpoint.Model | None, prompts: list[str], sampling: Sampling
) -> np.ndarray:
    """One picture of each prompt, picture k with seed k, (N, R, R, 3) uint8."""
    network, size = model.config.network, sampling.batch_size
    schedule, batches = make_schedule(model.config.schedule, network.schedule_side), []
    for start in range(0, len(prompts), size):
        part = prompts[start : start + size]
        seeds = range(start, start + len(part))

        def noise(step: int, seeds: range = seeds) -> Tensor:
            keys = torch.tensor([randomness.key(seed, "sample", step) for seed in seeds])
            return randomness.normal(keys, network.shape)

        *_, last = run_sampler(sampling.sampler, within_range(guided_by(model, guide, part, sampling)), noise(-1),
                               sampling_times_of(model.config, sampling), schedule, fresh_noise=noise)
        batches.append(pixels.to_pixels(last.noisy))
    return np.concatenate(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("guides", nargs="+", help="models to guide with")
    parser.add_argument("--data", choices=["scenes", "digits"], default="scenes", help="data that they were trained on")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.5, 2.0, 3.0], help="guidance scales")
    parser.add_argument("--intervals", choices=["default", "all"], nargs="+", default=["default"],
                        help="noise levels at which guidance acts")
    parser.add_argument("--count", type=int, default=512, help="pictures of each guide, scale and interval")
    parser.add_argument("--classifier", type=Path, help="keep the classifier in this .safetensors file")
    parser.add_argument("--quick", action="store_true", help="train the judge on fewer scenes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    cpu = torch.device("cpu")
    model = checkpoint.load_model(registry.resolve(options.model), cpu)
    guides: dict[str, checkpoint.Model | None] = {"null caption": None} if model.tokenizer else {}
    guides |= {name: checkpoint.load_model(registry.resolve(name), cpu) for name in options.guides}
    judge, floor = make_judge(options.data, options.count, quick=options.quick, file=options.classifier,
                              resolution=model.config.network.resolution.width)
    prompts = labelled_prompts(options.data, options.count)
    results = [print_result("real scenes", floor)]
    runs = [("none", None, 1.0, "default")] + [
        (name, guide, scale, interval) for interval in options.intervals for name, guide in guides.items()
        for scale in options.scales]
    for name, guide, scale, interval in runs:
        sampling = Sampling(guidance=scale, batch_size=32,
                            guidance_interval=None if interval == "default" else ALL_LEVELS)
        images = generate_pictures(model, guide, prompts.captions, sampling)
        results.append(print_result(f"{Path(name).stem}, scale {scale:g}, {interval}", {
            "guide": name, "scale": scale, "interval": interval,
            **judge.score(dataclasses.replace(prompts, pixels=images))}))
    if options.json:
        options.json.write_text(json.dumps({
            "date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__,
            "model": model.sha256, "step": model.training.step, "count": options.count, "results": results,
            "guides": {name: guide.training.step for name, guide in guides.items() if guide}}, indent=2) + "\n")


if __name__ == "__main__":
    main()
