"""Models and states on the disk come back exactly, other programs read them, and damage is refused in one line."""

import dataclasses
import json
import os
import pickle
import random
import shutil

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch

from diffuse_cli.checks import from_dict, to_dict
from diffuse_cli.data import caption_words
from diffuse_cli.data.caption_words import count_words
from diffuse_cli.errors import ModelError
from diffuse_cli.model_config import ModelConfig, NetworkConfig, TextConfig
from diffuse_cli.network.network import Network
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.storage import safetensors_file, safetensors_header
from diffuse_cli.storage.checkpoint import load_model, load_state, save_model, save_state
from diffuse_cli.storage.model_info import TrainingSummary

CPU = torch.device("cpu")
TOKENIZER = train_tokenizer(["a red square"])
CONFIG = ModelConfig(
    network=NetworkConfig(resolution=8, widths=(16,), depths=(1,), attention=("full",), head_dim=16, groups=16,
                          time_width=16, text=TextConfig(vocabulary=TOKENIZER.get_vocab_size(), width=16, layers=1)),
    schedule="interpolated", prediction="v")
NETWORK = Network(CONFIG.network)
NETWORK.initialise(torch.Generator().manual_seed(0))
PARTS = {"config": CONFIG, "tokenizer": TOKENIZER, "words": {"red": 2, "é \"": 1},
         "training": TrainingSummary(name="t", lr=1e-3)}


@pytest.fixture
def path(tmp_path):
    save_model(tmp_path / "m.safetensors", weights=NETWORK.state_dict(), **PARTS)
    return tmp_path / "m.safetensors"


def refused(path, match):
    """Check that a model is refused, and that its file stays as it is. → the one line of the message"""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path, CPU)
    line = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in line
    assert str(path) in line
    assert before is None or path.read_bytes() == before
    return line


def resave(path, *, tensors=None, metadata=None, drop=()):
    """Write the model at `path` again with other tensors or metadata, and seal it, so that the seal shows no damage."""
    head = safetensors_file.read_header(path)
    data = path.read_bytes()[head.data_start :]
    raw = {name: (name, entry.dtype, entry.shape, data[entry.start : entry.end])
           for name, entry in head.tensors.items()}
    raw.update(tensors or {})
    texts = {key: value for key, value in head.metadata.items()
             if key != safetensors_header.SEAL_KEY and key not in drop}
    kept = [raw[name] for name in raw if name not in drop]
    path.write_bytes(b"".join(safetensors_file.encode(kept, {**texts, **(metadata or {})})))


# ── Both ways ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_comes_back_as_it_was_saved(path):
    model = load_model(path, CPU)
    assert model.config == CONFIG
    assert (model.words, model.training) == (PARTS["words"], PARTS["training"])
    assert model.tokenizer.to_str() == TOKENIZER.to_str()
    for name, tensor in NETWORK.state_dict().items():
        assert torch.equal(model.network.state_dict()[name], tensor)
    assert not model.network.training
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    noisy, tokens = torch.randn(2, 3, 8, 8), torch.randint(0, 250, (2, 77))
    with torch.no_grad():
        assert torch.equal(model.network(noisy, torch.ones(2), model.network.encode(tokens)),
                           NETWORK(noisy, torch.ones(2), NETWORK.encode(tokens)))


def test_equal_contents_give_equal_files_and_other_ones_another_identity(path, tmp_path):
    again = tmp_path / "again.safetensors"
    reordered = dict(reversed(NETWORK.state_dict().items()))
    sha256 = save_model(again, weights=reordered, **PARTS)
    assert again.read_bytes() == path.read_bytes()
    assert load_model(path, CPU).sha256 == sha256
    assert save_model(again, weights=reordered, **{**PARTS, "training": TrainingSummary(name="other")}) == sha256
    changed = {**reordered, "unet.conv_in.bias": reordered["unet.conv_in.bias"] + 1}
    assert save_model(again, weights=changed, **PARTS) != sha256


def test_the_plain_library_reads_it(path):
    tensors = safetensors.torch.load_file(path)
    assert tensors.keys() == NETWORK.state_dict().keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in NETWORK.state_dict().items())
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.resolution"] == "8x8"
    assert metadata["modelspec.prediction_type"] == "v"
    assert metadata["modelspec.hash_sha256"] == f"0x{load_model(path, CPU).sha256}"
    assert from_dict(ModelConfig, json.loads(metadata["diffuse.config"])) == CONFIG
    assert not any("date" in key for key in metadata)


