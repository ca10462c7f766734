"""The Hugging Face Hub: its addresses and its library. Nothing is asked of it unless an address is typed."""

import os
import re
import sys
from collections.abc import Callable
from types import ModuleType

from . import installing

EXTRA = installing.extra("hub")                  # the command that installs the library
_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*?"
_ADDRESS = re.compile(rf"hf:/{{1,2}}({_NAME})(?:@([\w./-]+))?/*")               # Path makes one slash of two


def parse_address(text: str) -> tuple[str, str | None] | None:
    """hf://owner/name or hf://owner/name@revision → ("owner/name", the revision or None); None for other texts."""
    match = _ADDRESS.fullmatch(text)
    return None if match is None else (match[1], match[2])


def is_repository(text: str) -> bool:
    """Whether this can be the name of a repository, owner/name."""
    return re.fullmatch(_NAME, text) is not None


def open_address(address: str, failure: Callable[..., Exception]) -> tuple[ModuleType, str, str | None]:
    """An address → the library, the repository, the revision or None. Raises `failure(what, hint=…)` without the extra.
    """
    parsed = parse_address(address)
    assert parsed is not None
    try:
        return library(), *parsed
    except ImportError as error:
        raise failure(f"{address} needs huggingface_hub", hint=EXTRA) from error


def library() -> ModuleType:
    """huggingface_hub. Raises ImportError without the extra."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    return huggingface_hub


def reason(error: Exception) -> str:
    """The first line of an error of the library, of HTTP or of the file system."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".") if lines else "no answer"
