"""Judges a folder in diffusers' form without reading its tensors: which of our models it is.

The folder may come from anywhere. Only files with fixed names are opened, all limits of `safetensors_header` hold, and
a folder that our network cannot express is refused in one line.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from ..checks import size_of_json
from ..errors import ModelError, UsageError
from ..files.strict_json import MAX_JSON_BYTES
from ..model_config import ModelConfig, NetworkConfig
from . import diffusers_config, safetensors_file, safetensors_header
from .diffusers_config import REPORT_FILE, SCHEDULER_FILE, TEXT_ENCODER_FILE, TOKENIZER_FILE, UNET_FILE, is_folder

# Class → whether it takes prompts
_PIPELINES = {"IFPipeline": True, "DDPMPipeline": False, "IFSuperResolutionPipeline": True}


@dataclass(frozen=True, kw_only=True)
class DiffusersFolder:
    """The metadata of a folder, after it was judged."""

    config: ModelConfig
    betas: list[float] | None                   # None: those of the schedule
    tokenizer: dict[str, Any] | None            # contents of its tokenizer.json; None when unconditional
    weights: dict[str, Path]                    # prefix of parameter names → the file that holds these parameters
    report: dict[str, Any]                      # contents of its export.json; empty in folders that are not ours
    parameters: int
    bytes: int                                  # of the files of `weights`


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a model; each may have a seal. Raises ModelError."""
    return list(read_folder(path).weights.values()) if is_folder(path) else [path]


def read_folder(index: Path) -> DiffusersFolder:
    """Judge the folder whose `model_index.json` is given. Raises ModelError."""
    folder = index.parent
    with safetensors_file.opened(index) as file:
        content = _read_object(file)
        kind = content.get("_class_name")
        if not isinstance(kind, str) or kind not in _PIPELINES:
            raise ModelError(f"pipelines of the kind {str(kind)[:60]!r} are not supported, only "
                             f"{' and '.join(_PIPELINES)}")
        conditional = _PIPELINES[kind]
        text = None
        if conditional:
            text = diffusers_config.read_text_encoder(_read_json(folder / "text_encoder/config.json"))
        try:
            upscaler, student = diffusers_config.read_upscaler(content), diffusers_config.read_student(content)
        except UsageError as error:
            raise ModelError(error.what) from error
        if (kind == "IFSuperResolutionPipeline") != (upscaler is not None):
            raise ModelError("only those of its pipelines are supported that `diffuse export` wrote")
        network = diffusers_config.read_unet(_read_json(folder / "unet/config.json"), text, upscaler)
        schedule, prediction, betas = diffusers_config.read_scheduler(_read_json(folder / SCHEDULER_FILE))
        report = _read_report(folder / REPORT_FILE)
        network = _with_sizes(network, report.get("sizes"))
        weights = {"unet.": folder / UNET_FILE} | ({"text_encoder.": folder / TEXT_ENCODER_FILE} if conditional else {})
        headers = {prefix: _read_header(path) for prefix, path in weights.items()}
        if conditional and network.out_channels == 2 * network.channels and _has_zero_variance_channels(
                weights["unet."], headers["unet."], network):
            network = replace(network, out_channels=network.channels)
        config = ModelConfig(network=network, schedule=schedule, prediction=prediction, student=student)
        return DiffusersFolder(
            config=config, betas=betas, weights=weights, report=report,
            tokenizer=(_read_json(folder / TOKENIZER_FILE, limit=safetensors_header.MAX_HEADER_BYTES)
                       if conditional else None),
            parameters=sum(header.parameters for header in headers.values()),
            bytes=sum(header.size for header in headers.values()))


def foreign_file(folder: Path) -> str | None:
    """The first file in a folder that the report of its export does not list; without a report, the first of all."""
    listed = _read_report(folder / REPORT_FILE).get("files")
    exported = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
    files = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return min((name for path in files if (name := path.relative_to(folder).as_posix()) not in exported), default=None)


def _with_sizes(network: NetworkConfig, sizes: Any) -> NetworkConfig:
    """The network with the sizes in the report of an export, if they are there and possible."""
    try:
        listed = tuple(size_of_json(size, "sizes") for size in sizes) if isinstance(sizes, list) else ()
        return network.with_sizes(listed) if len(listed) > 1 and listed[0] == network.resolution else network
    except UsageError:
        return network


def _read_json(path: Path, *, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    with safetensors_file.opened(path) as file:
        return _read_object(file, limit=limit)


def _read_object(file: BinaryIO, *, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read an opened file that holds a JSON object. diffusers writes infinities, which the standard forbids."""
    value = safetensors_header.parse_json(file.read(limit + 1), limit=limit, infinities=True)
    if not isinstance(value, dict):
        raise ModelError("it is not a JSON object")
    return value


def _read_header(path: Path) -> safetensors_header.Header:
    if not path.exists() and list(path.parent.glob("*.bin")):
        raise ModelError("its weights are pickles (.bin), which diffuse never loads",
                         hint="Save it anew with safe_serialization=True")
    return safetensors_file.read_header(path)


def _has_zero_variance_channels(path: Path, header: safetensors_header.Header, network: NetworkConfig) -> bool:
    """Whether all weights of the variance channels are zero, as in the export of a model with a fixed variance."""
    with safetensors_file.opened(path) as file:
        for name in ("conv_out.weight", "conv_out.bias"):
            entry = header.tensors.get(name)
            if entry is None or entry.shape[:1] != (network.out_channels,):
                return False
            file.seek(header.data_start + (entry.start + entry.end) // 2)
            if any(file.read((entry.end - entry.start) // 2)):
                return False
    return True


def _read_report(path: Path) -> dict[str, Any]:
    """Read the report of an export; empty if that is not possible, since no computation depends on it."""
    try:
        return _read_json(path)
    except ModelError:
        return {}
