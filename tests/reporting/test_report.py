"""The page of a run: complete in itself, safe whatever names and captions hold, true after interruptions."""

import base64
import hashlib
import itertools
import json
import math
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from unittest import mock

import pytest
import tiny

from diffuse_cli import events
from diffuse_cli.checks import from_dict, parse_duration, to_dict
from diffuse_cli.cli import app
from diffuse_cli.config import Recipe
from diffuse_cli.errors import ModelError, StorageError
from diffuse_cli.files import durable
from diffuse_cli.reporting import live_page, report
from diffuse_cli.reporting.svg_curves import POINTS, Curve, _thinned, svg
from diffuse_cli.storage import registry
from diffuse_cli.storage.event_log import read_event_log
from diffuse_cli.training import monitor

VOID = {"meta", "img", "input", "br", "hr", "link"}
HOSTILE = "</script><script>alert('x')</script> \"&<img src=//evil.example> \x1b[2J \u202e $name ${script}"
MEASURED = {"value": 0.5, "standard_error": 0.25}
EVALUATION = {
    "schema": 1, "version": "0.1.0", "model_sha256": "ab", "step": 8, "seed": 0,
    "pictures": {"held_out": 7, "train": 17},
    "levels": [{"log_snr": 3.0 - k, "noise_mse": 0.1 * (k + 1), "standard_error": 0.01} for k in range(4)],
    "noise_mse": MEASURED, "noise_mse_ref": {"value": None, "standard_error": None},
    "bits_per_dim": {"bound": {"value": 5.25, "standard_error": 0.125}, "area": None},
    "variance_calibration": 1.5, "prompts": None, "news": {"deep": [[[1]]]},
    "distances": {"kernel": {"drawn": MEASURED, "floor": 0.125}, "recall": 0.75, "pairs": [1, 2], HOSTILE: HOSTILE},
    "memorisation": {"verdict": "memorising", "sentence": f"memorising {HOSTILE}", "ratio": 0.0625}}


class Page(HTMLParser):
    """What a browser would see without running anything; complains of tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open, self.attributes, self.texts, self.images = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag == "img":
            self.images.append(base64.b64decode(dict(attributes)["src"].removeprefix("data:image/png;base64,")))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *pair) for pair in attributes]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        return "\n".join(data for tag, data in self.texts if tag not in ("style", "script"))

    def commands(self) -> list[str]:
        return [data for tag, data in self.texts if tag == "code"]


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run, to be written into."""
    return Path(shutil.copytree(trained[0], tmp_path / "tiny"))


def _page(directory: Path) -> Page:
    return Page(report.build(directory).decode())


def _log(directory: Path, *entries: dict, torn: str = "") -> None:
    lines = [json.dumps({"schema": 1, **entry}) for entry in entries]
    (directory / "events.jsonl").write_text("\n".join(lines) + "\n" + torn)


def _started(step: int = 0, **facts: str) -> dict:
    return {"event": "started", "step": step, "parameters": 1_000_000, "facts": [list(pair) for pair in facts.items()]}


def _stepped(step: int, loss: float | None, **more) -> dict:
    return {"event": "stepped", "step": step, "noise_mse": loss, "lr": 1e-3, "images_per_second": 10.0,
            "seconds": float(step), **more}


def _validated(step: int, *losses: float) -> dict:
    return {"event": "validated", "step": step, "noise_mse": sum(losses) / len(losses), "noise_mse_at": list(losses),
            "log_snr": [float(-k) for k in range(len(losses))], "best": True}


# ── The page ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_tells_what_was_trained_on_what(run):
    page = _page(run)
    for told in ("tiny", "Finished: 8 steps", "24 used", "captions", "a red square", "8 px", "nano", "4 pictures",
                 "8 steps", "learning rate", "seed", "validation loss", "the whole plan", "warmup steps"):
        assert told in page.text, told
    loss = read_event_log(run).validations[-1]["noise_mse"]
    assert f"{loss:.4f}" in page.text
    titles = [data for tag, data in page.texts if tag == "h3"]
    assert titles == ["Noise loss", "Validation loss by noise level", "Variance loss", "Gradient norm", "Learning rate",
                      "Throughput"]


