"""Builds the HTML page of a run: model and data, curves, samples during training, evaluation, commands to continue.

The page is complete in one file: it loads nothing from elsewhere and can be read without running its script. Names,
captions and prompts are untrusted text, and pass through `_text`.
"""

import base64
import hashlib
import io
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

from ..errors import ModelError
from ..files.input_files import read_input
from ..files.strict_json import MAX_JSON_BYTES, JsonError, loads_strict
from ..storage.evaluation_file import EVALUATION_FILE, GALLERY_FILE, nested_entry, readable
from ..storage.event_log import Entry, EventLog, number, read_event_log
from ..storage.run_directory import read_config
from ..version import __version__
from .commands import commands
from .svg_curves import Curve, mixed, svg

MAX_STRIPS = 20                                 # largest number of preview strips in the page
MAX_PICTURE_BYTES = 4_000_000                   # largest size of all strips together, and of the pairs of an evaluation
MAX_WARNINGS = 20                               # the latest ones are shown
MAX_PROMPTS, MAX_PROMPT_LENGTH = 64, 200        # of the newest strip; the length is in characters
_PNG = b"\x89PNG\r\n\x1a\n"                     # the first bytes of every PNG
_MEANINGS = {                                   # key of evaluation.json → its label and how to read its values
    "noise_mse": ("noise loss", "Error of the predicted noise on held-out pictures, over the run's schedule. Lower is "
                                "better; it never reaches 0."),
    "noise_mse_ref": ("noise loss, reference", "The same over one fixed schedule, so that any two runs at this "
                                               "resolution can be compared. Lower is better."),
    "bits_per_dim.bound": ("bits/dim, bound", "Upper bound of the bits for each value of a held-out picture. Lower is "
                                              "better; 8 is no model at all."),
    "bits_per_dim.area": ("bits/dim, area", "The same from the area under the noise-loss curve. The two should "
                                            "agree within their errors."),
    "variance_gain_bpd": ("gain of the learned variance", "Bits/dim saved against the best fixed variance. Above 0 is "
                                                          "good."),
    "variance_calibration": ("calibration of the variance", "The actual error over the one that the model expected. 1 "
                                                            "is right; above 1 the model is too sure."),
    "prompts.true": ("noise loss, true captions", "Each held-out picture with its own caption."),
    "prompts.shuffled": ("noise loss, shuffled captions", "Each with the caption of another picture."),
    "prompts.empty": ("noise loss, no caption", ""),
    "prompts.shuffled_rise": ("rise when shuffled", "How much the loss rises with the captions of other pictures. Well "
                                                    "above 0: the model follows prompts."),
    "prompts.empty_rise": ("rise without captions", "How much the loss rises without any caption."),
}
_LOG_SNR = "A high log-SNR means nearly the clean picture, a low one nearly pure noise."


def build(directory: Path) -> bytes:
    """The page of the run in `directory`, encoded in UTF-8. The same directory gives the same bytes.

    Raises ModelError if there is no run, StorageError if its configuration is damaged.
    """
    config = read_config(directory)
    if config is None:
        raise ModelError(f"there is no run in {directory.absolute()}, so there is nothing to report",
                         hint="A report is built from the files that a training leaves beside its model")
    event_log, plan = read_event_log(directory), config["plan"]
    room = resources.files(__package__)
    script = (room / "report.js").read_text(encoding="utf-8").strip()
    page = Template((room / "report.html").read_text(encoding="utf-8")).substitute(
        name=_text(directory.name), version=__version__, script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        status=_status(event_log, plan), tiles=_tiles(event_log, plan), warnings=_warnings(event_log),
        previews=_previews(directory, event_log), curves=_curves(event_log), evaluation=_evaluation(directory),
        facts=_facts(event_log, config), commands=_commands(directory.name, config, event_log))
    return page.encode()


# ── Untrusted text, and pieces of HTML ──────────────────────────────────────────────────────────────────────────────


