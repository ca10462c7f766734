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
from diffuse_cli.training import estimate, loop, session
from diffuse_cli.training.plan import is_count_due, steps_within, with_steps
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
    monkeypatch.setattr(loop, "time", mock.Mock(monotonic=lambda: watch.now))
    field = session.Session.__dataclass_fields__["begun"]
    monkeypatch.setattr(field, "default_factory", lambda: watch.now)
    init = session.Session.__init__
    monkeypatch.setattr(session.Session, "__init__", lambda self, *args: init(self, *args, begun=watch.now))
    return watch


def train(squares, *, expected, **options):
    """Train for `SECONDS` on a machine that seems to make `expected` pictures a second."""
    with mock.patch.object(estimate, "_images_per_second", return_value=expected), \
            mock.patch.object(estimate, "_overhead", return_value=0.0):
        return tiny.train(squares, TIMED, **options)


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


def test_the_count_is_that_of_the_speed_since_the_session_began():
    plan = mock.Mock(deadline=100.0, cooldown_start=90)
    rng = np.random.default_rng(0)
    for _ in range(100):
        first, pace = int(rng.integers(0, 50)), float(rng.uniform(0.3, 3))
        step = next(k for k in range(first, 1000) if is_count_due(plan, k, first=first, seconds=pace * (k - first)))
        steps = steps_within(plan, step, first=first, seconds=pace * (step - first))
        assert steps == max(step + 1, round(100 / pace))
    assert not is_count_due(mock.Mock(deadline=None, cooldown_start=0), 50, first=0, seconds=1e9)


def test_only_the_end_of_a_plan_changes(trained):
    from diffuse_cli.checks import from_dict
    from diffuse_cli.config import Plan
    plan = from_dict(Plan, run_directory.read_config(trained[0])["plan"], where="plan")
    changed = with_steps(plan, 50, 80)
    assert changed == dataclasses.replace(plan, steps=80, cooldown_steps=20, deadline=None)
    assert with_steps(plan, 78, 80).cooldown_steps == 2
