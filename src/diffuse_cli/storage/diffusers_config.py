"""Translates a model's configuration into the words of diffusers and transformers, and back.

Dictionaries in, dictionaries out: needs neither of the two libraries. A configuration that was read is believed only if
writing it again gives the same. So everything that a stock model can do and our network cannot is refused, by the name
of the first entry that differs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import from_dict, to_dict
from ..errors import ModelError, UsageError
from ..model_config import ModelConfig, NetworkConfig, Student, TextConfig, Upscaling
from ..picture_size import Size

INDEX_FILE = "model_index.json"                 # its path stands for the folder wherever a model's path is expected
REPORT_FILE = "export.json"                     # the report of an export, which other programs do not read
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
TEXT_ENCODER_FILE = "text_encoder/model.safetensors"
TOKENIZER_FILE = "tokenizer/tokenizer.json"
SCHEDULER_FILE = "scheduler/scheduler_config.json"
NOISING_FILE = "image_noising_scheduler/scheduler_config.json"
WRITTEN_FOR = "0.27.0"                          # the oldest generation of diffusers that reads what is written here
LENGTH = 77                                     # tokens of a prompt
BETAS = 1000                                    # steps of the noise process
PREDICTION_TYPES = {"v": "v_prediction", "epsilon": "epsilon", "x0": "sample"}
LEARNED_RANGE, FIXED_SMALL = "learned_range", "fixed_small"
CONDITIONAL, UNCONDITIONAL = "UNet2DConditionModel", "UNet2DModel"
STUDENT_KEY, UPSCALER_KEY = "_diffuse_student", "_diffuse_upscaler"     # of `INDEX_FILE`; diffusers skips such names

_DOWN_BLOCKS = {
    CONDITIONAL: {"none": "ResnetDownsampleBlock2D", "text": "SimpleCrossAttnDownBlock2D",
                  "full": "SimpleCrossAttnDownBlock2D"},
    UNCONDITIONAL: {"none": "ResnetDownsampleBlock2D", "full": "AttnDownBlock2D"},
}

# What an absent key means to the stock classes. Of a key that we never write, our network can do no other value.
_USUAL_UNET: dict[str, Any] = {
    "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0, "dropout": 0.0, "act_fn": "silu",
    "norm_num_groups": 32, "norm_eps": 1e-5, "attention_head_dim": 8, "resnet_time_scale_shift": "default",
    "time_embedding_type": "positional", "layers_per_block": 2, "mid_block_scale_factor": 1, "downsample_padding": 1,
    "class_embed_type": None, "num_class_embeds": None,
}
_USUAL: dict[str, dict[str, Any]] = {
    CONDITIONAL: _USUAL_UNET | {
        "mid_block_type": "UNetMidBlock2DCrossAttn", "only_cross_attention": False, "time_embedding_act_fn": None,
        "resnet_skip_time_act": False, "addition_embed_type": None, "addition_embed_type_num_heads": 64,
        "mid_block_only_cross_attention": None, "cross_attention_dim": 1280, "conv_in_kernel": 3, "conv_out_kernel": 3,
        "resnet_out_scale_factor": 1.0, "transformer_layers_per_block": 1, "attention_type": "default"},
    UNCONDITIONAL: _USUAL_UNET | {
        "add_attention": True, "attn_norm_num_groups": None, "downsample_type": "conv", "upsample_type": "conv",
        "mid_block_type": "UNetMidBlock2D"},
}


@dataclass(frozen=True, kw_only=True)
class Upscaler:
    """What the files of diffusers have no place for."""

    upscaling: Upscaling
    crop: Size                                  # on which it was trained, and whose noise schedule it has


# ── The U-Net ───────────────────────────────────────────────────────────────────────────────────────────────────────


def unet_class(network: NetworkConfig) -> str:
    """The class of diffusers that has the computation and the parameter names of our U-Net."""
    return UNCONDITIONAL if network.text is None else CONDITIONAL


def unet_config(network: NetworkConfig) -> dict[str, Any]:
    """The entries of `unet/config.json`. Raises UsageError for the few shapes that the stock class cannot have."""
    kind, text = unet_class(network), network.text
    blocks = [_DOWN_BLOCKS[kind][attention] for attention in network.attention]
    config: dict[str, Any] = {
        "_class_name": kind, "_diffusers_version": WRITTEN_FOR, "sample_size": _sample_size(_drawn(network)),
        "in_channels": network.in_channels, "out_channels": network.out_channels,
        "block_out_channels": list(network.widths), "down_block_types": blocks,
        "up_block_types": [block.replace("Down", "Up") for block in reversed(blocks)],
        "norm_num_groups": network.groups, "norm_eps": 1e-5, "act_fn": "silu", "dropout": 0.0,
        "flip_sin_to_cos": True, "freq_shift": 0, "time_embedding_type": "positional",
        "resnet_time_scale_shift": "scale_shift", "attention_head_dim": network.head_dim}
    if network.upscaling is not None:
        if text is None:
            raise UsageError("the stock pipeline that enlarges pictures needs a network that reads captions",
                             hint="Export this model as safetensors")
        config["class_embed_type"] = "timestep"
    if text is None:
        if len(set(network.depths)) > 1 or network.time_width != 4 * network.widths[0]:
            raise UsageError("the stock unconditional network has one depth for all levels and a time embedding four "
                             "times as wide as its first level", hint="Export this model as safetensors")
        return config | {
            "layers_per_block": network.depths[0], "add_attention": True, "attn_norm_num_groups": network.groups,
            "downsample_type": "resnet", "upsample_type": "resnet"}
    return config | {
        "layers_per_block": list(network.depths), "time_embedding_dim": network.time_width,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "mid_block_only_cross_attention": network.middle_attention == "text",
        "only_cross_attention": [attention == "text" for attention in network.attention],
        "cross_attention_dim": text.width, "resnet_skip_time_act": True, "time_embedding_act_fn": "silu",
        "addition_embed_type": "text", "addition_embed_type_num_heads": text.heads}


def read_unet(entries: Mapping[str, Any], text: TextConfig | None, upscaler: Upscaler | None = None) -> NetworkConfig:
    """Read a `unet/config.json`. Raises ModelError if it describes a network that ours cannot be.

    upscaler: what the folder says of one.
    """
    kind = entries.get("_class_name")
    if kind != (UNCONDITIONAL if text is None else CONDITIONAL):
        raise ModelError(f"its network is a {str(kind)[:60]}, not a {UNCONDITIONAL if text is None else CONDITIONAL}")
    values = {**_USUAL[kind], **entries}
    try:
        widths, blocks = values["block_out_channels"], values["down_block_types"]
        depths, only = values["layers_per_block"], values.get("only_cross_attention")
        kinds = {block: attention for attention, block in _DOWN_BLOCKS[kind].items()}
        if unknown := [block for block in blocks if block not in kinds]:
            raise ModelError(f"its blocks {str(unknown[0])[:60]!r} are not supported, only {', '.join(kinds)}")
        attention = tuple("text" if kinds[block] == "full" and only and (only is True or only[level]) else kinds[block]
                          for level, block in enumerate(blocks))
        network = NetworkConfig(
            resolution=_read_sample_size(values["sample_size"]) if upscaler is None else upscaler.crop,
            upscaling=None if upscaler is None else upscaler.upscaling, widths=tuple(map(_whole, widths)),
            depths=tuple(map(_whole, depths)) if isinstance(depths, list) else (_whole(depths),) * len(widths),
            attention=attention, head_dim=_whole(values["attention_head_dim"]),
            groups=_whole(values["norm_num_groups"]), text=text,
            channels=_whole(values["in_channels"]) // (1 if upscaler is None else 2),
            time_width=_whole(values.get("time_embedding_dim") or 4 * widths[0]),
            out_channels=_whole(values["out_channels"]))
        own = unet_config(network)
        values["sample_size"] = own["sample_size"]                     # which says the same in one of its two forms
        _check_same(own, values, _USUAL[kind], where="unet/config.json")
    except (KeyError, TypeError, IndexError) as error:
        raise ModelError("its unet/config.json is not that of a network") from error
    except UsageError as error:
        raise ModelError(f"its network is not supported: {error.what}") from error
    return network


# ── The text encoder ────────────────────────────────────────────────────────────────────────────────────────────────


def text_encoder_config(text: TextConfig) -> dict[str, Any]:
    """The entries of `text_encoder/config.json`."""
    return {
        "architectures": ["T5EncoderModel"], "model_type": "t5", "vocab_size": text.vocabulary, "d_model": text.width,
        "d_kv": text.width // text.heads, "d_ff": text.feed_forward, "num_layers": text.layers,
        "num_heads": text.heads, "feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 0.1, "dropout_rate": 0.0,
        "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "is_encoder_decoder": False,
        "use_cache": False, "pad_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": True}


def read_text_encoder(entries: Mapping[str, Any]) -> TextConfig:
    """Read a `text_encoder/config.json`. Raises ModelError if it describes an encoder that ours cannot be."""
    try:
        text = TextConfig(vocabulary=_whole(entries["vocab_size"]), width=_whole(entries["d_model"]),
                          layers=_whole(entries["num_layers"]))
    except (KeyError, TypeError) as error:
        raise ModelError("its text_encoder/config.json is not that of a T5 encoder") from error
    except UsageError as error:
        raise ModelError(f"its text encoder is not supported: {error.what}") from error
    ignored = ("is_encoder_decoder", "use_cache", "tie_word_embeddings", "dropout_rate")   # change no computation here
    expected = {key: value for key, value in text_encoder_config(text).items() if key not in ignored}
    _check_same(expected, entries, None, where="text_encoder/config.json")
    return text


def tokenizer_config() -> dict[str, Any]:
    """The entries of `tokenizer/tokenizer_config.json`.

    They name a class that takes the tokenizer as it is, by the name that all versions of transformers know.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
        "model_max_length": LENGTH, "padding_side": "right", "truncation_side": "right",
        "clean_up_tokenization_spaces": False}