def _text(value: object) -> str:
    """Any value as text that is safe in HTML. Unprintable characters are written as their escapes, such as `\\x1b`."""
    printable = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode()
                        for letter in str(value))
    return escape(printable)


def _pairs(pairs: Iterable[tuple[str, object]]) -> str:
    rows = "\n".join(f"<dt>{_text(label)}</dt><dd>{_text(value)}</dd>" for label, value in pairs)
    return f"<dl>\n{rows}\n</dl>"


def _tile(label: str, value: str) -> str:
    return f'<div class="tile"><b>{_text(value)}</b><span class="faint">{_text(label)}</span></div>'


def _picture(data: bytes, description: str, attributes: str = "") -> str:
    return f'<img{attributes} alt="{_text(description)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


# ── How the training went ───────────────────────────────────────────────────────────────────────────────────────────


def _status(event_log: EventLog, plan: Entry) -> str:
    steps = plan.get("steps")
    if event_log.finished.get("complete"):
        return _text(f"Finished: {readable(steps)} steps. The model has the weights of the "
                     f"{event_log.finished.get('delivered')}.")
    state = f"Stopped ({event_log.finished.get('reason')})" if event_log.finished else "In training"
    return _text(f"{state}: step {event_log.step:,} of {readable(steps)}")


def _tiles(event_log: EventLog, plan: Entry) -> str:
    steps, batch = number(plan.get("steps")), number(plan.get("batch_size"))
    tiles = [("steps" if event_log.step == steps else f"of {steps:,.0f} steps", f"{event_log.step:,}")]
    losses = [(number(entry.get("noise_mse")), entry["step"]) for entry in event_log.validations]
    if losses:
        tiles.append(("validation loss", f"{losses[-1][0]:.4f}"))
        best, step = min(losses)
        tiles.append((f"best validation loss, at step {step:,}", f"{best:.4f}"))
    tiles.append(("pictures seen", f"{event_log.step * batch:,.0f}"))
    if event_log.seconds:
        tiles.append(("training time", str(timedelta(seconds=round(event_log.seconds)))))
    if parameters := event_log.started.get("parameters"):
        tiles.append(("million parameters", f"{number(parameters) / 1e6:.1f}"))
    return "\n".join(_tile(label, value) for label, value in tiles)


def _warnings(event_log: EventLog) -> str:
    if not event_log.warnings:
        return ""
    items = "".join(f"<li>{_text(message)}</li>" for message in list(dict.fromkeys(event_log.warnings))[-MAX_WARNINGS:])
    return f'<ul class="warnings">{items}</ul>'


