"""Exports a model as a folder that diffusers can load: JSON, safetensors and a tokenizer.

Neither diffusers nor transformers is needed to write it. Text-conditional models become an `IFPipeline` and others a
`DDPMPipeline`, the two stock pipelines that generate pixels. Each treats variance channels in its own way, and the
folder has the channels that it expects.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import Export
from ..diffusion.schedule import make_schedule
from ..errors import UsageError
from ..files import durable
from ..model_config import NetworkConfig
from ..network.tokenizer import SPECIAL_TOKENS, joined_merges
from ..storage import diffusers_config
from ..storage.checkpoint import Model, save_folder_part
from ..storage.diffusers_config import (
    INDEX_FILE,
    NOISING_FILE,
    SCHEDULER_FILE,
    TEXT_ENCODER_FILE,
    TOKENIZER_FILE,
    UNET_FILE,
)

DEFAULT_SCHEDULER, STUDENT_SCHEDULER = "ddpm", "ddim"


def write(model: Model, folder: Path, settings: Export) -> None:
    """Fill the folder, which exists and is empty.

    Raises UsageError if the stock classes cannot represent the model, and StorageError.
    """
    config, student = model.config, model.config.student
    if student is not None and config.is_upscaler:
        raise UsageError("stock pipelines start from noise, and a distilled upscaler from its small picture",
                         hint="Export it as safetensors, or export its teacher")
    scheduler = settings.scheduler or (DEFAULT_SCHEDULER if student is None else STUDENT_SCHEDULER)
    if student is not None and scheduler != STUDENT_SCHEDULER:
        raise UsageError(f"a distilled model samples with {STUDENT_SCHEDULER} alone, not with {scheduler}",
                         hint="Leave --scheduler out")
    network = _with_expected_channels(config.network, learned=config.learned_variance, scheduler=scheduler)
    betas = make_schedule(config.schedule, network.schedule_side).betas()
    scheduler_config = diffusers_config.scheduler_config(config, scheduler, betas.tolist())
    _write_json(folder / INDEX_FILE, diffusers_config.pipeline_index(
        network, scheduler_config["_class_name"], student))
    _write_json(folder / SCHEDULER_FILE, scheduler_config)
    if network.upscaling is not None:
        _write_json(folder / NOISING_FILE, diffusers_config.scheduler_config(config, "ddpm", betas.tolist()))
    _write_json(folder / "unet/config.json", diffusers_config.unet_config(network))
    parts = {prefix: {name.removeprefix(prefix): tensor for name, tensor in model.network.state_dict().items()
                      if name.startswith(prefix)} for prefix in ("unet.", "text_encoder.")}
    save_folder_part(folder / UNET_FILE, _with_output_channels(parts["unet."], network.out_channels))
    if network.text is None or model.tokenizer is None:
        return
    _write_json(folder / "text_encoder/config.json", diffusers_config.text_encoder_config(network.text))
    save_folder_part(folder / TEXT_ENCODER_FILE, parts["text_encoder."])
    _write_json(folder / TOKENIZER_FILE, joined_merges(model.tokenizer))
    _write_json(folder / "tokenizer/tokenizer_config.json", diffusers_config.tokenizer_config())
    pad, end, unknown = SPECIAL_TOKENS
    _write_json(folder / "tokenizer/special_tokens_map.json", {
        "pad_token": pad, "eos_token": end, "unk_token": unknown})


def _with_expected_channels(network: NetworkConfig, *, learned: bool, scheduler: str) -> NetworkConfig:
    """Return the network with twice the picture's channels if the pipeline or its scheduler splits off the variance."""
    wide = network.text is not None or (learned and scheduler == "ddpm")
    return dataclasses.replace(network, out_channels=(2 if wide else 1) * network.channels)


def _with_output_channels(tensors: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Give the last convolution `count` output channels: leave out those of the variance, or add channels of zeros."""
    resized = {}
    for name in ("conv_out.weight", "conv_out.bias"):
        kept = tensors[name][:count]
        resized[name] = torch.cat([kept, kept.new_zeros(count - len(kept), *kept.shape[1:])])
    return tensors | resized


def _write_json(path: Path, content: dict[str, Any]) -> None:
    durable.make_directory(path.parent, mode=0o777)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    durable.write(path, f"{text}\n".encode(), mode=0o666)
