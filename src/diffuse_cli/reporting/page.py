"""The HTML pages that are reports: their frame, with style sheet and script, and the pieces that they are made of.

A page is complete in one file: it loads nothing from elsewhere and can be read without running its script. Names,
captions and prompts are untrusted text, and pass through `text`.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ..files.input_files import read_input
from ..storage.event_log import Entry, number
from ..version import __version__
from .svg_curves import Chart, Curve, svg

COLOURS = 6                                     # curves that the style sheet has a colour for
MAX_PICTURE_BYTES = 4_000_000                   # largest size of a picture that is read
_PNG = b"\x89PNG\r\n\x1a\n"                     # the first bytes of every PNG


def build(*, title: str, subtitle: str, body: str) -> bytes:
    """A whole page, encoded in UTF-8. title: text; subtitle, body: HTML."""
    room = resources.files(__package__)
    script = (room / "page.js").read_text(encoding="utf-8").strip()
    return Template((room / "page.html").read_text(encoding="utf-8")).substitute(
        title=text(title), subtitle=subtitle, body=body, version=__version__, script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()).encode()


# ── Pieces of HTML ──────────────────────────────────────────────────────────────────────────────────────────────────


def text(value: object) -> str:
    """Any value as text that is safe in HTML. Unprintable characters are written as their escapes, such as `\\x1b`."""
    printable = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                        for letter in str(value))
    return escape(printable)


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """A list of labels, each with its value."""
    lines = "\n".join(f"<dt>{text(label)}</dt><dd>{text(value)}</dd>" for label, value in rows)
    return f"<dl>\n{lines}\n</dl>"


def remarks(messages: Sequence[str]) -> str:
    """Messages of which the reader has to know, as a list; empty if there is none."""
    items = "".join(f"<li>{text(message)}</li>" for message in messages)
    return f'<ul class="warnings">{items}</ul>' if items else ""


def tile(label: str, value: str) -> str:
    """A number in large letters above what it is."""
    return f'<div class="tile"><b>{text(value)}</b><span class="faint">{text(label)}</span></div>'


def picture(data: bytes, description: str, attributes: str = "", *, kind: str = "png") -> str:
    """A picture inside the page, whose media type is image/`kind`."""
    encoded = base64.b64encode(data).decode()
    return f'<img{attributes} alt="{text(description)}" src="data:image/{kind};base64,{encoded}">'


def list_of(value: Any) -> list[Any]:
    """The value if it is a list, as it should be; else an empty one."""
    return value if isinstance(value, list) else []


def read_png(path: Path) -> bytes:
    """The bytes of a PNG; empty if the file is missing, too large or no PNG."""
    try:
        data = read_input(path, limit=MAX_PICTURE_BYTES)
    except OSError:
        return b""
    return data if data.startswith(_PNG) else b""


def chart(drawn: Chart) -> str:
    """A chart with its title and explanation; empty if no curve has a number."""
    if not drawn.known:
        return ""
    lines = svg(drawn.known, name=drawn.title, x_label=drawn.x_label, log=drawn.log)
    return f'<div class="card"><h3>{drawn.title}</h3><p>{drawn.explanation}</p>{lines}</div>'


def curve(entries: Sequence[Entry], key: str, label: str, colour: int, *, dots: bool = False) -> Curve:
    """The curve of `key` over the steps of a log's entries, in the page's colour of that number (1 to COLOURS)."""
    return Curve(label=label, x=[entry["step"] for entry in entries], y=[number(entry.get(key)) for entry in entries],
                 colour=f"var(--curve-{colour})", dots=dots)


def table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Rows of (label, value, explanation)."""
    lines = "\n".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row if cell) + "</tr>" for row in rows)
    return f'<div class="card"><table class="table">\n{lines}\n</table></div>'
