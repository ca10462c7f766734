"""A run as one page to look at: what was trained on what, how it went, what it draws, how to go on.

Reads a run's directory and makes the text of an HTML page that needs nothing else: no address, no file, and no script
to be read. Knows no torch and no terminal. Names, captions and prompts are foreign text, and pass through `_text`.
"""

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Iterable, Sequence
from datetime import timedelta
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from ..checks import from_dict
from ..config import Recipe
from ..errors import ModelError
from ..files.strict_json import JsonError, loads_strict
from ..storage.evaluation_file import EVALUATION_FILE, GALLERY_FILE, entry, readable
from ..storage.event_log import Entry, EventLog, number, read_event_log
from ..storage.run_directory import read_config
from ..version import __version__
from .svg_curves import Curve, mixed, svg

MAX_STRIPS = 20
MAX_PICTURE_BYTES = 4_000_000                   # of all strips; and of the closest pairs
_PNG = b"\x89PNG\r\n\x1a\n"
_MEANINGS = {                                   # key of evaluation.json → its name, and what is good
    "noise_mse": ("noise loss", "Error of the guessed noise on held-out pictures, over the run's schedule. Lower is "
                                "better; it never reaches 0."),
    "noise_mse_ref": ("noise loss, reference", "The same over one fixed schedule, so that any two runs at this "
                                               "resolution can be compared. Lower is better."),
    "bits_per_dim.bound": ("bits/dim, bound", "Upper bound of the bits for each value of a held-out picture. Lower is "
                                              "better; 8 is no model at all."),
    "bits_per_dim.area": ("bits/dim, area", "The same from the area under the noise-loss curve. The two should "
                                            "agree within their errors."),
    "variance_gain_bpd": ("gain of the learned variance", "Bits/dim saved against the best fixed variance. Above 0 is "
                                                          "good."),
    "variance_calibration": ("calibration of the variance", "The error that was, over the one that the model expected. "
                                                            "1 is right; above 1 it is too sure."),
    "prompts.true": ("noise loss, true captions", "Each held-out picture with its own caption."),
    "prompts.shuffled": ("noise loss, shuffled captions", "Each with the caption of another picture."),
    "prompts.empty": ("noise loss, no caption", ""),
    "prompts.shuffled_rise": ("rise when shuffled", "How much the loss rises with the captions of other pictures. Well "
                                                    "above 0: the model listens to prompts."),
    "prompts.empty_rise": ("rise without captions", "How much it rises with none."),
}


def build(directory: Path) -> bytes:
    """The page of the run in `directory`, UTF-8. Raises ModelError when no run was begun there, StorageError."""
    config = read_config(directory)
    if config is None:
        raise ModelError(f"there is no run in {directory.absolute()}, so there is nothing to report",
                         hint="A report is made of what a training leaves beside its model")
    history, plan = read_event_log(directory), config["plan"]
    room = resources.files(__package__)
    script = (room / "report.js").read_text(encoding="utf-8").strip()
    page = Template((room / "report.html").read_text(encoding="utf-8")).substitute(
        name=_text(directory.name), version=__version__, script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        status=_status(history, plan), tiles=_tiles(history, plan), warnings=_warnings(history),
        previews=_previews(directory, history), curves=_curves(history), evaluation=_evaluation(directory),
        facts=_facts(history, config), commands=_commands(directory.name, config, history))
    return page.encode()


# ── Foreign text, and pieces of HTML ────────────────────────────────────────────────────────────────────────────────


def _text(value: object) -> str:
    """Anything as text that is safe in HTML; what cannot be seen is written as `\\x1b`."""
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                    for letter in str(value))
    return escape(shown)


def _pairs(pairs: Iterable[tuple[str, object]]) -> str:
    rows = "\n".join(f"<dt>{_text(label)}</dt><dd>{_text(value)}</dd>" for label, value in pairs)
    return f"<dl>\n{rows}\n</dl>"


def _tile(label: str, value: str) -> str:
    return f'<div class="tile"><b>{_text(value)}</b><span class="faint">{_text(label)}</span></div>'


