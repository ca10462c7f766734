"""The tokenizer: captions → tokens, by byte-level byte-pair encoding (BPE) trained on the captions of a run.

Its JSON gives the same ids in transformers, so that an export is a copy.
"""

import itertools
import json
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from ..errors import ModelError
from ..files.strict_json import loads_strict
from ..model_config import MAX_VOCABULARY

LENGTH = 77                                 # tokens of every caption: the pipelines of diffusers pad every prompt to it
MAX_BYTES = 8 * 2**20                       # maximum bytes of a tokenizer's JSON
PAD, END, UNKNOWN = 0, 1, 2
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")         # in the order of their ids
CACHED_CAPTIONS = 65_536                    # captions of which the tokens are remembered: about 30 MB
_BATCH = 1000                               # captions that are looked at together


def make_tokenizer(model: models.BPE) -> Tokenizer:
    """A tokenizer that merges byte pairs by `model`, with all steps before and after.

    Captions become lower case, and lose the punctuation that the pipelines of diffusers remove from prompts, so that a
    prompt means the same here and there. A leading space makes the first word a word like any other. It is added by the
    normaliser, because some versions of transformers override the option of the pre-tokenizer and silently give other
    ids.
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
    """Train a tokenizer with at most `vocabulary` tokens, and at least 259: the special tokens and 256 bytes.

    The same captions, in any order, give the same tokenizer.
    """
    tokenizer = make_tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer


def load_tokenizer(text: str) -> Tokenizer:
    """Read a tokenizer that `Tokenizer.to_str` wrote. Raises ModelError if it is damaged, or not made by this module.

    Only its vocabulary and merges are given to the library, because other entries can make the library panic. The other
    entries must be those that `make_tokenizer` would write.
    """
    try:
        data = loads_strict(text, limit=MAX_BYTES)
        vocabulary, merges = data["model"]["vocab"], data["model"]["merges"]
        if len(vocabulary) > MAX_VOCABULARY or len(merges) > 2 * MAX_VOCABULARY:
            raise ValueError("too many tokens")
        merges = [(left, right) for left, right in merges]
        _check_vocabulary(vocabulary, merges)
        tokenizer = make_tokenizer(models.BPE(vocabulary, merges))
        is_known = _agree(data, json.loads(tokenizer.to_str()))
    except Exception as error:          # the library raises plain Exception, and damaged data can fail in any way
        raise ModelError("The model's tokenizer is damaged", hint="Use another copy of the model") from error
    if not is_known:
        raise ModelError("The model's tokenizer is not of a kind this version knows", hint="Update diffuse-cli")
    return tokenizer


def joined_merges(tokenizer: Tokenizer) -> dict[str, Any]:
    """The tokenizer as JSON that every version of the library reads: each merge is written "a b" instead of a pair."""
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    return data


def paired_merges(data: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `joined_merges`: the form that `load_tokenizer` reads. Data in any other form stay unchanged."""
    model = data.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("merges"), list):
        return data
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return {**data, "model": {**model, "merges": merges}}


def _check_vocabulary(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """Raise ValueError unless the ids are 0, 1, 2, …, the special tokens come first, and the tokens of merges exist."""
    if sorted(vocabulary.values()) != list(range(len(vocabulary))):
        raise ValueError("token ids have gaps")
    if any(vocabulary.get(token) != i for i, token in enumerate(SPECIAL_TOKENS)):
        raise ValueError("special tokens are out of place")
    if not all({left, right, left + right} <= vocabulary.keys() for left, right in merges):
        raise ValueError("a merge has no token")


def _agree(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal, except for entries that only one has: the library's versions add some."""
    if isinstance(first, dict) and isinstance(second, dict):
        return all(_agree(first[key], second[key]) for key in first.keys() & second.keys())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_agree, first, second))
    return bool(first == second)


def encode(tokenizer: Tokenizer, captions: Sequence[str]) -> Tensor:
    """M captions → tokens (M, 77) int64: the caption, END, then PAD. Longer captions are cut, but keep END."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch([_valid(caption) for caption in captions])]
    return torch.tensor(rows, dtype=torch.int64).reshape(len(rows), LENGTH)


class CachedTokens:
    """`encode` with a memory for the tokens of the captions that it met last."""

    def __init__(self, tokenizer: Tokenizer, limit: int = CACHED_CAPTIONS) -> None:
        self.tokenizer, self.limit = tokenizer, limit
        self.rows: dict[str, Tensor] = {}       # caption → (77,) int32, in the order in which they were added

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """M captions → tokens (M, 77) int64"""
        unknown = [caption for caption in dict.fromkeys(captions) if caption not in self.rows]
        found = dict(zip(unknown, encode(self.tokenizer, unknown).int(), strict=True))
        result = torch.stack([self.rows[caption] if caption in self.rows else found[caption] for caption in captions])
        self.rows |= found
        for caption in list(itertools.islice(self.rows, max(0, len(self.rows) - self.limit))):
            del self.rows[caption]
        return result.long()


def is_truncated(tokenizer: Tokenizer, caption: str) -> bool:
    """Whether `encode` cuts this caption."""
    return bool(tokenizer.encode(_valid(caption)).overflowing)


def truncated(tokenizer: Tokenizer, captions: Iterable[str]) -> list[str]:
    """The distinct captions that `encode` cuts, in their order."""
    # A token is at least one byte, except for the space before the first word: shorter captions always fit.
    long = dict.fromkeys(caption for caption in map(_valid, captions) if len(caption.encode()) >= LENGTH - 1)
    encodings = tokenizer.encode_batch(list(long))
    return [caption for caption, encoding in zip(long, encodings, strict=True) if encoding.overflowing]


def truncation_warning(tokenizer: Tokenizer, captions: Iterable[str]) -> str | None:
    """A sentence about the captions that `encode` cuts, with their number and an example; None if it cuts none."""
    first, numbers, cut_numbers = "", array("q"), array("q")        # hashes take less memory than texts
    waiting = iter(captions)
    while batch := list(itertools.islice(waiting, _BATCH)):
        numbers.extend(map(hash, batch))
        cut = truncated(tokenizer, batch)
        cut_numbers.extend(map(hash, cut))
        first = first or next(iter(cut), "")
    if not first:
        return None
    count, total = (len(np.unique(np.frombuffer(some, np.int64))) for some in (cut_numbers, numbers))
    count_of_all = "1 caption is" if count == 1 else f"{count:,} of {total:,} captions are"
    return (f"{count_of_all} longer than the {LENGTH} tokens that a model reads, and the end is ignored, for example "
            f"“{first[:60]}…”")


def _valid(caption: str) -> str:
    """The caption without lone surrogates, which stand for bytes of a command line that are not UTF-8."""
    return caption.encode(errors="replace").decode()
