"""Makes a foundation: material, words, one training, its evaluation, one file in half precision and its card.

It may be interrupted at any point; the same command resumes. It needs Debian's packages openclipart-png and
wordnet-base, and openclipart-svg, which may also be unpacked elsewhere.

    python -m benchmarks.foundation.make work --preset nano --resolution 32 --steps 8000
    python -m benchmarks.foundation.make work --preset nano --resolution 64 --steps 9500

A foundation of 64 px begins with the inner levels of that of 32 px, if this was made before.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.demo_model import MODELS, ROOT, diffuse, thinned

LEARNING_RATE, BATCH = 4e-3, 16


MATERIAL = (
    ("drawings", "clip art of Debian's openclipart-png whose own SVG says so, on plain grounds and textures, alone and "
     "in pairs", "public domain"),
    ("solids", "things drawn by ray marching, with sun, sky, shadows and haze (`benchmarks/foundation/solids.py`)",
     "Apache 2.0"),
    ("scenes", "the demo scenes of `diffuse data demo`", "Apache 2.0"),
    ("textures", "noise as stone, wood, cloth, clouds (`benchmarks/foundation/textures.py`)", "Apache 2.0"),
    ("words", "definitions of WordNet 3.0, on which the vectors of words were trained",
     "WordNet licence, © Princeton University"))


def card(name: str, plan: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """The text of the model card, from the plan of the training and its measurements."""
    loss, bound = evaluation["noise_mse"], evaluation["bits_per_dim"]["bound"]
    side = plan["model"]["network"]["resolution"]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in MATERIAL)
    return f"""# {name}: a start for trainings of {plan['preset']} at {side} × {side} pixels

A text-conditional pixel-space diffusion model in half precision, made by `python -m benchmarks.foundation.make` on
{time.strftime('%Y-%m-%d')}: {plan['train_images'] + plan['validation_images']:,} pictures,
{plan['steps']:,} steps of {plan['batch_size']}, seed {plan['seed']}. Its purpose is to be trained further on other
pictures; what it draws itself is rough. Apache 2.0.

| material | what | licence |
|---|---|---|
{rows}

Noise loss on held-out pictures of this material: {loss['value']:.4f} ± {loss['standard_error']:.4f}. Bits/dim, bound:
{bound['value']:.3f} ± {bound['standard_error']:.3f}. {evaluation['memorisation']['sentence'].capitalize()}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="directory for the material, the training and the figures")
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--svg", type=Path, default=Path("/usr/share/openclipart/svg"))
    options = parser.parse_args()
    work: Path = options.work.absolute()
    (work / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
    material, words = work / "material", work / "words"
    shape = f"{options.preset}-{options.resolution}"
    run = work / "home" / "models" / f"general-{shape}"

    def module(name: str, *arguments: Path | str) -> None:
        command = [sys.executable, "-m", f"benchmarks.foundation.{name}", *map(str, arguments)]
        subprocess.run(command, check=True, cwd=ROOT)

    if not (material / "metadata.jsonl").exists():
        module("material", material, "--svg", options.svg)
    if not (words / "micro-64.safetensors").exists():                  # the last that is written
        module("words", material, words)
    init = words / f"{shape}.safetensors"
    small = run.with_name(f"general-{options.preset}-{options.resolution // 2}") / "model.safetensors"
    if small.exists():
        init = words / f"grown-{shape}.safetensors"
        if not init.exists():
            module("grow", small, words / f"{shape}.safetensors", init)
    diffuse(work, "train", material, "--name", run.name, "--init", init, "--lr",
            str(LEARNING_RATE), "--steps", str(options.steps), "--batch-size", str(BATCH))
    name = f"foundation-{shape}"
    diffuse(work, "export", run.name, "--to", "safetensors", "--precision", "fp16",
            "-o", MODELS / f"{name}.safetensors", "--force")
    measured = work / f"{shape}.evaluation.json"
    if not measured.exists():
        diffuse(work, "evaluate", run.name, "--images", "128", "-n", "128", "--json", into=measured)
    plan, evaluation = json.loads((run / "config.json").read_text())["plan"], json.loads(measured.read_text())
    (MODELS / f"{name}.training.jsonl").write_text(thinned(run / "events.jsonl"))
    (MODELS / f"{name}.md").write_text(card(name, plan, evaluation))


if __name__ == "__main__":
    main()
