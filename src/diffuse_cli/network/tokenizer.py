"""Captions to tokens: a byte-level BPE trained on the captions."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from ..errors import ModelError

LENGTH = 77                                 # positions, always: stock pipelines pad every prompt to it
PAD, END, UNKNOWN = 0, 1, 2
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")         # their ids are their places


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
