"""What a model file says about itself: its configuration, how it was trained, the words of its captions.

Reads headers only and needs no torch, so that models can be listed and judged at once. Knows nothing of the tensors'
values.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import from_dict
from ..config import FORMAT_VERSION, ModelConfig
from ..errors import ModelError, UsageError
from ..files.strict_json import MAX_JSON_BYTES
from . import safetensors_file
from .diffusers_config import is_folder
from .diffusers_folder import DiffusersFolder, read_folder


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The metadata of one model, judged."""

    config: ModelConfig
    training: dict[str, Any]                    # summary: name, steps, images_seen, …; any JSON value
    words: dict[str, int]                       # how often each word occurred in the captions
    parameters: int
    bytes: int                                  # of the file
    sha256: str                                 # of the tensors, as the header says: the model's identity


def read_model_info(path: Path) -> ModelInfo:
    """The card of the model file at `path`, or of the folder whose `model_index.json` that is. Raises ModelError."""
    if is_folder(path):
        return info_of_folder(path.parent.absolute().name, read_folder(path))
    with safetensors_file.opened(path) as file:
        return info_of_header(safetensors_file.read_header(file))


def info_of_header(head: safetensors_file.Header) -> ModelInfo:
    """The card in a header. Raises ModelError."""
    check_version(head)
    try:
        config = from_dict(ModelConfig, object_of(head, "diffuse.config"))
    except UsageError as error:
        raise ModelError(f"its configuration is impossible: {error.what}") from error
    words = object_of(head, "diffuse.words", limit=safetensors_file.MAX_HEADER_BYTES)
    if not _are_counts(words):
        raise ModelError("its word counts are not numbers")
    return ModelInfo(
        config=config, training=object_of(head, "diffuse.training"), words=words, parameters=head.parameters,
        bytes=head.size, sha256=head.metadata.get("modelspec.hash_sha256", "").removeprefix("0x"))


def info_of_folder(name: str, folder: DiffusersFolder) -> ModelInfo:
    """The card of a folder in diffusers' form: with what its export says of it, if it is one of ours."""
    training, words, sha256 = (folder.report.get(key) for key in ("training", "words", "model_sha256"))
    return ModelInfo(config=folder.config, training=training if isinstance(training, dict) else {"name": name},
                words=words if isinstance(words, dict) and _are_counts(words) else {}, parameters=folder.parameters,
                bytes=folder.bytes, sha256=sha256 if isinstance(sha256, str) else "")


def _are_counts(words: dict[str, Any]) -> bool:
    return all(type(count) is int and count > 0 for count in words.values())


def check_version(head: safetensors_file.Header) -> None:
    """Raise ModelError unless the file is ours, and of a format that this version reads."""
    version = head.metadata.get("diffuse.format_version")
    if version is None:
        raise ModelError("it is not a model of diffuse-cli", hint="Train one: diffuse train ./images")
    if version != str(FORMAT_VERSION):
        raise ModelError(f"it has format {version[:20]!r}, this version reads {FORMAT_VERSION}",
                         hint="Upgrade diffuse-cli: it was made by a newer one")


def object_of(head: safetensors_file.Header, key: str, *, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object under `key` of a header's metadata, of at most `limit` bytes. Raises ModelError."""
    value = safetensors_file.parse_json(head.metadata.get(key, "null"), limit=limit)
    if not isinstance(value, dict):
        raise ModelError(f"its metadata lacks {key}")
    return value


def is_of_step(path: Path, step: int) -> bool:
    """Whether a whole model of that step lies there."""
    try:
        return safetensors_file.verify_seal(path) and read_model_info(path).training.get("step") == step
    except (ModelError, OSError):
        return False
