"""A training's events for the instruments that people already have: TensorBoard, Weights & Biases.

A reader of the stream like the terminal, and the only place that knows these libraries; they come with an extra, and
are imported only when they are asked for. Scalars are named by event and field: "stepped/noise_mse". What these
libraries write is theirs: it does not pass through `durable`, and no training ends because of it.
"""

import contextlib
import importlib.util
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import events
from ..errors import UsageError
from ..files import durable

DIRECTORY = "tensorboard"                       # in the run's directory
PROJECT, ID_FILE = "diffuse-cli", "wandb-id"
_NO_SCALARS = ("schema", "step", "steps", "seconds", "remaining")


def check_log(name: str) -> None:
    """Raise UsageError, saying what to install, unless the library of that log is there."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:                          # a folder of that name is no library
        raise UsageError(f"--log {name} needs a package that is not installed",
                         hint=f"Install it: pip install 'diffuse-cli[{name}]'")


@contextlib.contextmanager
def open_log(
    name: str | None, directory: Path, *, complain: Callable[[str], None],
) -> Iterator[Callable[[events.Event], None]]:
    """The function that logs the next event of the run in `directory`; with no name, one that does nothing.

    The log begins, or goes on, with `Started`. Raises UsageError when it cannot; what fails later is said once by
    `complain`, and nothing is logged any more.
    """
    log: TensorBoard | WeightsAndBiases | None = None
    ended = name is None

    def read(event: events.Event) -> None:
        nonlocal log, ended
        if isinstance(event, events.Started) and not ended:
            log = TensorBoard(directory, event) if name == "tensorboard" else WeightsAndBiases(directory, event)
        if log is None or ended:
            return
        try:
            log.add(event)
        except Exception as error:                                     # whatever it is, it is not worth a training
            ended = True
            complain(f"nothing is logged to {name} any more: {error}")

    try:
        yield read
    finally:
        with contextlib.suppress(Exception):
            if log is not None:
                log.close()


def scalars(event: events.Event) -> dict[str, float]:
    """The numbers of an event that make a curve, under "event/field"; not those that are missing or not finite."""
    if not isinstance(event, events.Stepped | events.Validated):
        return {}
    fields = events.to_dict(event)
    kind = fields["event"]
    found = {f"{kind}/{key}": float(value) for key, value in fields.items()
             if type(value) in (int, float) and key not in _NO_SCALARS}
    if isinstance(event, events.Validated):
        found |= {f"{kind}/noise_mse_at/{level:+.1f}": loss
                  for level, loss in zip(event.log_snr, fields["noise_mse_at"], strict=True) if loss is not None}
    return found


class TensorBoard:
    """Event files in the run's directory. What an earlier process logged of steps that come again is forgotten."""

    def __init__(self, directory: Path, started: events.Started) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory / DIRECTORY), purge_step=started.step + 1)

    def add(self, event: events.Event) -> None:
        if isinstance(event, events.Stepped | events.Validated):
            for name, value in scalars(event).items():
                self._writer.add_scalar(name, value, event.step)
        elif isinstance(event, events.Previewed):
            from ..pictures.sheets import read_strip

            self._writer.add_images("previewed", read_strip(Path(event.path)), event.step, dataformats="NHWC")

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """One run there for one run here. Of a step that is told twice, what was logged first stays.

    WANDB_MODE, WANDB_DIR and the like mean what they always mean. Raises UsageError when it cannot begin.
    """

    def __init__(self, directory: Path, started: events.Started) -> None:
        import wandb

        self._image = wandb.Image
        try:
            self._run = wandb.init(
                project=PROJECT, name=started.name, id=_wandb_id(directory), resume="allow", dir=str(directory),
                config=dict(started.facts), allow_val_change=True,
                settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True))
        except Exception as error:                                     # whatever it is, it is for the user to mend
            raise UsageError(f"--log wandb cannot begin: {' '.join(str(error).split())}",
                             hint="`wandb login` first, or set WANDB_MODE=offline") from error

    def add(self, event: events.Event) -> None:
        if not isinstance(event, events.Stepped | events.Validated | events.Previewed) or event.step < self._run.step:
            return
        values: dict[str, object] = dict(scalars(event))
        if isinstance(event, events.Previewed):
            values["previewed"] = self._image(event.path, caption=", ".join(event.prompts))
        self._run.log(values, step=event.step)

    def close(self) -> None:
        self._run.finish()


def _wandb_id(directory: Path) -> str:
    """The name under which the run is known there, chosen once."""
    path = directory / ID_FILE
    if not path.exists():
        durable.write(path, f"{secrets.token_hex(8)}\n".encode())
    return path.read_text(encoding="utf-8").strip()
