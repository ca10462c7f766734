"""Builds the HTML page that compares models: curves over each other, evaluations, settings, the same prompts and seeds.

Names, captions and prompts are untrusted text, and pass through `page.text`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..checks import to_dict
from ..errors import StorageError
from ..files.input_files import read_input
from ..files.strict_json import MAX_JSON_BYTES, JsonError, loads_strict
from ..storage.evaluation_file import EVALUATION_FILE, nested_entry, readable
from ..storage.event_log import EventLog, number, read_event_log
from ..storage.model_info import ModelInfo, read_model_info
from ..storage.run_directory import read_config
from . import page
from .figures import DISTANCES, FIGURES, LOG_SNR, Figure
from .svg_curves import Chart, Curve

MAX_MODELS = page.COLOURS                       # in one page
_ERRORS = 2                                     # standard errors by which the best figure must lead
_NO_SETTINGS = {                                # entries that say how a run went, or that another one says as well
    "name", "step", "images_seen", "noise_mse", "teacher_mse", "delivered", "held_out_limit", "objective", "resolution"}
_HASHES = ("data_id", "init_id")                # settings of which the first letters are shown
_OWN_SCHEDULE = ("noise_mse", "prompts.true")   # figures that only models with the same noise schedule share


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A model with all that was recorded beside it."""

    name: str                                   # as the page calls it
    info: ModelInfo
    log: EventLog
    trained_here: bool                          # whether the files of its training lie beside it
    settings: dict[str, Any]                    # of network, diffusion and training; those of nested entries as "a.b"
    evaluation: dict[str, Any] | None           # contents of its evaluation.json


def read_compared(name: str, model: Path) -> Compared:
    """Gather what is known about a model, which `registry.resolve` has found. Raises ModelError."""
    info, directory = read_model_info(model), model.parent
    told = {**to_dict(info.config), **info.training.to_json()}
    settings = own = {key: value for key, value in told.items() if value is not None}
    try:
        config = read_config(directory)
    except StorageError:                        # a damaged plan is no obstacle: the model's file says the most
        config = None
    if config is not None:
        plan = {key: value for key, value in config["plan"].items() if key != "model"}
        settings = {**own, **config["request"]["recipe"], **plan, "folder": config["request"].get("folder"), **own}
    try:
        evaluation = loads_strict(read_input(directory / EVALUATION_FILE, limit=MAX_JSON_BYTES))
    except (OSError, JsonError):
        evaluation = None
    return Compared(name=name, info=info, log=read_event_log(directory) if config else EventLog(),
                    trained_here=config is not None,
                    settings=_flat(settings), evaluation=evaluation if isinstance(evaluation, dict) else None)


def build(models: Sequence[Compared], prompts: Sequence[str], pictures: Sequence[Sequence[Sequence[bytes]]], *,
          seed: int) -> bytes:
    """The page, encoded in UTF-8. The same arguments give the same bytes.

    pictures: the PNGs of each model, for each prompt, with the seeds `seed`, `seed` + 1, …; may be empty.
    """
    names = " and ".join((", ".join(model.name for model in models[:-1]), models[-1].name))
    parts = [_key(models), page.remarks(_remarks(models)), _samples(models, prompts, pictures, seed), _curves(models),
             _evaluations(models), _settings(models)]
    return page.build(title=f"Comparison of {names}", subtitle=f"{len(models)} models", body="\n".join(parts))


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            result |= _flat(value, f"{prefix}{key}.")
        elif prefix + key not in _NO_SETTINGS and value is not None:
            result[prefix + key] = value[:10] if key in _HASHES and isinstance(value, str) else value
    return result


# ── Which models ────────────────────────────────────────────────────────────────────────────────────────────────────


def _letter(index: int) -> str:
    return "ABCDEF"[index]


def _head(index: int, model: Compared) -> str:
    """The name of a model with its letter, in the colour of its curves."""
    return f'<b style="color: var(--curve-{index + 1})">{_letter(index)}</b> {page.text(model.name)}'


