"""Opens an exported folder with diffusers alone and generates pictures. It runs where diffuse-cli is not installed.

    python open_folder.py FOLDER OUT.npz STEPS SEED GUIDANCE

Writes the pictures (N, R, R, 3) and the scheduler's time steps. The noise comes from a generator with the seed.
"""

import importlib.util
import sys

import diffusers
import numpy as np
import torch

PROMPTS = ["a big red car", "small blue fish"]
GUIDANCE = 3.0


def small_pictures() -> torch.Tensor:
    """One for each prompt, for an upscaler. (2, 3, 8, 8) in [-1, 1]"""
    return torch.sin(torch.arange(2 * 3 * 8 * 8).float()).reshape(2, 3, 8, 8)


def main(folder: str, out: str, steps: int, seed: int, guidance: float) -> None:
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert not getattr(pipeline, "custom_code", None)
    conditional = hasattr(pipeline, "tokenizer")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    if hasattr(pipeline, "image_noising_scheduler"):
        output = pipeline(prompt=PROMPTS, image=small_pictures(), num_inference_steps=steps, guidance_scale=guidance,
                          generator=generator, clean_caption=False)
    elif conditional:
        output = pipeline(prompt=PROMPTS, num_inference_steps=steps, guidance_scale=guidance, generator=generator,
                          clean_caption=False)
        for auto in (diffusers.AutoPipelineForText2Image, diffusers.AutoPipelineForImage2Image,
                     diffusers.AutoPipelineForInpainting):
            assert type(auto.from_pretrained(folder, local_files_only=True)).__name__.startswith("IF")
    else:
        output = pipeline(batch_size=len(PROMPTS), num_inference_steps=steps, generator=generator)
    np.savez(out, pictures=np.stack([np.asarray(image) for image in output.images]),
             timesteps=pipeline.scheduler.timesteps.numpy(), scheduler=type(pipeline.scheduler).__name__)


if __name__ == "__main__":
    assert importlib.util.find_spec("diffuse_cli") is None, "diffuse-cli must not be installed here"
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
