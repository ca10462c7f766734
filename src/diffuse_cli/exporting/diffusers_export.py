"""A model as a folder of diffusers' form: JSON, safetensors and a tokenizer, written without either library.

Text-conditional models become an `IFPipeline`, others a `DDPMPipeline`: the two stock pipelines that draw pixels. Both
expect variance channels, each in its own way, and get what they expect.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import Export, NetworkConfig
from ..diffusion.schedule import make_schedule
from ..files import durable
from ..network.tokenizer import SPECIAL_TOKENS, joined_merges
from ..storage import diffusers_config
from ..storage.checkpoint import Model, save_tensors
from ..storage.diffusers_config import INDEX_FILE
from ..storage.diffusers_folder import SCHEDULER_FILE, TEXT_ENCODER_FILE, TOKENIZER_FILE, UNET_FILE

SCHEDULER = "ddpm"                              # unless another is asked for


def write(model: Model, folder: Path, how: Export) -> None:
    """Write the folder, which is there and empty. Raises UsageError for what stock classes cannot be, StorageError."""
    config, scheduler = model.config, how.scheduler or SCHEDULER
    network = _with_expected_channels(config.network, learned=config.learned_variance, scheduler=scheduler)
    betas = make_schedule(config.schedule, network.resolution).betas()
    described = diffusers_config.scheduler_config(config, scheduler, betas.tolist())
    _write_json(folder / INDEX_FILE, diffusers_config.pipeline_index(network, described["_class_name"]))
    _write_json(folder / SCHEDULER_FILE, described)
    _write_json(folder / "unet/config.json", diffusers_config.unet_config(network))
    parts = {prefix: {name.removeprefix(prefix): tensor for name, tensor in model.network.state_dict().items()
                      if name.startswith(prefix)} for prefix in ("unet.", "text_encoder.")}
    save_tensors(folder / UNET_FILE, _with_rows(parts["unet."], network.out_channels))
    if network.text is None or model.tokenizer is None:
        return
    _write_json(folder / "text_encoder/config.json", diffusers_config.text_encoder_config(network.text))
    save_tensors(folder / TEXT_ENCODER_FILE, parts["text_encoder."])
    _write_json(folder / TOKENIZER_FILE, joined_merges(model.tokenizer))
    _write_json(folder / "tokenizer/tokenizer_config.json", diffusers_config.tokenizer_config())
    pad, end, unknown = SPECIAL_TOKENS
    _write_json(folder / "tokenizer/special_tokens_map.json", {
        "pad_token": pad, "eos_token": end, "unk_token": unknown})


def _with_expected_channels(network: NetworkConfig, *, learned: bool, scheduler: str) -> NetworkConfig:
    """Two channels for each of a picture where the pipeline takes them apart itself, or its scheduler does."""
    wide = network.text is not None or (learned and scheduler == "ddpm")
    return dataclasses.replace(network, out_channels=(2 if wide else 1) * network.channels)


def _with_rows(tensors: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """The last convolution with so many output channels: those of the variance left out, or zero where there are none.
    """
    changed = {}
    for name in ("conv_out.weight", "conv_out.bias"):
        kept = tensors[name][:rows]
        changed[name] = torch.cat([kept, kept.new_zeros(rows - len(kept), *kept.shape[1:])])
    return tensors | changed


def _write_json(path: Path, content: dict[str, Any]) -> None:
    durable.make_directory(path.parent, mode=0o777)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    durable.write(path, f"{text}\n".encode(), mode=0o666)
