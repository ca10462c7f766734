"""The queue of drawings: one is drawn at a time, by one thread, exactly as `diffuse sample` draws.

A drawing is watched through its `messages`, and cancelled between two steps.
"""

import contextlib
import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..config import Machine
from ..errors import DiffuseError, InUseError, ModelError
from ..model_config import ModelConfig
from ..sampling.request import SampleRequest

if TYPE_CHECKING:
    from torch import Tensor

    from ..storage.checkpoint import Model

MAX_WAITING = 8                                 # drawings that wait for their turn


class _Cancelled(Exception):
    """Nobody waits for the drawing any more."""


@dataclass(eq=False)
class Drawing:
    """A request on its way. Its messages are dictionaries: "note", "step", "picture", "error", and "end" as the last.
    """

    path: Path                                  # the file of the model
    config: ModelConfig                         # of the model for which the request was judged
    request: SampleRequest
    messages: "queue.SimpleQueue[dict[str, Any]]" = field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def tell(self, **message: Any) -> None:
        """Send a message to whoever watches."""
        self.messages.put(message)


class Queue:
    """Drawings that wait, and the one that is drawn."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Drawing | BaseException] = queue.Queue(MAX_WAITING)
        self._loaded: tuple[tuple[Path, int, int], Model] | None = None

    def add(self, drawing: Drawing) -> None:
        """Let a drawing wait for its turn. Raises InUseError if too many wait."""
        try:
            self._waiting.put_nowait(drawing)
        except queue.Full as error:
            raise InUseError(f"{MAX_WAITING} drawings wait already", hint="Try again when one of them is finished"
                             ) from error

    def fail(self, error: BaseException) -> None:
        """Let `work` raise an error that happened elsewhere."""
        self._waiting.put(error)

    def work(self, first: Path) -> NoReturn:
        """Load the model `first`, and then draw one drawing after another, until an unforeseen error or Ctrl-C."""
        with contextlib.suppress(DiffuseError):                        # the drawing that needs the model will say so
            self._model(first)
        while True:
            drawing = self._waiting.get()
            if isinstance(drawing, BaseException):
                raise drawing
            try:
                self._draw(drawing)
            except _Cancelled:
                pass
            except DiffuseError as error:
                drawing.tell(error=str(error))
            except KeyboardInterrupt:
                drawing.tell(error="the program was ended in the terminal")
                raise
            except BaseException:
                drawing.tell(error="an unforeseen error ended the program; the terminal says more")
                raise
            finally:
                drawing.tell(end=True)

    def _model(self, path: Path) -> "Model":
        """The model in the file, which stays in memory until another is needed or the file changes."""
        from ..runtime import devices
        from ..storage import checkpoint

        try:
            status = path.stat()
        except OSError as error:
            raise ModelError("the file of the model is gone", hint="Load the page again") from error
        key = (path, status.st_mtime_ns, status.st_size)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None                                        # two models may not fit into memory
            self._loaded = key, checkpoint.load_model(path, devices.choose_device(Machine()))
        return self._loaded[1]

    def _draw(self, drawing: Drawing) -> None:
        if drawing.cancelled.is_set():
            raise _Cancelled
        drawing.tell(loading=True)
        model = self._model(drawing.path)
        if model.config != drawing.config:
            raise ModelError("the model became another one while the drawing waited", hint="Load the page again")
        from ..pictures import image_files
        from ..pictures.pixels import to_pixels
        from ..sampling import png_metadata
        from ..sampling.generate import generate
        from ..sampling.remarks import remarks_on

        for remark in remarks_on([drawing.request], model):
            drawing.tell(note=remark)
        finished = 0

        def watch(estimates: "Tensor") -> None:
            if drawing.cancelled.is_set():
                raise _Cancelled
            if drawing.messages.empty():                               # whoever watches is ready for another look
                drawing.tell(estimates=to_pixels(estimates), first=finished)

        for sample in generate(model, [drawing.request], watch=watch, progress=lambda done: drawing.tell(done=done)):
            finished += 1
            texts = png_metadata.png_texts(png_metadata.collect_metadata(sample, model))
            drawing.tell(picture=image_files.encode(sample.pixels, texts=texts), index=sample.index,
                         seed=str(sample.seed), name=f"{sample.file_stem}.png")
