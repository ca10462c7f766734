"""The model that comes with the program: drawn data, one training, its evaluation, one file of half precision.

Interrupt it at any point; the same command goes on. What is left beside the model is the log of its training, its
evaluation, what a classifier saw, and its card. Prompts are put to the file of half precision, as it comes with the
program.

    python -m benchmarks.demo_model work
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "src" / "diffuse_cli" / "models"
NAME = "demo-64"                                # in the making: `demo` itself is reserved
PICTURES, RESOLUTION, STEPS, BATCH, SEED = 20_000, 64, 20_000, 16, 0
KEPT_EVENTS, PATHS = ("started", "validated", "finished"), ("directory", "path")


def diffuse(work: Path, *arguments: str | Path, into: Path | None = None) -> None:
    """Run one command, with everything that it keeps inside `work`; its stdout goes to the screen, or to a file."""
    print("$ diffuse", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "diffuse_cli", *map(str, arguments)], check=True, text=True,
        stdout=None if into is None else subprocess.PIPE, env={**os.environ, "DIFFUSE_HOME": str(work / "home")})
    if into is not None:                                               # only what came to its end
        into.write_text(done.stdout)


def thinned(log: Path) -> str:
    """What is kept of a training's events: how each piece of it began, every validation, how it ended. No paths."""
    kept: list[dict[str, Any]] = []
    for event in map(json.loads, log.read_text().splitlines()):
        if event["event"] == "finished" and kept[-1]["event"] == "started" and kept[-1]["step"] == event["step"]:
            kept.pop()                                                 # nothing was left to do
        elif event["event"] in KEPT_EVENTS:
            kept.append({key: value for key, value in event.items() if key not in PATHS})
    return "".join(json.dumps(event) + "\n" for event in kept)


def card(training: dict[str, object], evaluation: dict[str, dict], accuracy: dict[str, list[dict]]) -> str:
    """The model card, from what was measured."""
    asked = "\n".join(
        f"| {found['pairs']} | {found.get('count', 2000):,} | {100 * found['colour']:.1f} % | "
        f"{100 * found['object']:.1f} % |" for found in accuracy["results"])
    loss, bound = evaluation["noise_mse"], evaluation["bits_per_dim"]["bound"]
    return f"""# demo: the model that comes with diffuse-cli

A text-conditional pixel-space diffusion model of {RESOLUTION} × {RESOLUTION} pixels, in half precision, made by
`python -m benchmarks.demo_model` on {time.strftime('%Y-%m-%d')}: {PICTURES:,} drawn scenes (`diffuse data demo`),
{training['step'] * training['batch_size']:,} pictures seen, {training['step']:,} steps of {training['batch_size']},
seed {SEED}. It knows these scenes alone; `diffuse models show demo` lists its words. It is there to try the program
with. Apache 2.0, like the program that drew its data.

Noise loss on pictures held out: {loss['value']:.4f} ± {loss['standard_error']:.4f}. Bits/dim, bound:
{bound['value']:.3f} ± {bound['standard_error']:.3f}. {evaluation['memorisation']['sentence'].capitalize()}.
demo.evaluation.json has the rest, of the same weights in full precision. demo.training.jsonl is the log of the
training: where it was interrupted, what a longer budget began from, its validations (at eight levels of noise, a
coarser mean).

What a classifier trained on other scenes sees in pictures drawn at default settings, one for each prompt such as
"a red car":

| pairs of colour and object | pictures | colour | object |
|---|---|---|---|
{asked}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a directory for data, training and figures")
    parser.add_argument("--count", type=int, default=1_000, help="pictures that the classifier looks at")
    options = parser.parse_args()
    work: Path = options.work.absolute()
    (work / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
    scenes, run = work / "scenes", work / "home" / "models" / NAME
    measured, figures = work / "evaluation.json", work / "accuracy.json"
    if not (scenes / "metadata.jsonl").exists():
        diffuse(work, "data", "demo", scenes, "-n", str(PICTURES), "--resolution", str(RESOLUTION), "-s", str(SEED))
    diffuse(work, "train", scenes, "--name", NAME, "--resolution", str(RESOLUTION), "--preset", "nano",
            "--steps", str(STEPS), "--batch-size", str(BATCH), "--seed", str(SEED))
    PLACE.mkdir(exist_ok=True)
    model = PLACE / "demo.safetensors"
    diffuse(work, "export", NAME, "--to", "safetensors", "--precision", "fp16", "-o", model, "--force")
    if not measured.exists():
        diffuse(work, "evaluate", NAME, "--json", into=measured)
    if not figures.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.studies.prompt_accuracy", model, "--count",
                        str(options.count), "--classifier", work / "classifier.safetensors", "--json", figures,
                        "--sheet", work / "sheet.png"], check=True, cwd=ROOT)
    accuracy, evaluation = json.loads(figures.read_text()), json.loads(measured.read_text())
    (PLACE / "demo.training.jsonl").write_text(thinned(run / "events.jsonl"))
    (PLACE / "demo.evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    (PLACE / "demo.accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
    (PLACE / "demo.md").write_text(card(accuracy["model"], evaluation, accuracy))


if __name__ == "__main__":
    main()