def test_it_needs_nothing_else(run):
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    html = report.build(run).decode()
    assert "://" not in html
    assert not re.search(r"url\((?!#)|@import|<link|<iframe|<object|<base|srcset|http-equiv=.refresh", html)
    page = Page(html)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "action", "data", "poster", "xlink:href"):
            assert re.match(r"data:image/png;base64,|#", value or ""), (tag, name, value)
        assert not name.startswith("on")
    policy = {name: value for tag, name, value in page.attributes if tag == "meta"}["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_everything_can_be_seen_without_the_script(run):
    """The script alone hides anything: what it does hangs on a class that only it gives."""
    html = report.build(run).decode()
    assert html.count("<script>") == 1
    style = html[html.index("<style>") : html.index("</style>")]
    rules = [rule.strip() for rule in re.findall(r"([^{}]+)\{[^{}]*display: none", style)]
    assert rules == [".slider", ".with-script figure:not(.chosen)"]
    assert "with-script" not in html[html.index("<body>") : html.index("<script>")]


def test_the_script_is_the_one_that_is_allowed(run):
    html = report.build(run).decode()
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in html


def test_foreign_text_stays_text(run):
    stored = json.loads((run / "config.json").read_text())
    stored["request"]["folder"] = f"/pictures/{HOSTILE}\udcff"
    stored["request"]["recipe"]["caption"] = HOSTILE
    (run / "config.json").write_text(json.dumps(stored))
    _log(run, _started(captions=HOSTILE), {"event": "noticed", "level": "warning", "message": HOSTILE},
         {"event": "previewed", "step": 8, "path": "/etc/passwd", "prompts": [HOSTILE, "-n 99"]},
         {"event": "finished", "step": 8, "complete": True, "delivered": HOSTILE, "prompt": HOSTILE, "seconds": 1})
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    hostile = run.rename(run.with_name("<i>'name"))
    html = report.build(hostile).decode()
    assert [html.count(mark) for mark in ("<script", "<img", "<i>", "\x1b", "\u202e")] == [1, 1, 0, 0, 0]
    page = Page(html)
    assert {tag for tag, *_ in page.attributes} <= {
        "html", "meta", "div", "p", "span", "input", "img", "svg", "g", "path", "use", "text", "clippath", "rect", "ul",
        "table", "figure", "footer"}
    assert len(page.images) == 1
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert page.text.count(shown) >= 6
    assert "\\udcff" in page.text
    assert "<i>'name" in page.text


# ── Previews ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _previews(directory: Path, count: int, *, size: int = 30) -> None:
    shutil.rmtree(directory / "previews")
    (directory / "previews").mkdir()
    for step in range(1, count + 1):
        (directory / "previews" / f"step-{step:08d}.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + step.to_bytes(4, "big") + bytes(size))
    _log(directory, _started(), *({"event": "previewed", "step": step, "path": "x", "prompts": ["a cat", "a <dog>"]}
                                  for step in range(1, count + 1)))


def test_the_strip_of_every_preview_is_in_the_page(run):
    page = _page(run)
    assert page.images == [path.read_bytes() for path in sorted((run / "previews").iterdir())]
    assert [data for tag, data in page.texts if tag == "li"] == list(read_event_log(run).previews[-1]["prompts"])


def test_of_many_strips_some_are_shown_evenly_and_it_says_so(run):
    _previews(run, 100)
    page = _page(run)
    steps = [int.from_bytes(image[8:12], "big") for image in page.images]
    assert len(steps) == 20
    assert (steps[0], steps[-1]) == (1, 100)
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert set(gaps) <= {5, 6}
    assert "Shown are 20 of 100, evenly chosen." in page.text
    assert "a <dog>" in page.text


def test_the_page_stays_of_modest_size(run):
    _previews(run, 12, size=1_000_000)
    page = _page(run)
    assert [int.from_bytes(image[8:12], "big") for image in page.images] == [1, 7, 12]
    assert len(report.build(run)) < 6_000_000


def test_a_strip_that_is_gone_or_no_picture_is_left_out(run):
    _previews(run, 4)
    (run / "previews" / "step-00000002.png").unlink()
    (run / "previews" / "step-00000003.png").write_text("<svg onload=alert(1)>")
    page = _page(run)
    assert [int.from_bytes(image[8:12], "big") for image in page.images] == [1, 4]
    assert "Shown are 2 of 4" in page.text


# ── The history behind it ───────────────────────────────────────────────────────────────────────────────────────────


def test_what_was_learnt_twice_is_told_once_and_as_it_was_the_last_time(run):
    _log(run, _started(), *(_stepped(step, 1.0) for step in (2, 4, 6, 8)), _validated(4, 1.0, 3.0),
         _validated(8, 5.0, 5.0), {"event": "previewed", "step": 8, "path": "x", "prompts": []},
         _started(5), _stepped(6, 0.5, seconds=3.0), _stepped(7, 0.25, seconds=4.0), _validated(7, 0.5, 1.5))
    history = read_event_log(run)
    assert [(entry["step"], entry["noise_mse"]) for entry in history.steps] == [(2, 1.0), (4, 1.0), (6, 0.5), (7, 0.25)]
    assert [(entry["step"], entry["noise_mse"]) for entry in history.validations] == [(4, 2.0), (7, 1.0)]
    assert history.previews == []                                      # of a step that is to come
    assert history.seconds == 8.0 + 4.0
    assert history.step == 7
    page = _page(run)
    assert "In training: step 7 of 8" in page.text
    assert "5.0000" not in page.text


def test_without_the_line_that_says_so_repeated_steps_are_still_told_once(run):
    _log(run, _stepped(2, 1.0), _stepped(4, 1.0), _stepped(3, 0.5), _stepped(4, 0.25))
    steps = read_event_log(run).steps
    assert [(entry["step"], entry["noise_mse"]) for entry in steps] == [(2, 1.0), (3, 0.5), (4, 0.25)]


@pytest.mark.parametrize("torn", ["{", "null", "[1]", '{"event": "stepped"}', "\0\xff",
                                  '{"event": "stepped", "step": "x"}', '{"event": "stepped", "step": 1e400}',
                                  '{"event":' * 2000,
                                  '{"event": "validated", "step": 9, "log_snr": 3, "noise_mse_at": {}}',
                                  '{"event": "previewed", "step": 9, "prompts": 7}',
                                  '{"event": "started", "step": 8, "facts": [1, ["a"], ["b", {"c": 1}]]}',
                                  '{"event": "finished", "step": 8, "complete": 1, "seconds": [], "prompt": {}}'])
def test_damaged_lines_are_passed_over(run, torn):
    with open(run / "events.jsonl", "a") as log:
        log.write(torn + "\n")
        log.write(json.dumps({"schema": 1, **_stepped(8, None)}) + "\n")
    page = _page(run)
    assert "Noise loss" in page.text
    assert read_event_log(run).steps[-1]["noise_mse"] is None


def test_without_a_log_there_is_still_a_page(run):
    (run / "events.jsonl").unlink()
    page = _page(run)
    assert "In training: step 0 of 8" in page.text
    assert page.images == []
    assert len(page.commands()) == 5


def test_without_a_run_there_is_none(tmp_path):
    with pytest.raises(ModelError, match="no run"):
        report.build(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        report.build(tmp_path)


# ── Evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_evaluation_is_shown_and_what_is_unknown_does_no_harm(run):
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    (run / "closest.png").write_bytes(b"\x89PNG\r\n\x1a\nclosest")
    page = _page(run)
    for told in ("Of the weights of step 8 on 7 held-out pictures", "0.5 ± 0.25", "5.25 ± 0.12", "kernel, drawn",
                 "kernel, floor", "0.125", "recall", "0.75", "memorising", "0.0625", "Noise loss by noise level"):
        assert told in page.text, told
    assert "shuffled" not in page.text                                 # prompts: null
    assert "gain of the learned variance" not in page.text             # is missing
    assert page.images[-1].endswith(b"closest")


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"levels": 3, "memorisation": [], "pictures": 0}',
                                     '{"levels": [1, {"log_snr": "x"}], "prompts": {"true": [1]}}'])
