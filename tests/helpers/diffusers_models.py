"""Our networks built from diffusers and transformers, as independent implementations to compare with.

Not a test itself. Importing it needs both libraries.
"""

import diffusers
import torch
import transformers

from diffuse_cli.model_config import NetworkConfig, TextConfig

UNCONDITIONAL_BLOCKS = {"none": "Resnet{}sampleBlock2D", "full": "Attn{}Block2D"}
CONDITIONAL_BLOCKS = {
    "none": "Resnet{}sampleBlock2D", "text": "SimpleCrossAttn{}Block2D", "full": "SimpleCrossAttn{}Block2D",
}


def stock_unet(config: NetworkConfig) -> torch.nn.Module:
    """Build the model of diffusers that computes the same as `UNet(config)`."""
    blocks = CONDITIONAL_BLOCKS if config.text else UNCONDITIONAL_BLOCKS
    common = {
        "sample_size": config.resolution.width, "in_channels": config.channels, "out_channels": config.out_channels,
        "block_out_channels": config.widths, "norm_num_groups": config.groups, "norm_eps": 1e-5, "act_fn": "silu",
        "down_block_types": tuple(blocks[kind].format("Down") for kind in config.attention),
        "up_block_types": tuple(blocks[kind].format("Up") for kind in reversed(config.attention)),
        "attention_head_dim": config.head_dim, "resnet_time_scale_shift": "scale_shift", "flip_sin_to_cos": True,
        "freq_shift": 0, "time_embedding_type": "positional",
    }
    if config.text is None:
        assert config.time_width == 4 * config.widths[0]
        (depth,) = set(config.depths)
        return diffusers.UNet2DModel(
            **common, layers_per_block=depth, attn_norm_num_groups=config.groups, downsample_type="resnet",
            upsample_type="resnet",
        )
    return diffusers.UNet2DConditionModel(
        **common, layers_per_block=list(config.depths), time_embedding_dim=config.time_width,
        time_embedding_act_fn="silu", resnet_skip_time_act=True, cross_attention_dim=config.text.width,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", mid_block_only_cross_attention=False,
        only_cross_attention=[kind == "text" for kind in config.attention], addition_embed_type="text",
        addition_embed_type_num_heads=config.text.heads,
    )


def stock_text_encoder(config: TextConfig) -> transformers.T5EncoderModel:
    """Build the model of transformers that computes the same as `TextEncoder(config)`."""
    return transformers.T5EncoderModel(transformers.T5Config(
        vocab_size=config.vocabulary, d_model=config.width, d_kv=config.width // config.heads, d_ff=config.feed_forward,
        num_layers=config.layers, num_heads=config.heads, feed_forward_proj="gated-gelu", dropout_rate=0.0,
        relative_attention_num_buckets=32, relative_attention_max_distance=128, layer_norm_epsilon=0.1,
        pad_token_id=0, eos_token_id=1, use_cache=False, is_encoder_decoder=False,
    ))
