"""Captions → tokens → features: a byte-level BPE trained on the captions, and a T5 encoder trained with the U-Net.

Knows language only as bytes that often stand together; does not know pictures, noise, or when captions are dropped.
The encoder is T5 v1.1's (Raffel et al., 1910.10683; Shazeer, 2002.05202): its parameters are named as in transformers'
`T5EncoderModel` and mean the same, and the tokenizer's JSON gives the same ids there, so an export is a copy.

Letters in the shape comments: M captions, T = 77 positions, C features, h heads of d features each.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from ..config import TextConfig
from ..errors import ModelError
from .blocks import merge_heads, split_heads

LENGTH = 77                                 # positions, always: stock pipelines pad every prompt to it
PAD, END, UNKNOWN = 0, 1, 2
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")         # their ids are their places

# Relative distances 0…7 have a bucket each; then the buckets widen by √2: 8·2^(k/2), rounded up, from 8 to 128.
NEAR_BUCKETS = 8
FAR_BUCKET_EDGES = (12, 16, 23, 32, 46, 64, 91)
BUCKETS = 2 * (NEAR_BUCKETS + 1 + len(FAR_BUCKET_EDGES))                    # one half for each direction
SILENCE = 0.1               # added in norms to the mean square, 1 for a word: what is nearly silent stays so
PADDING_BIAS = -1e9         # nothing is left of it after the softmax, and unlike the lowest float it is finite in bf16


# ── Tokenizer ───────────────────────────────────────────────────────────────────────────────────────────────────────


def make_tokenizer(model: models.BPE) -> Tokenizer:
    """What happens to a caption before and after `model` merges its byte pairs.

    Lower case and no punctuation of the kind that stock pipelines remove from prompts, so that a prompt means the same
    here and there. The leading space, which makes the first word a word like any other, is a step of the normaliser:
    some versions of transformers override the pre-tokenizer's own option, and silently give other ids.
    """
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFKC(),
        normalizers.Lowercase(),
        normalizers.Replace(Regex(r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+"), " "),
        normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip(),
        normalizers.Prepend(" "),
    ])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = SPECIAL_TOKENS[END]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, END)])
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding(length=LENGTH, pad_id=PAD, pad_token=SPECIAL_TOKENS[PAD])
    return tokenizer


def train_tokenizer(captions: Iterable[str], *, vocabulary: int = 4096) -> Tokenizer:
    """Learn at most `vocabulary` tokens (at least 259: the specials and 256 bytes) from the captions.

    Deterministic: the same captions, in any order, give the same tokenizer.
    """
    tokenizer = make_tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def load_tokenizer(text: str) -> Tokenizer:
    """The tokenizer that `Tokenizer.to_str` wrote. Raises ModelError unless it is one of ours, whole and consistent.

    Only its vocabulary and merges reach the library, which can be made to panic by other entries; they must agree with
    ours.
    """
    try:
        data = json.loads(text)
        vocabulary, merges = data["model"]["vocab"], [(left, right) for left, right in data["model"]["merges"]]
        _check_vocabulary(vocabulary, merges)
        tokenizer = make_tokenizer(models.BPE(vocabulary, merges))
        ours = _agree(data, json.loads(tokenizer.to_str()))
    except Exception as error:          # the library raises plain Exception, and nonsense fails in any way
        raise ModelError("The model's tokenizer is damaged", hint="Use another copy of the model") from error
    if not ours:
        raise ModelError("The model's tokenizer is not of a kind this version knows", hint="Update diffuse-cli")
    return tokenizer


def joined_merges(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer as JSON in the form that every version of the library reads: merges as "a b", not as pairs."""
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    return data


def paired_merges(data: dict[str, Any]) -> dict[str, Any]:
    """The inverse, whichever form it has: what `load_tokenizer` reads. Anything else is left as it is."""
    model = data.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("merges"), list):
        return data
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return {**data, "model": {**model, "merges": merges}}


def _check_vocabulary(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Raise ValueError unless the ids are 0, 1, 2, …, the special tokens come first, and every merge has its tokens."""
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError("token ids have gaps")
    if any(vocabulary.get(token) != i for i, token in enumerate(SPECIAL_TOKENS)):
        raise ValueError("special tokens are out of place")
    if not all({left, right, left + right} <= vocabulary.keys() for left, right in merges):
        raise ValueError("a merge has no token")


def _agree(theirs: Any, ours: Any) -> bool:
    """Whether two JSON values are equal, but for entries that another version of the library may have added."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return all(_agree(theirs[key], ours[key]) for key in theirs.keys() & ours.keys())
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_agree, theirs, ours))
    return bool(theirs == ours)


def encode(tokenizer: Tokenizer, captions: Sequence[str]) -> Tensor:
    """Captions → tokens (M, 77) int64: the caption, END, PAD. Longer captions are cut, but keep their END."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch([_valid(caption) for caption in captions])]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), LENGTH)


def is_truncated(tokenizer: Tokenizer, caption: str) -> bool:
    """Whether `encode` loses the end of this caption."""
    return bool(tokenizer.encode(_valid(caption)).overflowing)


def _valid(caption: str) -> str:
    """Without lone surrogates, which stand for bytes of a command line that are not UTF-8."""
    return caption.encode(errors="replace").decode()


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
