"""The settings of a sampled picture as text chunks of its PNG: written in other tools' form and losslessly, and read.

The text never holds a path, a host name or a user name. A PNG that is read may come from a stranger: its values are
checked as strictly as a command line, and none of them is ever used as a file name.
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checks import check_range, check_size, from_dict
from ..config import SEED_RANGE, Sampling
from ..data.picture_files import ImageRefused
from ..data.png_texts import read_png_text
from ..errors import DataError, ModelError, UsageError
from ..files.strict_json import JsonError, loads_strict
from ..model_config import Student
from ..picture_size import Size
from ..storage import registry
from ..storage.model_info import read_model_info
from ..version import __version__
from .other_tools import OtherSettings, parse_png_text

if TYPE_CHECKING:
    from ..storage.checkpoint import Model
    from .request import Sample

MAX_PROMPT = 4_096                              # characters; the rest of a longer prompt is not recorded
MAX_TEXT = 128 * 1024                           # characters of JSON that are read; `texts` always writes fewer
_AFTER_PROMPT = re.compile("(Steps:|Negative prompt:)")                 # with which a line after the prompt begins
# Texts in which web UIs, ComfyUI, InvokeAI and others keep how they made a PNG.
_FOREIGN = ("parameters", "prompt", "workflow", "invokeai_metadata", "invokeai_graph", "sd-metadata", "Dream",
            "generation_data", "fooocus_scheme")


@dataclass(frozen=True, kw_only=True)
class SampleMetadata:
    """Everything that is needed to generate one picture again. Raises UsageError for a value out of range."""

    prompt: str
    negative: str = ""
    seed: int
    sampler: str
    steps: int
    guidance: float
    guidance_interval: tuple[float, ...]
    batch_size: int                             # recorded because kernels may round differently at another one
    precision: str
    strength: float | None = None               # these three only if the sample started from another picture
    init_sha256: str | None = None
    mask_sha256: str | None = None
    size: tuple[int, ...]
    model: str
    model_sha256: str
    student: Student | None = None              # what a distilled model was taught
    upscaler: str | None = None                 # that enlarged the picture to this size, and its hash
    upscaler_sha256: str | None = None
    version: str

    def __post_init__(self) -> None:
        for name, text, most in (("prompt", self.prompt, MAX_PROMPT), ("negative", self.negative, MAX_PROMPT),
                                 ("model", self.model, 64), ("upscaler", self.upscaler or "", 64),
                                 ("version", self.version, 64)):
            check_range(f"the length of {name}", len(text), 0, most)
        for digest in (self.model_sha256, self.init_sha256, self.mask_sha256, self.upscaler_sha256):
            if digest is not None and not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise UsageError("a hash is not 64 hexadecimal digits")
        if len(self.guidance_interval) != 2 or len(self.size) != 2:
            raise UsageError("guidance_interval and size are two numbers each")
        check_size("size", Size(*self.size))
        check_range("seed", self.seed, *SEED_RANGE)
        if (self.strength is None) != (self.init_sha256 is None) or (self.mask_sha256 and not self.init_sha256):
            raise UsageError("strength, init_sha256 and mask_sha256 do not go together")
        if (self.upscaler is None) != (self.upscaler_sha256 is None):
            raise UsageError("upscaler and upscaler_sha256 do not go together")
        if self.strength is not None:
            check_range("strength", self.strength, 0, 1)
        _ = self.sampling

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of the picture. Raises UsageError for a value out of range."""
        low, high = self.guidance_interval
        return Sampling(sampler=self.sampler, steps=self.steps, guidance=self.guidance, guidance_interval=(low, high),
                        batch_size=self.batch_size, precision=self.precision)

    def to_dict(self) -> dict[str, Any]:
        """The fields as a dict that is ready for JSON, without those that do not apply."""
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value
                for name, value in fields.items() if value is not None}


# ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def collect_metadata(sample: "Sample", model: "Model", upscaler: "Model | None" = None) -> SampleMetadata:
    """Collect the settings with which `model` generated the sample, and `upscaler` enlarged it."""
    request, sampling, init = sample.request, sample.request.sampling, sample.request.init
    resolution = model.config.network.resolution
    negative = "" if sampling.guidance == 1 else request.negative      # without guidance it does nothing
    return SampleMetadata(
        prompt=request.prompt[:MAX_PROMPT], negative=negative[:MAX_PROMPT], seed=sample.seed,
        sampler=sampling.sampler, steps=sampling.number_of_steps, guidance=sampling.guidance,
        guidance_interval=sampling.interval_at(resolution.side), batch_size=sampling.batch_size,
        precision=sampling.precision, strength=None if init is None else init.strength,
        init_sha256=None if init is None else init.image_sha256,
        mask_sha256=None if init is None else init.mask_sha256, size=tuple(sample.size),
        model=(model.training.name or "model")[:64], model_sha256=model.sha256, student=model.config.student,
        version=__version__,
        upscaler=None if upscaler is None else (upscaler.training.name or "upscaler")[:64],
        upscaler_sha256=None if upscaler is None else upscaler.sha256)


