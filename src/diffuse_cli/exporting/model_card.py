"""Writes the model card: README.md of an exported diffusers folder, with metadata for the Hub, and samples.

Its facts come from the model file and from the event log and the evaluation beside it. Names and captions are foreign
text, so `_text` escapes them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config import Sampling
from ..events import ProgressCallback, without_non_finite
from ..files import durable
from ..files.input_files import read_input
from ..files.strict_json import MAX_JSON_BYTES, JsonError, loads_strict
from ..model_config import ModelConfig, NetworkConfig
from ..pictures import image_files, pixels, sheets
from ..sampling.example_prompts import example_prompts, frequent_words
from ..sampling.generate import generate
from ..sampling.request import SampleRequest
from ..storage.checkpoint import Model
from ..storage.evaluation_file import EVALUATION_FILE, nested_entry, readable
from ..version import __version__

PICTURE_FOLDER = "samples"                      # of the pictures on the card
PICTURES, WORDS = 4, 24                         # largest numbers of samples and of frequent words on the card
_ESCAPES = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_{}[]<>()#+-!|~$&"})      # of Markdown
_METRICS = {                                    # key of evaluation.json → its name on the card
    "noise_mse": "noise loss, held out", "noise_mse_ref": "noise loss, on the cosine schedule",
    "bits_per_dim.bound": "bits/dim, bound", "bits_per_dim.area": "bits/dim, area",
    "variance_gain_bpd": "bits/dim gained by the learned variance", "prompts.shuffled_rise": "rise with wrong captions"}


def write(
    model: Model, folder: Path, *, source: Path, place: str, license: str | None, progress: ProgressCallback,
) -> None:
    """Generate some samples and write them and README.md into the folder. An upscaler has no samples on its card.

    source: the file of the model; place: from where the card loads the export, a folder or owner/name on the Hub.
    """
    prompts = [] if model.config.is_upscaler else [""] * PICTURES if model.tokenizer is None else \
        example_prompts(model.words, source.parent, count=PICTURES)
    if prompts:
        _write_samples(model, folder, prompts, progress)
    text = _readme(model, prompts, source.parent, place=place, license=license)
    durable.write(folder / "README.md", text.encode(), mode=0o666)


def _write_samples(model: Model, folder: Path, prompts: Sequence[str], progress: ProgressCallback) -> None:
    samples: list[np.ndarray] = []
    progress("generating samples", 0, len(prompts))
    sampling = Sampling.of(model.config, batch_size=len(prompts))
    requests = [SampleRequest(prompt=prompt, seed=k, sampling=sampling) for k, prompt in enumerate(prompts)]
    for sample in generate(model, requests):
        samples.append(sample.pixels)
        progress("generating samples", len(samples), len(prompts))
    durable.make_directory(folder / PICTURE_FOLDER, mode=0o777)
    for name, picture in zip(_picture_names(prompts), samples, strict=True):
        enlarged = pixels.enlarge(picture, sheets.scale_of(picture))
        durable.write(folder / name, image_files.encode(enlarged), mode=0o666)


def _picture_names(prompts: Sequence[str]) -> list[str]:
    return [f"{PICTURE_FOLDER}/{number}.png" for number in range(1, len(prompts) + 1)]


def write_report(path: Path, model: Model, report: dict[str, Any]) -> None:
    """Write the report of an export, with the facts about the model that `-m` needs and no stock file can hold."""
    content = {**report, "training": model.training.to_json(), "words": model.words}
    text = json.dumps(without_non_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    durable.write(path, f"{text}\n".encode(), mode=0o666)


# ── The text ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _readme(model: Model, prompts: Sequence[str], run: Path, *, place: str, license: str | None) -> str:
    training = model.training
    name, conditional = _text(training.name or "model"), model.tokenizer is not None
    task = "image-to-image" if model.config.is_upscaler else \
        "text-to-image" if conditional else "unconditional-image-generation"
    kind = "text-conditional" if conditional else "unconditional"
    start = "from scratch" if training.init_id is None else "from the weights of another model"
    blocks = [
        _front_matter(task, prompts if conditional else (), license),
        f"# {name}",
        f"A {kind} diffusion model {_purpose(model.config.network)}, trained {start} with diffuse-cli "
        f"{__version__}. It works on pixels, without an autoencoder, and needs no code of its own to be loaded.",
        *([" ".join(f"![a sample of the model]({name})" for name in _picture_names(prompts))] if prompts else []),
        *([", ".join(f"*{_text(prompt)}*" for prompt in prompts)] if any(prompts) else []),
        "## How to load it", _loading(place, model.config),
        "## Training data", _table(_data(model)),
        "## Training", _table(_training(model)),
    ]
    if metrics := _metrics(model, run):
        blocks += ["## Evaluation", _table(metrics)]
    if license is not None:
        blocks += ["## Licence", f"`{license}`"]
    return "\n\n".join(blocks) + "\n"


def _purpose(network: NetworkConfig) -> str:
    if network.upscaling is None:
        return f"for pictures of {' or '.join('{} × {}'.format(*size) for size in network.sizes)} pixels"
    return (f"that makes pictures {network.upscaling.factor} times as large, for example "
            "those of {} × {} pixels".format(*network.upscaling.small))


def _front_matter(task: str, prompts: Sequence[str], license: str | None) -> str:
    """The metadata that the Hub reads, as YAML. The widget shows the samples with their prompts."""
    lines = ["---", *([] if license is None else [f"license: {license}"]), "library_name: diffusers",
             f"pipeline_tag: {task}", "tags:",
             *(f"- {tag}" for tag in (task, "diffusion", "ddpm", "pixel-space", "diffuse-cli"))]
    shown = [(prompt, name) for prompt, name in zip(prompts, _picture_names(prompts), strict=True) if prompt.strip()]
    if shown:
        lines.append("widget:")
    for prompt, name in shown:
        lines += [f"- text: {_quoted(prompt)}", "  output:", f"    url: {name}"]
    return "\n".join([*lines, "---"])


def _quoted(text: str) -> str:
    """A text in the quotation marks of YAML. Invisible letters are written by their numbers; half a pair becomes ?."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    marks = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(marks.get(letter, letter if letter.isprintable() else f"\\U{ord(letter):08x}")
                         for letter in whole) + '"'