def _key(models: Sequence[Compared]) -> str:
    """The table of the models: what is what, how large, how long trained."""
    labels = ("pictures of", "parameters", "trained on", "steps", "pictures seen", "training time", "validation loss")
    columns = []
    for model in models:
        losses = [number(entry.get("noise_mse")) for entry in model.log.validations]
        training = model.info.training
        columns.append([
            f"{model.info.config.network.resolution} px", f"{model.info.parameters:,}",
            readable(training.train_images), readable(training.step), readable(training.images_seen),
            str(timedelta(seconds=round(model.log.seconds))) if model.log.seconds else "–",
            readable(losses[-1] if losses else training.noise_mse)])
    heads = ["", *(_head(index, model) for index, model in enumerate(models))]
    return _table(heads, list(zip(labels, *columns, strict=True)))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways where it is too wide. All cells are HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    lines = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="card wide"><table>\n<tr>{head}</tr>\n{lines}\n</table></div>'


def _remarks(models: Sequence[Compared]) -> list[str]:
    """What the reader has to know before figures are compared."""
    result = []
    if len({model.info.config.network.resolution for model in models}) > 1:
        result.append("The models make pictures of different sizes: their losses and distances cannot be compared.")
    if len({model.info.training.data_id for model in models}) > 1:
        result.append("The models were trained on different pictures, so the held-out ones may differ, too. To compare "
                      "them on the same: diffuse evaluate MODEL DIR")
    if len({model.info.config.schedule for model in models}) > 1:
        result.append("The noise schedules differ: compare the reference of the noise loss, not the noise loss.")
    for model in models:
        if model.info.config.student is not None:
            result.append(f"{model.name} is distilled: its losses are distances to its teacher, and are not shown.")
        elif model.evaluation is None:
            result.append(f"{model.name} was not evaluated: diffuse evaluate {model.name}" if model.trained_here else
                          f"{model.name} was not trained here, and evaluations are kept beside a training.")
        if model.evaluation is not None and model.evaluation.get("model_sha256") != model.info.sha256:
            result.append(f"The evaluation of {model.name} is of other weights than its newest: those of step "
                          f"{readable(model.evaluation.get('step'))}.")
    return result


# ── Samples ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _samples(
    models: Sequence[Compared], prompts: Sequence[str], pictures: Sequence[Sequence[Sequence[bytes]]], seed: int,
) -> str:
    if not pictures:
        return ""
    count = len(pictures[0][0])
    seeds = f"seed {seed}" if count == 1 else f"seeds {seed} to {seed + count - 1} from left to right"
    parts = [f'<h2>The same prompts and seeds</h2>\n<p class="faint">Every model drew with its own default settings, '
             f"and {seeds}.</p>"]
    for place, prompt in enumerate(prompts):
        rows = []
        for index, model in enumerate(models):
            figures = "\n".join(page.picture(data, f"{model.name}: {prompt}") for data in pictures[index][place])
            rows.append(f'<div><div class="faint">{_head(index, model)}</div>\n<div class="row">{figures}</div></div>')
        parts.append(f'<div class="card sheet"><h3>{page.text(prompt) or "without a prompt"}</h3>\n'
                     '<div class="models">' + "\n".join(rows) + "</div></div>")
    return "\n".join(parts)


# ── Curves ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _curves(models: Sequence[Compared]) -> str:
    known = [(index, model) for index, model in enumerate(models) if model.info.config.student is None]
    validation = [page.curve(model.log.validations, "noise_mse", _letter(index), index + 1, dots=True)
                  for index, model in known]
    seen = [_scaled(curve, number(model.settings.get("batch_size")))
            for curve, (_, model) in zip(validation, known, strict=True)]
    training = [page.curve(model.log.steps, "noise_mse", _letter(index), index + 1) for index, model in known]
    charts = [Chart(title="Validation loss", explanation="Error of the predicted noise on held-out pictures.",
                    curves=validation, log=True),
              Chart(title="Training loss", explanation="Error of the predicted noise on training pictures.",
                    curves=training, log=True),
              Chart(title="Noise loss by noise level", explanation=LOG_SNR, x_label="log-SNR", log=True,
                    curves=[_by_level(index, model) for index, model in known])]
    if len({readable(model.settings.get("batch_size")) for _, model in known}) > 1:        # a stranger's may be a list
        charts.insert(1, Chart(title="Validation loss by pictures seen", explanation="The same, as batches differ in "
                               "size.", curves=seen, x_label="pictures seen", log=True))
    cards = [card for chart in charts if (card := page.chart(chart))]
    return '<h2>Curves</h2>\n<div class="curves">\n' + "\n".join(cards) + "\n</div>" if cards else ""


