"""Builds the HTML page of a run: model and data, curves, samples during training, evaluation, commands to continue.

Names, captions and prompts are untrusted text, and pass through `page.text`.
"""

import io
import json
import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files.input_files import read_input
from ..files.strict_json import MAX_JSON_BYTES, JsonError, loads_strict
from ..storage.evaluation_file import EVALUATION_FILE, GALLERY_FILE, nested_entry, readable
from ..storage.event_log import Entry, EventLog, number, read_event_log
from ..storage.run_directory import read_config
from . import page
from .commands import commands
from .figures import FIGURES, LOG_SNR
from .svg_curves import Chart, Curve, mixed

MAX_STRIPS = 20                                 # largest number of preview strips in the page
MAX_WARNINGS = 20                               # the latest ones are shown
MAX_PROMPTS, MAX_PROMPT_LENGTH = 64, 200        # of the newest strip; the length is in characters


def build(directory: Path) -> bytes:
    """The page of the run in `directory`, encoded in UTF-8. The same directory gives the same bytes.

    Raises ModelError if there is no run, StorageError if its configuration is damaged.
    """
    config = read_config(directory)
    if config is None:
        raise ModelError(f"there is no run in {directory.absolute()}, so there is nothing to report",
                         hint="A report is built from the files that a training leaves beside its model")
    event_log, plan = read_event_log(directory), config["plan"]
    parts = [f'<div class="tiles">\n{_tiles(event_log, plan)}\n</div>', _warnings(event_log),
             _previews(directory, event_log), _curves(event_log), _evaluation(directory),
             f'<h2>Model and data</h2>\n<div class="card">\n{_facts(event_log, config)}\n</div>',
             f"<h2>Commands</h2>\n{_commands(directory.name, config, event_log)}"]
    return page.build(title=directory.name, subtitle=_status(event_log, plan), body="\n".join(filter(None, parts)))


# ── How the training went ───────────────────────────────────────────────────────────────────────────────────────────


def _status(event_log: EventLog, plan: Entry) -> str:
    steps = plan.get("steps")
    if event_log.finished.get("complete"):
        return page.text(f"Finished: {readable(steps)} steps. The model has the weights of the "
                         f"{event_log.finished.get('delivered')}.")
    state = f"Stopped ({event_log.finished.get('reason')})" if event_log.finished else "In training"
    return page.text(f"{state}: step {event_log.step:,} of {readable(steps)}")


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
    return "\n".join(page.tile(label, value) for label, value in tiles)


def _warnings(event_log: EventLog) -> str:
    return page.remarks(list(dict.fromkeys(event_log.warnings))[-MAX_WARNINGS:])


