"""A budget of time is a deadline: its steps are counted again before the learning rate falls."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
import tiny
import torch

from diffuse_cli import events
from diffuse_cli.config import Recipe
from diffuse_cli.storage import checkpoint, run_directory
from diffuse_cli.training import deadline, estimate, half_side, loop, session
from diffuse_cli.training.deadline import Pace, with_steps
from diffuse_cli.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("decoded")
CPU = torch.device("cpu")
SECONDS = 20.0
TIMED = Recipe(resolution=8, preset="nano", time=SECONDS, batch_size=4)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only training steps move: `clock.pace` gives the seconds of each step."""
    watch = mock.Mock(now=0.0, pace=lambda step: 1.0)
    real = Trainer.step

    def step(trainer):
        watch.now += watch.pace(trainer.global_step)
        return real(trainer)

    monkeypatch.setattr(Trainer, "step", step)
    for module in (loop, deadline):
        monkeypatch.setattr(module, "time", mock.Mock(monotonic=lambda: watch.now))
    field = session.Session.__dataclass_fields__["begun"]
    monkeypatch.setattr(field, "default_factory", lambda: watch.now)
    init = session.Session.__init__
    monkeypatch.setattr(session.Session, "__init__", lambda self, *args: init(self, *args, begun=watch.now))
    return watch


def train(squares, recipe=TIMED, *, expected, half=None, **options):
    """Train for `SECONDS` on a machine that seems to make `expected` pictures a second, or `half` at half their side.
    """
    with mock.patch.object(estimate, "_speeds", return_value=(expected, half or expected)), \
            mock.patch.object(estimate, "_overhead", return_value=0.0):
        return tiny.train(squares, recipe, **options)


@pytest.mark.parametrize(("expected", "pace"), [(4.0, 1.0), (12.0, 1.0), (1.0, 1.0), (4.0, 2.5), (4.0, 0.4)])
def test_a_wrong_estimate_still_ends_in_time(squares, home, clock, expected, pace):
    clock.pace = lambda step: pace
    stream = train(squares, expected=expected)
    last = stream[-1]
    assert last.complete
    assert clock.now == pytest.approx(SECONDS, rel=0.05, abs=pace)
    plan = run_directory.read_config(tiny.run_directory(home))["plan"]
    assert (plan["steps"], plan["deadline"]) == (last.steps, None)
    assert tiny.of_kind(events.Stepped, stream)[-1].lr < 0.6 * plan["lr"]      # it has cooled down


def test_a_machine_that_slows_down_ends_in_time(squares, home, clock):
    clock.pace = lambda step: 1.0 if step < 8 else 1.5
    assert train(squares, expected=4.0)[-1].complete
    assert clock.now == pytest.approx(SECONDS, rel=0.1)


@pytest.mark.parametrize(("cost", "slower", "stop"), [
    (0.43, 1.0, None), (0.25, 1.6, None), (0.8, 0.6, 7), (0.25, 1.0, 24)])
def test_steps_at_half_the_side_take_their_own_time(squares, home, clock, monkeypatch, cost, slower, stop):
    """Whatever they cost, and however wrong the speeds were measured, the run ends in time, resumed or not."""
    monkeypatch.setattr(half_side, "MIN_SIDE", 16)
    recipe = dataclasses.replace(TIMED, resolution=16, init="none")
    clock.pace = lambda step: slower * (cost if step < plan()["half_side_steps"] else 1.0)

    def plan():
        return run_directory.read_config(tiny.run_directory(home))["plan"]

    if stop is not None:
        train(squares, recipe, expected=4.0, half=4 / cost, stop_at=stop)
    assert train(squares, recipe, expected=4.0, half=4 / cost)[-1].complete
    assert plan()["steps"] > plan()["half_side_steps"] > 0
    known = stop is None or stop < plan()["half_side_steps"]          # else the cost of earlier steps is estimated
    assert clock.now == pytest.approx(SECONDS, rel=0.05 if known else 0.2, abs=1.5)


@pytest.mark.parametrize("stop", [3, 15, 18])                              # before it is counted again, and after
def test_a_stopped_run_resumes_exactly(squares, home, clock, stop):
    train(squares, expected=6.0, name="whole")
    train(squares, expected=6.0, stop_at=stop)
    assert train(squares, expected=9.9)[-1].complete
    directories = [tiny.run_directory(home, name) for name in ("whole", "tiny")]
    whole, stopped = (checkpoint.load_model(directory / "model.safetensors", CPU).sha256 for directory in directories)
    assert whole == stopped
    states = [[path.name for path in directory.glob("step-*.safetensors")] for directory in directories]
    assert max(states[0]) == max(states[1])
    assert (directories[0] / max(states[0])).read_bytes() == (directories[1] / max(states[1])).read_bytes()


def test_the_count_is_that_of_the_speed_since_the_session_began(monkeypatch):
    plan, watch = mock.Mock(deadline=100.0, cooldown_start=90, half_side_steps=0), mock.Mock(now=0.0)
    monkeypatch.setattr(deadline, "time", mock.Mock(monotonic=lambda: watch.now))
    rng = np.random.default_rng(0)
    for _ in range(100):
        first, seconds = int(rng.integers(0, 50)), float(rng.uniform(0.3, 3))
        pace, step, begun = Pace(first, watch.now), first, watch.now
        while not pace.is_count_due(plan, step):
            step, watch.now = step + 1, begun + seconds * (step + 1 - first)
        assert pace.steps_within(plan, step) == max(step + 1, round(100 / seconds))
    assert not Pace(0, -1e9).is_count_due(mock.Mock(deadline=None, cooldown_start=0, half_side_steps=0), 50)


def test_only_the_end_of_a_plan_changes(trained):
    from diffuse_cli.checks import from_dict
    from diffuse_cli.config import Plan
    plan = from_dict(Plan, run_directory.read_config(trained[0])["plan"], where="plan")
    changed = with_steps(plan, 50, 80)
    assert changed == dataclasses.replace(plan, steps=80, cooldown_steps=20, deadline=None)
    assert with_steps(plan, 78, 80).cooldown_steps == 2
    begun_small = dataclasses.replace(plan, half_side_steps=60)
    assert [with_steps(begun_small, step, 80).half_side_steps for step in (50, 60, 70)] == [50, 60, 60]
