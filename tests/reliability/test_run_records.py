"""What a training leaves beside its model may be made up, by a stranger who sends a folder: used, or refused in a line.

The files are config.json, events.jsonl and evaluation.json; `report`, `comparison` and `evaluate` read them.
"""

import json
import random
import shutil

import pytest
from odd_json import changed

from diffuse_cli.data import sources
from diffuse_cli.errors import DiffuseError
from diffuse_cli.evaluation.held_out import open_held_out
from diffuse_cli.picture_size import Size
from diffuse_cli.reporting import comparison, report

TIERS = [pytest.param(1, id="quick"), pytest.param(40, id="whole", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
EVALUATION = {
    "step": 8, "model_sha256": "x", "pictures": {"held_out": 4}, "noise_mse": {"value": 0.1, "standard_error": 0.01},
    "levels": [{"log_snr": 1.0, "noise_mse": 0.1}], "prompts": {"true": {"value": 0.5, "standard_error": 0.1}},
    "distances": {"sentence": "good", "kernel": {"value": 1.0, "standard_error": 0.1}},
    "memorisation": {"verdict": "none", "sentence": "none", "nearest": {"median": 1}}}


@pytest.fixture
def run(trained, tmp_path):
    """A copy of a finished run, with an evaluation."""
    directory = shutil.copytree(trained[0], tmp_path / "run")
    (directory / "evaluation.json").write_text(json.dumps(EVALUATION))
    return directory


def read_everywhere(run, other):
    """Whether one of the readers refuses. Any error but DiffuseError is raised."""
    def compare():
        models = [comparison.read_compared(name, path / "model.safetensors") for name, path in
                  (("a", run), ("b", other))]
        comparison.build(models, [""], [], seed=0)

    refusals = []
    for read in (lambda: report.build(run), compare,
                 lambda: list(open_held_out(run / "model.safetensors", None, resolution=Size(8, 8)))):
        try:
            read()
        except DiffuseError as error:
            refusals.append(str(error))
    assert "\n" not in "".join(refusals)
    return bool(refusals)


@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize("times", TIERS)
def test_made_up_records_are_used_or_refused(run, trained, times, seed, counted):
    rng, sound = random.Random(seed), {path: path.read_bytes() for path in run.glob("*.json*")}
    assert not read_everywhere(run, trained[0])
    for number in range(50 * times):
        path = run / ("config.json", "events.jsonl", "evaluation.json")[number % 3]
        if path.suffix == ".jsonl":
            lines = changed([json.loads(line) for line in sound[path].splitlines()], rng)
            path.write_text("\n".join(map(json.dumps, lines)))
        else:
            path.write_text(json.dumps(changed(json.loads(sound[path]), rng)))
        read_everywhere(run, trained[0])
        path.write_bytes(sound[path])
    counted("A model from a stranger is used or refused in one line, and nothing else happens",
            "made-up records beside a model", 50 * times)


@pytest.mark.parametrize(("place", "value"), [
    (("request", "folder"), None), (("request", "folder"), 1), (("request", "recipe", "steps"), {"a": 1}),
    (("request", "recipe", "evil"), 1), (("request",), {})])
def test_a_configuration_that_was_made_up_ends_the_report_with_one_line(command, run, place, value):
    config = json.loads((run / "config.json").read_text())
    *outer, key = place
    inner = config
    for name in outer:
        inner = inner[name]
    inner[key] = value
    (run / "config.json").write_text(json.dumps(config))
    code, out, err = command("models", "show", run, "--html", "-o", run.parent / "page.html")
    assert (code, out, err.count("error: "), len(err.splitlines())) == (6, "", 1, 1)
    assert "config.json is damaged" in err


def test_events_of_no_known_kind_are_skipped(command, run):
    with (run / "events.jsonl").open("a") as log:
        log.write('{"event": ["stepped"], "step": 9}\n{"event": {}, "step": 9}\n')
    assert command("models", "show", run, "--html", "-o", run.parent / "page.html")[0] == 0


@pytest.mark.parametrize("entry", ["folder", "more_folders"])
@pytest.mark.parametrize("line", [("evaluate", "RUN", "-n", 0), ("distill", "RUN", "--dry-run")],
                         ids=["evaluate", "distill"])
def test_what_a_strangers_configuration_names_is_not_downloaded(command, run, monkeypatch, entry, line):
    """A folder with a model may come from anywhere; nobody typed the address that its config.json holds."""
    fetched = []
    monkeypatch.setattr(sources, "fetch", fetched.append)
    config = json.loads((run / "config.json").read_text())
    if entry == "folder":
        config["request"]["folder"] = "hf://somebody/pictures"
    else:
        config["request"]["recipe"]["more_folders"] = ["hf://somebody/pictures"]
    (run / "config.json").write_text(json.dumps(config))
    code, _, err = command(*(run if part == "RUN" else part for part in line), "--device", "cpu")
    assert (code, fetched) == (3, [])
    assert "not downloaded unless you name them" in err


def test_a_folder_that_is_given_takes_the_place_of_all_folders_of_the_run(command, run, squares, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["request"]["recipe"]["more_folders"] = ["hf://somebody/pictures"]
    (run / "config.json").write_text(json.dumps(config))
    given = tmp_path / "given"
    given.mkdir()
    for path in (*sorted(squares.glob("*.png"))[:3], *sorted(squares.glob("*.txt"))[:3]):
        shutil.copy(path, given)
    code, _, err = command("distill", run, given, "--dry-run", "--device", "cpu")
    assert (code, "pictures: 3 used" in err) == (0, True), err
    code, out, err = command("evaluate", run, given, "-n", 0, "--device", "cpu", "--json")
    assert (code, json.loads(out)["pictures"]["held_out"]) == (0, 3), err
