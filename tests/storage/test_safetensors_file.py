"""Sound headers are read as the safetensors library reads them; all others are refused in one line."""

import json
import os
import pickle
import random
import resource
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from diffuse_cli.errors import ModelError
from diffuse_cli.storage import safetensors_file, safetensors_header

A = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(5, dtype=np.uint8)
SCALAR = np.array(7, dtype=np.int64)
TENSORS = [("b", "U8", (5,), B.tobytes()), ("a.x", "F32", (2, 3), A.tobytes()), ("step", "I64", (), SCALAR.tobytes())]
METADATA = {"diffuse.format_version": "1", "modelspec.title": "t",
            "diffuse.config": '{"a":"é \\"diffuse.seal\\":\\"x"}'}
FILE = b"".join(safetensors_file.encode(TENSORS, METADATA))


def _file(tmp_path, data: bytes):
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    return path


def _raw(fields: object, data: bytes = b"") -> bytes:
    """A safetensors file with any header, sound or not."""
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return len(text).to_bytes(8, "little") + text + data


def _refused(path, match: str | None = None) -> str:
    """Check that a file is refused. → the one line of the message"""
    with pytest.raises(ModelError, match=match) as caught:
        safetensors_file.verify_seal(path)
    assert caught.value.exit_code == 4
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ── Writing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_library_reads_what_we_write():
    tensors = safetensors.numpy.load(FILE)
    for name, expected in (("a.x", A), ("b", B), ("step", SCALAR)):
        assert tensors[name].dtype == expected.dtype
        np.testing.assert_array_equal(tensors[name], expected)


def test_we_read_what_the_library_writes(tmp_path):
    path = _file(tmp_path, safetensors.numpy.save({"a": A, "b": B, "step": SCALAR}, {"format": "np"}))
    found = safetensors_file.read_header(path)
    assert found.metadata == {"format": "np"}
    assert {name: (entry.dtype, entry.shape) for name, entry in found.tensors.items()} == {
        "a": ("F32", (2, 3)), "b": ("U8", (5,)), "step": ("I64", ())}
    assert safetensors_file.verify_seal(path) is False
    data = path.read_bytes()[found.data_start:]
    assert data[found.tensors["a"].start:found.tensors["a"].end] == A.tobytes()


def test_equal_contents_give_equal_files():
    assert b"".join(safetensors_file.encode(TENSORS[::-1], dict(reversed(METADATA.items())))) == FILE


def test_every_tensor_is_aligned_to_its_items(tmp_path):
    found = safetensors_file.read_header(_file(tmp_path, FILE))
    assert found.data_start % 8 == 0
    for entry in found.tensors.values():
        assert (found.data_start + entry.start) % safetensors_header.ITEM_BYTES[entry.dtype] == 0


def test_reading_gives_back_what_was_written(tmp_path):
    path = _file(tmp_path, FILE)
    found = safetensors_file.read_header(path)
    assert {key: value for key, value in found.metadata.items() if key != safetensors_header.SEAL_KEY} == METADATA
    assert found.parameters == 6 + 5 + 1
    with safetensors_file.opened(path) as file:
        read = [(name, entry.dtype, entry.shape, bytes(data))
                for name, entry, data in safetensors_file.read_sealed(file, safetensors_file.read_header(file))]
    assert read == safetensors_file.canonical_order(TENSORS)


def test_sealing_is_the_sha256_of_the_file_with_zeros_in_place(tmp_path):
    import hashlib

    found = safetensors_file.read_header(_file(tmp_path, FILE))
    seal = found.metadata[safetensors_header.SEAL_KEY].encode()
    assert found.seal_start is not None
    assert FILE[found.seal_start:found.seal_start + 64] == seal
    assert hashlib.sha256(FILE.replace(seal, b"0" * 64)).hexdigest().encode() == seal


# ── The seal ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_single_flipped_bit_is_noticed(tmp_path, counted):
    path = tmp_path / "x.safetensors"
    assert safetensors_file.verify_seal(_file(tmp_path, FILE)) is True
    for bit in range(len(FILE) * 8):
        flipped = bytearray(FILE)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        _refused(path)
    counted("A damaged model is refused", "every bit of a small file, flipped", len(FILE) * 8)