# ── The scheduler ───────────────────────────────────────────────────────────────────────────────────────────────────


def scheduler_config(config: ModelConfig, scheduler: str, betas: Sequence[float]) -> dict[str, Any]:
    """The entries of `scheduler/scheduler_config.json`, for one of config.EXPORT_SCHEDULERS and the betas of all steps.

    Pipelines read in `variance_type` how to treat the variance channels. All schedulers but DDPM have to be told that
    there are none.
    """
    common: dict[str, Any] = {
        "_diffusers_version": WRITTEN_FOR, "num_train_timesteps": BETAS, "trained_betas": list(betas),
        "prediction_type": PREDICTION_TYPES[config.prediction], "variance_type": FIXED_SMALL}
    if scheduler == "ddpm":                     # with "leading" alone, all versions take the same time steps
        return {"_class_name": "DDPMScheduler"} | common | {
            "variance_type": LEARNED_RANGE if config.learned_variance else FIXED_SMALL,
            "clip_sample": True, "clip_sample_range": 1.0, "timestep_spacing": "leading", "steps_offset": 0}
    if scheduler == "ddim":                     # at t = 1 a small error of the noise is a huge error of the picture
        spacing = "leading" if config.prediction == "epsilon" else "trailing"
        return {"_class_name": "DDIMScheduler"} | common | {       # a clipped estimate would not fit its noise
            "clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": spacing, "steps_offset": 0}
    capped = betas[-1] > 0.99                   # in cosine and sigmoid; the solver must not start in that jump
    return {"_class_name": "DPMSolverMultistepScheduler"} | common | {
        "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint", "lower_order_final": True,
        "final_sigmas_type": "zero", "timestep_spacing": "linspace", "steps_offset": 0,
        "thresholding": True, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0,      # clips to [-1, 1]
        **({"lambda_min_clipped": -5.1} if capped else {})}


