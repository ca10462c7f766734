"""The model card: README.md of a folder in diffusers' form, with pictures that the model drew for it.

What is told of the data and of how good the model is comes from the model's file, and from what its training and its
evaluation left beside it. Names and captions are foreign text, and pass through `_text`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Sampling
from ..events import ProgressCallback, finite
from ..files import durable
from ..files.strict_json import JsonError, loads_strict
from ..pictures import image_files, pixels, sheets
from ..sampling.generate import generate
from ..sampling.png_metadata import MAX_PROMPT
from ..sampling.request import SampleRequest
from ..storage.checkpoint import Model
from ..storage.evaluation_file import EVALUATION_FILE, entry, readable
from ..storage.event_log import read_event_log
from ..version import __version__

PICTURE_FILE = "samples.png"
PICTURES, WORDS = 4, 24                         # that are shown
_SMALL = frozenset((                             # words that no picture can show
    "a", "an", "and", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "the", "to", "with"))
_SPECIAL = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]<>()#+-!|~$&"})
_METRICS = {                                    # key of evaluation.json → its name
    "noise_mse": "noise loss, held out", "noise_mse_ref": "noise loss, on the cosine schedule",
    "bits_per_dim.bound": "bits/dim, bound", "bits_per_dim.area": "bits/dim, area",
    "variance_gain_bpd": "bits/dim gained by the learned variance", "prompts.shuffled_rise": "rise with wrong captions"}


def write(model: Model, folder: Path, *, source: Path, tell: ProgressCallback) -> None:
    """Draw some pictures and write README.md beside them. source: the file that the model came from."""
    prompts = _prompts(model, source.parent)
    drawn = []
    tell("drawing samples", 0, len(prompts))
    sampling = Sampling(batch_size=len(prompts))
    requests = [SampleRequest(prompt=prompt, seed=k, sampling=sampling) for k, prompt in enumerate(prompts)]
    for one in generate(model, requests):
        drawn.append(one.pixels)
        tell("drawing samples", len(drawn), len(prompts))
    shown = pixels.enlarged(np.stack(drawn), max(1, round(sheets.SIDE / model.config.network.resolution)))
    durable.write(folder / PICTURE_FILE, image_files.encode(sheets.sheet(shown, columns=len(drawn))), mode=0o666)
    durable.write(folder / "README.md", _readme(model, prompts, source.parent).encode(), mode=0o666)


def write_report(path: Path, model: Model, report: dict[str, Any]) -> None:
    """The report of an export, with what `-m` shall know of the model that no stock file has a place for."""
    told = {**report, "training": model.training.to_json(), "words": model.words}
    text = json.dumps(finite(told), indent=2, ensure_ascii=False, allow_nan=False)
    durable.write(path, f"{text}\n".encode(), mode=0o666)


def _prompts(model: Model, run: Path) -> list[str]:
    """What is drawn: the prompts of the run's previews, else the most frequent words; nothing if unconditional."""
    if model.tokenizer is None:
        return [""] * PICTURES
    previews = read_event_log(run).previews
    told = previews[-1].get("prompts") if previews else None
    known = [prompt for prompt in told if isinstance(prompt, str) and prompt] if isinstance(told, list) else []
    return [prompt[:MAX_PROMPT] for prompt in (known or _words(model) or [""])][:PICTURES]


def _words(model: Model) -> list[str]:
    """The words of the captions that name something, the most frequent first."""
    ordered = sorted(model.words.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in ordered if word not in _SMALL]