def test_read_sealed_notices_a_change_as_well(tmp_path):
    flipped = bytearray(FILE)
    flipped[-1] ^= 1
    path = _file(tmp_path, bytes(flipped))
    with pytest.raises(ModelError, match="damaged"), safetensors_file.opened(path) as file:
        list(safetensors_file.read_sealed(file, safetensors_file.read_header(file)))


def test_truncation_anywhere_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    for length in range(len(FILE)):
        path.write_bytes(FILE[:length])
        _refused(path)


def test_a_file_longer_than_one_piece_is_hashed_whole(tmp_path):
    data = random.Random(0).randbytes(3 * 2**20 + 17)
    whole = b"".join(safetensors_file.encode([("x", "U8", (len(data),), data)], METADATA))
    assert safetensors_file.verify_seal(_file(tmp_path, whole)) is True
    for place in (len(whole) - 1, len(whole) - 2**20, len(whole) - 2 * 2**20):
        _refused(_file(tmp_path, whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:]), "damaged")


def test_our_own_file_without_its_seal_is_refused(tmp_path):
    _refused(_file(tmp_path, _raw({"__metadata__": {"diffuse.config": "{}"}})), "its seal is missing")


def test_a_file_cut_while_it_is_read_is_refused(tmp_path):
    data = bytes(2**20)
    path = _file(tmp_path, b"".join(safetensors_file.encode([("x", "U8", (len(data),), data)], METADATA)))
    found = safetensors_file.read_header(path)
    os.truncate(path, found.size - 1)
    with pytest.raises(ModelError, match="cut short"), safetensors_file.opened(path) as file:
        list(safetensors_file.read_sealed(file, found))


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


class _Bomb:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