def read_scheduler(entries: Mapping[str, Any]) -> tuple[str, str, list[float] | None]:
    """Read a `scheduler_config.json`. → (schedule, prediction, betas); no betas if the schedule is known by name

    Only the first and the last beta choose the schedule: compare all betas with it when the model is loaded. Raises
    ModelError.
    """
    where, betas = "scheduler/scheduler_config.json", entries.get("trained_betas")
    kind = str(entries.get("_class_name"))[:60]
    if entries.get("num_train_timesteps", BETAS) != BETAS or entries.get("rescale_betas_zero_snr"):
        raise ModelError(f"its {kind} is not supported: {where} must have {BETAS} steps, not rescaled")
    types = {name: prediction for prediction, name in PREDICTION_TYPES.items()}
    prediction = entries.get("prediction_type", "epsilon")
    if not isinstance(prediction, str) or prediction not in types:
        raise ModelError(f"its prediction type {str(prediction)[:40]!r} is not supported, only {', '.join(types)}")
    if betas is None:
        stock = tuple(entries.get(key, usual) for key, usual in (
            ("beta_schedule", "linear"), ("beta_start", 1e-4), ("beta_end", 0.02)))
        if "Flow" in kind or (stock[0] != "squaredcos_cap_v2" and stock != ("linear", 1e-4, 0.02)):
            raise ModelError(f"its noise schedule is not supported: {kind} with {stock[0]!r}")
        return "linear" if stock[0] == "linear" else "cosine", types[prediction], None
    if not (isinstance(betas, list) and len(betas) == BETAS
            and all(type(beta) is float and 0 < beta < 1 for beta in betas)):
        raise ModelError(f"trained_betas in its {where} are not {BETAS:,} numbers between 0 and 1")
    if betas[-1] < 0.1:
        schedule = "linear"
    elif betas[-1] < 0.9:
        schedule = "interpolated"
    else:
        schedule = "cosine" if betas[0] < 1.5e-4 else "sigmoid"
    return schedule, types[prediction], betas


