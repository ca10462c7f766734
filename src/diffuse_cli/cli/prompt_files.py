"""Prompts as people give them: words on the command line, or a file with one on each line; and what is said of them."""

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import config
from ..checks import check_range, from_dict
from ..config import Sampling
from ..errors import DataError, UsageError
from . import options
from .terminal import view

if TYPE_CHECKING:
    from ..sampling.request import SampleRequest
    from ..storage.checkpoint import Model

MAX_BYTES = 16 * 2**20                          # of a file of prompts
MAX_WARNINGS = 5                                # about words


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """What is asked of one prompt. None: as for all the others."""

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

    def sampling(self, usual: Sampling) -> Sampling:
        """How it is to be drawn, where `usual` says how all are."""
        return options.changed(usual, sampler=self.sampler, steps=self.steps, guidance=self.guidance)


def read_prompts(source: str) -> list[PromptLine]:
    """The prompts of a file, or of stdin for "-": one a line, or a JSON object where a line starts with {.

    Empty lines count for nothing. Raises DataError, naming the line.
    """
    from ..files.strict_json import JsonError, loads_strict

    name = "stdin" if source == "-" else source
    asked = []
    for number, line in enumerate(_text(source, name).split("\n"), 1):
        line = line.strip()
        try:
            if line.startswith("{"):
                asked.append(from_dict(PromptLine, loads_strict(line), where="it"))
            elif line:
                asked.append(PromptLine(prompt=line))
        except (JsonError, UsageError) as error:
            hint = error.hint if isinstance(error, UsageError) else 'Write a prompt, or JSON such as {"prompt": …}'
            what = error.what if isinstance(error, UsageError) else str(error)
            raise DataError(f"line {number} of {name} cannot be used: {what}", hint=hint) from error
    if not asked:
        raise DataError(f"{name} holds no prompt")
    return asked


def _text(source: str, name: str) -> str:
    try:
        if source != "-":
            with Path(source).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        else:
            data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin is not None else b""
        text = data.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else (
            getattr(error, "strerror", None) or str(error)).lower()
        raise DataError(f"cannot read the prompts in {name}: {reason}") from error
    if len(data) > MAX_BYTES:
        raise DataError(f"{name} is over {MAX_BYTES // 2**20} MB", hint="Draw it in parts")
    return text


# ── What they mean to a model ───────────────────────────────────────────────────────────────────────────────────────


def warn_about(requests: "Sequence[SampleRequest]", model: "Model") -> None:
    """Tell when a prompt cannot mean anything to the model, or not all of it."""
    from ..network.tokenizer import is_truncated
    from ..sampling.steps import guided_steps

    texts = list(dict.fromkeys(text for one in requests for text in (one.prompt, one.negative) if text))
    if model.tokenizer is None:
        if texts:
            view.warn("this model was trained without captions and ignores prompts")
        return
    if any(one.negative for one in requests) and all(one.sampling.guidance == 1 for one in requests):
        view.warn("--negative does nothing without guidance, and --guidance 1 is none")
    if any(one.sampling.guidance != 1 and (one.negative or one.sampling.guidance != Sampling.guidance)
           and not guided_steps(model.config, one.sampling) for one in requests):
        view.warn("guidance does nothing: no step begins where it acts; use more --steps or another "
                  "--guidance-interval")
    _warn_about_words(texts, model)
    for text in texts:
        if is_truncated(model.tokenizer, text):
            view.warn(f"the prompt is longer than the model reads, its end is ignored: {view.clean(text, limit=60)}")


def _warn_about_words(texts: Iterable[str], model: "Model") -> None:
    from ..data.caption_words import split_words

    words = dict.fromkeys(word for text in texts for word in split_words(text))
    unknown = [word for word in words if word not in model.words] if model.words else []      # where they are known
    for word in unknown[:MAX_WARNINGS]:
        near = difflib.get_close_matches(word, model.words, 3)
        meant = f"; it knows {', '.join(near)}" if near else ""
        view.warn(f"the model has never seen the word {word!r}{meant}")
    if len(unknown) > MAX_WARNINGS:
        view.warn(f"the model has never seen {len(unknown) - MAX_WARNINGS} more of the words")
