"""JSON is read strictly: what every reader understands in the same way comes back, all else is refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffuse_cli.files.strict_json import MAX_DEPTH, JsonError, loads_shallow, loads_strict

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_strict_json_reads_what_json_writes(value):
    assert loads_strict(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "Infinity", "-Infinity", "1e400", str(2**64), str(-(2**63) - 1),
                                  '{"a":{"b":1,"b":2}}', "\ufeff{}", b"\xff", "[" * 10_000])
def test_strict_json_refuses(text):
    with pytest.raises(JsonError, match="JSON"):
        loads_strict(text)


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_a_nest_of_lists_and_objects_has_the_same_limit_in_every_version_of_python(opening):
    def nested(count: int) -> str:
        return opening * count + "[]" + "".join({"[": "]", "{": "}"}[sign] for sign in reversed(opening * count)
                                                if sign in "[{")

    each = opening.count("[") + opening.count("{")
    assert loads_shallow(nested((MAX_DEPTH - 1) // each)) == json.loads(nested((MAX_DEPTH - 1) // each))
    with pytest.raises(RecursionError):
        loads_shallow(nested(MAX_DEPTH))
    with pytest.raises(JsonError, match="nested too deeply"):
        loads_strict(nested(MAX_DEPTH))
    assert loads_shallow(f'["{"[" * 1000}"]') == ["[" * 1000]
    assert len(loads_strict(f"[{','.join(['[[]]'] * 1000)}]")) == 1000


def test_strict_json_has_a_limit():
    assert loads_strict("[1]", limit=3) == [1]
    with pytest.raises(JsonError, match="4 bytes, at most 3"):
        loads_strict("[10]", limit=3)


@pytest.mark.parametrize("text", ["9223372036854775808", "18446744073709551615", "-9223372036854775808",
                                  "999999999999999999", "[1, 2, -3]", '{"a": 1000000000000000000}'])
def test_integers_of_64_bits_are_read_whatever_their_length(text):
    assert loads_strict(text) == json.loads(text)


@pytest.mark.parametrize("text", ["18446744073709551616", "-9223372036854775809", "1" + "0" * 30,
                                  "[1, 2, 1" + "0" * 20 + "]", '{"a": ' + "9" * 5000 + "}"])
def test_integers_beyond_are_refused_whatever_their_length(text):
    with pytest.raises(JsonError):
        loads_strict(text)
