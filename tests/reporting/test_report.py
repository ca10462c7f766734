"""The page of a run: one file, safe whatever names and captions contain, correct after interruptions."""

import base64
import hashlib
import http.server
import io
import itertools
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image
from web_page import Page

from diffuse_cli.errors import ModelError, StorageError
from diffuse_cli.pictures import sheets
from diffuse_cli.pictures.image_files import encode
from diffuse_cli.reporting import report
from diffuse_cli.storage.event_log import read_event_log

HOSTILE = "</script><script>alert('x')</script> \"&<img src=//evil.example> \x1b[2J \u202e $name ${script}"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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


def test_it_shows_the_model_the_data_and_the_loss(run):
    page = _page(run)
    for told in ("tiny", "Finished: 8 steps", "24 used", "captions", "a red square", "8 px", "nano", "4 pictures",
                 "8 steps", "learning rate", "seed", "validation loss", "the whole plan", "warmup steps"):
        assert told in page.text, told
    loss = read_event_log(run).validations[-1]["noise_mse"]
    assert f"{loss:.4f}" in page.text
    titles = [data for tag, data in page.texts if tag == "h3"]
    assert titles == ["Noise loss", "Validation loss by log-SNR", "Variance loss", "Gradient norm", "Learning rate",
                      "Throughput (pictures per second)"]


def test_it_loads_nothing_from_elsewhere(run):
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
    """Only the script hides anything: the CSS rules that hide need a class that only the script sets."""
    html = report.build(run).decode()
    assert html.count("<script>") == 1
    style = html[html.index("<style>") : html.index("</style>")]
    rules = [rule.strip() for rule in re.findall(r"([^{}]+)\{[^{}]*display: none", style)]
    assert rules == [".slider", ".with-script section:not(.chosen)"]
    assert "with-script" not in html[html.index("<body>") : html.index("<script>")]


def test_the_script_is_the_one_that_is_allowed(run):
    html = report.build(run).decode()
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in html


def test_the_page_of_a_finished_run_says_which_weights_the_model_has(run):
    _log(run, _started(), {"event": "finished", "step": 8, "complete": True, "seconds": 1, "prompt": "a",
                           "delivered": "last step: validation loss 0.2019"})
    assert "The model has the weights of the last step: validation loss 0.2019.<" in report.build(run).decode()


def _hostile_page(run: Path, text: str) -> str:
    """The page of a run in which every text of others is `text`."""
    stored = json.loads((run / "config.json").read_text())
    stored["request"]["folder"] = f"/pictures/{text}\udcff"
    stored["request"]["recipe"]["caption"] = text
    (run / "config.json").write_text(json.dumps(stored))
    _log(run, _started(captions=text), {"event": "noticed", "level": "warning", "message": text},
         {"event": "previewed", "step": 8, "path": "/etc/passwd", "prompts": [text, "-n 99"]},
         {"event": "finished", "step": 8, "complete": True, "delivered": text, "prompt": text, "seconds": 1})
    (run / "evaluation.json").write_text(json.dumps(EVALUATION).replace(json.dumps(HOSTILE)[1:-1],
                                                                        json.dumps(text)[1:-1]))
    return report.build(run.rename(run.with_name("<i>'name"))).decode()


def test_foreign_text_stays_text(run):
    html = _hostile_page(run, HOSTILE)
    pictures = len(sheets.read_strip(run.with_name("<i>'name") / "previews" / "step-00000008.png"))
    assert [html.count(mark) for mark in ("<script", "<img", "<i>", "\x1b", "\u202e")] == [1, pictures, 0, 0, 0]
    page = Page(html)
    assert {tag for tag, *_ in page.attributes} <= {
        "html", "meta", "div", "p", "span", "input", "img", "svg", "path", "text", "ul", "table", "figure", "footer"}
    assert len(page.images) == pictures
    shown = HOSTILE.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert page.text.count(shown) >= 6
    assert "\\udcff" in page.text
    assert "<i>'name" in page.text


# ── Previews ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _previews(directory: Path, count: int, *, side: int = 8) -> None:
    shutil.rmtree(directory / "previews")
    (directory / "previews").mkdir()
    for step in range(1, count + 1):
        pictures = np.random.default_rng(step).integers(0, 256, (2, side, side, 3), np.uint8)
        pictures[:, 0, 0] = step
        (directory / "previews" / f"step-{step:08d}.png").write_bytes(encode(sheets.tile(pictures, columns=2)))
    _log(directory, _started(), *({"event": "previewed", "step": step, "path": "x", "prompts": ["a cat", "a <dog>"]}
                                  for step in range(1, count + 1)))


def _steps(page: Page) -> list[int]:
    """The steps of the strips in a page of `_previews`."""
    return [int(np.asarray(Image.open(io.BytesIO(image)))[0, 0, 0]) for image in page.images[::2]]


def test_the_strip_of_every_preview_is_in_the_page(run):
    page = _page(run)
    pictures = [picture for path in sorted((run / "previews").iterdir()) for picture in sheets.read_strip(path)]
    shown = [np.asarray(Image.open(io.BytesIO(image))) for image in page.images]
    assert len(shown) == len(pictures)
    assert all(map(np.array_equal, shown, pictures))                   # without the white between them
    prompts = [prompt for entry in read_event_log(run).previews for prompt in entry["prompts"]]
    assert [data for tag, data in page.texts if tag == "figcaption"] == prompts


def test_of_many_strips_evenly_spaced_ones_are_shown_and_the_page_says_so(run):
    _previews(run, 100)
    page = _page(run)
    steps = _steps(page)
    assert len(steps) == 20
    assert (steps[0], steps[-1]) == (1, 100)
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert set(gaps) <= {5, 6}
    assert "Shown are 20 of 100, evenly chosen." in page.text
    assert "a <dog>" in page.text