def test_an_unconditional_model_has_no_tokenizer(tmp_path):
    config = dataclasses.replace(CONFIG, network=dataclasses.replace(CONFIG.network, text=None))
    network = Network(config.network)
    network.initialise(torch.Generator().manual_seed(0))
    save_model(tmp_path / "u.safetensors", config=config, weights=network.state_dict(), tokenizer=None, words={},
               training=TrainingSummary())
    assert load_model(tmp_path / "u.safetensors", CPU).tokenizer is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_the_size_are_read_as_floats(path, dtype):
    save_model(path, weights={name: tensor.to(dtype) for name, tensor in NETWORK.state_dict().items()}, **PARTS)
    for name, tensor in load_model(path, CPU).network.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, NETWORK.state_dict()[name].to(dtype).float())


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_no_number_that_is_not_finite_reaches_the_disk(tmp_path, number):
    weights = {name: tensor.clone() for name, tensor in NETWORK.state_dict().items()}
    weights["unet.conv_in.weight"].view(-1)[7] = number
    with pytest.raises(ModelError, match=r"unet\.conv_in\.weight holds numbers that are not finite"):
        save_model(tmp_path / "m.safetensors", weights=weights, **PARTS)
    with pytest.raises(ModelError, match="not finite"):
        save_state(tmp_path / "s.safetensors", weights, {})
    assert list(tmp_path.iterdir()) == []


def test_a_state_comes_back_as_it_was_saved(tmp_path):
    path, tensors = tmp_path / "s.safetensors", {"b": torch.randn(3), "a.x": torch.randn(2, 2)}
    record = {"learner": {"step": 3, "norms": [0.1, 1 / 3]}, "best": None}
    size, sha256 = save_state(path, tensors, record)
    shapes = {"a.x": (2, 2), "b": (3,)}
    loaded, again = load_state(path, shapes)
    assert again == record
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in tensors.items())
    assert path.stat().st_size == size
    assert save_state(tmp_path / "t.safetensors", tensors, record)[1] == sha256
    for wrong in ({"a.x": (4,), "b": (3,)}, {"b": (3,)}, {**shapes, "c": (1,)}):
        with pytest.raises(ModelError, match="not those of this run"):
            load_state(path, wrong)


def test_a_state_is_not_a_model(tmp_path):
    save_state(tmp_path / "s.safetensors", NETWORK.state_dict(), {})
    refused(tmp_path / "s.safetensors", "metadata lacks diffuse.config")


# ── Damage ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_single_flipped_bit_is_noticed_wherever_it_is(path):
    data, rng = bytearray(path.read_bytes()), random.Random(0)
    start = safetensors_file.read_header(path).data_start
    in_header, in_tensors = (rng.sample(range(*part), 20) for part in ((8, start), (start, len(data))))
    for place in (0, 7, *in_header, *in_tensors, len(data) - 1):     # test_safetensors_file flips every bit
        bit = 1 << rng.randrange(8)
        data[place] ^= bit
        path.write_bytes(data)
        with pytest.raises(ModelError):
            load_model(path, CPU)
        data[place] ^= bit
    path.write_bytes(data)
    load_model(path, CPU)


def test_a_file_cut_anywhere_is_noticed(path):
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "cannot use")
    path.write_bytes(whole + b"PK\x05\x06" + bytes(18))
    refused(path, "bytes of tensors")