def test_an_evaluation_that_makes_no_sense_does_no_harm(run, content):
    (run / "evaluation.json").write_text(content)
    assert "Finished" in _page(run).text


# ── Commands ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parsed(words: list[str]) -> tuple[str, dict]:
    """(verb, values) as the command line understands them; nothing is run."""
    command, (program, *rest) = app._command(), words
    assert program == "diffuse"
    names = []
    while inner := getattr(command, "commands", None):
        names.append(rest[0])
        command = inner[rest.pop(0)]
    return " ".join(names), command.make_context(None, rest).params


def test_the_commands_can_be_typed(run):
    commands = [shlex.split(text) for text in _page(run).commands()]
    assert [words[1] for words in commands] == ["train", "sample", "evaluate", "export", "models"]
    for words in commands:
        if words[1] in app._command().commands:
            _parsed(words)
    prompt = read_event_log(run).finished["prompt"]
    assert _parsed(commands[1])[1]["prompts"] == [prompt]
    assert commands[1][commands[1].index("-m") + 1] == "tiny"


@pytest.mark.parametrize("recipe", [
    Recipe(), tiny.RECIPE, Recipe(time=5400.0, seed=7, lr=1e-4), Recipe(time=90.5, flip=True, times="discrete"),
    Recipe(flip=False, images=10, captions="none", caption_ext="cap"), Recipe(init="./it's", optimizer="adam"),
    Recipe(caption="-a 'cat' $HOME", caption_template="{label} \"x\"", caption_column="--text", lr=0.1 + 0.2)])
