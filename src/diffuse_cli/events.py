"""The events by which a training reports what happens: frozen, typed, and ready for JSON.

All readers (terminal, log, JSON lines) get the same stream. `to_dict` is the one form in which events are written.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SCHEMA = 1                                      # version of everything that is printed or logged as a JSON line
ProgressCallback = Callable[[str, int, int], None]      # called with a description, the parts done, all parts


@dataclass(frozen=True, kw_only=True)
class Noticed:
    """A message for people. `level` is "info" or "warning"."""

    message: str
    level: str = "info"


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """So many pictures have been decoded into the cache."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Started:
    """The plan is made, and training starts or resumes at `step`. `facts` are (label, text) pairs to be shown first."""

    name: str
    step: int
    steps: int
    parameters: int
    batch_size: int
    micro_batch: int
    device: str
    precision: str
    directory: str
    facts: tuple[tuple[str, str], ...]
    student: bool = False                       # whether the losses are distances to a teacher, not errors of the noise
    upscaler: bool = False                      # whether the model only enlarges pictures
    upscaler_for: str | None = None             # the model whose pictures it was trained to enlarge
    preview_prompt: tuple[str, ...] = ()        # the prompts that were asked for, if any


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """A report of the training steps. Losses are means over the steps since the last report."""

    step: int
    steps: int
    train_objective: float                      # the weighted loss that the optimiser minimises
    noise_mse: float                            # mean squared error of the noise, unweighted
    variance_loss: float | None                 # bits per dimension and step; None with a fixed variance
    gradient_norm: float
    lr: float
    images_per_second: float                    # in the time of the computation alone
    seconds: float                              # since this process started to train
    remaining: float                            # estimated seconds to the end
    skipped: int                                # updates left out so far, for a spike or numbers that are not finite
    memory: int                                 # peak in bytes


@dataclass(frozen=True, kw_only=True)
class Paused:
    """Training waits at `step` for something else. doing: "validating", "drawing a preview" or "saving"."""

    step: int
    doing: str


@dataclass(frozen=True, kw_only=True)
class Validated:
    """The averaged weights were validated on held-out pictures, at fixed noise levels and with fixed noise."""

    step: int
    noise_mse: float
    log_snr: tuple[float, ...]
    noise_mse_at: tuple[float, ...]
    best: bool


@dataclass(frozen=True, kw_only=True)
class Previewed:
    """A strip of pictures was written. `prompts` has one for each picture; all are empty when unconditional."""

    step: int
    path: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A training state is on the disk."""

    step: int
    path: str
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Training ended: it is `complete`, or `reason` stopped it early. `path` is the model."""

    step: int
    steps: int
    path: str
    complete: bool
    reason: str
    delivered: str                              # which weights are in the model: the last or the best, and why
    prompt: str                                 # a prompt to try the model with; empty when unconditional
    seconds: float


Event = Noticed | Scanned | Started | Stepped | Paused | Validated | Previewed | Saved | Finished


def to_dict(event: Event) -> dict[str, Any]:
    """An event as a JSON line has it: the schema, its name in lower case, its fields, non-finite numbers as None."""
    fields: dict[str, Any] = without_non_finite(dataclasses.asdict(event))
    return {"schema": SCHEMA, "event": type(event).__name__.lower(), **fields}


def without_non_finite(value: Any) -> Any:
    """`value` with every NaN and infinity in it replaced by None, which JSON can express."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: without_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(item) for item in value]
    return value

