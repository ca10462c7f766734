"""Captions → tokens → features: a byte-level BPE trained on the captions, and a T5 encoder trained with the U-Net.

Knows language only as bytes that often stand together; does not know pictures, noise, or when captions are dropped.
The encoder is T5 v1.1's (Raffel et al., 1910.10683; Shazeer, 2002.05202): its parameters are named as in transformers'
`T5EncoderModel` and mean the same, and the tokenizer's JSON gives the same ids there, so an export is a copy.

Letters in the shape comments: M captions, T = 77 positions, C features, h heads of d features each.
"""


import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TextConfig
from .blocks import merge_heads, split_heads
from .tokenizer import END, PAD

# Relative distances 0…7 have a bucket each; then the buckets widen by √2: 8·2^(k/2), rounded up, from 8 to 128.
NEAR_BUCKETS = 8
FAR_BUCKET_EDGES = (12, 16, 23, 32, 46, 64, 91)
BUCKETS = 2 * (NEAR_BUCKETS + 1 + len(FAR_BUCKET_EDGES))                    # one half for each direction
SILENCE = 0.1               # added in norms to the mean square, 1 for a word: what is nearly silent stays so
PADDING_BIAS = -1e9         # nothing is left of it after the softmax, and unlike the lowest float it is finite in bf16


# ── Tokenizer ───────────────────────────────────────────────────────────────────────────────────────────────────────


# ── Encoder ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def relative_buckets(length: int, device: torch.device) -> Tensor:
    """The bucket of every distance key − query: (length, length) int64 in [0, 32). Exact when near, logarithmic far.

    In whole numbers only, so that no device can round a distance into another bucket.
    """
    positions = torch.arange(length, device=device)
    distance = positions[None, :] - positions[:, None]                                  # (query, key)
    near = distance.abs()
    bucket = near.clamp(max=NEAR_BUCKETS)
    for edge in FAR_BUCKET_EDGES:
        bucket = bucket + (near >= edge)
    return bucket + (distance > 0) * (BUCKETS // 2)


def embedding(count: int, width: int) -> nn.Embedding:
    """A table without a start of its own: torch's, wanted on the meta device, would first import its compiler (1.2 s).
    """
    table: nn.Embedding = nn.Embedding.from_pretrained(                 # type: ignore[no-untyped-call]
        torch.empty(count, width), freeze=False)
    return table


class SelfAttention(nn.Module):
    """Attention with an additive bias and no scale, for which small initial queries make up: (M, T, C) → (M, T, C)."""

    def __init__(self, config: TextConfig, *, first: bool) -> None:
        super().__init__()
        self.head_dim = config.width // config.heads
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, config.width, bias=False)
        self.v = nn.Linear(config.width, config.width, bias=False)
        self.o = nn.Linear(config.width, config.width, bias=False)
        if first:                       # the first layer's table of position biases serves them all
            self.relative_attention_bias = embedding(BUCKETS, config.heads)

    def forward(self, text: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (split_heads(project(text), self.head_dim) for project in (self.q, self.k, self.v))
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)        # (M, h, T, d)
        attended: Tensor = self.o(merge_heads(heads))
        return attended


class GatedFeedForward(nn.Module):
    """The perceptron of every position, with a GELU gate: (M, T, C) → (M, T, C)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.width, config.feed_forward, bias=False)
        self.wi_1 = nn.Linear(config.width, config.feed_forward, bias=False)
        self.wo = nn.Linear(config.feed_forward, config.width, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        transformed: Tensor = self.wo(F.gelu(self.wi_0(text), approximate="tanh") * self.wi_1(text))
        return transformed


class AttentionLayer(nn.Module):
    """Self-attention of the normalised text, added to it."""

    def __init__(self, config: TextConfig, *, first: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, first=first)
        self.layer_norm = nn.RMSNorm(config.width, eps=SILENCE)

    def forward(self, text: Tensor, bias: Tensor) -> Tensor:
        attended: Tensor = self.SelfAttention(self.layer_norm(text), bias)
        return text + attended


class FeedForwardLayer(nn.Module):
    """The perceptron of the normalised text, added to it."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(config)      # transformers' name, from the time before gates and GELU
        self.layer_norm = nn.RMSNorm(config.width, eps=SILENCE)

    def forward(self, text: Tensor) -> Tensor:
        transformed: Tensor = self.DenseReluDense(self.layer_norm(text))
        return text + transformed


class Block(nn.Module):
    """One layer of the encoder: attention, then perceptron."""

    def __init__(self, config: TextConfig, *, first: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionLayer(config, first=first), FeedForwardLayer(config)])

    def forward(self, text: Tensor, bias: Tensor) -> Tensor:
        features: Tensor = self.layer[1](self.layer[0](text, bias))
        return features


class Stack(nn.Module):
    """All blocks, with the position biases of the first, and a last norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(config, first=i == 0) for i in range(config.layers))
        self.final_layer_norm = nn.RMSNorm(config.width, eps=SILENCE)

    def forward(self, text: Tensor, padding: Tensor) -> Tensor:
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias            # type: ignore[union-attr,index]
        positions = table(relative_buckets(text.shape[1], text.device)).permute(2, 0, 1)            # (h, T, T)
        bias = positions[None].masked_fill(padding[:, None, None, :], PADDING_BIAS)                 # (M, h, T, T)
        for block in self.block:
            text = block(text, bias)
        features: Tensor = self.final_layer_norm(text)
        return features


class TextEncoder(nn.Module):
    """Tokens → features. Padding is not attended to, but has features too: the U-Net reads all 77 positions.

    The embeddings of END and padding start at zero and are not trained: they say nothing of their own. A caption of six
    words has seventy of them, and whatever they had in common would drown what captions differ in.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.shared = embedding(config.vocabulary, config.width)
        self.encoder = Stack(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (M, 77) int64 → (M, 77, width)."""
        embeddings = self.shared(tokens)
        embeddings = torch.where((tokens <= END)[..., None], embeddings.detach(), embeddings)
        features: Tensor = self.encoder(embeddings, tokens == PAD)
        return features
