"""Makes the models `demo` and `demo-fast`: demo data, one training, one distillation, each one file in half precision.

It may be interrupted at any point; the same command resumes. Beside each model it writes the log of the training, the
evaluation, the figures of a classifier that looked at its pictures, and the model card. The classifier's pictures are
sampled from the file in half precision, which is the one that comes with the program.

    python -m benchmarks.demo_model work
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "src" / "diffuse_cli" / "models"
NAME = "demo-64"                                # of the run: the name `demo` is reserved
PICTURES, RESOLUTION, STEPS, BATCH, SEED = 20_000, 64, 20_000, 16, 0
FAST = "demo-4"                                 # of the student's run
FAST_PICTURES, FAST_STEPS = 4_000, 1_000        # the first of the same scenes, in a folder of their own
KEPT_EVENTS = ("started", "validated", "finished")                     # in the published log
PATHS = ("directory", "path")                                          # fields of events that it leaves out


def diffuse(work: Path, *arguments: str | Path, into: Path | None = None) -> None:
    """Run a `diffuse` command with its home inside `work`. into: the file for its stdout; None: the terminal."""
    print("$ diffuse", *arguments, file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "diffuse_cli", *map(str, arguments)], check=True, text=True,
        stdout=None if into is None else subprocess.PIPE, env={**os.environ, "DIFFUSE_HOME": str(work / "home")})
    if into is not None:                                               # only once the command has succeeded
        into.write_text(done.stdout)


def thinned(log: Path) -> str:
    """The published part of a run's events: the start of each session, every validation, and the end. No paths."""
    kept: list[dict[str, Any]] = []
    for event in map(json.loads, log.read_text().splitlines()):
        if event["event"] == "finished" and kept[-1]["event"] == "started" and kept[-1]["step"] == event["step"]:
            kept.pop()                                                 # nothing was left to do
        elif event["event"] in KEPT_EVENTS:
            kept.append({key: value for key, value in event.items() if key not in PATHS})
    return "".join(re.sub(r"(?<=[\" ])/[^\" ]*/", "", json.dumps(event)) + "\n" for event in kept)      # in facts, too


def accuracy_table(accuracy: dict[str, Any]) -> str:
    """What the classifier saw, in words and as a table."""
    rows = "\n".join(
        f"| {row['pairs']} | {row.get('count', 2000):,} | {100 * row['colour']:.1f} % | "
        f"{100 * row['object']:.1f} % |" for row in accuracy["results"])
    return f"""A classifier trained on other scenes looked at pictures sampled at default settings, one for each
prompt such as "a red car". It saw the right colour and the right object in these shares of them:

| pairs of colour and object | pictures | colour | object |
|---|---|---|---|
{rows}
"""


def card(evaluation: dict[str, dict[str, Any]], accuracy: dict[str, Any]) -> str:
    """The text of the model card of `demo`, from the measurements."""
    training, loss, bound = accuracy["model"], evaluation["noise_mse"], evaluation["bits_per_dim"]["bound"]
    return f"""# demo: the model that comes with diffuse-cli

A text-conditional pixel-space diffusion model of {RESOLUTION} × {RESOLUTION} pixels, in half precision, made by
`python -m benchmarks.demo_model` on {time.strftime('%Y-%m-%d')}: {PICTURES:,} demo scenes (`diffuse data demo`),
{training['step'] * training['batch_size']:,} pictures seen, {training['step']:,} steps of {training['batch_size']},
seed {SEED}. It knows only such scenes; `diffuse models show demo` lists its words. Its purpose is to try the program.
Apache 2.0, like the program that drew its data.

Noise loss on held-out pictures: {loss['value']:.4f} ± {loss['standard_error']:.4f}. Bits/dim, bound:
{bound['value']:.3f} ± {bound['standard_error']:.3f}. {evaluation['memorisation']['sentence'].capitalize()}.
demo.evaluation.json has all figures, of the same weights in full precision. demo.training.jsonl is the log of the
training: where it was interrupted, where a longer budget began, and its validations, whose mean is over only eight
noise levels.

{accuracy_table(accuracy)}"""


