"""What is the discriminator of a distillation worth? Students with and without it, in the same number of steps.

The teacher is the model `demo`, or another of the demo scenes; a judge scores the students' pictures.

    python -m benchmarks.studies.students demo --evaluations 1 2 4 --steps 300
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from unittest import mock

import torch

from benchmarks.judging.judges import labelled_prompts, make_judge, print_result
from benchmarks.studies.recipe import generate_pictures
from diffuse_cli import train
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.storage import checkpoint, registry
from diffuse_cli.training import plan


def distilled(folder: Path, weight: float, evaluations: int, options: argparse.Namespace) -> checkpoint.Model:
    """A student, taught with this weight of the discriminator unless that is done."""
    name = f"{Path(options.model).stem}-{evaluations}-{options.steps}-{weight}"
    with mock.patch.object(plan, "ADVERSARIAL", weight):
        for _ in train(folder, name=name, init=options.model, evaluations=evaluations, steps=options.steps,
                       batch_size=16, device="cpu", preview_every="100%"):
            pass
    return checkpoint.load_model(registry.resolve(name), torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the teacher")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, plan.ADVERSARIAL],
                        help="of the discriminator")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=4_000, help="scenes from which the students learn")
    parser.add_argument("--count", type=int, default=384, help="pictures of each student that the judge scores")
    parser.add_argument("--work", type=Path, default=Path("students-work"), help="directory that keeps everything")
    options = parser.parse_args()
    work: Path = options.work.absolute()
    (work / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["DIFFUSE_HOME"] = str(work / "home")
    side = checkpoint.load_model(registry.resolve(options.model), torch.device("cpu")).config.network.resolution.width
    folder = work / f"scenes-{options.pictures}"
    if not folder.exists():
        list(scenes.write_demo_folder(folder, count=options.pictures, resolution=side, seed=0))
    judge, floor = make_judge("scenes", options.count, quick=True, resolution=side,
                              file=work / f"classifier-{side}.safetensors")
    results, prompts = [print_result("real scenes", floor)], labelled_prompts("scenes", options.count)
    for evaluations in options.evaluations:
        for weight in options.weights:
            model = distilled(folder, weight, evaluations, options)
            pixels = generate_pictures(model, prompts.captions)
            results.append(print_result(f"{evaluations} evaluations, weight {weight}", {
                "evaluations": evaluations, "weight": weight,
                **judge.score(dataclasses.replace(prompts, pixels=pixels))}))
            (work / "results.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