# ── The pipeline ────────────────────────────────────────────────────────────────────────────────────────────────────


def pipeline_index(network: NetworkConfig, scheduler_class: str, student: Student | None = None) -> dict[str, Any]:
    """The entries of `model_index.json`. student: of a distilled model."""
    parts: dict[str, Any] = {"scheduler": ["diffusers", scheduler_class], "unet": ["diffusers", unet_class(network)]}
    if network.upscaling is not None:
        parts["image_noising_scheduler"] = ["diffusers", "DDPMScheduler"]
        parts[UPSCALER_KEY] = to_dict(Upscaler(upscaling=network.upscaling, crop=network.resolution))
    if student is not None:
        parts[STUDENT_KEY] = to_dict(student)
    if network.text is None:
        return {"_class_name": "DDPMPipeline", "_diffusers_version": WRITTEN_FOR, **parts}
    return {
        "_class_name": "IFPipeline" if network.upscaling is None else "IFSuperResolutionPipeline",
        "_diffusers_version": WRITTEN_FOR, **parts,
        "text_encoder": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "feature_extractor": [None, None], "safety_checker": [None, None], "watermarker": [None, None],
        "requires_safety_checker": False}


def read_student(index: Mapping[str, Any]) -> Student | None:
    """Read what a `model_index.json` of ours says about a distilled model. Raises UsageError if it is impossible."""
    return None if STUDENT_KEY not in index else from_dict(Student, index[STUDENT_KEY], where=STUDENT_KEY)


def read_upscaler(index: Mapping[str, Any]) -> Upscaler | None:
    """Read what a `model_index.json` of ours says about an upscaler. Raises UsageError if it is impossible."""
    return None if UPSCALER_KEY not in index else from_dict(Upscaler, index[UPSCALER_KEY], where=UPSCALER_KEY)


# ── Small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_same(
    expected: Mapping[str, Any], found: Mapping[str, Any], usual: Mapping[str, Any] | None, *, where: str,
) -> None:
    """Raise ModelError for the first entry of `expected` that is missing from `found` or has another value there.

    With `usual`, the other entries of `found` are checked too: each must be as in `usual`, or None or False. Names that
    begin with "_" are never checked. where: the file or part that the error message names.
    """
    others = {} if usual is None else {key: usual.get(key) for key in found if key not in expected}
    for key, value in {**others, **expected}.items():
        if not key.startswith("_") and not _equal(found.get(key), value) and not (
                usual is not None and key not in expected and (found[key] is None or found[key] is False)):
            raise ModelError(f"its {where} is not supported: {key} is {str(found.get(key))[:60]}, not {value}")


def _equal(found: Any, expected: Any) -> bool:
    """Whether JSON values are equal, where one value may stand for a list of equal ones."""
    if isinstance(expected, list) and not isinstance(found, list):
        return all(_equal(found, item) for item in expected)
    if isinstance(expected, float) and type(found) in (int, float):
        return math.isclose(found, expected, rel_tol=1e-9, abs_tol=0)
    return type(found) is type(expected) and bool(found == expected)


def _sample_size(resolution: Size) -> int | list[int]:
    """Pixels of a picture as diffusers writes them: the side of a square, otherwise height and width."""
    return resolution.width if resolution.is_square else [resolution.height, resolution.width]


def _drawn(network: NetworkConfig) -> Size:
    """The size of the pictures that the network draws, unless it is told another."""
    return network.resolution if network.upscaling is None else network.upscaling.large


def _read_sample_size(value: Any) -> Size:
    """The inverse of `_sample_size`. Raises TypeError for any other value."""
    if not isinstance(value, list):
        return Size.of(_whole(value))
    height, width = map(_whole, value) if len(value) == 2 else (None, None)
    return Size(_whole(width), _whole(height))


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def is_folder(path: Path) -> bool:
    """Whether the path of a model stands for a folder in diffusers' form."""
    return path.name == INDEX_FILE
