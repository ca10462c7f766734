"""Models and training states as safetensors files: the only module that reads and writes tensors on the disk.

A model file is self-contained: averaged weights, configuration, tokenizer, word counts and a summary of its training.
It is sealed, so that a single changed bit is noticed. A file from anywhere is judged before anything is built from it:
first its header (`safetensors_header`), then its configuration, then whether its tensors are exactly those of that
configuration, then the seal over their bytes, and last whether all numbers are finite.

Models, slim exports and states are written by our own encoder: equal contents give equal, sealed files, which the
safetensors library cannot promise. The library writes the parts of exported folders, to which the seal is added, and
reads the parts of folders that have no seal.
"""

import errno
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from ..checks import to_dict
from ..config import FORMAT_VERSION
from ..diffusion.schedule import make_schedule
from ..errors import ModelError
from ..files import durable
from ..model_config import ModelConfig
from ..network.network import Network, parameter_shapes
from ..network.tokenizer import load_tokenizer, paired_merges
from . import registry, safetensors_file, safetensors_header
from .diffusers_config import is_folder
from .diffusers_folder import read_folder
from .model_info import ModelInfo, TrainingSummary, check_version, info_of_folder, info_of_header, object_of

BETA_TOLERANCE = 1e-6                           # largest difference of a beta that has been rounded to float32
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Model:
    """A model ready to sample."""

    config: ModelConfig
    network: Network                            # averaged weights, in eval mode
    tokenizer: Tokenizer | None                 # None when unconditional
    words: dict[str, int] = field(default_factory=dict)     # how often each word occurred in the captions
    training: TrainingSummary = field(default_factory=TrainingSummary)
    sha256: str = ""                            # of the tensors: the model's identity; empty if it has no file


# ── Models ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def save_model(
    path: Path, *, config: ModelConfig, weights: Mapping[str, Tensor], tokenizer: Tokenizer | None,
    words: Mapping[str, int], training: TrainingSummary, report: Mapping[str, Any] | None = None,
    mode: int = 0o600,
) -> str:
    """Write a model file durably. → the SHA-256 of its tensors. Equal contents give equal files.

    report: the report of the export that writes the file; it is kept in the header. mode: permissions of the file.
    Raises StorageError, and ModelError if a weight is not finite: such a number never reaches the disk.
    """
    _check_finite(weights)
    tensors = _encoded(weights)
    sha256 = _tensors_sha256(tensors)
    metadata = {
        "diffuse.format_version": str(FORMAT_VERSION),
        "diffuse.config": _compact_json(_described(config)),
        "diffuse.words": _compact_json(dict(words)),
        "diffuse.training": _compact_json(training.to_json()),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "diffuse-unet",
        "modelspec.implementation": "diffuse-cli",
        "modelspec.title": training.name or "model",
        "modelspec.resolution": "{}x{}".format(*config.network.resolution),
        "modelspec.prediction_type": {"v": "v", "epsilon": "epsilon", "x0": "sample"}[config.prediction],
        "modelspec.hash_sha256": f"0x{sha256}",
    }
    if report is not None:
        metadata["diffuse.export"] = _compact_json(dict(report))
    if tokenizer is not None:
        metadata["diffuse.tokenizer"] = tokenizer.to_str()
    durable.write(path, safetensors_file.encode(tensors, metadata), mode=mode)
    return sha256


