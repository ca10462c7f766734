"""Logs a training's events to TensorBoard or Weights & Biases.

This is the only module that knows these two libraries. They come with an extra, and are imported only when one of them
is asked for. Scalars are named by event and field: "stepped/noise_mse". The libraries write their own files, not
through `durable`, and none of their errors ends a training.
"""

import contextlib
import importlib.util
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import events, installing, python_process
from ..errors import UsageError
from ..files import durable
from ..files.input_files import read_input

DIRECTORY = "tensorboard"                       # of the event files, in the run's directory
PROJECT = "diffuse-cli"                         # name of the project at Weights & Biases
ID_FILE = "wandb-id"                            # in the run's directory; holds the run's id at Weights & Biases
_NO_SCALARS = ("schema", "step", "steps", "seconds", "remaining")      # numbers in events that make no useful curve


def check_log(name: str) -> None:
    """Raise UsageError, with the command that installs it, unless the library `name` is installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:                            # without an origin it is a folder of that name
        raise UsageError(f"--log {name} needs a package that is not installed",
                         hint=f"Install it: {installing.extra(name)}")


@contextlib.contextmanager
def open_log(
    name: str | None, directory: Path, *, warn: Callable[[str], None],
) -> Iterator[Callable[[events.Event], None]]:
    """A function that logs one event of the run in `directory` to the library `name`; with None it does nothing.

    The log is opened, or continued, at the event `Started`. Raises UsageError if that fails. After a later error
    nothing more is logged, and `warn` is called once with a message.
    """
    log: TensorBoard | WeightsAndBiases | None = None
    disabled = name is None

    def log_event(event: events.Event) -> None:
        nonlocal log, disabled
        if isinstance(event, events.Started) and not disabled:
            log = TensorBoard(directory, event) if name == "tensorboard" else WeightsAndBiases(directory, event)
        if log is None or disabled:
            return
        try:
            log.add(event)
        except Exception as error:                                     # no error of a log is worth a training
            disabled = True
            warn(f"nothing is logged to {name} any more: {error}")

    try:
        yield log_event
    finally:
        with contextlib.suppress(Exception):
            if log is not None:
                log.close()


def scalars(event: events.Event) -> dict[str, float]:
    """The numbers of an event that make curves, by "event/field". Missing and non-finite numbers are left out."""
    if not isinstance(event, events.Stepped | events.Validated):
        return {}
    fields = events.to_dict(event)
    kind = fields["event"]
    values = {f"{kind}/{key}": float(value) for key, value in fields.items()
              if type(value) in (int, float) and key not in _NO_SCALARS}
    if isinstance(event, events.Validated):
        values |= {f"{kind}/noise_mse_at/{level:+.1f}": loss
                   for level, loss in zip(event.log_snr, fields["noise_mse_at"], strict=True) if loss is not None}
    return values


class TensorBoard:
    """Event files in the run's directory.

    When a run resumes, TensorBoard drops its earlier entries for the steps that are trained again.
    """

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
    """One run at Weights & Biases for one run here. If a step is logged twice, the first entry stays.

    The library's own environment variables, such as WANDB_MODE, keep their meaning. It starts in the
    run's directory, because it sends its key to the server that `wandb/settings` in the current directory names. Raises
    UsageError if the library cannot begin.
    """

    def __init__(self, directory: Path, started: events.Started) -> None:
        try:
            with python_process.elsewhere(directory):
                import wandb

                self._image = wandb.Image
                self._run = wandb.init(
                    project=PROJECT, name=started.name, id=_wandb_id(directory), resume="allow", dir=str(directory),
                    config=dict(started.facts), allow_val_change=True,
                    settings=wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True))
        except Exception as error:                                     # of any kind: the user can put it right
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
    """The id of the run at Weights & Biases, chosen at random once and kept in the run's directory."""
    path = directory / ID_FILE
    if not path.exists():
        durable.write(path, f"{secrets.token_hex(8)}\n".encode())
    return read_input(path, limit=1024).decode().strip()
