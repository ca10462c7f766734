"""Damaged and lost states: a training resumes from the newest whole one, or refuses to."""

import os

import pytest
import runs
import tiny

from diffuse_cli import events
from diffuse_cli.errors import ModelError
from diffuse_cli.storage import training_states

pytestmark = pytest.mark.usefixtures("decoded")


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_flip, lambda path: os.truncate(path, 1000), lambda path: path.unlink()],
                         ids=["bit", "cut", "lost"])
def test_a_damaged_state_falls_back_to_the_one_before(trained, squares, home, damage):
    directory = tiny.run_directory(home)
    tiny.train(squares, stop_at=7)
    damage(directory / "step-00000007.safetensors")
    stream = tiny.train(squares, stop_at=1)
    assert runs.warnings(stream) == ["the state of step 7 is damaged, trying the one before"]
    assert tiny.of_kind(events.Started, stream)[0].step == 6
    assert [state.step for state in training_states.saved_states(directory)][:2] == [7, 6]        # 7 anew
    assert tiny.train(squares)[-1].complete
    assert runs.results(directory) == runs.results(trained[0])


def test_states_outlive_both_heads(trained, squares, home):
    directory = tiny.run_directory(home)
    tiny.train(squares, stop_at=5)
    (directory / "HEAD-0").unlink()
    (directory / "HEAD-1").write_bytes(b"\0" * 100)
    stream = tiny.train(squares)
    assert tiny.of_kind(events.Started, stream)[0].step == 5
    assert runs.results(directory) == runs.results(trained[0])


def test_no_whole_state_is_an_error_and_nothing_is_begun_anew(squares, home):
    directory = tiny.run_directory(home)
    tiny.train(squares, stop_at=4)
    for path in directory.glob("step-*"):
        _flip(path)
    before = runs.listing(directory)
    with pytest.raises(ModelError, match="no saved state of the run 'tiny' is whole"):
        tiny.train(squares)
    after = runs.listing(directory)
    assert {path: after[path] for path in directory.glob("step-*")} == {
        path: before[path] for path in directory.glob("step-*")}
    assert tiny.train(squares, fresh=True, stop_at=1)[-1].step == 1
    assert (directory.parent / "tiny-old" / "step-00000004.safetensors").exists()
