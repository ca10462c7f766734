"""In which of a student's steps is the variety of its teacher's pictures lost? Students and teacher draw turn by turn.

All pictures start from the same noise with the same captions. In each step of the student either the student estimates
the picture ("s"), or the teacher, which walks there in its small guided steps ("t"). The distances of `diffuse
evaluate` to real pictures are measured for every such mixture.

    diffuse data demo new-scenes -n 2000 --resolution 64 --seed 7
    python -m benchmarks.studies.segments demo-fast demo new-scenes --mixtures ssss ssst tttt
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.studies.transfer import decoded, result_of
from diffuse_cli.diffusion.samplers import Denoised, ddim
from diffuse_cli.diffusion.schedule import Schedule, make_schedule
from diffuse_cli.evaluation.distances import compare_with_floor
from diffuse_cli.evaluation.trained_features import open_features
from diffuse_cli.pictures.pixels import to_pixels
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling.generate import encode_prompts
from diffuse_cli.storage import checkpoint, home_directory, registry
from diffuse_cli.training.distillation import Condition, Segments, Teacher
from diffuse_cli.training.loss import Coefficients

BATCH = 32


@torch.no_grad()
def drawn(student: checkpoint.Model, teacher: checkpoint.Model, captions: list[str], mixture: str) -> np.ndarray:
    """Pictures of the captions, picture k from the noise of seed k. → (N, H, W, C) uint8

    mixture: who estimates in each of the student's steps, "s" or "t"
    """
    network = student.config.network
    schedule = make_schedule(student.config.schedule, network.schedule_side)
    segments = Segments(Teacher(teacher.network, None), student.config, schedule, "fp32")
    parts = []
    for start in range(0, len(captions), BATCH):
        of_batch = captions[start : start + BATCH]
        condition = Condition(*encode_prompts(teacher, of_batch))      # a student has its teacher's text encoder
        keys = torch.tensor([randomness.key(start + k, "sample", -1) for k in range(len(of_batch))])
        noisy = randomness.normal(keys, network.shape_of(network.resolution))

        for whose, (t, following) in zip(mixture, itertools.pairwise(segments.times), strict=True):
            if whose == "t":
                image = segments.targets(noisy, t, condition)
            else:
                at = Coefficients.of(schedule, torch.full((len(noisy),), t, dtype=torch.float64))
                image = segments.estimate(student.network, noisy, at, condition)
            noisy = step_to(image, noisy, t, following, schedule)
        parts.append(to_pixels(noisy))
    return np.concatenate(parts)


def step_to(image: Tensor, noisy: Tensor, t: float, s: float, schedule: Schedule) -> Tensor:
    """DDIM's step from t to s with this estimate of the images; all (N, C, H, W)."""
    (step,) = ddim(lambda noisy, t: Denoised(image), noisy, [t, s], schedule)
    return step.noisy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student")
    parser.add_argument("teacher")
    parser.add_argument("folder", type=Path, help="of real pictures with captions, which neither was trained on")
    parser.add_argument("--mixtures", nargs="+", help="one letter for each step of the student; "
                        "default: both alone, and each step by the other")
    parser.add_argument("--count", type=int, default=500, help="number of pictures")
    options = parser.parse_args()

    student, teacher = (checkpoint.load_model(registry.resolve(name), torch.device("cpu"))
                        for name in (options.student, options.teacher))
    if student.config.student is None:
        parser.error(f"{options.student} is no student")
    steps = student.config.student.evaluations
    alone = ["s" * steps, "t" * steps]
    by_other = [one[:k] + other[k] + one[k + 1 :] for one, other in (alone, alone[::-1]) for k in range(steps)]
    dataset = decoded(options.folder, student.config.network.resolution.width)
    positions = np.arange(len(dataset.names))
    features = result_of(open_features(
        dataset, positions, directory=home_directory.cache_directory(), device=torch.device("cpu")))
    real = features(dataset.pixels(positions))
    captions = [next(iter(dataset.captions[position]), "") for position in positions[: options.count].tolist()]
    for mixture in options.mixtures or dict.fromkeys([*alone, *by_other]):
        pixels = drawn(student, teacher, captions, mixture)
        distances = compare_with_floor(real, features(pixels)).drawn
        print(json.dumps({"mixture": mixture, **dataclasses.asdict(distances)}), flush=True)


if __name__ == "__main__":
    main()
