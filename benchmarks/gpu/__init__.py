"""The parts of gpu_acceptance.py. Each module has `units(settings)`: what it tries, by name, in order.

A unit returns facts ready for JSON. One that can fail has "passed" among them, and others only measure.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.contenders import finish

Units = list[tuple[str, Callable[[], dict[str, Any]]]]


@dataclass(frozen=True)
class Settings:
    """Where and with what to try the program."""

    out: Path                                   # directory of the results
    device: str                                 # "cuda" or "cpu"
    tiny: bool                                  # sizes for a rehearsal on a CPU

    @property
    def results(self) -> Path:
        return self.out / "results.jsonl"

    @property
    def home(self) -> Path:
        """The DIFFUSE_HOME of all that is trained."""
        return self.out / "home"

    @property
    def patience(self) -> float:
        """The factor of all deadlines: a busy CPU starts programs slowly."""
        return 3.0 if self.tiny else 1.0

    @contextlib.contextmanager
    def scaled_down(self) -> Iterator[None]:
        """In a rehearsal, `nano` is a still smaller network for everything in this process."""
        if not self.tiny:
            yield
            return
        from diffuse_cli.network import presets  # imports torch: only inside of a part

        network = presets.Levels((16, 16, 32), (1, 1, 1), 16, 16, 32, 1)
        with mock.patch.dict(presets.LEVELS, nano={3: network}), mock.patch.dict(presets.TEXT, nano=(16, 1)):
            yield

    def seconds(self, wanted: float) -> float:
        """For how long to repeat a measurement."""
        return 0.1 if self.tiny else wanted


def per_call(work: Callable[[], Any], device: str, *, seconds: float) -> float:
    """Seconds of a call, until the device has finished it: the mean of as many calls as take so many seconds."""
    work()
    finish(device)
    begun, calls, batch = time.perf_counter(), 0, 1
    while time.perf_counter() - begun < seconds:
        for _ in range(batch):
            work()
        finish(device)
        calls, batch = calls + batch, min(2 * batch, 64)
    return (time.perf_counter() - begun) / calls


@contextlib.contextmanager
def stopwatch(device: str, into: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds spent inside to `into[name]`, until the device has finished."""
    finish(device)
    begun = time.perf_counter()
    yield
    finish(device)
    into[name] = into.get(name, 0.0) + time.perf_counter() - begun
