"""The tokenizer against transformers' fast tokenizer, and saved tokenizers that are refused."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from diffuse_cli.errors import ModelError
from diffuse_cli.network.tokenizer import (
    END,
    LENGTH,
    PAD,
    UNKNOWN,
    encode,
    is_truncated,
    load_tokenizer,
    train_tokenizer,
    truncated,
    truncation_warning,
)

COLOURS = ("red", "green", "blue", "yellow", "light-blue")
THINGS = ("cat", "dog", "Haus", "дом", "猫", "café", "it's a boat", "#1 (best) car!")
CAPTIONS = [f"A {size} {colour} {thing}" for size in ("big", "small") for colour in COLOURS for thing in THINGS]
STRANGE = [
    "", " ", "a", "  two   spaces\tand\nlines ", "ÉCLAIR ﬁne Ⅷ", "100% & more_stuff [x] {y} / \\ ~ *",
    "naïve 日本語 🐈‍⬛",
    "don't we'll 3.14", "a big red cat " * 60, "\u0000\u202e\ufeff", "İstanbul ẞ",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CAPTIONS, vocabulary=400)


def test_tokens_end_once_and_fill_77_positions(tokenizer: Tokenizer) -> None:
    tokens = encode(tokenizer, ["", "a small red cat", "cat " * 200])
    assert tokens.shape == (3, LENGTH)
    assert tokens.dtype == torch.int64
    assert ((tokens == END).sum(dim=1) == 1).all()
    assert tokens[0].tolist() == [END] + [PAD] * (LENGTH - 1)
    assert tokens[2, -1] == END
    for row in tokens[:2].tolist():
        assert set(row[row.index(END) + 1:]) == {PAD}
    assert encode(tokenizer, []).shape == (0, LENGTH)


def test_frequent_words_become_single_tokens_and_any_text_has_tokens(tokenizer: Tokenizer) -> None:
    assert encode(tokenizer, ["small"])[0, 1] == END
    assert UNKNOWN not in encode(tokenizer, STRANGE)
    assert tokenizer.decode(tokenizer.encode("  A Small  дом").ids).strip() == "a small дом"


def test_case_spacing_width_and_dropped_punctuation_do_not_change_the_ids(tokenizer: Tokenizer) -> None:
    plain, *others = encode(tokenizer, ["a red cat", "  A  RED (cat)\n", "a red ｃａｔ"])
    assert all(torch.equal(plain, other) for other in others)


def test_truncation_is_known(tokenizer: Tokenizer) -> None:
    fits = next(" ".join(["red"] * n) for n in range(100, 0, -1) if not is_truncated(tokenizer, " ".join(["red"] * n)))
    assert (encode(tokenizer, [fits]) != PAD).all()
    assert is_truncated(tokenizer, fits + " red")
    assert not is_truncated(tokenizer, "")


def test_transformers_reads_the_same_ids_from_the_json(tokenizer: Tokenizer, tmp_path: Any) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    stock = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(path), pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=LENGTH
    )
    captions = CAPTIONS + STRANGE
    found = stock(captions, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
    assert torch.equal(found, encode(tokenizer, captions))


def test_training_does_not_depend_on_the_process_or_on_the_order_of_the_captions(tokenizer: Tokenizer) -> None:
    expected = tokenizer.to_str()
    assert train_tokenizer(reversed(CAPTIONS), vocabulary=400).to_str() == expected
    program = (
        "import json, sys; from diffuse_cli.network.tokenizer import train_tokenizer;"
        "sys.stdout.buffer.write(train_tokenizer(json.load(sys.stdin), vocabulary=400).to_str().encode())"
    )
    other = subprocess.run(
        [sys.executable, "-c", program], input=json.dumps(CAPTIONS).encode(), stdout=subprocess.PIPE, check=True
    )
    assert other.stdout.decode() == expected


def test_vocabulary_is_bounded_and_any_captions_will_do() -> None:
    assert train_tokenizer(CAPTIONS, vocabulary=300).get_vocab_size() == 300
    for captions in ([], [""], ["x"]):
        tokenizer = train_tokenizer(captions)
        assert tokenizer.get_vocab_size() >= 259
        assert (encode(tokenizer, ["x"])[0, :3] != PAD).any()


def test_a_saved_tokenizer_is_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    loaded = load_tokenizer(tokenizer.to_str())
    assert loaded.to_str() == tokenizer.to_str()
    assert torch.equal(encode(loaded, STRANGE), encode(tokenizer, STRANGE))


def test_a_tokenizer_of_another_version_of_the_library_is_the_same(tokenizer: Tokenizer) -> None:
    data = json.loads(tokenizer.to_str())
    data["model"]["new_option"] = data["normalizer"]["new_option"] = False
    del data["model"]["ignore_merges"]
    assert load_tokenizer(json.dumps(data)).to_str() == tokenizer.to_str()


def drop_a_token(data: dict[str, Any]) -> None:
    del data["model"]["vocab"]["a"]


def repeat_an_id(data: dict[str, Any]) -> None:
    data["model"]["vocab"]["a"] = data["model"]["vocab"]["b"]


def swap_the_special_tokens(data: dict[str, Any]) -> None:
    vocabulary = data["model"]["vocab"]
    vocabulary["<pad>"], vocabulary["</s>"] = vocabulary["</s>"], vocabulary["<pad>"]


def merge_into_nothing(data: dict[str, Any]) -> None:
    data["model"]["merges"].append(["zz", "q"])


def shorten(data: dict[str, Any]) -> None:
    data["truncation"]["max_length"] = 16


def change_the_normaliser(data: dict[str, Any]) -> None:
    data["normalizer"] = None


def claim_a_prefix(data: dict[str, Any]) -> None:
    data["model"]["continuing_subword_prefix"] = "##"       # makes the library panic


def change_the_kind(data: dict[str, Any]) -> None:
    data["model"]["type"] = "WordPiece"


def add_a_token(data: dict[str, Any]) -> None:
    data["added_tokens"].append({**data["added_tokens"][0], "id": 10_000_000, "content": "<far>"})


@pytest.mark.parametrize("damage", [
    drop_a_token, repeat_an_id, swap_the_special_tokens, merge_into_nothing, shorten, change_the_normaliser,
    claim_a_prefix, change_the_kind, add_a_token,
])
def test_a_damaged_tokenizer_is_refused(tokenizer: Tokenizer, damage: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(tokenizer.to_str())
    damage(data)
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(json.dumps(data))


@pytest.mark.parametrize("nonsense", ["", "{}", "[]", "null", "{" * 100_000, '{"model": {"vocab": [], "merges": 3}}'])
def test_nonsense_is_refused(nonsense: str) -> None:
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(nonsense)


def test_captions_that_are_cut_are_counted_with_an_example():
    long = " ".join(f"word{number}" for number in range(80))
    captions = ["a red car", long, long, "é" * 40, "x " * 76, "x " * 77]
    tokenizer = train_tokenizer(["a red car"])
    cut = [caption for caption in dict.fromkeys(captions) if is_truncated(tokenizer, caption)]     # one by one
    assert long in cut
    assert "a red car" not in cut
    assert truncated(tokenizer, captions) == cut
    assert truncation_warning(tokenizer, captions) == (
        f"{len(cut)} of 5 captions are longer than the 77 tokens that a model reads, and the end is ignored, for "
        f"example “{long[:60]}…”")
    assert truncation_warning(tokenizer, ["a red car"]) is None


@pytest.mark.parametrize("change", [
    lambda text: text.replace('"version"', '"model": {}, "version"', 1), lambda text: text[:-1] + ', "a": NaN}',
    lambda text: text[:-1] + f', "a": {"9" * 30}' + "}", lambda text: text + " " * 2**23,
])
def test_the_json_of_a_tokenizer_is_read_strictly(tokenizer: Tokenizer, change: Callable[[str], str]) -> None:
    """A key that occurs twice, no number, a number beyond 64 bits, more than 8 MB: other readers would differ."""
    with pytest.raises(ModelError, match="damaged"):
        load_tokenizer(change(tokenizer.to_str()))


def test_a_tokenizer_of_too_many_tokens_or_merges_is_refused_before_it_is_built(tokenizer, monkeypatch) -> None:
    monkeypatch.setattr("diffuse_cli.network.tokenizer.MAX_VOCABULARY", 258)
    monkeypatch.setattr("diffuse_cli.network.tokenizer.make_tokenizer", lambda model: pytest.fail("it was built"))
    with pytest.raises(ModelError, match="damaged"):
        load_tokenizer(tokenizer.to_str())