def test_the_command_to_go_on_asks_for_the_very_same(recipe, tmp_path):
    request = json.loads(json.dumps({"folder": "/a b/pictures", "recipe": to_dict(recipe)}))
    (_, words), *_ = report.commands("cars", request, read_event_log(tmp_path))
    verb, values = _parsed(shlex.split(shlex.join(words)))
    assert verb == "train"
    assert (str(values["folder"]), values["name"]) == ("/a b/pictures", "cars")
    typed = {key: values[key] for key in to_dict(recipe) if values[key] is not None}
    if "time" in typed:
        typed["time"] = parse_duration("--time", typed["time"])
    assert from_dict(Recipe, typed) == recipe


# ── Written while it trains ─────────────────────────────────────────────────────────────────────────────────────────


def _without(directory: Path, *names: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.safetensors") if path.name not in names}


def test_a_training_leaves_its_report_and_drawing_it_changes_no_bit(trained, squares, decoded, home):
    written = []
    write = durable.write

    def noting(path, data, **options):
        write(path, data, **options)
        if path.name == registry.REPORT_FILE:
            written.append(data.decode())

    with mock.patch.object(live_page, "FIRST_COST", 0), mock.patch.object(live_page, "MAX_COST", 1e9), \
            mock.patch.object(monitor, "REPORT_SECONDS", 0), mock.patch.object(durable, "write", noting):
        tiny.train(squares, drawn=True)
    directory = tiny.run_directory(home)
    assert [re.search(r"step (\d+) of 8|Finished", html)[0] for html in written] == [
        "step 4 of 8", "step 5 of 8", "step 7 of 8", "Finished"]
    assert all(Page(html) and "<path" in html for html in written)
    assert (directory / registry.REPORT_FILE).read_bytes() == report.build(directory)
    assert _without(directory) == _without(trained[0])


def test_reports_take_a_small_share_of_the_time():
    now, drawn = 0.0, []
    news = events.Saved(step=1, path="", bytes=0, seconds=0.0)
    stepped = events.Stepped(step=1, steps=9, train_objective=0, noise_mse=0, variance_loss=None, gradient_norm=0, lr=0,
                             images_per_second=0, seconds=0, remaining=0, skipped=0, memory=0)

    def draw(_):
        nonlocal now
        drawn.append(now)
        now += 3.0
        return b""

    def clock():
        return now

    with mock.patch.object(live_page.time, "monotonic", clock), mock.patch.object(report, "build", draw), \
            mock.patch.object(durable, "write"):
        page = live_page.LivePage(Path())
        for _ in range(2000):
            now += 1.0
            assert not page.is_due(news)
            if page.is_due(stepped):
                assert list(page.write()) == []
    assert 2 <= len(drawn) <= 7
    assert 3.0 * len(drawn) <= 0.01 * now + 3.0


def test_a_report_that_cannot_be_drawn_is_told_once_and_is_not_worth_a_training(trained, squares, decoded, home):
    with mock.patch.object(live_page, "MAX_COST", 1e9), mock.patch.object(monitor, "REPORT_SECONDS", 0), \
            mock.patch.object(report, "build", side_effect=ZeroDivisionError("no ink")):
        stream = tiny.train(squares)
    told = [event.message for event in tiny.of_kind(events.Noticed, stream) if event.level == "warning"]
    assert told == ["the report could not be written: no ink"]
    assert stream[-1].complete
    assert not (tiny.run_directory(home) / registry.REPORT_FILE).exists()
    assert _without(tiny.run_directory(home)) == _without(trained[0])


def test_a_run_that_was_stopped_says_so(squares, decoded, home):
    tiny.train(squares, stop_at=3)
    assert "Stopped (SIGINT): step 3 of 8" in _page(tiny.run_directory(home)).text
    tiny.train(squares)
    assert "Finished: 8 steps" in _page(tiny.run_directory(home)).text


# ── Curves ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _drawn_points(drawing: str, colour: str) -> list[tuple[float, float]]:
    """Coordinates of the line of that colour, as it lies on the page."""
    paths = re.findall(rf'd="([^"]*)"[^>]*stroke: {re.escape(colour)};', drawing)
    line = max(paths, key=len)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", line)]


def test_a_curve_is_where_its_numbers_are():
    curve = Curve(label="it", x=[0, 1, 2, 4], y=[1.0, 10.0, math.nan, 100.0], colour="var(--curve-1)")
    (x0, y0), (x1, y1), (x2, y2) = _drawn_points(svg([curve], name="one", log=True), "var(--curve-1)")
    assert (x1 - x0) * 4 == pytest.approx(x2 - x0, abs=1.0)
    assert y0 > y1 > y2                                                # upwards is towards 0
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.3)                  # tenfold is tenfold


