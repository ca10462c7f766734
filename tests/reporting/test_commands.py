"""The commands that a report suggests: the command line understands them, and they mean the run that they are about."""

import dataclasses
import json
import shlex

import pytest
import tiny
from web_page import Page

from diffuse_cli.checks import from_dict, parse_duration, to_dict
from diffuse_cli.cli import app
from diffuse_cli.config import Recipe
from diffuse_cli.reporting import report
from diffuse_cli.reporting.commands import commands
from diffuse_cli.storage.event_log import read_event_log


def _parsed(words: list[str]) -> tuple[str, dict]:
    """(verb, values) as the command line understands them; nothing is run."""
    command, (program, *rest) = app._command(), words
    assert program == "diffuse"
    names = []
    while inner := getattr(command, "commands", None):
        names.append(rest[0])
        command = inner[rest.pop(0)]
    return " ".join(names), command.make_context(None, rest).params


def test_the_commands_can_be_typed(trained):
    shown = [shlex.split(text) for text in Page(report.build(trained[0]).decode()).commands()]
    assert [words[1] for words in shown] == ["train", "sample", "evaluate", "export", "models"]
    for words in shown:
        if words[1] in app._command().commands:
            _parsed(words)
    prompt = read_event_log(trained[0]).finished["prompt"]
    assert _parsed(shown[1])[1]["prompts"] == [prompt]
    assert shown[1][shown[1].index("-m") + 1] == "tiny"


@pytest.mark.parametrize(("recipe", "budget"), [
    (Recipe(), {"steps": 20}), (Recipe(steps=10, lr=1e-4), {"steps": 20}), (Recipe(time=90.0), {"time": 180.0}),
    (Recipe(images=7), {"images": 14})])
def test_a_finished_training_is_continued_with_twice_the_budget(recipe, budget, tmp_path):
    request = json.loads(json.dumps({"folder": "/pictures", "recipe": to_dict(recipe)}))
    log = read_event_log(tmp_path)
    log = dataclasses.replace(log, finished={"complete": True, "steps": 10})
    (purpose, words), *_ = commands("cars", request, log)
    values = _parsed(words)[1]
    typed = {name: values[name] for name in ("steps", "images", "time", "lr") if values[name] is not None}
    typed |= {"time": parse_duration("--time", typed["time"])} if "time" in typed else {}
    assert (purpose, values["name"]) == ("Train twice as long", "cars")
    assert typed == {**budget, **({"lr": recipe.lr} if recipe.lr else {})}


@pytest.mark.parametrize("finished", [{}, {"complete": True, "steps": 10}])
@pytest.mark.parametrize("recipe", [Recipe(), Recipe(init="cars", evaluations=2)])
def test_the_command_to_train_on_keeps_the_prompts_of_the_previews(recipe, finished, tmp_path):
    request = json.loads(json.dumps({"folder": "/pictures", "recipe": to_dict(recipe)}))
    log = dataclasses.replace(read_event_log(tmp_path), finished=finished)
    log.started["preview_prompt"] = ["a dog", "--a 'cat'"]
    (_, words), *_ = commands("cars", request, log)
    assert _parsed(words)[1]["preview_prompt"] == ["a dog", "--a 'cat'"]
    log.started["preview_prompt"] = {"damaged": 1}
    (_, words), *_ = commands("cars", request, log)
    assert not _parsed(words)[1]["preview_prompt"]


@pytest.mark.parametrize("recipe", [
    Recipe(), tiny.RECIPE, Recipe(time=5400.0, seed=7, lr=1e-4), Recipe(time=90.5, flip=True, times="discrete"),
    Recipe(flip=False, images=10, captions="none", caption_ext="cap"), Recipe(init="./it's", optimizer="adam"),
    Recipe(more_folders=("/c d", "/e"), join_lines=True, shuffle_tags=True, tag_dropout=0.25, held_out="test"),
    Recipe(caption="-a 'cat' $HOME", caption_template="{label} \"x\"", caption_column="--text", lr=0.1 + 0.2)])
def test_the_command_to_resume_requests_the_very_same_training(recipe, tmp_path):
    request = json.loads(json.dumps({"folder": "/a b/pictures", "recipe": to_dict(recipe)}))
    (_, words), *_ = commands("cars", request, read_event_log(tmp_path))
    verb, values = _parsed(shlex.split(shlex.join(words)))
    assert verb == "train"
    assert (list(map(str, values["folders"])), values["name"]) == (
        ["/a b/pictures", *recipe.more_folders], "cars")
    typed = {key: values[key] for key in to_dict(recipe) if values.get(key) is not None}
    typed["more_folders"] = list(map(str, values["folders"][1:]))
    if "time" in typed:
        typed["time"] = parse_duration("--time", typed["time"])
    assert from_dict(Recipe, typed) == recipe


def test_the_command_to_resume_a_student_is_that_of_its_distillation(tmp_path):
    recipe = Recipe(init="cars", evaluations=2, guidance=1.5, time=90.0, seed=7, captions="folder", fit="crop")
    request = json.loads(json.dumps({"folder": "/a b/pictures", "recipe": to_dict(recipe)}))
    (_, words), *_ = commands("cars-2-steps", request, read_event_log(tmp_path))
    verb, values = _parsed(words)
    assert (verb, values["model"], list(map(str, values["folders"]))) == ("distill", "cars", ["/a b/pictures"])
    assert {name: values[name] for name in ("evaluations", "guidance", "time", "seed", "name")} == {
        "evaluations": 2, "guidance": 1.5, "time": "90s", "seed": 7, "name": "cars-2-steps"}
