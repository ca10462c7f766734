"""How a picture was made, written into it in the form that other tools read, and losslessly; and read again.

Never a path, a host or a user's name. What is read may be a stranger's: it is judged like a command line, and no part
of it is ever taken for the name of a file.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import check_range, from_dict
from ..config import RESOLUTION_RANGE, SEED_RANGE, Sampling
from ..data import images
from ..errors import DataError, ModelError, UsageError
from ..files.strict_json import JsonError, loads_strict
from ..storage import registry
from ..storage.model_info import read_model_info
from ..version import __version__

if TYPE_CHECKING:
    from ..storage.checkpoint import Model
    from .request import Sample

MAX_PROMPT = 4_096                              # characters kept of a prompt
MAX_TEXT = 128 * 1024                           # of the JSON; the longest that we write is less
_NO_PROMPT = re.compile(r"\n\s*(?=Steps:|Negative prompt:)")


@dataclass(frozen=True, kw_only=True)
class SampleMetadata:
    """Everything needed to draw one picture again."""

    prompt: str
    negative: str = ""
    seed: int
    sampler: str
    steps: int
    guidance: float
    guidance_interval: tuple[float, ...]
    batch_size: int                             # which decides on how kernels round
    precision: str
    strength: float | None = None               # these three only where it was made from another picture
    init_sha256: str | None = None
    mask_sha256: str | None = None
    size: tuple[int, ...]
    model: str
    model_sha256: str
    version: str

    def __post_init__(self) -> None:
        for name, text, most in (("prompt", self.prompt, MAX_PROMPT), ("negative", self.negative, MAX_PROMPT),
                                 ("model", self.model, 64), ("version", self.version, 64)):
            check_range(f"the length of {name}", len(text), 0, most)
        for digest in (self.model_sha256, self.init_sha256, self.mask_sha256):
            if digest is not None and not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise UsageError("a hash is not 64 hexadecimal digits")
        if len(self.guidance_interval) != 2 or len(self.size) != 2:
            raise UsageError("guidance_interval and size are two numbers each")
        for side in self.size:
            check_range("size", side, *RESOLUTION_RANGE)
        check_range("seed", self.seed, *SEED_RANGE)
        if (self.strength is None) != (self.init_sha256 is None) or (self.mask_sha256 and not self.init_sha256):
            raise UsageError("strength, init_sha256 and mask_sha256 do not go together")
        if self.strength is not None:
            check_range("strength", self.strength, 0, 1)
        _ = self.sampling

    @property
    def sampling(self) -> Sampling:
        """How it was drawn. Raises UsageError for what is out of range."""
        low, high = self.guidance_interval
        return Sampling(sampler=self.sampler, steps=self.steps, guidance=self.guidance, guidance_interval=(low, high),
                        batch_size=self.batch_size, precision=self.precision)

    def record(self) -> dict[str, Any]:
        """As it is written down: JSON-ready, without what does not apply."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in fields.items() if value is not None}


# ── Written ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def metadata_of(sample: "Sample", model: "Model") -> SampleMetadata:
    """How `model` drew it."""
    request, sampling, init = sample.request, sample.request.sampling, sample.request.init
    resolution = model.config.network.resolution
    return SampleMetadata(
        prompt=request.prompt[:MAX_PROMPT], negative=request.negative[:MAX_PROMPT], seed=sample.seed,
        sampler=sampling.sampler, steps=sampling.number_of_steps, guidance=sampling.guidance,
        guidance_interval=sampling.interval_at(resolution), batch_size=sampling.batch_size,
        precision=sampling.precision, strength=None if init is None else init.strength,
        init_sha256=None if init is None else init.image_sha256,
        mask_sha256=None if init is None else init.mask_sha256, size=(resolution, resolution),
        model=(model.training.name or "model")[:64], model_sha256=model.sha256, version=__version__)


def texts(made: SampleMetadata) -> dict[str, str]:
    """The text chunks of a PNG: "parameters" as other tools parse it, "diffuse" as JSON, the source of truth."""
    width, height = made.size
    facts = {
        "Steps": made.steps, "Sampler": made.sampler, "CFG scale": f"{made.guidance:g}", "Seed": made.seed,
        "Size": f"{width}x{height}", "Model hash": made.model_sha256[:10], "Model": _quoted(made.model)}
    if made.strength is not None:
        facts["Denoising strength"] = f"{made.strength:g}"
    facts["Version"] = f"diffuse-cli {made.version}"
    line = ", ".join(f"{key}: {value}" for key, value in facts.items())
    negative = made.negative and f"Negative prompt: {_plain(made.negative)}"
    return {"parameters": "\n".join(filter(None, (_plain(made.prompt), negative, line))),
            "diffuse": json.dumps(made.record())}


def _plain(prompt: str) -> str:
    """A prompt that can be encoded, none of whose lines could be taken for the end of the prompt."""
    return _NO_PROMPT.sub(" ", prompt.encode("utf-8", "replace").decode())


def _quoted(value: str) -> str:
    """As other tools write and parse a value that holds what separates values."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:"\n') else value


# ── Read ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_sample_metadata(path: Path) -> SampleMetadata:
    """How the picture at `path` was made, as it says itself. Raises DataError."""
    try:
        text = images.png_texts(path).get("diffuse")
    except images.ImageRefused as error:
        raise DataError(f"{path} does not say how it was made: {error.reason}",
                        hint="Give a PNG made by `diffuse sample`") from error
    if text is None:
        raise DataError(f"{path} does not say how it was made",
                        hint="Give a PNG made by `diffuse sample`, without --no-metadata")
    try:
        return from_dict(SampleMetadata, loads_strict(text, limit=MAX_TEXT), where="metadata")
    except (JsonError, UsageError) as error:
        what = error.what if isinstance(error, UsageError) else str(error)
        raise DataError(f"what {path} says of how it was made cannot be used: {what}",
                        hint="Give a PNG as `diffuse sample` wrote it") from error


def find_model(made: SampleMetadata) -> Path:
    """The file of the model that drew it, known by its hash: the one of the same name if it has it, else any.

    Reads headers only. Raises ModelError.
    """
    files = registry.model_files()
    for _, path in sorted(files.items(), key=lambda item: item[0] != made.model):
        if sha256_of(path) == made.model_sha256:
            return path
    raise ModelError(f"the model that drew it, {made.model!r} with hash {made.model_sha256[:10]}, is not here",
                     hint="Name another with -m; the picture will then be another as well")


def sha256_of(path: Path) -> str:
    """The identity of a model as its header gives it; empty where that cannot be read."""
    try:
        return read_model_info(path).sha256
    except ModelError:
        return ""