def save_folder_part(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors without our metadata, for other programs: one part of a folder in diffusers' form. It is sealed.

    The safetensors library writes a draft to the disk; in memory it would make two more copies of all tensors. Raises
    StorageError.
    """
    durable.make_directory(path.parent, mode=0o777)
    write = functools.partial(save_file, _on_cpu(tensors), metadata={"format": "pt"})
    try:
        with durable.draft(path, write) as file, durable.stream(path, mode=0o666) as add:
            for piece in safetensors_file.sealed(file):
                add(piece)
    except SafetensorError as error:            # the number of the system's error is only in its text
        code = re.search(r"os error (\d+)", str(error))
        cause = OSError(int(code[1]), os.strerror(int(code[1]))) if code else OSError(str(error))
        durable.fail(cause, path, need=sum(tensor.nbytes for tensor in tensors.values()))
    except ModelError as error:                 # the draft on the disk is not a sound file
        durable.fail(OSError(errno.EIO, error.what), path)


def _described(config: ModelConfig) -> dict[str, Any]:
    """The config as JSON. Entries that earlier versions do not know are left out where they say nothing."""
    entries = to_dict(config)
    if config.student is None:
        del entries["student"]
    elif config.student.start == 1:
        del entries["student"]["start"]
    for name in ("buckets", "upscaling"):
        if not entries["network"][name]:
            del entries["network"][name]
    return entries


def load_model(path: Path, device: torch.device) -> Model:
    """Read, judge and build the model in a file, or in a folder in diffusers' form, given by its `model_index.json`.

    Its name is the one by which commands find it, if there is one. Raises ModelError.
    """
    if is_folder(path):
        return _load_folder(path, device)
    with safetensors_file.opened(path) as file:
        head = safetensors_file.read_header(file)
        info = info_of_header(head)
        config = info.config
        _check_shapes(head, parameter_shapes(config.network))
        weights = _read_tensors(file, head)
        _check_finite(weights)
        tokenizer = None
        if config.conditional:
            tokenizer = _checked_tokenizer(load_tokenizer(head.metadata.get("diffuse.tokenizer", "")), config)
    model = _build_model(info, weights, tokenizer, device)
    name = registry.name_of(path) or model.training.name
    return replace(model, training=replace(model.training, name=name))


def _load_folder(index: Path, device: torch.device) -> Model:
    folder = read_folder(index)
    info, weights = info_of_folder(index.parent.absolute().name, folder), {}
    config = info.config
    expected = parameter_shapes(config.network)
    with safetensors_file.opened(index):
        if folder.betas is not None:
            betas = make_schedule(config.schedule, config.network.schedule_side).betas()
            if (betas - torch.tensor(folder.betas, dtype=torch.float64)).abs().max() > BETA_TOLERANCE:
                raise ModelError("its noise schedule is none of those that are supported")
        for prefix, path in folder.weights.items():
            part = {name.removeprefix(prefix): shape for name, shape in expected.items() if name.startswith(prefix)}
            weights.update({f"{prefix}{name}": tensor for name, tensor in _read_part(path, part, config).items()})
        tokenizer = None
        if folder.tokenizer is not None:
            tokenizer = _checked_tokenizer(load_tokenizer(json.dumps(paired_merges(folder.tokenizer))), config)
    return _build_model(info, weights, tokenizer, device)


def _read_part(path: Path, shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> dict[str, Tensor]:
    """Read the tensors of one file of a folder. Raises ModelError.

    shapes: of all tensors, by name. Variance channels that a model with a fixed variance has for the sake of a stock
    pipeline are all zero, and left out.
    """
    with safetensors_file.opened(path) as file:
        head = safetensors_file.read_header(file)
        doubled = {name: (2 * shape[0], *shape[1:]) for name, shape in shapes.items()
                   if name.startswith("conv_out.") and config.conditional and not config.learned_variance}
        _check_shapes(head, {**shapes, **doubled})
        tensors = _read_foreign(path, head) if head.seal_start is None else _read_tensors(file, head)
        _check_finite(tensors)
    return {name: tensor[: len(tensor) // 2].clone() if name in doubled else tensor for name, tensor in tensors.items()}


def _build_model(
    info: ModelInfo, weights: dict[str, Tensor], tokenizer: Tokenizer | None, device: torch.device,
) -> Model:
    """Build the model of weights that were judged. Empties `weights`: no tensor is in memory twice."""
    sha256 = _tensors_sha256(_encoded(weights))
    with torch.device("meta"):
        network = Network(info.config.network)
    names = list(weights)
    network.load_state_dict({name: weights.pop(name).float() for name in names}, assign=True)
    network.place_on(device).eval().requires_grad_(False)
    return Model(config=info.config, network=network, tokenizer=tokenizer, words=info.words,
                 training=info.training, sha256=sha256)


# ── Training states ─────────────────────────────────────────────────────────────────────────────────────────────────


def save_state(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> tuple[int, str]:
    """Write a training state durably. → (size in bytes, SHA-256 of the file). Raises what `save_model` raises."""
    _check_finite(tensors)
    data = safetensors_file.encode(_encoded(tensors), {
        "diffuse.format_version": str(FORMAT_VERSION), "diffuse.record": _compact_json(dict(record))})
    durable.write(path, data)
    digest = hashlib.sha256()
    for piece in data:
        digest.update(piece)
    return sum(len(piece) for piece in data), digest.hexdigest()


def load_state(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a training state whose tensors must have exactly these names and shapes. → (tensors, record)

    Raises ModelError.
    """
    with safetensors_file.opened(path) as file:
        head = safetensors_file.read_header(file)
        check_version(head)
        if {name: entry.shape for name, entry in head.tensors.items()} != dict(shapes):
            raise ModelError("its tensors are not those of this run")
        tensors = _read_tensors(file, head)
        return tensors, object_of(head, "diffuse.record")


# ── Small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _checked_tokenizer(tokenizer: Tokenizer, config: ModelConfig) -> Tokenizer:
    if config.network.text is None or tokenizer.get_vocab_size() != config.network.text.vocabulary:
        raise ModelError("its tokenizer does not fit its network")
    return tokenizer


def _check_shapes(head: safetensors_header.Header, expected: Mapping[str, tuple[int, ...]]) -> None:
    shapes = {name: entry.shape for name, entry in head.tensors.items()}
    if expected != shapes:
        wrong = sorted(name for name in expected.keys() | shapes.keys() if expected.get(name) != shapes.get(name))
        raise ModelError(f"its tensors do not fit its configuration ({len(wrong)} differ, first {wrong[0]})")


def _read_tensors(file: BinaryIO, head: safetensors_header.Header) -> dict[str, Tensor]:
    """Read all tensors of an opened file and check its seal. Raises ModelError."""
    types = _types_of(head)
    return {name: torch.frombuffer(data, dtype=types[name]).view(entry.shape)
            for name, entry, data in safetensors_file.read_sealed(file, head)}


def _read_foreign(path: Path, head: safetensors_header.Header) -> dict[str, Tensor]:
    """Read all tensors of a file without a seal, with the safetensors library. Raises ModelError.

    The library opens the file by its name, which may mean another file by now: the tensors are compared with `head`.
    "pread" copies one tensor at a time; if the file were mapped into memory and then cut, the process would be killed.
    """
    types = _types_of(head)
    try:
        with safe_open(path, "pt", backend="pread") as file:
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in head.tensors}
    except SafetensorError as error:
        raise ModelError("it was changed while it was read, or the disk fails") from error
    if any((tensor.dtype, tuple(tensor.shape)) != (types[name], head.tensors[name].shape)
           for name, tensor in tensors.items()):
        raise ModelError("it was changed while it was read")
    return tensors


def _types_of(head: safetensors_header.Header) -> dict[str, torch.dtype]:
    """The torch type of each tensor in a header. Raises ModelError for a type that no weights have."""
    types = {name: dtype for dtype, name in _DTYPES.items()}
    if odd := sorted({entry.dtype for entry in head.tensors.values()} - set(types)):
        raise ModelError(f"its tensors have the type {odd[0]}")
    return {name: types[entry.dtype] for name, entry in head.tensors.items()}


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"the tensor {name} holds numbers that are not finite")


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the CPU's memory, contiguous and sorted by name."""
    return {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}


def _encoded(tensors: Mapping[str, Tensor]) -> list[safetensors_file.RawTensor]:
    """The tensors as bytes, sorted by name."""
    return [(name, _DTYPES[tensor.dtype], tuple(tensor.shape), tensor.flatten().view(torch.uint8).numpy().data)
            for name, tensor in _on_cpu(tensors).items()]


def _tensors_sha256(tensors: list[safetensors_file.RawTensor]) -> str:
    digest = hashlib.sha256()
    for *_, data in safetensors_file.canonical_order(tensors):
        digest.update(data)
    return digest.hexdigest()


def _compact_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=False, separators=(",", ":"))
