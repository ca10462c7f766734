"""When processes meet: seldom enough that nobody waits, often enough that a signal is heard within half a second."""

from unittest import mock

import pytest
import torch
import worlds

from diffuse_cli.errors import DataError
from diffuse_cli.runtime.distributed import World, join
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


@pytest.mark.parametrize("fails", [False, True])
def test_work_for_a_whole_machine_is_waited_for_however_long_it_takes(fails, tmp_path):
    """The processes meet while one works, so that no wait reaches a timeout. Where it fails, the other tries itself."""
    def progress(done):
        yield from range(5)
        if fails:
            raise DataError("no pictures")
        return done

    def work():
        with join(torch.device("cpu")) as world, mock.patch.object(meetings, "WORKING_SECONDS", 0), \
                mock.patch.object(World, "all_reduce_max", autospec=True, side_effect=World.all_reduce_max) as met:
            heard = []
            stream = meetings.first_of_each_machine(world, progress)
            try:
                while True:
                    heard.append(next(stream))
            except StopIteration as end:
                done = int(end.value)
            except DataError:
                done = -1
            return {"found": torch.tensor([len(heard), done, met.call_count])}

    expected = [[5, -1, 6], [5, -1, 6]] if fails else [[5, 0, 6], [5, 1, 6]]
    assert [one["found"].tolist() for one in worlds.run(2, work, tmp_path)] == expected