def _loading(place: str, config: ModelConfig) -> str:
    conditional, student, size = config.conditional, config.student, config.network.resolution
    if config.network.upscaling is not None:    # the stock pipeline has to be told the size of any other picture
        factor = config.network.upscaling.factor
        return _code("from diffusers import DiffusionPipeline\nfrom PIL import Image\n\n"
                     f'pipeline = DiffusionPipeline.from_pretrained({json.dumps(place)})\n'
                     'small = Image.open("small.png").convert("RGB")\n'
                     f'picture = pipeline("a prompt", image=small, height={factor} * small.height, '
                     f'width={factor} * small.width,\n'
                     "                   guidance_scale=1.0, noise_level=100, num_inference_steps=50, "
                     "clean_caption=False).images[0]")
    sides = ""                                  # needed by these pipelines, unless they draw a square
    if config.network.buckets or not size.is_square:
        sides = f"height={size.height}, width={size.width}, "
    as_pil = size.is_square and config.network.channels == 3           # what these pipelines make of PIL pictures
    tensors = "" if as_pil else ", with pictures and masks as tensors (N, C, H, W) of the model's size"
    if student is not None:                     # its guidance is a part of it
        call = f'"a prompt", {sides}guidance_scale=1.0, ' if conditional else ""
        last = ", clean_caption=False" if conditional else ""
        return _code("from diffusers import DiffusionPipeline\n\n"
                     f'pipeline = DiffusionPipeline.from_pretrained({json.dumps(place)})\n'
                     f"picture = pipeline({call}num_inference_steps={student.evaluations}{last}).images[0]")
    if not conditional:
        return _code("from diffusers import DiffusionPipeline\n\n"
                     f'pipeline = DiffusionPipeline.from_pretrained({json.dumps(place)})\n'
                     "picture = pipeline(num_inference_steps=100).images[0]")
    return _code(
        "from diffusers import AutoPipelineForText2Image\n\n"
        f'pipeline = AutoPipelineForText2Image.from_pretrained({json.dumps(place)})\n'
        f'picture = pipeline("a prompt", {sides}guidance_scale=3.0, num_inference_steps=100, '
        'clean_caption=False).images[0]'
    ) + (f"\n\n`AutoPipelineForImage2Image` and `AutoPipelineForInpainting` load the same folder{tensors}. Another "
         "scheduler needs to know that there are no variance channels:\n\n") + _code(
        "from diffusers import DPMSolverMultistepScheduler\n\n"
        "settings = {**pipeline.scheduler.config, \"variance_type\": \"fixed_small\", \"thresholding\": True,\n"
        '            "sample_max_value": 1.0}\n'
        "pipeline.scheduler = DPMSolverMultistepScheduler.from_config(settings)")


def _data(model: Model) -> list[tuple[str, str]]:
    training = model.training
    rows = [("pictures", _figure(training.train_images)), ("captions from", _figure(training.captions)),
            ("most frequent words", ", ".join(_text(word[:40]) for word in frequent_words(model.words)[:WORDS]))]
    return [(label, value) for label, value in rows if value]


def _training(model: Model) -> list[tuple[str, str]]:
    config, training = model.config, model.training
    parameters = sum(weight.numel() for weight in model.network.state_dict().values())
    rows = [
        ("parameters", f"{parameters:,}"),
        ("prediction", f"{config.prediction}, {'learned' if config.learned_variance else 'fixed'} variance"),
        ("distilled", "" if config.student is None else f"from {_text(config.student.teacher)}, guided at "
         f"{config.student.guidance:g}, to {config.student.steps}"),
        ("noise schedule", config.schedule),
        ("objective", "" if config.student is not None else _figure(training.loss_weighting)),
        ("steps", _figure(training.step)), ("pictures seen", _figure(training.images_seen)),
        ("batch size", _figure(training.batch_size)), ("seed", _figure(training.seed)),
        ("SHA-256 of the weights", model.sha256)]
    return [(label, value) for label, value in rows if value]


def _metrics(model: Model, run: Path) -> list[tuple[str, str]]:
    """Return the results of an evaluation of exactly these weights, else the noise loss of the last validation."""
    try:
        evaluation = loads_strict(read_input(run / EVALUATION_FILE, limit=MAX_JSON_BYTES))
    except (OSError, JsonError):
        evaluation = None
    if isinstance(evaluation, dict) and evaluation.get("model_sha256") == model.sha256:
        return [(name, value) for key, name in _METRICS.items() if (value := _figure(nested_entry(evaluation, key)))]
    held_out = _figure(model.training.noise_mse)
    return [(_METRICS["noise_mse"], held_out)] if held_out else []


# ── Markdown ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _figure(value: Any) -> str:
    return _text(readable(value, missing="")[:200])


def _text(value: object) -> str:
    """Turn foreign text into Markdown that shows its characters literally; invisible ones become escape sequences."""
    visible = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in str(value))
    return visible.translate(_ESCAPES)


def _table(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(("| | |", "|---|---|", *(f"| {label} | {value} |" for label, value in rows)))


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
