"""Prompts from a file or from stdin, also of other programs."""

import dataclasses
import io
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config
from ..checks import check_range, from_dict, to_dict
from ..config import Sampling
from ..errors import DataError, UsageError, system_reason
from ..files.input_files import NOT_REGULAR, read_input
from . import options
from .terminal import view
from .terminal.plain_text import clean

if TYPE_CHECKING:
    from ..sampling.other_tools import OtherSettings

MAX_BYTES = 16 * 2**20                          # size limit of a file of prompts
MAX_COLUMNS = 100                               # of a table of prompts
MAX_IGNORED = 8                                 # settings of other programs that a warning names
SHORT = {"n": "negative", "d": "seed", "s": "steps", "l": "guidance", "ss": "sampler", "no": "negative"}    # in lines


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
    """Read the prompts of a file, or of stdin for "-", with the settings that stand beside them.

    The file has a prompt on each line, or is a table (.csv, .tsv), a JSON document or a .toml file of another program.
    A line that starts with { is a JSON object, and one that starts with # is a comment. What other programs' settings
    have no counterpart here is named in a warning. Raises DataError, naming the line.
    """
    name = "stdin" if source == "-" else source
    ignored: list[str] = []
    prompts = list(_rows(_read_text(source, name), Path(source).suffix.lower(), name, ignored))
    if not prompts:
        raise DataError(f"{name} holds no prompt", hint="Write one on each line")
    warn_of_ignored(name, ignored)
    return prompts


def warn_of_ignored(name: str, ignored: Sequence[str]) -> None:
    """Warn about settings of other programs that have no counterpart here."""
    if ignored:
        counts = Counter(ignored).most_common(MAX_IGNORED)
        listed = ", ".join(clean(what, limit=60) + (f" ({count} times)" if count > 1 else "") for what, count in counts)
        view.warn(f"{name} has settings that mean nothing here and were left out: {listed}"
                  + (" and more" if len(set(ignored)) > MAX_IGNORED else ""))


def _rows(text: str, suffix: str, name: str, ignored: list[str]) -> Iterator[PromptLine]:
    """The prompts in the text of a file. Appends to `ignored` what has no counterpart here. Raises DataError."""
    if suffix in (".yaml", ".yml"):
        raise DataError(f"{name} is YAML, which is not read", hint="Save it as JSON or CSV, or one prompt on each line")
    if suffix in (".csv", ".tsv"):
        rows: Iterable[Any] = _csv_rows(text, suffix, name)
    elif suffix == ".toml":
        rows = _toml_rows(text, name)
    elif (document := _json_document(text)) is not None:
        rows = document
    else:
        yield from _prompts_in_lines(text.split("\n"), name, ignored)
        return
    for number, row in enumerate(rows, 1):
        fields = {"prompt": row} if isinstance(row, str) else row
        if not isinstance(fields, dict) or not (found := _translated(fields, ignored)).prompt:
            known = f"; it has {', '.join(map(str, fields))[:200]}" if isinstance(fields, dict) else ""
            raise DataError(f"entry {number} of {name} has no prompt{known}",
                            hint="The column or key of the prompts is called prompt, text or caption")
        yield found


def _prompts_in_lines(lines: list[str], name: str, ignored: list[str]) -> Iterator[PromptLine]:
    """The prompts of a text: one on each line, or lines that a web UI saved beside a picture, up to "Steps: …"."""
    from ..sampling.other_tools import ends_parameters, parse_parameters

    start = 0
    for number, line in enumerate(lines, 1):
        if ends_parameters(line) and (saved := parse_parameters("\n".join(lines[start:number]))):
            yield _as_prompt(saved, ignored)
            start = number
    for number, line in enumerate(lines[start:], start + 1):
        if line.strip() and not line.startswith("#"):
            yield _prompt_of_line(line.strip(), f"line {number} of {name}", ignored)


