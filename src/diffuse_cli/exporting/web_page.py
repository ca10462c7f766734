"""Exports a model as one HTML file that draws pictures in any browser, and reads the model back from such a file.

The page holds the weights, the numbers of sampling and the tokenizer; the code in `web/` computes with them. It loads
nothing from elsewhere, so it works from a disk, from a stick and from any server of files.
"""

import base64
import copy
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Export
from ..errors import UsageError
from ..files import durable
from ..files.input_files import read_input
from ..model_config import ModelConfig
from ..network.tokenizer import load_tokenizer
from ..sampling.example_prompts import FUNCTION_WORDS, frequent_words
from ..storage.checkpoint import Model
from ..version import __version__
from .model_comparison import compare_models
from .sampler_numbers import sampler_numbers, sampler_steps
from .verification import Comparison

WORKER = ("kernel.js", "layers.js", "network.js", "sampler.js", "tokenizer.js", "model.js", "worker.js")
MAX_WEIGHTS = 2**27                             # 2.7 letters of base64 each; browsers have texts of 2**29 letters
MAX_BYTES = 2**29                               # of a page that is read back
PROMPTS = 6                                     # largest number of examples on the page
PICTURE_LIMIT = 2 * 2 / 255                     # 2 of 255 levels, for pictures in [-1, 1], and for all other numbers
_LARGEST = 32_767                               # of the integers as which weights are written
_CHUNK = 3 * 2**20                              # bytes that are encoded at once; 3 bytes are 4 letters of base64
_MODEL, _WEIGHTS = '<script type="application/json" id="model">', '<script type="text/plain" id="weights">'


# ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(
    model: Model, path: Path, settings: Export, *, prompts: Sequence[str] = (), report: Mapping[str, Any] | None = None,
) -> None:
    """Write the page, which is named after its file. The format has no settings of its own.

    prompts: examples that the page offers; without any, frequent words of the captions. report: of the export, if there
    is one yet; it goes into the page. Raises UsageError for a model too large for a page, and StorageError.
    """
    weights = model.network.state_dict()
    count = sum(weight.numel() for weight in weights.values())
    if count > MAX_WEIGHTS:
        raise UsageError(f"the model has {count / 1e6:.0f} million weights, and a page can hold "
                         f"{MAX_WEIGHTS / 1e6:.0f} million", hint="Use --to onnx, whose graphs run in browsers as well")
    before, after = _frame(model, path.stem, prompts, report)
    with durable.stream(path, mode=0o666) as add:
        add(before.encode())
        for piece in _in_base64(weight for tensor in weights.values() for weight in _encoded(tensor)):
            add(piece)
        add(after.encode())


def _frame(model: Model, title: str, prompts: Sequence[str], report: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return all of the page that stands before the weights, and all that stands after them."""
    script, style = _asset("page.js"), _asset("page.css")
    config, words = model.config, list(model.words)
    content = {
        "network": _network(config), "constants": sampler_numbers(config), "samplers": sampler_steps(config),
        "shapes": {name: list(tensor.shape) for name, tensor in model.network.state_dict().items()},
        "tokenizer": None if model.tokenizer is None else json.loads(model.tokenizer.to_str()),
        "words": words and list(dict.fromkeys((*words, *sorted(FUNCTION_WORDS)))),     # of these none is called unknown
        "prompts": [] if model.tokenizer is None else [
            prompt for prompt in (prompts or frequent_words(model.words))[:PROMPTS] if prompt],
        "export": report}
    parts = {
        "title": _text(title), "subtitle": _text(_subtitle(config)), "version": __version__, "style": style,
        "style_hash": _hash(style), "script": script, "script_hash": _hash(script),
        "worker": "\n".join(map(_asset, WORKER)),
        "model": json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")}
    before, after = (Template(part).substitute(parts) for part in _asset("page.html").split("$weights"))
    return before, f"{after}\n"


def _network(config: ModelConfig) -> dict[str, Any]:
    """The shape of the network, with what follows from it: sides of its pictures, heads of its text encoder."""
    shape = dataclasses.asdict(config.network)
    _, shape["height"], shape["width"] = config.network.shape
    if config.network.text is not None:
        shape["text"]["heads"] = config.network.text.heads
    return shape


def _subtitle(config: ModelConfig) -> str:
    _, height, width = config.network.shape
    of = "" if config.student is None else f", in {config.student.steps}"
    return f"A diffusion model that draws pictures of {width} × {height} pixels{of}, on this device."


def _asset(name: str) -> str:
    return (resources.files(__package__) / "web" / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    """The hash of a script or a style sheet, by which the page's policy admits it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _text(value: str) -> str:
    """A text that is safe in HTML. Unprintable characters are written as their escapes."""
    return escape("".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in value))