def _previews(directory: Path, event_log: EventLog) -> str:
    """The preview strips over time. Of too many, evenly spaced ones are shown, with the first and the last."""
    existing = [(entry, path) for entry in event_log.previews
             if (path := directory / "previews" / f"step-{entry['step']:08d}.png").is_file()]
    if not existing:
        return ""
    largest = max(path.stat().st_size for _, path in existing)
    count = min(len(existing), max(2, min(MAX_STRIPS, MAX_PICTURE_BYTES // max(1, largest))))
    places = [round(index * (len(existing) - 1) / max(1, count - 1)) for index in range(count)]
    strips = [(entry, pictures) for entry, path in map(existing.__getitem__, places) if (pictures := _cut(path))]
    if not strips:
        return ""
    figures = "\n".join(f'<section><div class="faint">step <b>{entry["step"]:,}</b></div>\n'
                        f'<div class="strip">{_captioned(entry, pictures)}</div></section>'
                        for entry, pictures in strips)
    selection = f" Shown are {len(strips)} of {len(event_log.previews)}, evenly chosen." \
        if len(strips) < len(event_log.previews) else ""
    last = len(strips) - 1
    return (
        "<h2>Samples during training</h2>\n"
        f'<p class="faint">The same prompts and seeds over time, sampled with the averaged weights.{selection}</p>\n'
        f'<div class="strips card"><div class="slider"><span>first</span><input type="range" min="0" max="{last}" '
        f'value="{last}" aria-label="which strip is shown"><span>last</span></div>\n'
        f"{figures}\n</div>")


def _cut(path: Path) -> list[bytes]:
    """The pictures of a preview strip as PNGs, without the white between them; none if it cannot be read."""
    if not (data := _read_png(path)):
        return []
    from ..pictures import image_files, sheets

    try:
        return [image_files.encode(picture) for picture in sheets.read_strip(io.BytesIO(data))]
    except (OSError, ValueError, SyntaxError):                         # Pillow's errors for what is no picture
        return []


def _captioned(entry: Entry, pictures: Sequence[bytes]) -> str:
    """Each picture with its prompt below."""
    prompts = [str(prompt)[:MAX_PROMPT_LENGTH] for prompt in _list(entry.get("prompts"))[:MAX_PROMPTS]]
    prompts += [""] * (len(pictures) - len(prompts))
    return "\n".join(f"<figure>{_picture(data, prompt or 'sample')}<figcaption>{_text(prompt)}</figcaption></figure>"
                     for data, prompt in zip(pictures, prompts, strict=False))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read_png(path: Path) -> bytes:
    """The bytes of a PNG; empty if the file is missing, too large or no PNG."""
    try:
        data = read_input(path, limit=MAX_PICTURE_BYTES)
    except OSError:
        return b""
    return data if data.startswith(_PNG) else b""


# ── Curves ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _curves(event_log: EventLog) -> str:
    steps, validations = event_log.steps, event_log.validations
    name, of = ("Distance to the teacher", "Error of the student's estimates against its teacher's") if \
        event_log.started.get("student") is True else ("Noise loss", "Error of the predicted noise")
    cards = [_card(name, f"{of} on training pictures, and of the averaged weights on held-out pictures. If the second "
                   "rises while the first falls, the model memorises its training pictures.",
                   [_curve(steps, "noise_mse", "training", 1),
                    _curve(validations, "noise_mse", "held out", 2, dots=True)], log=True),
             _card("Validation loss by noise level", _LOG_SNR, _by_level(validations), log=True),
             _card("Variance loss", "How well the predicted variances fit, in bits for each value of a picture.",
                   [_curve(steps, "variance_loss", "", 1)]),
             _card("Gradient norm", "Before clipping. Steps with spikes far above the rest are skipped.",
                   [_curve(steps, "gradient_norm", "", 1)], log=True),
             _card("Learning rate", "", [_curve(steps, "lr", "", 1)]),
             _card("Throughput", "Training pictures per second of computing.",
                   [_curve(steps, "images_per_second", "", 1)])]
    if not any(cards):
        return ""
    return '<h2>Curves</h2>\n<div class="curves">\n' + "\n".join(filter(None, cards)) + "\n</div>"


def _card(title: str, explanation: str, curves: Sequence[Curve], *, x_label: str = "step", log: bool = False) -> str:
    """A chart with its title and explanation; empty if no curve has a number."""
    known = [curve for curve in curves if any(map(math.isfinite, curve.y))]
    if not known:
        return ""
    chart = svg(known, name=title, x_label=x_label, log=log)
    return f'<div class="card"><h3>{title}</h3><p>{explanation}</p>{chart}</div>'


def _curve(entries: Sequence[Entry], key: str, label: str, colour: int, *, dots: bool = False) -> Curve:
    return Curve(label=label, x=[entry["step"] for entry in entries], y=[number(entry.get(key)) for entry in entries],
                 colour=f"var(--curve-{colour})", dots=dots)


def _by_level(validations: Sequence[Entry]) -> list[Curve]:
    """A curve for each noise level of the latest validation, from all validations at the same levels."""
    levels = _list(validations[-1].get("log_snr")) if validations else []
    same = [entry for entry in validations if entry.get("log_snr") == levels
            and len(_list(entry.get("noise_mse_at"))) == len(levels)]
    return [Curve(label=f"{number(level):+.1f}", x=[entry["step"] for entry in same],
                  y=[number(entry["noise_mse_at"][place]) for entry in same],
                  colour=mixed(place / max(1, len(levels) - 1)), dots=len(same) < 3)
            for place, level in enumerate(levels)]


# ── Evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _evaluation(directory: Path) -> str:
    """The results of `diffuse evaluate`, if there are any. Distances and memorisation are shown key by key."""
    try:
        evaluation = loads_strict(read_input(directory / EVALUATION_FILE, limit=MAX_JSON_BYTES))
    except (OSError, JsonError):
        return ""
    if not isinstance(evaluation, dict):
        return ""
    pictures = evaluation.get("pictures")
    counts = f" on {readable(pictures.get('held_out'))} held-out pictures" if isinstance(pictures, dict) else ""
    basis = f"Measured with the weights of step {readable(evaluation.get('step'))}{counts}; ± is one standard error."
    parts = [f'<h2>Evaluation</h2>\n<p class="faint">{_text(basis)}</p>']
    rows = [(label, readable(value), meaning) for key, (label, meaning) in _MEANINGS.items()
            if (value := nested_entry(evaluation, key)) is not None]
    parts += [_table(rows)] if rows else []
    levels = [level for level in _list(evaluation.get("levels")) if isinstance(level, dict)]
    curve = Curve(label="", x=[number(level.get("log_snr")) for level in levels], colour="var(--curve-1)",
                  y=[number(level.get("noise_mse")) for level in levels], dots=True)
    if chart := _card("Noise loss by noise level", _LOG_SNR, [curve], x_label="log-SNR", log=True):
        parts.append(f'<div class="curves" style="margin-top:.9rem">{chart}</div>')
    for key, title in (("distances", "Distances between generated and real pictures"),
                       ("memorisation", "Memorisation")):
        if isinstance(group := evaluation.get(key), dict):
            sentence = group.get("sentence")
            verdict = f'<p class="verdict">{_text(sentence)}</p>' if isinstance(sentence, str) else ""
            parts.append(f"<h2>{title}</h2>\n{verdict}{_table(_rows(group))}")
    if gallery := _read_png(directory / GALLERY_FILE):
        caption = "Generated pictures, each with the nearest training picture."
        parts.append("<figure>" + _picture(gallery, caption, ' class="closest"')
                     + f"<figcaption>{caption}</figcaption></figure>")
    return "\n".join(parts)


def _rows(group: dict[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """The entries of a dictionary as rows of a table. Lists and dictionaries nested more than once are left out.

    An entry of a nested dictionary is labelled with both keys. The verdict is left out, as it stands above the table.
    """
    rows = []
    for key, value in group.items():
        name = prefix + key.replace("_", " ")
        if isinstance(value, dict) and "value" not in value:
            rows += _rows(value, f"{name}, ") if not prefix else []
        elif not isinstance(value, list) and key not in ("verdict", "sentence"):
            rows.append((name, readable(value), ""))
    return rows


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    lines = "\n".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row if cell) + "</tr>" for row in rows)
    return f'<div class="card"><table class="table">\n{lines}\n</table></div>'


# ── Model, data and commands ────────────────────────────────────────────────────────────────────────────────────────


def _facts(event_log: EventLog, config: Entry) -> str:
    """Folder and facts of the training, and the whole plan in a part that can be unfolded."""
    facts = [(str(pair[0]), pair[1]) for pair in _list(event_log.started.get("facts"))
             if isinstance(pair, list) and len(pair) == 2]
    plan = _pairs((key.replace("_", " "), readable(value) if not isinstance(value, dict) else json.dumps(value))
                  for key, value in config["plan"].items())
    return (f"{_pairs([('folder', config['request'].get('folder')), *facts])}\n"
            f"<details><summary>the whole plan</summary>\n{plan}\n</details>")


def _commands(name: str, config: Entry, event_log: EventLog) -> str:
    return "\n".join(f"<div>{label}</div><pre><code>{_text(shlex.join(words))}</code></pre>"
                     for label, words in commands(name, config["request"], event_log))