def _picture(data: bytes, alternative: str, kind: str = "") -> str:
    return f'<img{kind} alt="{_text(alternative)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


# ── How it went ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _status(history: EventLog, plan: Entry) -> str:
    steps = plan.get("steps")
    if history.finished.get("complete"):
        return _text(f"Finished: {readable(steps)} steps. The model has the weights of the "
                     f"{history.finished.get('delivered')}.")
    how = f"stopped ({history.finished.get('reason')})" if history.finished else "in training"
    return _text(f"{how[0].upper()}{how[1:]}: step {history.step:,} of {readable(steps)}")


def _tiles(history: EventLog, plan: Entry) -> str:
    steps, batch = number(plan.get("steps")), number(plan.get("batch_size"))
    tiles = [("steps" if history.step == steps else f"of {steps:,.0f} steps", f"{history.step:,}")]
    losses = [(number(entry.get("noise_mse")), entry["step"]) for entry in history.validations]
    if losses:
        tiles.append(("validation loss", f"{losses[-1][0]:.4f}"))
        best, step = min(losses)
        tiles.append((f"best of them, at step {step:,}", f"{best:.4f}"))
    tiles.append(("pictures seen", f"{history.step * batch:,.0f}"))
    if history.seconds:
        tiles.append(("training time", str(timedelta(seconds=round(history.seconds)))))
    if parameters := history.started.get("parameters"):
        tiles.append(("million parameters", f"{number(parameters) / 1e6:.1f}"))
    return "\n".join(_tile(label, value) for label, value in tiles)


def _warnings(history: EventLog) -> str:
    if not history.warnings:
        return ""
    items = "".join(f"<li>{_text(message)}</li>" for message in list(dict.fromkeys(history.warnings))[-20:])
    return f'<ul class="warnings">{items}</ul>'