# ── Weights ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def rounded(weight: Tensor) -> Tensor:
    """A tensor as a page holds it, in float32: with two or more dimensions, 65,535 even values for each row."""
    if weight.ndim < 2:
        return weight.float()
    scales, integers = _integers(weight)
    return (integers * scales[:, None]).reshape(weight.shape)


def _integers(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The scale of each row (R,), and the multiples of it, whole numbers in float32 (R, …) of at most 32,767."""
    rows = weight.float().flatten(1)
    scales = rows.abs().amax(1) / _LARGEST
    integers = torch.where(scales[:, None] > 0, rows / scales[:, None], 0).round().clamp(-_LARGEST, _LARGEST)
    return scales, integers


def _encoded(weight: Tensor) -> Iterator[bytes]:
    """The bytes of a tensor, little-endian, as model.js reads them."""
    if weight.ndim < 2:
        yield weight.float().cpu().numpy().astype("<f4").tobytes()
        return
    scales, integers = _integers(weight.cpu())
    yield scales.numpy().astype("<f4").tobytes()
    yield integers.numpy().astype("<i2").tobytes()


def _in_base64(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Base64 of all pieces together, some megabytes at a time."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        whole = len(waiting) // _CHUNK * _CHUNK
        yield base64.b64encode(waiting[:whole])
        del waiting[:whole]
    yield base64.b64encode(waiting)


# ── Reading back ────────────────────────────────────────────────────────────────────────────────────────────────────


def compare(model: Model, path: Path, settings: Export) -> list[Comparison]:
    """Compare the model with the one that is read back from its page: rounded weights, answers, features, a picture.

    What the page's own code computes is compared by the tests, in a browser.
    """
    return compare_models(model, _read(path, model), rounding=rounded, limit=PICTURE_LIMIT)


def _read(path: Path, model: Model) -> Model:
    """The model in a page, whose configuration is that of `model`."""
    page = read_input(path, limit=MAX_BYTES).decode()
    content = json.loads(_between(page, _MODEL))
    data, place, tensors = base64.b64decode(_between(page, _WEIGHTS)), 0, {}

    def take(count: int, kind: str) -> Tensor:
        nonlocal place
        numbers = np.frombuffer(data, kind, count, place).astype(np.float32)
        place += count * np.dtype(kind).itemsize
        return torch.from_numpy(numbers)

    for name, shape in content["shapes"].items():
        if len(shape) < 2:
            tensors[name] = take(math.prod(shape), "<f4").reshape(shape)
        else:
            scales = take(shape[0], "<f4")
            tensors[name] = (take(math.prod(shape), "<i2").reshape(shape[0], -1) * scales[:, None]).reshape(shape)
    network = copy.deepcopy(model.network)
    network.load_state_dict(tensors)
    tokenizer = None if content["tokenizer"] is None else load_tokenizer(json.dumps(content["tokenizer"]))
    return dataclasses.replace(model, network=network, tokenizer=tokenizer)


def _between(page: str, start: str) -> str:
    return page.partition(start)[2].partition("</script>")[0]
