"""Hostile model files, made by hand: each has one defect that a careless reader would miss. Not a test itself."""

import gzip
import hashlib
import io
import json
import os
import pickle
import random
import zipfile

import torch

from diffuse_cli.storage import safetensors_file, safetensors_header


class Bomb:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch PWNED",)


def raw(header: bytes | dict | list, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data


def parts(sound: bytes) -> tuple[dict, bytes]:
    """The header of a sound file, and the bytes of its tensors."""
    length = int.from_bytes(sound[:8], "little")
    return json.loads(sound[8 : 8 + length]), sound[8 + length :]


def resealed(header: dict, data: bytes) -> bytes:
    """A file with this header, whatever it says, and a seal that fits."""
    fields = {name: entry for name, entry in header.items() if name != "__metadata__"}
    metadata = {**header.get("__metadata__", {}), safetensors_header.SEAL_KEY: safetensors_header.UNSEALED}
    head = safetensors_file._head({"__metadata__": metadata, **fields})
    return safetensors_file._with_seal(head, hashlib.sha256(head + data)) + data


def hostile(sound: bytes) -> dict[str, bytes]:
    """Name → the bytes of a hostile file. sound: those of a small sealed model with captions."""
    header, data = parts(sound)
    config = json.loads(header["__metadata__"]["diffuse.config"])
    names = [name for name in header if name != "__metadata__"]

    def with_metadata(**changes) -> bytes:
        metadata = {**header["__metadata__"], **{key.replace("__", "."): value for key, value in changes.items()}}
        kept = {key: value for key, value in metadata.items() if value is not None}
        return resealed({**header, "__metadata__": kept}, data)

    def with_network(**changes) -> bytes:
        changed = {**config, "network": {**config["network"], **changes}}
        return with_metadata(diffuse__config=json.dumps(changed))

    def with_entry(name: str, **changes) -> bytes:
        return resealed({**header, name: {**header[name], **changes}}, data)

    def with_numbers(value: float) -> bytes:
        return resealed(header, torch.full((len(data) // 4,), value).numpy().tobytes())

    tokenizer = json.loads(header["__metadata__"]["diffuse.tokenizer"])
    vocabulary = tokenizer["model"]["vocab"]

    def with_tokenizer(**changes) -> bytes:
        changed = {**tokenizer, "model": {**tokenizer["model"], **changes}}
        return with_metadata(diffuse__tokenizer=json.dumps(changed))

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Bomb()))
    checkpoint = io.BytesIO()
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, checkpoint)
    first = names[0]
    last = next(name for name in reversed(names) if header[name]["shape"] != header[first]["shape"])
    swapped = {**header, first: header[last], last: header[first]}
    return {
        "a pickle": pickle.dumps(Bomb(), protocol=2), "an old pickle": pickle.dumps(Bomb(), protocol=0),
        "a zip with a pickle": stream.getvalue(), "a PyTorch checkpoint": checkpoint.getvalue(),
        "a pickle behind a header": raw({"__metadata__": {}}, pickle.dumps(Bomb())),
        "gzip": gzip.compress(sound), "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99), "GGUF": b"GGUF" + bytes(99),
        "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "a web page": b"<!DOCTYPE html><title>404</title>", "empty": b"", "seven bytes": b"1234567",
        "noise": random.Random(1).randbytes(9999), "zeros": bytes(9999), "text": b"hello " * 99,
        "header of length 0": bytes(8) + b"{}", "header of length 2^31": (2**31).to_bytes(8, "little") + b"{}",
        "header of length 2^63": (2**63).to_bytes(8, "little") + b"{}", "header of length 2^64-1": b"\xff" * 8 + b"{}",
        "header beyond the end": (10**6).to_bytes(8, "little") + b"{}",
        "a list": raw([1]), "not UTF-8": raw(b'{"\xff":1}'),
        "deep lists": raw(b'{"a":' + b"[" * 10**5), "deep objects": raw(b'{"a":' * 10**5), "NaN": raw(b'{"a":NaN}'),
        "infinity": raw(b'{"a":1e999}'), "5,000 digits": raw(b'{"a":' + b"9" * 5000 + b"}"),
        "a key twice": raw(b'{"a":1,"a":1}'), "a surrogate": raw(b'{"\\ud800":1}'),
        "8 MB of numbers": raw(b'{"a":[' + b"1," * (4 * 2**20 - 9) + b"1]}"),
        "8 MB of objects": raw(b'{"a":[' + b"{}," * (2**23 // 3 - 9) + b"{}]}"),
        "foreign metadata": raw({"__metadata__": {"evil\x1b[2J": "x"}}),
        "no metadata of ours": raw({name: header[name] for name in names}, data),
        "no seal": raw({**header, "__metadata__": {key: value for key, value in header["__metadata__"].items()
                                                   if key != safetensors_header.SEAL_KEY}}, data),
        "a wrong seal": sound.replace(header["__metadata__"][safetensors_header.SEAL_KEY].encode(), b"1" * 64),
        "one bit of a weight": sound[:-1] + bytes([sound[-1] ^ 1]), "a byte more": sound + b"\0",
        "a byte less": sound[:-1], "a zip at its end": sound + stream.getvalue(),
        "a newer format": with_metadata(diffuse__format_version="2"),
        "a format that is none": with_metadata(diffuse__format_version="\x1b[2J"),
        "no configuration": with_metadata(diffuse__config=None), "a null configuration": with_metadata(
            diffuse__config="null"), "10⁹ channels": with_network(widths=[10**9, 10**9]),
        "a resolution of 2^40": with_network(resolution=2**40), "negative depths": with_network(depths=[-1, 1]),
        "a million levels": with_network(widths=[8] * 10**5), "an unknown entry": with_network(evil=1),
        "wrong types": with_network(groups="4"), "a flag for a number": with_network(groups=True),
        "a fraction": with_network(groups=4.0), "five channels": with_network(channels=5, out_channels=10),
        "no channel": with_network(channels=0, out_channels=0), "a schedule with ESC": with_metadata(
            diffuse__config=json.dumps({**config, "schedule": "\x1b]0;evil\x07"})),
        "another width": with_network(widths=[16, 16]),
        "words that are texts": with_metadata(diffuse__words='{"a":"b"}'),
        "480,000 words": with_metadata(diffuse__words=json.dumps({f"{number:x}": 1 for number in range(480_000)})),
        "words in a list": with_metadata(diffuse__words="[1]"),
        "negative words": with_metadata(diffuse__words='{"a":-1}'),
        "no tokenizer": with_metadata(diffuse__tokenizer=None), "half a tokenizer": with_metadata(
            diffuse__tokenizer=header["__metadata__"]["diffuse.tokenizer"][:-9]),
        "a tokenizer of NaN": with_metadata(diffuse__tokenizer='{"model":NaN}'),
        "a tokenizer with a key twice": with_metadata(
            diffuse__tokenizer=json.dumps(tokenizer).replace('"version"', '"model":{},"version"', 1)),
        "a token too many": with_tokenizer(vocab={**vocabulary, "zzz": len(vocabulary)}),
        "a merge of unknown tokens": with_tokenizer(merges=[["no", "such"]]),
        "tokens with gaps": with_tokenizer(vocab={**vocabulary, "zzz": 10**9}),
        "a tensor of another type": with_entry(first, dtype="I32"), "an unknown type": with_entry(first, dtype="C64"),
        "a shape with a zero": with_entry(first, shape=[0]),
        "a shape that overflows": with_entry(first, shape=[2**62] * 3),
        "offsets reversed": with_entry(first, data_offsets=header[first]["data_offsets"][::-1]),
        "overlapping tensors": with_entry(first, data_offsets=header[last]["data_offsets"]),
        "offsets beyond the end": with_entry(first, data_offsets=[2**40, 2**40 + 4]),
        "tensors swapped": resealed(swapped, data), "a tensor renamed": resealed(
            {("x" if name == first else name): entry for name, entry in header.items()}, data),
        "a tensor's name with a path": resealed(
            {("../../x" if name == first else name): entry for name, entry in header.items()}, data),
        "a weight that is NaN": with_numbers(float("nan")), "weights that are infinite": with_numbers(float("inf")),
    }