def png_texts(metadata: SampleMetadata) -> dict[str, str]:
    """Return the text chunks of a PNG: "parameters" in the form that other tools parse, and "diffuse", lossless JSON.

    `read_settings` reads the JSON alone.
    """
    width, height = metadata.size
    settings = {
        "Steps": metadata.steps, "Sampler": metadata.sampler, "CFG scale": f"{metadata.guidance:g}",
        "Seed": metadata.seed, "Size": f"{width}x{height}", "Model hash": metadata.model_sha256[:10],
        "Model": _quoted(metadata.model)}
    if metadata.student is not None:
        settings["Distilled CFG Scale"] = f"{metadata.student.guidance:g}"
    if metadata.strength is not None:
        settings["Denoising strength"] = f"{metadata.strength:g}"
    if metadata.upscaler is not None:
        settings["Hires upscaler"] = _quoted(metadata.upscaler)
    settings["Version"] = f"diffuse-cli {metadata.version}"
    line = ", ".join(f"{key}: {value}" for key, value in settings.items())
    negative = metadata.negative and f"Negative prompt: {_plain(metadata.negative)}"
    return {"parameters": "\n".join(filter(None, (_plain(metadata.prompt), negative, line))),
            "diffuse": json.dumps(metadata.to_dict())}


def _plain(prompt: str) -> str:
    """Make a prompt encodable as UTF-8, and join lines that a parser would take for the end of the prompt."""
    pieces = _AFTER_PROMPT.split(prompt.encode("utf-8", "replace").decode())
    for number in range(0, len(pieces) - 1, 2):
        newline = pieces[number].find("\n", len(pieces[number].rstrip()))
        if newline >= 0:
            pieces[number] = pieces[number][:newline] + " "
    return "".join(pieces)


def _quoted(value: str) -> str:
    """Quote a value, as other tools do, if it holds a character that separates values."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:"\n') else value


# ── Reading ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read_settings(path: Path) -> SampleMetadata | OtherSettings:
    """Read the settings that are recorded in the PNG at `path`, by this program or another. Raises DataError."""
    foreign = ""
    try:
        text = read_png_text(path, "diffuse")
        for name in () if text else _FOREIGN:
            if other_text := read_png_text(path, name):
                foreign = foreign or name
                if settings := parse_png_text(name, other_text):
                    return settings
    except ImageRefused as error:
        what = f"there is no picture {path}" if error.reason == "not there" else (
            f"{path} holds no sampling settings: {error.reason}")
        raise DataError(what,
                        hint="Give a PNG made by `diffuse sample`") from error
    if foreign:
        raise DataError(f"{path} was made by another program, whose settings ({foreign}) cannot be used",
                        hint="Give a prompt, and --init with this picture to begin from it")
    if text is None:
        raise DataError(f"{path} holds no sampling settings",
                        hint="Give one picture that `diffuse sample` wrote as a PNG: sheets hold no settings")
    try:
        return from_dict(SampleMetadata, loads_strict(text, limit=MAX_TEXT), where="metadata")
    except (JsonError, UsageError) as error:
        reason = error.what if isinstance(error, UsageError) else str(error)
        raise DataError(f"the sampling settings in {path} cannot be used: {reason}",
                        hint="Give a PNG as `diffuse sample` wrote it") from error


def find_model(name: str, sha256: str, *, option: str = "-m") -> Path:
    """Find the model with a recorded hash: the model of the recorded name if its hash is the same, else any other.

    option: with which another model can be given. Reads only the headers of model files. Raises ModelError if no model
    has the hash.
    """
    files = registry.model_files()
    for _, path in sorted(files.items(), key=lambda item: item[0] != name):
        if sha256_of(path) == sha256:
            return path
    raise ModelError(f"the model that generated it, {name!r} with hash {sha256[:10]}, is not here",
                     hint=f"Name another with {option}; the picture will then be another as well")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a model's weights that its header states; empty if the header cannot be read."""
    try:
        return read_model_info(path).sha256
    except ModelError:
        return ""
