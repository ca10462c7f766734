"""Files of prompts as other programs write them: read as far as they go, and what is left out is named."""

import json
from pathlib import Path

import pytest

from diffuse_cli.cli.prompt_files import PromptLine, read_prompts
from diffuse_cli.cli.terminal import view
from diffuse_cli.errors import DataError

CAR = PromptLine(prompt="a red car")
FULL = PromptLine(prompt="a red car", negative="blurry", seed=3, steps=28, guidance=7.5)


@pytest.fixture
def warnings(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(view, "warn", said.append)
    return said


@pytest.mark.parametrize(("name", "text", "prompts", "left_out"), [
    ("kohya.txt", "# comment\na red car --n blurry --w 512 --h 512 --d 3 --l 7.5 --s 28\n", [FULL], ["w", "h"]),
    ("webui.txt", '--prompt "a red car" --negative_prompt "blurry" --seed 3 --steps 28 --cfg_scale 7.5\na red car',
     [FULL, CAR], []),
    ("saved-by-webui.txt", "a red car\nNegative prompt: blurry\nSteps: 28, CFG scale: 7.5, Seed: 3, Size: 64x64\n\n"
     "a red car\nSteps: 28\na red car", [FULL, PromptLine(prompt="a red car", steps=28), CAR], ["Size"]),
    ("midjourney.txt", "a red car --ar 16:9 --no blurry", [PromptLine(prompt="a red car", negative="blurry")], ["ar"]),
    ("dashes.txt", "a red car -- and more --- here", [PromptLine(prompt="a red car -- and more --- here")], []),
    ("styles.csv", "name,prompt,negative_prompt\nred,a red car,blurry\n", [
        PromptLine(prompt="a red car", negative="blurry")], ["name"]),
    ("semi.csv", "Prompt;Category\na red car, parked;x", [PromptLine(prompt="a red car, parked")], ["Category"]),
    ("parti.tsv", "Prompt\tCategory\na red car\tVehicles\na red car\tOther", [CAR, CAR], ["Category (2 times)"]),
    ("list.json", '["a red car", {"text": "a red car"}]', [CAR, CAR], []),
    ("coco.json", '{"info": {}, "annotations": [{"id": 1, "caption": "a red car"}]}', [CAR], ["id"]),
    ("lines.jsonl", '{"prompt": "a red car", "cfg": 7.5, "seed": 3, "num_inference_steps": 28, "negative": "blurry"}',
     [FULL], []),
    ("kohya.toml", '[prompt]\nscale = 7.5\nsample_steps = 28\n[[prompt.subset]]\nprompt = "a red car"\n'
     'negative_prompt = "blurry"\nseed = 3\nwidth = 512', [FULL], ["width"])])
def test_files_of_other_programs_are_read(tmp_path, warnings, name, text, prompts, left_out):
    Path(tmp_path, name).write_text(text)
    assert read_prompts(str(tmp_path / name)) == prompts
    assert len(warnings) == bool(left_out)
    for warning in warnings:
        assert warning.endswith(f"were left out: {', '.join(left_out)}")


@pytest.mark.parametrize(("name", "text", "said"), [
    ("a.txt", "{red|blue} car", "line 1 of .*Alternatives such as .* write a line for each"),
    ("a.csv", "name,age\nx,3", "entry 1 of .* has no prompt; it has name, age"),
    ("a.json", "[3]", "entry 1 of .* has no prompt"), ("a.yaml", "- a red car", "is YAML, which is not read"),
    ("a.toml", "a red car", "is not TOML"), ("a.txt", "# only a comment", "holds no prompt"),
    ("a.txt", '{"n": "many"}', "line 1 of .*should be a whole number")])
def test_what_is_not_understood_is_said(tmp_path, warnings, name, text, said):
    Path(tmp_path, name).write_text(text)
    with pytest.raises(DataError, match=said):
        read_prompts(str(tmp_path / name))


def test_a_long_list_of_left_out_settings_is_cut(tmp_path, warnings):
    Path(tmp_path, "a.json").write_text(json.dumps([{"prompt": "x", **{f"key{k}": k for k in range(50)}}]))
    read_prompts(str(tmp_path / "a.json"))
    assert warnings[0].endswith("key7 and more")
