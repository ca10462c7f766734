"""A folder in diffusers' form, as far as it can be judged without reading its tensors: which model of ours it is.

It may come from anywhere: only files of fixed names are opened, all limits of `header` hold, and what our network
cannot express is refused in one line. Standard library only. Knows nothing of the tensors' values.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..config import ModelConfig, NetworkConfig
from ..errors import ModelError, UsageError
from ..files.strict_json import MAX_JSON_BYTES
from . import diffusers_config, safetensors_file
from .diffusers_config import is_folder

REPORT_FILE = "export.json"                     # what is left there by an export, beside what others read
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
TEXT_ENCODER_FILE = "text_encoder/model.safetensors"
TOKENIZER_FILE = "tokenizer/tokenizer.json"
SCHEDULER_FILE = "scheduler/scheduler_config.json"
_PIPELINES = {"IFPipeline": True, "DDPMPipeline": False}            # whether they take prompts


@dataclass(frozen=True, kw_only=True)
class DiffusersFolder:
    """What a folder says, judged. The files of `weights` hold the parameters whose names begin with their keys."""

    config: ModelConfig
    betas: list[float] | None                   # None: those of the schedule
    tokenizer: dict[str, Any] | None
    weights: dict[str, Path]
    report: dict[str, Any]                      # of its export; empty in folders that are not ours
    parameters: int
    bytes: int                                  # of the weights


def sealed_files(path: Path) -> list[Path]:
    """The files that hold the weights of a model, each of which may have a seal. Raises ModelError."""
    return list(read_folder(path).weights.values()) if is_folder(path) else [path]


def read_folder(index: Path) -> DiffusersFolder:
    """Judge the folder whose `model_index.json` is given. Raises ModelError."""
    folder = index.parent
    with safetensors_file.opened(index) as file:
        found = _object(file)
        kind = found.get("_class_name")
        if not isinstance(kind, str) or kind not in _PIPELINES:
            raise ModelError(f"pipelines of the kind {str(kind)[:60]!r} are not supported, only "
                             f"{' and '.join(_PIPELINES)}")
        conditional = _PIPELINES[kind]
        text = diffusers_config.read_text_encoder(_read(folder / "text_encoder/config.json")) if conditional else None
        network = diffusers_config.read_unet(_read(folder / "unet/config.json"), text)
        schedule, prediction, betas = diffusers_config.read_scheduler(_read(folder / SCHEDULER_FILE))
        weights = {"unet.": folder / UNET_FILE} | ({"text_encoder.": folder / TEXT_ENCODER_FILE} if conditional else {})
        heads = {prefix: _read_header(path) for prefix, path in weights.items()}
        if conditional and network.out_channels == 2 * network.channels and _is_silent(
                weights["unet."], heads["unet."], network):
            network = replace(network, out_channels=network.channels)
        try:
            config = ModelConfig(network=network, schedule=schedule, prediction=prediction)
        except UsageError as error:
            raise ModelError(error.what) from error
        return DiffusersFolder(
            config=config, betas=betas, weights=weights, report=_report(folder / REPORT_FILE),
            tokenizer=_read(folder / TOKENIZER_FILE, limit=safetensors_file.MAX_HEADER_BYTES) if conditional else None,
            parameters=sum(head.parameters for head in heads.values()),
            bytes=sum(head.size for head in heads.values()))


def foreign_file(folder: Path) -> str | None:
    """The first file in a folder that an export did not write, by its own report; without a report, the first of all.
    """
    made = _report(folder / REPORT_FILE).get("files")
    known = {name for name in made if isinstance(name, str)} if isinstance(made, list) else set()
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return min((name for path in found if (name := path.relative_to(folder).as_posix()) not in known), default=None)


def _read(path: Path, *, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    with safetensors_file.opened(path) as file:
        return _object(file, limit=limit)


def _object(file: BinaryIO, *, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    found = safetensors_file.parse_json(file.read(limit + 1), limit=limit, infinities=True)     # diffusers writes them
    if not isinstance(found, dict):
        raise ModelError("it is not a JSON object")
    return found


def _read_header(path: Path) -> safetensors_file.Header:
    if not path.exists() and list(path.parent.glob("*.bin")):
        raise ModelError("its weights are pickles (.bin), which diffuse never loads",
                         hint="Save it anew with safe_serialization=True")
    return safetensors_file.read_header(path)


def _is_silent(path: Path, head: safetensors_file.Header, network: NetworkConfig) -> bool:
    """Whether the variance channels are all zero: those of a model with a fixed variance, which pipelines ask for."""
    with safetensors_file.opened(path) as file:
        for name in ("conv_out.weight", "conv_out.bias"):
            entry = head.tensors.get(name)
            if entry is None or entry.shape[:1] != (network.out_channels,):
                return False
            file.seek(head.data_start + (entry.start + entry.end) // 2)
            if any(file.read((entry.end - entry.start) // 2)):
                return False
    return True


def _report(path: Path) -> dict[str, Any]:
    """What an export says of the model; of no consequence for what is computed, so anything unreadable is nothing."""
    try:
        return _read(path)
    except ModelError:
        return {}