def _previews(directory: Path, event_log: EventLog) -> str:
    """The preview strips over time. Of too many, evenly spaced ones are shown, with the first and the last."""
    existing = [(entry, path) for entry in event_log.previews
             if (path := directory / "previews" / f"step-{entry['step']:08d}.png").is_file()]
    if not existing:
        return ""
    largest = max(path.stat().st_size for _, path in existing)
    count = min(len(existing), max(2, min(MAX_STRIPS, page.MAX_PICTURE_BYTES // max(1, largest))))
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
    if not (data := page.read_png(path)):
        return []
    from ..pictures import image_files, sheets

    try:
        return [image_files.encode(picture) for picture in sheets.read_strip(io.BytesIO(data))]
    except (OSError, ValueError, SyntaxError):                         # Pillow's errors for what is no picture
        return []


def _captioned(entry: Entry, pictures: Sequence[bytes]) -> str:
    """Each picture with its prompt below."""
    prompts = [str(prompt)[:MAX_PROMPT_LENGTH] for prompt in page.list_of(entry.get("prompts"))[:MAX_PROMPTS]]
    prompts += [""] * (len(pictures) - len(prompts))
    return "\n".join(f"<figure>{page.picture(data, prompt or 'sample')}<figcaption>{page.text(prompt)}</figcaption>"
                     "</figure>" for data, prompt in zip(pictures, prompts, strict=False))


# ── Curves ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _curves(event_log: EventLog) -> str:
    cards = [card for chart in curve_charts(event_log) if (card := page.chart(chart))]
    return '<h2>Curves</h2>\n<div class="curves">\n' + "\n".join(cards) + "\n</div>" if cards else ""


def curve_charts(event_log: EventLog) -> list[Chart]:
    """The charts of a training, of which some may have no number yet."""
    steps, validations = event_log.steps, event_log.validations
    name, of = ("Distance to the teacher", "Error of the student's estimates against its teacher's") if \
        event_log.started.get("student") is True else ("Noise loss", "Error of the predicted noise")
    return [
        Chart(title=name, explanation=f"{of} on training pictures, and of the averaged weights on held-out pictures. "
              "If the second rises while the first falls, the model memorises its training pictures.",
              curves=[page.curve(steps, "noise_mse", "training", 1),
                      page.curve(validations, "noise_mse", "held out", 2, dots=True)], log=True),
        Chart(title="Validation loss by log-SNR", explanation=LOG_SNR, curves=_by_level(validations), log=True),
        Chart(title="Variance loss", explanation="How well the predicted variances fit, in bits for each value of a "
              "picture.", curves=[page.curve(steps, "variance_loss", "", 1)]),
        Chart(title="Gradient norm", explanation="Before clipping. Steps with spikes far above the rest are skipped.",
              curves=[page.curve(steps, "gradient_norm", "", 1)], log=True),
        Chart(title="Learning rate", explanation="", curves=[page.curve(steps, "lr", "", 1)]),
        Chart(title="Throughput (pictures per second)", explanation="Training pictures per second of computing.",
              curves=[page.curve(steps, "images_per_second", "", 1)])]


def _by_level(validations: Sequence[Entry]) -> list[Curve]:
    """A curve for each noise level of the latest validation, from all validations at the same levels."""
    levels = page.list_of(validations[-1].get("log_snr")) if validations else []
    same = [entry for entry in validations if entry.get("log_snr") == levels
            and len(page.list_of(entry.get("noise_mse_at"))) == len(levels)]
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
    parts = [f'<h2>Evaluation</h2>\n<p class="faint">{page.text(basis)}</p>']
    rows = [(figure.label, readable(value), figure.meaning) for figure in FIGURES
            if (value := nested_entry(evaluation, figure.key)) is not None]
    parts += [page.table(rows)] if rows else []
    levels = [level for level in page.list_of(evaluation.get("levels")) if isinstance(level, dict)]
    curve = Curve(label="", x=[number(level.get("log_snr")) for level in levels], colour="var(--curve-1)",
                  y=[number(level.get("noise_mse")) for level in levels], dots=True)
    if chart := page.chart(Chart(title="Noise loss by noise level", explanation=LOG_SNR, curves=[curve],
                                  x_label="log-SNR", log=True)):
        parts.append(f'<div class="curves" style="margin-top:.9rem">{chart}</div>')
    for key, title in (("distances", "Distances between generated and real pictures"),
                       ("memorisation", "Memorisation")):
        if isinstance(group := evaluation.get(key), dict):
            sentence = group.get("sentence")
            verdict = f'<p class="verdict">{page.text(sentence)}</p>' if isinstance(sentence, str) else ""
            parts.append(f"<h2>{title}</h2>\n{verdict}{page.table(_rows(group))}")
    if gallery := page.read_png(directory / GALLERY_FILE):
        caption = "Generated pictures, each with the nearest training picture."
        parts.append("<figure>" + page.picture(gallery, caption, ' class="closest"')
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


# ── Model, data and commands ────────────────────────────────────────────────────────────────────────────────────────


def _facts(event_log: EventLog, config: Entry) -> str:
    """Folder and facts of the training, and the whole plan in a part that can be unfolded."""
    facts = [(str(pair[0]), pair[1]) for pair in page.list_of(event_log.started.get("facts"))
             if isinstance(pair, list) and len(pair) == 2]
    plan = page.pairs((key.replace("_", " "), readable(value) if not isinstance(value, dict) else json.dumps(value))
                  for key, value in config["plan"].items())
    return (f"{page.pairs([('folder', config['request'].get('folder')), *facts])}\n"
            f"<details><summary>the whole plan</summary>\n{plan}\n</details>")


def _commands(name: str, config: Entry, event_log: EventLog) -> str:
    return "\n".join(f"<div>{label}</div><pre><code>{page.text(shlex.join(words))}</code></pre>"
                     for label, words in commands(name, config["request"], event_log))
