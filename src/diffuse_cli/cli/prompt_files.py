"""Prompts from a file or from stdin, one on each line, and warnings about prompts that a model cannot follow."""

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import config
from ..checks import check_range, from_dict
from ..config import Sampling
from ..errors import DataError, UsageError, system_reason
from ..files.input_files import NOT_REGULAR, read_input
from . import options
from .terminal import view
from .terminal.plain_text import clean

if TYPE_CHECKING:
    from ..sampling.request import SampleRequest
    from ..storage.checkpoint import Model

MAX_BYTES = 16 * 2**20                          # size limit of a file of prompts
MAX_WARNINGS = 5                                # words that are warned about one by one
COMPARED = 4_000                                # known words, the most frequent, with which an unknown one is compared


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """A prompt with its own settings. For a setting that is None, that of the command holds."""

    prompt: str = ""
    negative: str | None = None
    n: int | None = None
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        if self.n is not None:
            check_range("n", self.n, 1, 1_000_000)
        if self.seed is not None:
            check_range("seed", self.seed, 0, config.SEED_RANGE[1] - (self.n or 1_000_000))
        self.sampling(Sampling())

    def sampling(self, default: Sampling) -> Sampling:
        """`default` with the settings of this prompt. Raises UsageError."""
        return options.override(default, sampler=self.sampler, steps=self.steps, guidance=self.guidance)


def read_prompts(source: str) -> list[PromptLine]:
    """Read the prompts of a file, or of stdin for "-": one on each line. A line that starts with { is a JSON object.

    Empty lines are skipped. Raises DataError, naming the line.
    """
    from ..files.strict_json import JsonError, loads_strict

    name = "stdin" if source == "-" else source
    prompts = []
    for number, line in enumerate(_read_text(source, name).split("\n"), 1):
        line = line.strip()
        try:
            if line.startswith("{"):
                prompts.append(from_dict(PromptLine, loads_strict(line), where="it"))
            elif line:
                prompts.append(PromptLine(prompt=line))
        except (JsonError, UsageError) as error:
            hint = error.hint if isinstance(error, UsageError) else 'Write a prompt, or JSON such as {"prompt": …}'
            what = error.what if isinstance(error, UsageError) else str(error)
            raise DataError(f"line {number} of {name} cannot be used: {what}", hint=hint) from error
    if not prompts:
        raise DataError(f"{name} holds no prompt")
    return prompts


def _read_text(source: str, name: str) -> str:
    """The text of a file, in any encoding that `text_files` knows, with lines that end in LF. Raises DataError."""
    from ..data.text_files import NotText, decode_text

    try:
        if source != "-":
            data = read_input(source, limit=MAX_BYTES)
        else:
            data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin is not None else b""
    except OSError as error:
        hint = "Give - to read stdin" if error.strerror == NOT_REGULAR else ""
        raise DataError(f"cannot read the prompts in {name}: {system_reason(error)}",
                        hint=hint) from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{name} is over {MAX_BYTES // 2**20} MB", hint="Split it into several files")
    try:
        text, encoding = decode_text(data)
    except NotText as error:
        raise DataError(f"cannot read the prompts in {name}: it is not text", hint="Save it as UTF-8") from error
    if not encoding.startswith("utf"):
        view.say(f"{name} is not UTF-8 and was read as {encoding}")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


# ── Warnings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def warn_about(requests: "Sequence[SampleRequest]", model: "Model") -> None:
    """Warn about prompts, words and settings that the model ignores."""
    from ..network.tokenizer import is_truncated
    from ..sampling.steps import guided_steps

    texts = list(dict.fromkeys(text for request in requests for text in (request.prompt, request.negative) if text))
    if model.tokenizer is None:
        if texts:
            view.warn("this model was trained without captions and ignores prompts")
        return
    if any(request.negative for request in requests) and all(request.sampling.guidance == 1 for request in requests):
        view.warn("--negative does nothing without guidance, and --guidance 1 is no guidance")
    if any(request.sampling.guidance != 1 and (request.negative or request.sampling.guidance != Sampling.guidance)
           and not guided_steps(model.config, request.sampling) for request in requests):
        view.warn("guidance does nothing, because no step begins in the --guidance-interval; widen it, or use more "
                  "--steps")
    _warn_about_words(texts, model)
    for text in texts:
        if is_truncated(model.tokenizer, text):
            view.warn(f"the prompt is too long for the model, so its end is ignored: {clean(text, limit=60)}")


def _warn_about_words(texts: Iterable[str], model: "Model") -> None:
    from ..data.caption_words import split_words

    words = dict.fromkeys(word for text in texts for word in split_words(text))
    if not model.words:                         # the file does not say which words the model was trained on
        return
    unknown = [word for word in words if word not in model.words]
    for word in unknown[:MAX_WARNINGS]:
        alike = [known for known in model.words if abs(len(known) - len(word)) < 4][:COMPARED]
        near = difflib.get_close_matches(word, alike, 3)
        suggestion = f"; it knows {', '.join(near)}" if near else ""
        view.warn(f"the model has never seen the word {word!r}{suggestion}")
    if len(unknown) > MAX_WARNINGS:
        view.warn(f"the model has never seen {len(unknown) - MAX_WARNINGS} more of the words")
