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
    upscaler: Path | None = None                # the file of the model that enlarges the pictures
    messages: "queue.SimpleQueue[dict[str, Any]]" = field(default_factory=queue.SimpleQueue)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def tell(self, **message: Any) -> None:
        """Send a message to whoever watches."""
        self.messages.put(message)


class Queue:
    """Drawings that wait, and the one that is drawn."""

    def __init__(self) -> None:
        self._waiting: queue.Queue[Drawing | BaseException] = queue.Queue(MAX_WAITING)
        self._loaded: dict[Path, tuple[tuple[int, int], Model]] = {}

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

    def _models(self, *paths: Path) -> "list[Model]":
        """The models in the files. Others leave the memory, in which there may be no room for all."""
        self._loaded = {path: loaded for path, loaded in self._loaded.items() if path in paths}
        return [self._model(path) for path in paths]

    def _model(self, path: Path) -> "Model":
        """The model in the file, which stays in memory until others are needed or the file changes."""
        from ..runtime import devices
        from ..storage import checkpoint

        try:
            status = path.stat()
        except OSError as error:
            raise ModelError("the file of the model is gone", hint="Load the page again") from error
        key = (status.st_mtime_ns, status.st_size)
        if path not in self._loaded or self._loaded[path][0] != key:
            self._loaded.pop(path, None)                               # two versions may not fit into memory
            self._loaded[path] = key, checkpoint.load_model(path, devices.choose_device(Machine()))
        return self._loaded[path][1]

    def _draw(self, drawing: Drawing) -> None:
        if drawing.cancelled.is_set():
            raise _Cancelled
        drawing.tell(loading=True)
        model, *upscalers = self._models(*filter(None, (drawing.path, drawing.upscaler)))
        if model.config != drawing.config:
            raise ModelError("the model became another one while the drawing waited", hint="Load the page again")
        from ..pictures import image_files
        from ..pictures.pixels import to_pixels
        from ..sampling import png_metadata
        from ..sampling.generate import generate
        from ..sampling.remarks import remarks_on
        from ..sampling.upscale import enlarger

        upscaler = next(iter(upscalers), None)
        if upscaler is not None:
            upscaler.config.checked_upscaling()
        for remark in remarks_on([drawing.request], model):
            drawing.tell(note=remark)
        finished = 0

        def watch(estimates: "Tensor") -> None:
            if drawing.cancelled.is_set():
                raise _Cancelled
            if drawing.messages.empty():                               # whoever watches is ready for another look
                drawing.tell(estimates=to_pixels(estimates), first=finished)

        for sample in generate(model, [drawing.request], enlarge=None if upscaler is None else enlarger(upscaler),
                               watch=watch, progress=lambda done: drawing.tell(done=done)):
            finished += 1
            texts = png_metadata.png_texts(png_metadata.collect_metadata(sample, model, upscaler))
            drawing.tell(picture=image_files.encode(sample.pixels, texts=texts), index=sample.index,
                         seed=str(sample.seed), name=f"{sample.file_stem}.png")
