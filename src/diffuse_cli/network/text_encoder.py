"""The text encoder: tokens → features, by the encoder of T5 v1.1, trained with the U-Net.

Papers: Raffel et al. 2020 (1910.10683) for T5, Shazeer 2020 (2002.05202) for its gated perceptron. Parameters have the
names and the meaning that they have in transformers' `T5EncoderModel`, so that an export is a copy.

Letters in the shape comments: M captions, T = 77 positions, C features, h heads of d features each.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model_config import TextConfig
from .blocks import merge_heads, split_heads
from .tokenizer import END, PAD

# Relative distances 0 to 7 have a bucket each. Longer ones share buckets that widen by √2: their edges are 8·2^(k/2),
# rounded up, from 8 to 128.
NEAR_BUCKETS = 8
FAR_BUCKET_EDGES = (12, 16, 23, 32, 46, 64, 91)
BUCKETS = 2 * (NEAR_BUCKETS + 1 + len(FAR_BUCKET_EDGES))                    # one half for each direction
NORM_EPSILON = 0.1          # added to the mean square of features in norms. That of a word is 1, so words are hardly
#                             changed, and positions whose features are nearly 0 are not amplified
PADDING_BIAS = -1e9         # added to scores of padding, whose weight is then 0 after the softmax; unlike the lowest
#                             float32, it is finite in bf16


def relative_buckets(length: int, device: torch.device) -> Tensor:
    """The bucket of every distance key - query, (length, length) int64 in [0, 32) (Raffel et al. 2020, section 2.1).

    Short distances have a bucket each, longer ones share buckets of logarithmic width. Computed in integers alone, so
    that no device can round a distance into another bucket.
    """
    positions = torch.arange(length, device=device)
    distance = positions[None, :] - positions[:, None]                                  # (query, key)
    near = distance.abs()
    bucket = near.clamp(max=NEAR_BUCKETS)
    for edge in FAR_BUCKET_EDGES:
        bucket = bucket + (near >= edge)
    return bucket + (distance > 0) * (BUCKETS // 2)


def embedding(count: int, width: int) -> nn.Embedding:
    """A table of `count` embeddings that are not initialised.

    torch's own initialisation would first import its compiler when it runs on the meta device, which takes 1.2 s.
    """
    table: nn.Embedding = nn.Embedding.from_pretrained(                 # type: ignore[no-untyped-call]
        torch.empty(count, width), freeze=False)
    return table


class SelfAttention(nn.Module):
    """softmax(q·kᵀ + bias)·v: (M, T, C) → (M, T, C).

    As in T5, scores are not divided by √d. Smaller initial queries make up for that.
    """

    def __init__(self, config: TextConfig, *, first: bool) -> None:
        super().__init__()
        self.head_dim = config.width // config.heads
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, config.width, bias=False)
        self.v = nn.Linear(config.width, config.width, bias=False)
        self.o = nn.Linear(config.width, config.width, bias=False)
        if first:                       # all layers share the position biases of the first
            self.relative_attention_bias = embedding(BUCKETS, config.heads)

    def forward(self, text: Tensor, bias: Tensor) -> Tensor:
        """text: (M, T, C); bias: (M, h, T, T), added to the scores."""
        query, key, value = (split_heads(project(text), self.head_dim) for project in (self.q, self.k, self.v))
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)        # (M, h, T, d)
        attended: Tensor = self.o(merge_heads(heads))
        return attended


class GatedFeedForward(nn.Module):
    """wo(GELU(wi_0·x)·wi_1·x), the gated perceptron of every position (Shazeer 2020, eq. 6): (M, T, C) → (M, T, C)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.width, config.feed_forward, bias=False)
        self.wi_1 = nn.Linear(config.width, config.feed_forward, bias=False)
        self.wo = nn.Linear(config.feed_forward, config.width, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        transformed: Tensor = self.wo(F.gelu(self.wi_0(text), approximate="tanh") * self.wi_1(text))
        return transformed


class AttentionLayer(nn.Module):
    """Self-attention on the normalised text, added to the text: (M, T, C) → (M, T, C)."""

    def __init__(self, config: TextConfig, *, first: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, first=first)
        self.layer_norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)

    def forward(self, text: Tensor, bias: Tensor) -> Tensor:
        attended: Tensor = self.SelfAttention(self.layer_norm(text), bias)
        return text + attended


class FeedForwardLayer(nn.Module):
    """The perceptron on the normalised text, added to the text: (M, T, C) → (M, T, C)."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(config)      # transformers' name, older than the gate and the GELU
        self.layer_norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)

    def forward(self, text: Tensor) -> Tensor:
        transformed: Tensor = self.DenseReluDense(self.layer_norm(text))
        return text + transformed


class Block(nn.Module):
    """One layer of the encoder: attention, then perceptron. (M, T, C) → (M, T, C)."""

    def __init__(self, config: TextConfig, *, first: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionLayer(config, first=first), FeedForwardLayer(config)])

    def forward(self, text: Tensor, bias: Tensor) -> Tensor:
        features: Tensor = self.layer[1](self.layer[0](text, bias))
        return features


class Stack(nn.Module):
    """All blocks, which share the position biases of the first, and a final norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(config, first=i == 0) for i in range(config.layers))
        self.final_layer_norm = nn.RMSNorm(config.width, eps=NORM_EPSILON)

    def forward(self, text: Tensor, padding: Tensor) -> Tensor:
        """text: (M, T, C); padding: (M, T) bool, True where nothing may attend to → (M, T, C)."""
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias            # type: ignore[union-attr,index]
        positions = table(relative_buckets(text.shape[1], text.device)).permute(2, 0, 1)            # (h, T, T)
        bias = positions[None].masked_fill(padding[:, None, None, :], PADDING_BIAS)                 # (M, h, T, T)
        for block in self.block:
            text = block(text, bias)
        features: Tensor = self.final_layer_norm(text)
        return features


class TextEncoder(nn.Module):
    """Tokens → features. Padding is not attended to, but it has features too: the U-Net reads all 77 positions.

    The embeddings of END and PAD start at zero and are not trained, so they carry no information of their own. A
    caption of six words has seventy such positions, and anything that they had in common would hide how captions
    differ.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.shared = embedding(config.vocabulary, config.width)
        self.encoder = Stack(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (M, 77) int64 → features (M, 77, width)."""
        embeddings = self.shared(tokens)                                                # (M, 77, width)
        embeddings = torch.where((tokens <= END)[..., None], embeddings.detach(), embeddings)       # PAD and END: fixed
        features: Tensor = self.encoder(embeddings, tokens == PAD)
        return features
