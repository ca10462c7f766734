"""When processes meet: seldom enough that nobody waits, often enough that a signal is heard within half a second."""

import pytest

from diffuse_cli.runtime.distributed import World
from diffuse_cli.runtime.launch_environment import ProcessRank
from diffuse_cli.training import meetings
from diffuse_cli.training.every import Every
from diffuse_cli.training.meetings import Meetings

FAR = 10**9


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves: `clock.now`."""
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(meetings, "time", made)
    return made


def world_of(monkeypatch, *, rank, others):
    """A world of two in which the other process says these numbers at every meeting."""
    monkeypatch.setattr(World, "all_reduce_maxima", lambda self, numbers, patient: list(map(max, numbers, others)))
    return World(ProcessRank(rank, 2))


@pytest.mark.parametrize(("seconds", "latest", "expected"), [
    (0.02, FAR, 25), (0.02, 13, 3), (0.3, FAR, 1), (7.0, FAR, 1), (0.0, 60, 50)])
def test_the_next_meeting_is_half_a_second_away_or_at_the_next_duty(clock, monkeypatch, seconds, latest, expected):
    held = Meetings(world_of(monkeypatch, rank=0, others=[0, 0]), step=6)
    assert [step for step in range(6, 9) if held.is_due(step)] == [7, 8]
    clock.now += 4 * seconds
    assert held.hold(10, None, latest=latest) is None
    assert next(step for step in range(11, 200) if held.is_due(step)) == 10 + expected
    clock.now += expected * 0.25                                        # the pace is that since the last meeting
    held.hold(10 + expected, None, latest=FAR)
    assert held.next == 10 + expected + 2


def test_the_main_process_decides_and_a_signal_to_any_is_heard_by_all(clock, monkeypatch):
    clock.now += 1
    held = Meetings(world_of(monkeypatch, rank=1, others=[0, 77]), step=0)
    assert held.hold(1, "SIGTERM", latest=3) == "SIGTERM"
    assert held.next == 77
    held = Meetings(world_of(monkeypatch, rank=0, others=[2, 0]), step=0)
    assert held.hold(1, None, latest=FAR) == "SIGINT"


def test_a_single_process_may_do_anything_after_each_step():
    held = Meetings(World(), step=0)
    assert all(map(held.is_due, range(1, 9)))
    assert held.hold(1, "SIGINT", latest=FAR) == "SIGINT"
    assert held.hold(2, None, latest=FAR) is None


@pytest.mark.parametrize(("interval", "expected"), [("10", [10, 10, 20]), ("25%", [25, 25, 25]), ("5m", [None] * 3)])
def test_an_interval_in_steps_says_when_it_is_due_next(interval, expected):
    every = Every(interval, "--save-every", steps=100, step=0)
    assert [every.next_step(step) for step in (0, 9, 10)] == expected
    assert all(every.is_due(step) for step in expected if step is not None)
