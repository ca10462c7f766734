"""What a model file says about itself: its configuration, how it was trained, the words of its captions.

Reads headers only and needs no torch: so models are listed and judged without delay.
"""

import dataclasses
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checks import check_choice, check_colours, from_dict
from ..config import FITS, FORMAT_VERSION, MAX_WORDS, Plan, Recipe
from ..errors import ModelError, UsageError
from ..files.strict_json import MAX_JSON_BYTES
from ..model_config import ModelConfig
from . import safetensors_file, safetensors_header
from .diffusers_config import is_folder
from .diffusers_folder import DiffusersFolder, read_folder


@dataclass(frozen=True, kw_only=True)
class TrainingSummary:
    """How a model was trained. None: its file does not say, or has a value of a wrong type."""

    name: str | None = None
    preset: str | None = None
    step: int | None = None                     # training steps behind these weights
    steps: int | None = None                    # steps of the whole training
    images_seen: int | None = None
    train_images: int | None = None             # different pictures that it was trained on
    seed: int | None = None
    loss_weighting: str | None = field(default=None, metadata={"key": "objective"})     # the option's earlier name
    optimizer: str | None = None
    lr: float | None = None
    batch_size: int | None = None
    captions: str | None = None                 # one of config.CAPTION_SOURCES
    noise_mse: float | None = None              # mean squared error of the noise on held-out pictures, last measured
    teacher_mse: float | None = None            # of a distilled model: its `student_loss` on them, last measured
    delivered: str | None = None                # "last" or "best"
    data_id: str | None = None                  # hash of the decoded pictures and their captions
    init_id: str | None = None                  # hash of the tensors of the model that it started from
    background: str | None = None               # what was behind transparent pictures; None: the default
    white_level: float | None = None            # value that is white in pictures of 16 bits; None: the default
    fit: str | None = None                      # how pictures got their shape; None: they were cropped
    as_read: dict[str, Any] | None = field(default=None, compare=False, repr=False)     # all entries of the file

    @classmethod
    def from_json(cls, entries: dict[str, Any]) -> "TrainingSummary":
        """Read the summary of a file from anywhere. Entries that are unknown or of a wrong type are kept in `as_read`
        alone.
        """
        hints, values = typing.get_type_hints(cls), {}
        for name, key in _summary_keys().items():
            value, types = entries.get(key), typing.get_args(hints[name])
            if type(value) in types or (type(value) is int and float in types):
                values[name] = value
        return cls(**values, as_read=entries)

    def to_json(self) -> dict[str, Any]:
        """The entries for a file. A summary that was read keeps its order of entries and its unknown ones."""
        entries = {key: getattr(self, name) for name, key in _summary_keys().items()}
        for name in (*Recipe().colour_options, "fit", "teacher_mse"):  # as in files of versions without these entries
            if entries[name] is None:
                del entries[name]
        if self.as_read is None:
            return entries
        return self.as_read | {key: value for key, value in entries.items() if value is not None}

    @property
    def rendering_options(self) -> dict[str, Any]:
        """How the pictures of the training got their shape, as arguments of `data.colours.Rendering`. Raises UsageError
        if the file says something impossible.
        """
        background = Recipe.background if self.background is None else self.background
        check_colours(background, self.white_level)
        fit = Plan.fit if self.fit is None else self.fit
        check_choice("--fit", fit, FITS[1:])
        return {"background": background, "white_level": self.white_level, "fit": fit}


def _summary_keys() -> dict[str, str]:
    """The name of each field of a summary → its key in JSON."""
    fields = dataclasses.fields(TrainingSummary)
    return {one.name: one.metadata.get("key", one.name) for one in fields if one.name != "as_read"}


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The metadata of one model, after it was judged."""

    config: ModelConfig
    training: TrainingSummary
    words: dict[str, int]                       # how often each word occurred in the captions
    parameters: int
    bytes: int                                  # of the file
    sha256: str                                 # of the tensors, as the header says: the model's identity


def read_model_info(path: Path) -> ModelInfo:
    """Read the metadata of a model. Raises ModelError.

    path: a model file, or the file `model_index.json` of a folder in diffusers' form; it stands for the whole folder.
    """
    if is_folder(path):
        return info_of_folder(path.parent.absolute().name, read_folder(path))
    with safetensors_file.opened(path) as file:
        return info_of_header(safetensors_file.read_header(file))


def info_of_header(head: safetensors_header.Header) -> ModelInfo:
    """The metadata in a header. Raises ModelError."""
    check_version(head)
    try:
        config = from_dict(ModelConfig, object_of(head, "diffuse.config"))
    except UsageError as error:
        raise ModelError(f"its configuration is impossible: {error.what}") from error
    words = object_of(head, "diffuse.words", limit=safetensors_header.MAX_HEADER_BYTES)
    if not _are_counts(words):
        raise ModelError(f"its word counts are not up to {MAX_WORDS:,} numbers")
    return ModelInfo(
        config=config, training=TrainingSummary.from_json(object_of(head, "diffuse.training")), words=words,
        parameters=head.parameters, bytes=head.size,
        sha256=head.metadata.get("modelspec.hash_sha256", "").removeprefix("0x"))


def info_of_folder(name: str, folder: DiffusersFolder) -> ModelInfo:
    """The metadata of a folder in diffusers' form, with the entries of its `export.json` if it is one of ours."""
    training, words, sha256 = (folder.report.get(key) for key in ("training", "words", "model_sha256"))
    entries = training if isinstance(training, dict) else {"name": name}
    return ModelInfo(
        config=folder.config, training=TrainingSummary.from_json(entries),
        words=words if isinstance(words, dict) and _are_counts(words) else {}, parameters=folder.parameters,
        bytes=folder.bytes, sha256=sha256 if isinstance(sha256, str) else "")


def _are_counts(words: dict[str, Any]) -> bool:
    return len(words) <= MAX_WORDS and all(type(count) is int and count > 0 for count in words.values())


def check_version(head: safetensors_header.Header) -> None:
    """Raise ModelError unless the file was made by diffuse, in a format that this version reads."""
    version = head.metadata.get("diffuse.format_version")
    if version is None:
        raise ModelError("it is not a model of diffuse-cli", hint="Train one: diffuse train ./images")
    if version != str(FORMAT_VERSION):
        raise ModelError(f"it has format {version[:20]!r}, this version reads {FORMAT_VERSION}",
                         hint="Upgrade diffuse-cli: it was made by a newer one")


def object_of(head: safetensors_header.Header, key: str, *, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object under `key` of a header's metadata, of at most `limit` bytes. Raises ModelError."""
    value = safetensors_header.parse_json(head.metadata.get(key, "null"), limit=limit)
    if not isinstance(value, dict):
        raise ModelError(f"its metadata lacks {key}")
    return value


def is_of_step(path: Path, step: int) -> bool:
    """Whether the file at `path` is a whole model that was saved at this step."""
    try:
        return safetensors_file.verify_seal(path) and read_model_info(path).training.step == step
    except (ModelError, OSError):
        return False
