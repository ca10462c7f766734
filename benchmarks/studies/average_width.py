"""How wide should the average of the weights be? One training keeps averages of several widths, and all are judged.

So they are compared on the same weights. On demo scenes a judge scores pictures of each; any other folder is judged by
the noise loss of its held-out pictures alone.

    python -m benchmarks.studies.average_width scenes --steps 840 --resolution 32
    python -m benchmarks.studies.average_width /usr/share/tuxpaint/stamps --steps 400 --resolution 64 --init auto
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.judging.judges import labelled_prompts, make_judge, print_result
from benchmarks.studies.recipe import generate_pictures
from diffuse_cli import train
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.network.network import Network
from diffuse_cli.storage import checkpoint, registry
from diffuse_cli.training import ema, loop, validation
from diffuse_cli.training.session import Session

GAMMAS = {"0.10": 6.94, "0.05": 16.97, "0.03": 30.61}       # relative width: exponent


def train_one(folder: Path, name: str, seed: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Train once. → for every width the held-out noise loss, and the averaged weights"""
    averages: dict[str, list[torch.Tensor]] = {}
    found: dict[str, dict[str, Any]] = {}
    update, measure = ema.update, validation.measure

    def update_all(average: list[torch.Tensor], network: Network, step: int, skip: torch.Tensor | None = None) -> None:
        for width, gamma in GAMMAS.items():
            own = averages.setdefault(width, [tensor.clone() for tensor in average])
            with mock.patch.object(ema, "GAMMA", gamma):
                update(own, network, step, skip)
        update(average, network, step, skip)

    def measure_all(session: Session) -> Any:
        if session.trainer.global_step == session.plan.steps:
            state = session.trainer.state
            for width, average in averages.items():
                with mock.patch.object(state, "averaged", state._network()):
                    for here, tensor in zip(state.averaged.parameters(), average, strict=True):
                        here.data.copy_(tensor)
                    found[width] = {"noise_mse": measure(session).noise_mse,
                                    "weights": {name: one.clone() for name, one in state.averaged.state_dict().items()}}
        return measure(session)

    with mock.patch.object(ema, "update", update_all), mock.patch.object(loop, "measure", measure_all):
        for _ in train(folder, name=name, resolution=options.resolution, steps=options.steps, seed=seed,
                       init=options.init, device="cpu", preview_every="100%", batch_size=16, fresh=True):
            pass
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="`scenes` for demo scenes")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--steps", type=int, default=840)
    parser.add_argument("--init", default="none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=512, help="pictures of each width that the judge scores")
    parser.add_argument("--work", type=Path, default=Path("average-width-work"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    work: Path = options.work.absolute()
    work.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["DIFFUSE_HOME"] = str(work / "home")
    judge, folder = None, Path(options.folder)
    if options.folder == "scenes":
        judge, _ = make_judge("scenes", options.count, quick=True, resolution=options.resolution,
                              file=work / f"classifier-{options.resolution}.safetensors")
        folder = work / f"scenes-{options.resolution}"
        if not folder.exists():
            list(scenes.write_demo_folder(folder, count=6_000, resolution=options.resolution, seed=0))
    results, prompts = [], labelled_prompts("scenes", options.count)
    for seed in options.seeds:
        name = f"{folder.name}-{options.resolution}-{options.init}-{seed}"
        for width, one in train_one(folder, name, seed, options).items():
            score = {"noise_mse": one["noise_mse"]}
            if judge is not None:
                model = checkpoint.load_model(registry.resolve(name), torch.device("cpu"))
                model.network.load_state_dict(one["weights"])
                images = generate_pictures(model, prompts.captions)
                score |= judge.score(dataclasses.replace(prompts, pixels=images))
            results.append(print_result(f"width {width}, seed {seed}", {"width": width, "seed": seed, **score}))
            (work / f"{folder.name}-{options.init}.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