def _prompt_of_line(line: str, place: str, ignored: list[str]) -> PromptLine:
    from ..files.strict_json import JsonError, loads_strict

    if not line.startswith("{"):
        prompt, *options = re.split(r"(?<!\S)--([A-Za-z][\w-]*)(?:[=\s]+|$)", line)
        if not options:
            return PromptLine(prompt=line)
        values = {SHORT.get(str(key), str(key)): str(value).strip().strip('"')
                  for key, value in zip(options[::2], options[1::2], strict=True)}
        return _translated({**({"prompt": prompt.rstrip()} if prompt.strip() else {}), **values}, ignored)
    try:
        fields = loads_strict(line)
        if isinstance(fields, dict) and not set(fields) <= {field.name for field in dataclasses.fields(PromptLine)}:
            return _translated(fields, ignored)
        return from_dict(PromptLine, fields, where="it")
    except (JsonError, UsageError) as error:
        hint = error.hint if isinstance(error, UsageError) else 'Write a prompt, or JSON such as {"prompt": …}'
        if re.match(r"\{[^\":]*\|", line):
            hint = "Alternatives such as {red|blue} are not read: write a line for each"
        what = error.what if isinstance(error, UsageError) else str(error)
        raise DataError(f"{place} cannot be used: {what}", hint=hint) from error


def _translated(fields: dict[str, Any], ignored: list[str]) -> PromptLine:
    """The prompt and settings of another program, as far as they have a counterpart here."""
    from ..sampling.other_tools import translate

    return _as_prompt(translate({str(key): value for key, value in fields.items()}), ignored)


def _as_prompt(found: "OtherSettings", ignored: list[str]) -> PromptLine:
    settings = to_dict(found)
    ignored += settings.pop("ignored")
    return PromptLine(**{key: value for key, value in settings.items() if value not in (None, "")})


def _csv_rows(text: str, suffix: str, name: str) -> Iterator[dict[Any, Any]]:
    """The rows of a table, by the names in its first line. Raises DataError."""
    import csv

    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=_delimiter(text, suffix), restkey="more")
        if len(reader.fieldnames or ()) > MAX_COLUMNS:                 # every row gets all of them
            raise DataError(f"{name} has more than {MAX_COLUMNS} columns",
                            hint="Save it as JSON, or one prompt on each line")
        yield from reader
    except csv.Error as error:
        raise DataError(f"{name} is not CSV: {error}", hint="Save it as JSON, or one prompt on each line") from error


def _delimiter(text: str, suffix: str) -> str:
    """The character between the columns: the most frequent one in the first line."""
    return "\t" if suffix == ".tsv" else max(",;\t", key=text.partition("\n")[0].count)


def _json_document(text: str) -> list[Any] | None:
    """The entries of a JSON list, or of the only list in a JSON object; None if the text is not such a document."""
    from ..files.strict_json import JsonError, loads_strict

    try:
        document = loads_strict(text, limit=MAX_BYTES)
    except JsonError:
        return None
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if len(lists) == 1 else None
    return document if isinstance(document, list) else None


def _toml_rows(text: str, name: str) -> list[Any]:
    """The prompts of a TOML file as kohya's scripts read them: settings in [prompt], one [[prompt.subset]] for each."""
    from ..files.strict_toml import TomlError, loads_toml

    try:
        document = loads_toml(text)
    except TomlError as error:
        raise DataError(f"{name} is not TOML: {error}", hint="Save it as JSON, or one prompt on each line") from error
    shared = document.get("prompt", document)
    if not isinstance(shared, dict):
        return [shared]
    subsets = shared.get("subset")
    rest = {key: value for key, value in shared.items() if key != "subset"}
    return [{**rest, **subset} if isinstance(subset, dict) else subset for subset in subsets] \
        if isinstance(subsets, list) else [rest]


def _read_text(source: str, name: str) -> str:
    """The text of a file, in any encoding that `text_files` knows, with lines that end in LF. Raises DataError."""
    from ..data.text_files import NotText, decode_text, was_guessed

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
    if was_guessed(encoding):
        view.say(f"{name} is not UTF-8 and was read as {encoding}")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
