"""Makes the upscaler that comes with the program: 256 px material, one training, one file in half precision, its card.

It goes on from the upscaler that comes with the program, if there is one. It may be interrupted at any point; the same
command resumes. It needs Debian's packages openclipart-png and openclipart-svg, which may also be unpacked elsewhere.

    python -m benchmarks.foundation.upscaler work --steps 4200
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.demo_model import MODELS, diffuse, thinned

from .make import MATERIAL
from .material import PNG, SVG, make

FIRST, FACTOR, SIDE, SEED = "foundation-nano-64", 4, 256, 256          # whose words it has, and what it draws
NAME = f"upscaler-x{FACTOR}"
RUN = f"general-{NAME}"                         # the name of the run: that of the file is reserved
COUNTS = {"drawing": 2_500, "drawings": 500, "solid": 90, "scene": 2_500, "texture": 410}
LEARNING_RATE = 2e-3
# How the file that the training goes on from was trained; to be continued by whoever runs this again.
EARLIER = """10,000 steps of 16 crops of
64 px, 1,200 more with less noise on small pictures, and 600 with one whole picture each"""


def card(plan: dict[str, Any], noise_loss: float) -> str:
    """The text of the model card, from the plan of the training and its last validation."""
    rows = "\n".join(f"| {' | '.join(row)} |" for row in MATERIAL)
    crop = plan["model"]["network"]["resolution"]
    return f"""# {NAME}: makes pictures {FACTOR} times as large

A text-conditional diffusion model in half precision that enlarges a small picture, made by
`python -m benchmarks.foundation.upscaler` on {time.strftime('%Y-%m-%d')}: crops of {crop} × {crop} pixels of
{plan['train_images'] + plan['validation_images']:,} pictures of {SIDE} × {SIDE}, {plan['steps']:,} steps of
{plan['batch_size']}, seed {plan['seed']}. Before that, it was trained on the same pictures for {EARLIER}. Apache 2.0.

| material | what | licence |
|---|---|---|
{rows}

Noise loss on held-out crops of this material: {noise_loss:.4f}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="directory for the material, the training and the figures")
    parser.add_argument("--steps", type=int, default=4_200)
    parser.add_argument("--processes", type=int, default=2, help="that draw the material")
    parser.add_argument("--png", type=Path, default=PNG, help="pictures of openclipart-png")
    parser.add_argument("--svg", type=Path, default=SVG, help="drawings of openclipart-svg, which hold the captions")
    options = parser.parse_args()
    work: Path = options.work.absolute()
    (work / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
    material, run = work / f"material-{SIDE}", work / "home" / "models" / RUN
    if not (material / "metadata.jsonl").exists():
        make(material, COUNTS, side=SIDE, seed=SEED, processes=options.processes, png=options.png, svg=options.svg)
    diffuse(work, "train", material, "--upscaler-for", FIRST, "--factor", str(FACTOR), "--name", RUN, "--steps",
            str(options.steps), "--lr", str(LEARNING_RATE))
    diffuse(work, "export", RUN, "--to", "safetensors", "--precision", "fp16", "-o", MODELS / f"{NAME}.safetensors",
            "--force")
    losses = [event["noise_mse"] for event in map(json.loads, (run / "events.jsonl").read_text().splitlines())
              if event["event"] == "validated"]
    (MODELS / f"{NAME}.training.jsonl").write_text(thinned(run / "events.jsonl"))
    (MODELS / f"{NAME}.md").write_text(card(json.loads((run / "config.json").read_text())["plan"], losses[-1]))


if __name__ == "__main__":
    main()
