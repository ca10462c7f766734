"""What the engine tells whoever listens: frozen, typed, JSON-ready. One stream, many readers.

Standard library only. Knows nothing of who listens; `to_dict` is the one form in which events are written down.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SCHEMA = 1                                      # of everything printed or logged as a JSON line
ProgressCallback = Callable[[str, int, int], None]      # called with: what is being done, how much is done, of how much


@dataclass(frozen=True, kw_only=True)
class Noticed:
    """Something a person should know; `level` is "info" or "warning"."""

    message: str
    level: str = "info"


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """Progress while pictures are decoded into the cache."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Started:
    """The plan stands, training begins (or goes on) at `step`. `facts` are (label, text) pairs for the header."""

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


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """Means over the steps since the last such event."""

    step: int
    steps: int
    train_objective: float                      # what the optimiser saw, weighted
    noise_mse: float                            # mean squared error of the noise, unweighted
    variance_loss: float | None                 # bits per dimension and step; None with a fixed variance
    gradient_norm: float
    lr: float
    images_per_second: float                    # of the compute alone
    seconds: float                              # since the start of this process' training
    remaining: float                            # seconds
    skipped: int                                # steps not learnt from so far: of a spike, or not finite
    memory: int                                 # bytes, peak


@dataclass(frozen=True, kw_only=True)
class Paused:
    """Steps wait while something else is done at `step`: "validating", "drawing a preview", "saving"."""

    step: int
    doing: str


@dataclass(frozen=True, kw_only=True)
class Validated:
    """Noise loss of the averaged weights on held-out pictures, at fixed noise levels with fixed noise."""

    step: int
    noise_mse: float
    log_snr: tuple[float, ...]
    noise_mse_at: tuple[float, ...]
    best: bool


@dataclass(frozen=True, kw_only=True)
class Previewed:
    """A strip of pictures of the fixed prompts, one for each picture; all empty when unconditional."""

    step: int
    path: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint is on the disk."""

    step: int
    path: str
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Finished:
    """Training ended: `complete`, or stopped early by `reason`. `path` is the model."""

    step: int
    steps: int
    path: str
    complete: bool
    reason: str
    delivered: str                              # "last" or "best", and why
    prompt: str                                 # one to try it with; empty when unconditional
    seconds: float


Event = Noticed | Scanned | Started | Stepped | Paused | Validated | Previewed | Saved | Finished


def to_dict(event: Event) -> dict[str, Any]:
    """An event as it is written in a JSON line: its name in lower case, its fields, non-finite numbers as None."""
    fields: dict[str, Any] = finite(dataclasses.asdict(event))
    return {"schema": SCHEMA, "event": type(event).__name__.lower(), **fields}


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity in it replaced by None, which JSON can express."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value