def test_the_page_stays_of_modest_size(run):
    _previews(run, 12, side=420)
    page = _page(run)
    assert _steps(page) == [1, 7, 12]
    assert len(report.build(run)) < 6_000_000


def test_a_strip_that_is_missing_or_not_a_picture_is_left_out(run):
    _previews(run, 5)
    (run / "previews" / "step-00000002.png").unlink()
    (run / "previews" / "step-00000003.png").write_text("<svg onload=alert(1)>")
    (run / "previews" / "step-00000005.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    page = _page(run)
    assert _steps(page) == [1, 4]
    assert "Shown are 2 of 5" in page.text


# ── The history behind it ───────────────────────────────────────────────────────────────────────────────────────────


def test_steps_that_were_trained_twice_appear_once_with_their_latest_numbers(run):
    _log(run, _started(), *(_stepped(step, 1.0) for step in (2, 4, 6, 8)), _validated(4, 1.0, 3.0),
         _validated(8, 5.0, 5.0), {"event": "previewed", "step": 8, "path": "x", "prompts": []},
         _started(5), _stepped(6, 0.5, seconds=3.0), _stepped(7, 0.25, seconds=4.0), _validated(7, 0.5, 1.5))
    history = read_event_log(run)
    assert [(entry["step"], entry["noise_mse"]) for entry in history.steps] == [(2, 1.0), (4, 1.0), (6, 0.5), (7, 0.25)]
    assert [(entry["step"], entry["noise_mse"]) for entry in history.validations] == [(4, 2.0), (7, 1.0)]
    assert history.previews == []                                      # its step will be trained again
    assert history.seconds == 8.0 + 4.0
    assert history.step == 7
    page = _page(run)
    assert "In training: step 7 of 8" in page.text
    assert "5.0000" not in page.text


def test_repeated_steps_appear_once_even_without_a_started_line(run):
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
def test_damaged_lines_are_skipped(run, torn):
    with open(run / "events.jsonl", "a") as log:
        log.write(torn + "\n")
        log.write(json.dumps({"schema": 1, **_stepped(8, None)}) + "\n")
    page = _page(run)
    assert "Noise loss" in page.text
    assert read_event_log(run).steps[-1]["noise_mse"] is None


def test_a_run_that_was_stopped_says_so(squares, decoded, home):
    tiny.train(squares, stop_at=3)
    assert "Stopped (SIGINT): step 3 of 8" in _page(tiny.run_directory(home)).text
    tiny.train(squares)
    assert "Finished: 8 steps" in _page(tiny.run_directory(home)).text


def test_without_a_log_there_is_still_a_page(run):
    (run / "events.jsonl").unlink()
    page = _page(run)
    assert "In training: step 0 of 8" in page.text
    assert page.images == []
    assert len(page.commands()) == 5


def test_without_a_run_there_is_no_page(tmp_path):
    with pytest.raises(ModelError, match="no run"):
        report.build(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(StorageError, match="damaged"):
        report.build(tmp_path)


# ── Evaluation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_evaluation_is_shown_and_unknown_or_missing_keys_do_no_harm(run):
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
    (run / "closest.png").write_bytes(b"\x89PNG\r\n\x1a\nclosest")
    page = _page(run)
    for told in ("Measured with the weights of step 8 on 7 held-out pictures", "0.5 ± 0.25", "5.25 ± 0.12",
                 "kernel, drawn", "kernel, floor", "0.125", "recall", "0.75", "memorising", "0.0625",
                 "Noise loss by noise level"):
        assert told in page.text, told
    assert "shuffled" not in page.text                                 # prompts: null
    assert "gain of the learned variance" not in page.text             # is missing
    assert page.images[-1].endswith(b"closest")


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", '{"levels": 3, "memorisation": [], "pictures": 0}',
                                     '{"levels": [1, {"log_snr": "x"}], "prompts": {"true": [1]}}'])
def test_an_evaluation_that_makes_no_sense_does_no_harm(run, content):
    (run / "evaluation.json").write_text(content)
    assert "Finished" in _page(run).text


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")
def test_nothing_of_others_runs_in_a_real_browser(run, tmp_path, counted):
    """Its own script runs, no other does, and no request leaves; where the same texts are not escaped, both happen."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    def shown(html: str) -> str:
        (tmp_path / "page.html").write_text(html)
        return subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/browser",
             "--virtual-time-budget=2000", "--dump-dom", f"file://{tmp_path}/page.html"],
            capture_output=True, text=True, timeout=200).stdout

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}/seen"
        texts = [
            f"</script><script>document.title='RAN'; fetch('{place}')</script>",
            f"<img src={place} onerror=\"document.title='RAN'\">",
            f"</title></style></svg><svg onload=\"document.title='RAN'\"><image href='{place}'/>",
            f"'\" onload=\"document.title='RAN'\" style='background: url({place})' x='",
            f"<iframe src={place}></iframe><meta http-equiv=refresh content='0;{place}'>",
            f"${{document.title='RAN'}} javascript:document.title='RAN' {place} &lt;script&gt;",
        ]
        seen = shown(_hostile_page(run, " ".join(texts)))
        assert 'class="strips' in seen
        assert "with-script" in seen.split("<body>")[1]
        assert "<title>RAN</title>" not in seen
        assert requests == []
        assert "<title>RAN</title>" in shown(f"<title>x</title><body>{' '.join(texts[:4])}")
        assert "/seen" in requests
        server.shutdown()
    counted("A text from a stranger is shown without its control characters, and means nothing else",
            "hostile texts in a real browser", len(texts))