def _previews(directory: Path, history: EventLog) -> str:
    """The strips over time; of many, some, evenly chosen, the first and the last among them."""
    found = [(entry, path) for entry in history.previews
             if (path := directory / "previews" / f"step-{entry['step']:08d}.png").is_file()]
    if not found:
        return ""
    largest = max(path.stat().st_size for _, path in found)
    count = min(len(found), max(2, min(MAX_STRIPS, MAX_PICTURE_BYTES // max(1, largest))))
    places = [round(index * (len(found) - 1) / max(1, count - 1)) for index in range(count)]
    strips = [(entry, data) for entry, path in map(found.__getitem__, places) if (data := _read_png(path))]
    if not strips:
        return ""
    figures = "\n".join(f"<figure>{_picture(data, 'the pictures of this step')}"
                        f"<figcaption>step <b>{entry['step']:,}</b></figcaption></figure>" for entry, data in strips)
    few = f" Shown are {len(strips)} of {len(history.previews)}, evenly chosen." \
        if len(strips) < len(history.previews) else ""
    last = len(strips) - 1
    return (
        "<h2>What it draws</h2>\n"
        f'<p class="faint">The same prompts and seeds over time, drawn with the averaged weights.{few}</p>\n'
        f'<div class="strips card"><div class="slider"><span>first</span><input type="range" min="0" max="{last}" '
        f'value="{last}" aria-label="which of the strips"><span>last</span></div>\n'
        f"{figures}\n{_prompts(strips[-1][0])}</div>")


def _prompts(entry: Entry) -> str:
    """What was asked for, picture by picture, from the left."""
    prompts = [str(prompt)[:200] for prompt in _list(entry.get("prompts"))[:64]]
    if not any(prompts):
        return ""
    return "<ol>" + "".join(f"<li>{_text(prompt)}</li>" for prompt in prompts) + "</ol>"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_png(path: Path) -> bytes:
    """The bytes of a PNG of modest size; of anything else none."""
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_PICTURE_BYTES else b""
    except OSError:
        return b""
    return data if data.startswith(_PNG) else b""


# ── Curves ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _curves(history: EventLog) -> str:
    steps, checks = history.steps, history.validations
    cards = [_card("Noise loss", "Error of the guessed noise: of the training pictures, and of the averaged weights on "
                   "pictures held out. Held-out rising while the other falls: it learns by heart.",
                   [_curve(steps, "noise_mse", "training", 1), _curve(checks, "noise_mse", "held out", 2, dots=True)],
                   log=True),
             _card("Validation loss by noise level", "By log-SNR: high, nearly the picture; low, nearly noise.",
                   _by_level(checks), log=True),
             _card("Variance loss", "How well the model knows its own doubt, in bits for each value of a picture.",
                   [_curve(steps, "variance_loss", "", 1)]),
             _card("Gradient norm", "Before clipping. Spikes far above the rest are not learnt from.",
                   [_curve(steps, "gradient_norm", "", 1)], log=True),
             _card("Learning rate", "", [_curve(steps, "lr", "", 1)]),
             _card("Throughput", "Pictures learnt from in a second, of the computing alone.",
                   [_curve(steps, "images_per_second", "", 1)])]
    if not any(cards):
        return ""
    return '<h2>Curves</h2>\n<div class="curves">\n' + "\n".join(filter(None, cards)) + "\n</div>"


def _card(title: str, explanation: str, curves: Sequence[Curve], *, x_label: str = "step", log: bool = False) -> str:
    """A plot with its title; nothing where there is nothing to draw."""
    drawn = [curve for curve in curves if any(map(math.isfinite, curve.y))]
    if not drawn:
        return ""
    plot = svg(drawn, name=title, x_label=x_label, log=log)
    return f'<div class="card"><h3>{title}</h3><p>{explanation}</p>{plot}</div>'


def _curve(entries: Sequence[Entry], key: str, label: str, colour: int, *, dots: bool = False) -> Curve:
    return Curve(label=label, x=[entry["step"] for entry in entries], y=[number(entry.get(key)) for entry in entries],
                 colour=f"var(--curve-{colour})", dots=dots)


def _by_level(checks: Sequence[Entry]) -> list[Curve]:
    levels = _list(checks[-1].get("log_snr")) if checks else []
    same = [entry for entry in checks if entry.get("log_snr") == levels
            and len(_list(entry.get("noise_mse_at"))) == len(levels)]
    return [Curve(label=f"{number(level):+.1f}", x=[entry["step"] for entry in same],
                  y=[number(entry["noise_mse_at"][place]) for entry in same],
                  colour=mixed(place / max(1, len(levels) - 1)), dots=len(same) < 3)
            for place, level in enumerate(levels)]


# ── Evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _evaluation(directory: Path) -> str:
    """What `diffuse evaluate` found, if it was asked; keys that are not known are shown as they are."""
    try:
        found = loads_strict((directory / EVALUATION_FILE).read_bytes())
    except (OSError, JsonError):
        return ""
    if not isinstance(found, dict):
        return ""
    pictures = found.get("pictures")
    counts = f" on {readable(pictures.get('held_out'))} held-out pictures" if isinstance(pictures, dict) else ""
    weights = f"Of the weights of step {readable(found.get('step'))}{counts}; ± is one standard error."
    parts = [f'<h2>Evaluation</h2>\n<p class="faint">{_text(weights)}</p>']
    rows = [(label, readable(value), meaning) for key, (label, meaning) in _MEANINGS.items()
            if (value := entry(found, key)) is not None]
    parts += [_table(rows)] if rows else []
    levels = [level for level in _list(found.get("levels")) if isinstance(level, dict)]
    curve = Curve(label="", x=[number(level.get("log_snr")) for level in levels], colour="var(--curve-1)",
                  y=[number(level.get("noise_mse")) for level in levels], dots=True)
    if plot := _card("Noise loss by noise level", "High log-SNR: nearly the picture; low: nearly noise.", [curve],
                     x_label="log-SNR", log=True):
        parts.append(f'<div class="curves" style="margin-top:.9rem">{plot}</div>')
    for key, title in (("distances", "Distances between drawn and real pictures"), ("memorisation", "Memorisation")):
        if isinstance(group := found.get(key), dict):
            verdict = group.get("sentence")
            said = f'<p class="verdict">{_text(verdict)}</p>' if isinstance(verdict, str) else ""
            parts.append(f"<h2>{title}</h2>\n{said}{_table(_rows(group))}")
    if closest := _read_png(directory / GALLERY_FILE):
        kind = ' class="closest"'
        parts.append("<figure>" + _picture(closest, "drawn pictures, each beside the closest it was trained on", kind)
                     + "<figcaption>Drawn pictures, each beside the closest it was trained on.</figcaption></figure>")
    return "\n".join(parts)


def _rows(group: dict[str, Any], before: str = "") -> list[tuple[str, str, str]]:
    """A dictionary as rows, those of the dictionaries in it with both names; lists are left to the file."""
    rows = []
    for key, value in group.items():
        name = before + key.replace("_", " ")
        if isinstance(value, dict) and "value" not in value:
            rows += _rows(value, f"{name}, ") if not before else []
        elif not isinstance(value, list) and key not in ("verdict", "sentence"):
            rows.append((name, readable(value), ""))
    return rows


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    lines = "\n".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row if cell) + "</tr>" for row in rows)
    return f'<div class="card"><table class="table">\n{lines}\n</table></div>'


# ── What it was, and how to go on ───────────────────────────────────────────────────────────────────────────────────


def _facts(history: EventLog, config: Entry) -> str:
    """The header of the training, and behind it the whole plan."""
    facts = [(str(pair[0]), pair[1]) for pair in _list(history.started.get("facts"))
             if isinstance(pair, list) and len(pair) == 2]
    plan = _pairs((key.replace("_", " "), readable(value) if not isinstance(value, dict) else json.dumps(value))
                  for key, value in config["plan"].items())
    return (f"{_pairs([('folder', config['request'].get('folder')), *facts])}\n"
            f"<details><summary>the whole plan</summary>\n{plan}\n</details>")


def _commands(name: str, config: Entry, history: EventLog) -> str:
    shown = "\n".join(f"<div>{label}</div><pre><code>{_text(shlex.join(words))}</code></pre>"
                      for label, words in commands(name, config["request"], history))
    return shown


def commands(name: str, request: Entry, history: EventLog) -> list[tuple[str, list[str]]]:
    """(what for, the words of a command) for everything that one may want to do with a run."""
    complete = bool(history.finished.get("complete"))
    prompt = str(history.finished.get("prompt") or next(iter(_list((history.previews or [{}])[-1].get("prompts"))), ""))
    asked = [] if not prompt else ["--", prompt] if prompt.startswith("-") else [prompt]
    return [
        ("Go on, with a longer budget (--steps, --images or --time)" if complete else "Go on",
         _training_command(name, request)),
        ("Draw pictures", ["diffuse", "sample", "-m", name, "-n", "8", "--grid", *asked]),
        ("Evaluate", ["diffuse", "evaluate", name]),
        ("Give it the form that other programs load", ["diffuse", "export", name, "--to", "diffusers"]),
        ("See what its file says", ["diffuse", "models", "show", name]),
    ]


def _training_command(name: str, request: Entry) -> list[str]:
    """The command that means this very request: what differs from the defaults is said."""
    recipe, usual = from_dict(Recipe, request["recipe"], where="recipe"), Recipe()
    words = ["diffuse", "train", str(request["folder"])]
    for key in request["recipe"]:
        value, option = getattr(recipe, key), f"--{key.replace('_', '-')}"
        if value == getattr(usual, key):
            continue
        if isinstance(value, bool):
            words.append(option if value else f"--no-{key}")
            continue
        text = f"{value:.0f}" if isinstance(value, float) and value == int(value) else str(value)
        text += "s" if key == "time" else ""
        words += [f"{option}={text}"] if text.startswith("-") else [option, text]
    return [*words, "--name", name]