def test_a_long_curve_is_thinned_by_means():
    curve = Curve(label="", x=range(10_000), y=[float(k % 2) for k in range(10_000)], colour="red")
    x, y = _thinned(curve, positive=False)
    assert len(x) == len(y) == POINTS
    assert y == pytest.approx([0.5] * POINTS, abs=0.02)
    assert x == sorted(x)
    assert sum(x) / POINTS == pytest.approx(4999.5, rel=1e-3)


def test_a_plot_takes_the_colours_of_its_page_and_leaves_its_letters_alone():
    curves = [Curve(label=label, x=[0, 5], y=[0.05, 0.02], colour="blue") for label in ("training", "held out")]
    drawing = svg(curves, name="Noise loss", log=True)
    page = Page(drawing)
    assert not re.search(r"#[0-9a-f]{6}[;\"]", drawing)
    assert "<style" not in drawing
    assert "font-family" not in drawing
    texts = [data.strip() for _, data in page.texts if data.strip()]
    assert {"step", "training", "held out", "0.05", "0.02"} <= set(texts)
    assert drawing == svg(curves, name="Noise loss", log=True)
    assert len(drawing) < 20_000
    ids = {value for _, name, value in page.attributes if name == "id"}
    other = {value for _, name, value in Page(svg(curves, name="Other", log=True)).attributes if name == "id"}
    assert ids
    assert not ids & other                                             # two plots in one page