IMPOSTORS = {
    "pickle": (pickle.dumps({"weights": [1.0]}), "PyTorch pickle; diffuse never loads pickles"),
    "zip": (b"PK\x03\x04" + bytes(100), "diffuse never loads pickles"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "random": (random.Random(1).randbytes(4096), "not a safetensors file"),
    "huge header": ((2**63).to_bytes(8, "little") + bytes(100), "not a safetensors file"),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_files_that_are_something_else(tmp_path, name):
    data, message = IMPOSTORS[name]
    (tmp_path / "x.safetensors").write_bytes(data)
    refused(tmp_path / "x.safetensors", message)


def test_a_pickle_is_never_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/PWNED",)

    (tmp_path / "x.safetensors").write_bytes(pickle.dumps(Evil()))
    refused(tmp_path / "x.safetensors", "never loads pickles")
    assert not (tmp_path / "PWNED").exists()


def test_paths_that_are_no_regular_files(tmp_path):
    refused(tmp_path, "regular file|directory")
    refused(tmp_path / "missing.safetensors", "no such file")
    os.mkfifo(tmp_path / "fifo.safetensors")
    refused(tmp_path / "fifo.safetensors", "regular file")
    (tmp_path / "link.safetensors").symlink_to(tmp_path / "nowhere")
    refused(tmp_path / "link.safetensors", "no such file")


@pytest.mark.parametrize(("metadata", "message"), [
    ({"diffuse.format_version": "2"}, "it has format '2', this version reads 1. Upgrade"),
    ({"diffuse.format_version": ""}, "it has format ''"),
    ({"diffuse.config": "null"}, "metadata lacks diffuse.config"),
    ({"diffuse.config": "{}"}, "its configuration is impossible: config.network is missing"),
    ({"diffuse.config": json.dumps({**to_dict(CONFIG), "surprise": 1})}, "has unknown entries: surprise"),
    ({"diffuse.config": json.dumps({**to_dict(CONFIG), "schedule": 7})}, "should be a text"),
    ({"diffuse.config": json.dumps({**to_dict(CONFIG), "schedule": "sine"})}, "does not know 'sine'"),
    ({"diffuse.config": json.dumps(to_dict(CONFIG))[:-1]}, "JSON is damaged"),
    ({"diffuse.config": '{"network": NaN}'}, "JSON is damaged"),
    ({"diffuse.config": "[" * 100_000}, "JSON"),
    ({"diffuse.words": "[]"}, "metadata lacks diffuse.words"),
    ({"diffuse.training": "1"}, "metadata lacks diffuse.training"),
    ({"diffuse.tokenizer": "{}"}, "tokenizer"),
    ({"diffuse.tokenizer": train_tokenizer(["entirely other words, many words"]).to_str()}, "does not fit its network"),
])
def test_metadata_that_cannot_be(path, metadata, message):
    resave(path, metadata=metadata)
    refused(path, message)


def _network(**changes):
    fields = to_dict(CONFIG)
    return {"diffuse.config": json.dumps({**fields, "network": {**fields["network"], **changes}})}


@pytest.mark.parametrize(("changes", "message"), [
    ({"widths": [10**9]}, "network.widths must be between"),
    ({"widths": [4096]}, "tensors do not fit its configuration"),            # these 4 GB are never allocated
    ({"widths": [32]}, "tensors do not fit its configuration"),
    ({"depths": [-1]}, "network.depths must be between"),
    ({"resolution": 10**400}, "out of range"),
    ({"channels": True}, "should be a whole number"),
    ({"channels": 5, "out_channels": 10}, "only 1 or 3, grey or RGB, and one more for alpha, are supported"),
    ({"channels": 4, "out_channels": 8}, "tensors do not fit its configuration"),
    ({"time_width": 1e999}, "damaged"),
    ({"text": None}, "tensors do not fit"),
])
def test_configurations_that_do_not_fit(path, changes, message):
    resave(path, metadata=_network(**changes))
    refused(path, message)


def _bias(dtype, numbers):
    return {"unet.conv_in.bias": ("unet.conv_in.bias", dtype, numbers.shape, numbers.tobytes())}


@pytest.mark.parametrize(("changes", "message"), [
    ({"tensors": _bias("F32", np.full(16, np.nan, np.float32))}, "not finite"),
    ({"tensors": _bias("F32", np.full(16, np.inf, np.float32))}, "not finite"),
    ({"tensors": _bias("F32", np.zeros(15, np.float32))}, r"\(1 differ, first unet\.conv_in\.bias\)"),
    ({"tensors": _bias("F32", np.zeros((1, 16), np.float32))}, "1 differ"),
    ({"tensors": _bias("F64", np.zeros(16, np.float64))}, "have the type F64"),
    ({"tensors": _bias("I32", np.zeros(16, np.int32))}, "have the type I32"),
    ({"tensors": {"extra": ("extra", "F32", (1,), bytes(4))}}, r"1 differ, first extra"),
    ({"drop": ("unet.conv_in.bias",)}, "1 differ"),
    ({"drop": ("diffuse.format_version",)}, "not a model of diffuse-cli"),
    ({"drop": ("diffuse.config",)}, "metadata lacks diffuse.config"),
    ({"drop": ("diffuse.tokenizer",)}, "tokenizer"),
])
def test_tensors_and_metadata_that_do_not_fit(path, changes, message):
    resave(path, **changes)
    refused(path, message)


def test_a_transposed_weight_is_refused(path):
    name = "unet.time_embedding.linear_1.weight"
    tensor = NETWORK.state_dict()[name]
    assert tensor.shape[0] == tensor.shape[1]              # so only the seal shows the exchange
    data = path.read_bytes()
    path.write_bytes(data.replace(tensor.numpy().tobytes(), tensor.T.contiguous().numpy().tobytes()))
    assert path.read_bytes() != data
    refused(path, "damaged: its bytes differ from what was sealed")


def test_a_foreign_safetensors_file_is_no_model(tmp_path):
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "x.safetensors", {"format": "pt"})
    refused(tmp_path / "x.safetensors", "not a model of diffuse-cli. Train one")


# ── Words ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_as_many_words_as_are_kept_can_be_read_again(tmp_path):
    longest = "\x01" * 35                      # the longest that JSON in JSON makes of 40 letters
    words = count_words(f"{longest}{index:05d}" for index in range(caption_words.MAX_WORDS))
    assert len(words) == caption_words.MAX_WORDS
    save_model(tmp_path / "m.safetensors", weights=NETWORK.state_dict(), **{**PARTS, "words": words})
    assert load_model(tmp_path / "m.safetensors", CPU).words == words


def test_a_trained_model_is_sound(trained, tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(trained[0] / "model.safetensors", copy)
    model = load_model(copy, CPU)
    assert model.training.name == tiny.OPTIONS["name"]