def card_of_student(evaluation: dict[str, dict[str, Any]], accuracy: dict[str, Any]) -> str:
    """The text of the model card of `demo-fast`, from the measurements."""
    training = accuracy["model"]
    return f"""# demo-fast: demo, distilled to 4 steps

The student of `demo`, in half precision: it samples in 4 evaluations of the same network, where `demo` takes 27. It
was made by `python -m benchmarks.demo_model` on {time.strftime('%Y-%m-%d')} with `diffuse distill`: {FAST_PICTURES:,}
of the scenes on which `demo` was trained, {training['steps']:,} steps of {training['batch_size']}, seed {SEED}, a
guidance of 3 built in. Apache 2.0, like its teacher.

{evaluation['memorisation']['sentence'].capitalize()}. demo-fast.evaluation.json has all
figures, of the same weights in full precision; demo-fast.training.jsonl is the log of the distillation.

{accuracy_table(accuracy)}"""


def publish(work: Path, run: str, name: str, *, count: int, write_card: Callable[[Any, Any], str]) -> None:
    """Write the model of a finished run into the program, with its measurements, its log and its card."""
    model = MODELS / f"{name}.safetensors"
    measured, figures = work / f"{name}.evaluation.json", work / f"{name}.accuracy.json"
    diffuse(work, "export", run, "--to", "safetensors", "--precision", "fp16", "-o", model, "--force")
    if not measured.exists():
        diffuse(work, "evaluate", run, "--json", into=measured)
    if not figures.exists():
        subprocess.run([sys.executable, "-m", "benchmarks.studies.prompt_accuracy", model, "--count", str(count),
                        "--classifier", work / "classifier.safetensors", "--json", figures,
                        "--sheet", work / f"{name}.png"], check=True, cwd=ROOT)
    accuracy, evaluation = json.loads(figures.read_text()), json.loads(measured.read_text())
    (MODELS / f"{name}.training.jsonl").write_text(thinned(work / "home" / "models" / run / "events.jsonl"))
    (MODELS / f"{name}.evaluation.json").write_text(json.dumps(evaluation, indent=2) + "\n")
    (MODELS / f"{name}.accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
    (MODELS / f"{name}.md").write_text(write_card(evaluation, accuracy))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="directory for the data, the training and the figures")
    parser.add_argument("--count", type=int, default=1_000,
                        help="pictures of seen pairs for the classifier, and as many of held-out pairs")
    parser.add_argument("--only-fast", action="store_true", help="keep demo, and make only demo-fast")
    options = parser.parse_args()
    work: Path = options.work.absolute()
    (work / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
    MODELS.mkdir(exist_ok=True)
    if not options.only_fast:
        scenes = make_scenes(work, PICTURES)
        diffuse(work, "train", scenes, "--name", NAME, "--resolution", str(RESOLUTION), "--preset", "nano",
                "--steps", str(STEPS), "--batch-size", str(BATCH), "--seed", str(SEED), "--init", "none")
        publish(work, NAME, "demo", count=options.count, write_card=card)
    scenes = make_scenes(work, FAST_PICTURES)
    diffuse(work, "distill", "demo", scenes, "--name", FAST, "--steps", str(FAST_STEPS), "--batch-size", str(BATCH),
            "--seed", str(SEED))
    publish(work, FAST, "demo-fast", count=options.count, write_card=card_of_student)


def make_scenes(work: Path, count: int) -> Path:
    """A folder of so many demo scenes."""
    folder = work / f"scenes-{count}"
    if not (folder / "metadata.jsonl").exists():
        diffuse(work, "data", "demo", folder, "-n", str(count), "--resolution", str(RESOLUTION), "-s", str(SEED))
    return folder


if __name__ == "__main__":
    main()
