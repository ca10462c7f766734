"""Checks the tests of crash safety themselves: each deliberate mistake in the protocol must make one of them fail."""

import functools
import importlib.util
import inspect
import random
from collections.abc import Callable
from pathlib import Path

import mutants
import power_cuts
import pytest
import small_run
from disk_faults import BROKEN, CRASH, SHORT, applies, breaches, calls_of_a_training

from diffuse_cli.errors import DiffuseError

UNIT_TESTS = Path(__file__).parents[1] / "training" / "test_run.py"
CUTS = 1000
Detector = Callable[[Path, Path], str | None]   # (home, an empty directory) → the broken promise, or None


def power_cut(home: Path, place: Path) -> str | None:
    try:
        record = power_cuts.record_training(home, small_run.draw_pictures(place))
    except DiffuseError as error:
        return str(error)
    return next(power_cuts.breaches(record, count=CUTS, rng=random.Random(0), place=place / "disk"), None)


@functools.cache
def fault(kind: str, call: str) -> Detector:
    """A fault of that kind, at each call of that name."""
    def detector(home: Path, place: Path) -> str | None:
        folder = small_run.draw_pictures(place)
        small_run.decode(folder)
        calls, expected = calls_of_a_training(home, folder), small_run.results(home)
        positions = (number for number, made in enumerate(calls, 1) if made.name == call and applies(kind, made))
        return next((breach for number in positions for breach in breaches(home, folder, kind, number, expected)), None)

    detector.__name__ = f"{kind} at {call}"
    return detector


@functools.cache
def unit_test(name: str) -> Detector:
    """The test of that name in tests/training/test_run.py."""
    def detector(home: Path, place: Path) -> str | None:
        spec = importlib.util.spec_from_file_location("unit_tests", UNIT_TESTS)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        test = getattr(module, name)
        with pytest.MonkeyPatch.context() as patch:
            given = {"tmp_path": place, "monkeypatch": patch}
            try:
                test(**{parameter: given[parameter] for parameter in inspect.signature(test).parameters})
            except (AssertionError, pytest.fail.Exception) as error:
                return str(error) or "an assertion failed"
        return None

    detector.__name__ = name
    return detector


CAUGHT_BY: dict[Callable, Detector] = {
    mutants.files_are_not_synced: power_cut,
    mutants.directories_are_not_synced: power_cut,
    mutants.the_plan_is_not_synced: power_cut,
    mutants.files_are_renamed_before_they_are_synced: power_cut,
    mutants.files_are_written_in_place: power_cut,
    mutants.the_head_is_written_before_the_state: power_cut,
    mutants.all_states_have_the_same_name: power_cut,
    mutants.states_are_ordered_by_the_time_of_their_files: power_cut,
    mutants.short_writes_are_not_noticed: fault(SHORT, "write"),
    mutants.errors_of_fsync_are_ignored: fault(BROKEN, "fsync"),
    mutants.fsync_is_tried_again: fault(BROKEN, "fsync"),
    mutants.errors_are_not_explained: fault(BROKEN, "write"),
    mutants.temporaries_stay: fault(CRASH, "write"),
    mutants.the_head_is_always_in_the_same_slot: unit_test("test_heads_take_turns"),
    mutants.old_states_are_deleted_before_the_head_is_written:
        unit_test("test_nothing_is_deleted_before_the_new_head_is_durable"),
    mutants.rewinding_leaves_the_later_head:
        unit_test("test_rewinding_when_the_disk_fails_is_an_error_and_can_be_done_again"),
    mutants.only_one_state_is_kept: unit_test("test_two_states_are_kept_and_the_newest_comes_first"),
    mutants.states_are_not_verified: unit_test("test_after_falling_back_the_damaged_state_goes_first"),
}


@pytest.mark.parametrize("mutant", CAUGHT_BY, ids=lambda mutant: mutant.__name__)
def test_a_broken_protocol_is_noticed(home, tmp_path, monkeypatch, counted, mutant):
    with monkeypatch.context() as patch:
        mutant(patch)
        broken = CAUGHT_BY[mutant](home, tmp_path)
    print(broken)
    assert broken is not None
    counted("The tests of crash safety notice a broken protocol", "protocols broken on purpose", 1)


@pytest.mark.parametrize("detector", dict.fromkeys(CAUGHT_BY.values()), ids=lambda detector: detector.__name__)
def test_the_protocol_as_it_is_breaks_nothing(home, tmp_path, detector):
    assert detector(home, tmp_path) is None
