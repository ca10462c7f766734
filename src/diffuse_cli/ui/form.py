"""The form of the page: judged like a command line, turned into a request, and written as a command.

What the page sends is text of a stranger until it was judged here.
"""

import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checks import check_range, from_dict
from ..config import STRENGTH, Sampling
from ..errors import UsageError
from ..files.strict_json import JsonError, loads_strict
from ..model_config import ModelConfig
from ..sampling.png_metadata import MAX_PROMPT
from ..sampling.request import SampleRequest
from ..storage.model_info import ModelInfo
from .choices import MAX_PICTURES, larger_sizes
from .given_pictures import init_image

MAX_FORM_BYTES = 4 * 2**20                      # enough for a picture and a mask at the highest resolution
MAX_NAME = 200                                  # characters of the name of a picture to start from


@dataclass(frozen=True, kw_only=True)
class Form:
    """The values of the page's form. None or an empty text: the default. Raises UsageError for one out of range."""

    model: str
    prompt: str = ""
    negative: str = ""
    seed: str = ""                              # digits, because numbers of JavaScript are exact to 2**53 only
    count: int = 1
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    guidance_interval: tuple[float, ...] | None = None
    batch_size: int | None = None
    precision: str | None = None
    strength: float | None = None
    size: str = ""                              # a larger one, which an upscaler makes of the model's pictures
    init: str = ""                              # a picture to start from, in base64
    init_name: str = ""                         # the name that its file has on the user's disk
    mask: str = ""                              # where it may change, in base64

    def __post_init__(self) -> None:
        for name, text, most in (("the prompt", self.prompt, MAX_PROMPT), ("--negative", self.negative, MAX_PROMPT),
                                 ("the name of the picture", self.init_name, MAX_NAME)):
            check_range(f"the length of {name}", len(text), 0, most)
            if "\0" in text or text != text.encode(errors="replace").decode():          # half of a surrogate pair
                raise UsageError(f"{name} holds a character that no command line can hold")
        check_range("the number of pictures", self.count, 1, MAX_PICTURES)
        if self.seed and not (self.seed.isascii() and self.seed.isdecimal() and len(self.seed) <= 19):
            raise UsageError(f"the seed must be a whole number, not {self.seed[:40]!r}")
        if self.guidance_interval is not None and len(self.guidance_interval) != 2:
            raise UsageError("the guidance interval is two numbers")
        if self.mask and not self.init:
            raise UsageError("a mask needs a picture to start from")

    @classmethod
    def read(cls, body: bytes) -> "Form":
        """Read the form that the page sent as JSON. Raises UsageError."""
        try:
            return from_dict(cls, loads_strict(body, limit=MAX_FORM_BYTES), where="")
        except JsonError as error:
            raise UsageError(f"the form cannot be read: {error}") from error

    def request(self, model: ModelInfo) -> SampleRequest:
        """The request that the form makes of a model. Raises UsageError, DataError, ModelError."""
        values = {name: value for name in ("sampler", "steps", "guidance", "batch_size", "precision")
                  if (value := getattr(self, name)) is not None}
        if self.guidance_interval is not None:
            values["guidance_interval"] = self.guidance_interval
        return SampleRequest(
            prompt=self.prompt, negative=self.negative, count=self.count, sampling=Sampling.of(model.config, **values),
            seed=int(self.seed) if self.seed else secrets.randbelow(2**32),
            init=init_image(self.init, self.mask, self.strength, model) if self.init else None)

    def upscaler(self, path: Path, config: ModelConfig) -> Path | None:
        """The file of the upscaler that makes the pictures of the model in the file `path` larger, if they shall be.

        Raises UsageError.
        """
        if not self.size:
            return None
        try:
            return larger_sizes(path, config)[self.size]
        except KeyError as error:
            raise UsageError(f"this model cannot draw pictures of {self.size[:40]} px", hint="Load the page again"
                             ) from error

    def command(self, request: SampleRequest, config: ModelConfig) -> str:
        """The command line that draws the same pictures, quoted for a shell."""
        return shlex.join(["diffuse", "sample", *self._words(request, config)])

    def _words(self, request: SampleRequest, config: ModelConfig) -> Iterator[str]:
        usual, sampling, init = Sampling.of(config), request.sampling, request.init
        if self.prompt and not self.prompt.startswith("-"):
            yield self.prompt
        yield from ("-m", self.model, "-n", str(request.count), "-s", str(request.seed))
        if self.size:
            yield from ("--size", self.size)
        if self.negative:
            yield from _option("--negative", self.negative)
        if sampling.sampler != usual.sampler:
            yield from ("--sampler", sampling.sampler)
        if sampling.number_of_steps != Sampling.of(config, sampler=sampling.sampler).number_of_steps:
            yield from ("--steps", str(sampling.number_of_steps))
        if sampling.guidance != usual.guidance:
            yield from ("--guidance", _number(sampling.guidance))
        interval = sampling.interval_at(config.network.schedule_side)
        if interval != usual.interval_at(config.network.schedule_side):
            yield from ("--guidance-interval", *map(_number, interval))
        if sampling.batch_size != usual.batch_size:
            yield from ("--batch-size", str(sampling.batch_size))
        if sampling.precision != usual.precision:
            yield from ("--precision", sampling.precision)
        if init is not None:
            yield from _option("--init", self.init_name or "picture.png")
            if init.mask is not None:
                yield from ("--mask", "mask.png")
            if init.strength != (STRENGTH if init.mask is None else 1):
                yield from ("--strength", _number(init.strength))
        if self.prompt.startswith("-"):
            yield from ("--", self.prompt)


def _option(name: str, value: str) -> tuple[str, ...]:
    """An option with a value that the parser must not take for another option."""
    return (f"{name}={value}",) if value.startswith("-") else (name, value)


def _number(value: float) -> str:
    """The shortest text that is read as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