# ── The text ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _readme(model: Model, prompts: Sequence[str], run: Path) -> str:
    network, training = model.config.network, model.training
    name, conditional = _text(training.name or "model"), model.tokenizer is not None
    task = "text-to-image" if conditional else "unconditional-image-generation"
    what = "text-conditional" if conditional else "unconditional"
    blocks = [
        _front_matter(task),
        f"# {name}",
        f"A {what} diffusion model that draws {network.resolution} × {network.resolution} pixels, trained from scratch "
        f"with diffuse-cli {__version__}. It works on pixels, without an "
        "autoencoder, and needs no code of its own to be loaded.",
        f"![pictures that it drew]({PICTURE_FILE})",
        *([", ".join(f"*{_text(prompt)}*" for prompt in prompts)] if any(prompts) else []),
        "## How to load it", _loading(conditional=conditional),
        "## What it learnt from", _table(_data(model)),
        "## How it was trained", _table(_training(model)),
    ]
    if metrics := _metrics(model, run):
        blocks += ["## How good it is", _table(metrics)]
    blocks += ["## Licence", "Not chosen yet. Whoever publishes the model names one in the first lines of this file; "
               "what it learnt from may set conditions."]
    return "\n\n".join(blocks) + "\n"


def _front_matter(task: str) -> str:
    lines = ["---", "license: unknown", "library_name: diffusers", f"pipeline_tag: {task}", "tags:",
             *(f"- {tag}" for tag in (task, "diffusion", "ddpm", "pixel-space", "diffuse-cli")), "---"]
    return "\n".join(lines)


def _loading(*, conditional: bool) -> str:
    if not conditional:
        return _code("from diffusers import DiffusionPipeline\n\n"
                     'pipeline = DiffusionPipeline.from_pretrained("path/to/this/folder")\n'
                     "picture = pipeline(num_inference_steps=100).images[0]")
    return _code(
        "from diffusers import AutoPipelineForText2Image\n\n"
        'pipeline = AutoPipelineForText2Image.from_pretrained("path/to/this/folder")\n'
        'picture = pipeline("a prompt", guidance_scale=3.0, num_inference_steps=100, clean_caption=False).images[0]'
    ) + ("\n\n`AutoPipelineForImage2Image` and `AutoPipelineForInpainting` load the same folder. Another scheduler has "
         "to be told that there are no variance channels:\n\n") + _code(
        "from diffusers import DPMSolverMultistepScheduler\n\n"
        "settings = {**pipeline.scheduler.config, \"variance_type\": \"fixed_small\", \"thresholding\": True,\n"
        '            "sample_max_value": 1.0}\n'
        "pipeline.scheduler = DPMSolverMultistepScheduler.from_config(settings)")


def _data(model: Model) -> list[tuple[str, str]]:
    training = model.training
    rows = [("pictures", _figure(training.train_images)), ("captions from", _figure(training.captions)),
            ("most frequent words", ", ".join(_text(word[:40]) for word in _words(model)[:WORDS]))]
    return [(label, value) for label, value in rows if value]


def _training(model: Model) -> list[tuple[str, str]]:
    config, training = model.config, model.training
    parameters = sum(weight.numel() for weight in model.network.state_dict().values())
    rows = [
        ("parameters", f"{parameters:,}"),
        ("prediction", f"{config.prediction}, {'learned' if config.learned_variance else 'fixed'} variance"),
        ("noise schedule", config.schedule), ("objective", _figure(training.loss_weighting)),
        ("steps", _figure(training.step)), ("pictures seen", _figure(training.images_seen)),
        ("batch size", _figure(training.batch_size)), ("seed", _figure(training.seed)),
        ("SHA-256 of the weights", model.sha256)]
    return [(label, value) for label, value in rows if value]


def _metrics(model: Model, run: Path) -> list[tuple[str, str]]:
    """What an evaluation of these very weights found, else the noise loss of the training's last validation."""
    try:
        with open(run / EVALUATION_FILE, "rb") as file:
            found = loads_strict(file.read(2**20))
    except (OSError, JsonError):
        found = None
    if isinstance(found, dict) and found.get("model_sha256") == model.sha256:
        return [(name, value) for key, name in _METRICS.items() if (value := _figure(entry(found, key)))]
    held_out = _figure(model.training.noise_mse)
    return [(_METRICS["noise_mse"], held_out)] if held_out else []


# ── Small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _figure(value: Any) -> str:
    return _text(readable(value, missing="")[:200])


def _text(value: object) -> str:
    """Foreign text as Markdown that means nothing but its letters; what cannot be seen is written as an escape."""
    shown = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in str(value))
    return shown.translate(_SPECIAL)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(("| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows)))


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