def _scaled(curve: Curve, batch: float) -> Curve:
    return Curve(label=curve.label, x=[step * batch for step in curve.x], y=curve.y, colour=curve.colour, dots=True)


def _by_level(index: int, model: Compared) -> Curve:
    entries = (model.evaluation or {}).get("levels")
    levels = [level for level in page.list_of(entries) if isinstance(level, dict)]
    return Curve(label=_letter(index), x=[number(level.get("log_snr")) for level in levels],
                 y=[number(level.get("noise_mse")) for level in levels], colour=f"var(--curve-{index + 1})")


# ── Evaluations ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _evaluations(models: Sequence[Compared]) -> str:
    """The figures side by side. One that leads by more than `_ERRORS` standard errors of the difference is bold."""
    if not any(model.evaluation for model in models):
        return ""
    comparable = len({model.info.config.network.resolution for model in models}) == 1
    same_schedule = len({model.info.config.schedule for model in models}) == 1
    rows = []
    for figure in (*FIGURES, *DISTANCES):
        values = [_value(model, figure) for model in models]
        if all(value is None for value in values):
            continue
        leads = comparable and (same_schedule or figure.key not in _OWN_SCHEDULE)
        best = _leader(values, figure.better) if leads else None
        cells = [page.text(readable(value)) for value in values]
        rows.append([f"{page.text(figure.label)}<div class=\"faint\">{page.text(figure.meaning)}</div>",
                     *(f"<b>{cell}</b>" if index == best else cell for index, cell in enumerate(cells))])
    verdicts = [page.text(_sentence(model)) for model in models]
    if any(verdict != "–" for verdict in verdicts):
        rows.append(["memorisation", *(f'<div class="sentence">{verdict}</div>' for verdict in verdicts)])
    heads = ["", *(_head(index, model) for index, model in enumerate(models))]
    return (f'<h2>Evaluation</h2>\n<p class="faint">± is one standard error. Bold is what leads all others by more '
            f"than {_ERRORS} standard errors of the difference.</p>\n{_table(heads, rows)}")


def _value(model: Compared, figure: Figure) -> Any:
    """The value of a figure with its standard error, as `readable` takes it; None if it was not measured."""
    value = nested_entry(model.evaluation, figure.key)
    if value is None or not figure.error:
        return value
    return {"value": value, "standard_error": nested_entry(model.evaluation, figure.error)}


def _leader(values: Sequence[Any], better: int) -> int | None:
    """The place of the value that leads all others clearly; None if none does, or if an error is unknown."""
    if not better or len(values) < 2 or not all(isinstance(value, dict) for value in values):
        return None
    points = [(better * number(value.get("value")), number(value.get("standard_error"))) for value in values]
    if not all(math.isfinite(part) for point in points for part in point):
        return None
    best = max(range(len(points)), key=lambda index: points[index][0])
    value, error = points[best]
    leads = all(value - other > _ERRORS * math.hypot(error, others)
                for index, (other, others) in enumerate(points) if index != best)
    return best if leads else None


def _sentence(model: Compared) -> str:
    sentence = nested_entry(model.evaluation, "memorisation.sentence")
    return sentence if isinstance(sentence, str) else "–"


# ── Settings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _settings(models: Sequence[Compared]) -> str:
    """The settings that differ, in the order of the first model; those in which all that say it agree can be unfolded.
    """
    keys = list(dict.fromkeys(key for model in models for key in model.settings))
    known = {key: [model.settings[key] for model in models if key in model.settings] for key in keys}
    differing = [key for key in keys if len({json.dumps(value) for value in known[key]}) > 1]
    rows = [[page.text(_label(key)), *(page.text(_setting(model.settings.get(key))) for model in models)]
            for key in differing]
    shared = page.pairs((_label(key), _setting(known[key][0])) for key in keys if key not in differing)
    heads = ["", *(_head(index, model) for index, model in enumerate(models))]
    table = _table(heads, rows) if rows else "<p>Nothing: the models were trained with the same settings.</p>"
    return (f"<h2>What differs in their settings</h2>\n{table}\n<details><summary>what is the same in all</summary>\n"
            f"{shared}\n</details>")


def _label(key: str) -> str:
    return key.replace("_", " ").replace(".", ", ")


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else readable(value)