IMPOSTORS = {
    "pickle": (pickle.dumps(_Bomb(), protocol=2), "pickle; diffuse never loads pickles"),
    "zip": (b"PK\x03\x04" + bytes(100), "zip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
    "html": (b"\n <!DOCTYPE html><title>404</title>", "web page"),
    "gguf": (b"GGUF" + bytes(100), "GGUF"),
    "empty": (b"", "0 bytes are too short"),
    "seven bytes": (b"1234567", "7 bytes are too short"),
    "noise": (random.Random(1).randbytes(1000), "not a safetensors file"),
    "header of length 0": (bytes(8) + b"{}", "JSON is damaged"),
    "header of length 2^31": ((2**31).to_bytes(8, "little") + b"{}", "not a safetensors file"),
    "header of length 2^63": ((2**63).to_bytes(8, "little") + b"{}", "not a safetensors file"),
    "header of length 2^64-1": (b"\xff" * 8 + b"{}", "not a safetensors file"),
    "header beyond the end": ((100).to_bytes(8, "little") + b"{}", "cut short"),
    "not an object": (_raw([1]), "not a safetensors file"),
    "not UTF-8": (_raw(b'{"\xff":1}'), "JSON is damaged"),
    "deep nesting": (_raw(b'{"a":' + b"[" * 100_000), "nested too deeply"),
    "NaN": (_raw(b'{"a":NaN}'), "NaN is not a number"),
    "infinity": (_raw(b'{"a":1e999}'), "out of range"),
    "5,000 digits": (_raw(b'{"a":' + b"9" * 5000 + b"}"), "out of range"),
    "duplicate": (_raw(b'{"a":1,"a":1}'), "a key occurs twice"),
    "duplicate metadata": (_raw(b'{"__metadata__":{"format":"a","format":"b"}}'), "a key occurs twice"),
    "metadata is a list": (_raw({"__metadata__": []}), "metadata is not a JSON object"),
    "metadata is a number": (_raw({"__metadata__": {"format": 1}}), "is not text"),
    "foreign metadata": (_raw({"__metadata__": {"evil\x1b[2J": "x"}}), "unknown metadata"),
    "a tensor is a list": (_raw({"a": []}), "not a JSON object"),
    "trailing data": (FILE + b"PK\x05\x06" + bytes(18), "but has"),
}


@pytest.mark.parametrize("case", IMPOSTORS)
def test_impostors_are_named_and_refused(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    data, match = IMPOSTORS[case]
    line = _refused(_file(tmp_path, data), match)
    assert line.isprintable()
    assert (tmp_path / "x.safetensors").read_bytes() == data
    assert not (tmp_path / "PWNED").exists()


GOOD = {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}
BAD_ENTRIES = {
    "dtype": ({"dtype": "C64"}, "unknown dtype"),
    "dtype is a list": ({"dtype": ["U8"]}, "unknown dtype"),
    "zero": ({"shape": [0]}, "impossible shape"),
    "negative": ({"shape": [-4]}, "impossible shape"),
    "boolean": ({"shape": [True, 4]}, "impossible shape"),
    "float": ({"shape": [4.0]}, "impossible shape"),
    "text": ({"shape": "4"}, "impossible shape"),
    "1,000 dimensions": ({"shape": [1] * 1000 + [4]}, "impossible shape"),
    "overflow": ({"shape": [2**32, 2**32, 2**32]}, "does not fit"),
    "zero times overflow": ({"shape": [2**63, 0]}, "impossible shape"),
    "too small": ({"shape": [3]}, "does not fit"),
    "reversed": ({"data_offsets": [4, 0]}, "does not fit"),
    "negative offset": ({"data_offsets": [-4, 0]}, "impossible offsets"),
    "three offsets": ({"data_offsets": [0, 2, 4]}, "impossible offsets"),
    "a hole before": ({"data_offsets": [1, 5]}, "leave a gap"),
    "something else": ({"evil": 1}, "nothing else"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_bad_tensors_are_refused(tmp_path, case):
    change, match = BAD_ENTRIES[case]
    _refused(_file(tmp_path, _raw({"a": {**GOOD, **change}}, bytes(4))), match)


@pytest.mark.parametrize("name", ["", "a" * 257, "a b", "../x", "a\x1b[2J", "é", "a\n"])
def test_bad_names_are_refused(tmp_path, name):
    assert _refused(_file(tmp_path, _raw({name: GOOD}, bytes(4))), "impossible name").isprintable()


def test_overlaps_and_holes_are_refused(tmp_path):
    for second in ([2, 6], [5, 9], [0, 4]):
        fields = {"a": GOOD, "b": {**GOOD, "data_offsets": second}}
        _refused(_file(tmp_path, _raw(fields, bytes(second[1]))), "overlap others or leave a gap")


def test_too_many_tensors_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_header, "MAX_TENSORS", 2)
    fields = {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(3)}
    _refused(_file(tmp_path, _raw(fields, bytes(3))), "it has 3 tensors")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, match in ((tmp_path / "fifo", "not a regular file"), ("/dev/zero", "not a regular file"),
                        (tmp_path, "directory"), (tmp_path / "nowhere", "no such file")):
        with pytest.raises(ModelError, match=match):
            safetensors_file.read_header(type(tmp_path)(path))


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux alone")
def test_a_hostile_header_costs_little_memory(tmp_path):
    """The largest allowed header, full of the most expensive JSON, is read in a process of its own."""
    entry = b'"%06x":{},'
    body = b"".join(entry % number for number in range(8 * 2**20 // len(entry % 0) - 2))
    path = _file(tmp_path, _raw(b"{" + body + b'"z":{}}'))
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            safetensors_file.read_header(path)
        except ModelError:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os.write(theirs, str(grown).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(ours, 20)) < 200_000
    os.close(ours)
    os.close(theirs)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_mutation_is_refused_as_a_model_error(tmp_path_factory, data):
    """Bytes are inserted, deleted or overwritten anywhere: the only error that is raised is ModelError."""
    mutated = bytearray(FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated)))
        mutated[place:place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path = _file(tmp_path_factory.mktemp("mutated"), bytes(mutated))
    if mutated == FILE:
        assert safetensors_file.verify_seal(path)
    else:
        _refused(path)
