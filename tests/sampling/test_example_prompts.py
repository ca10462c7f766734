"""Prompts with which a model is shown, when nobody named any."""

import json

from diffuse_cli.sampling.example_prompts import DEMO_PROMPTS, example_prompts
from diffuse_cli.storage import model_info, registry


def test_the_prompts_of_a_preview_come_first_then_demo_scenes_then_frequent_words(tmp_path):
    demo = dict.fromkeys(" ".join(DEMO_PROMPTS).split(), 1)
    assert example_prompts(demo, tmp_path, count=2) == list(DEMO_PROMPTS[:2])
    assert example_prompts({"a": 9, "cat": 1, "dog": 2}, tmp_path, count=6) == ["dog", "cat"]
    assert example_prompts({}, tmp_path, count=6) == [""]
    event = {"schema": 1, "event": "previewed", "step": 1, "path": "x", "prompts": ["a dog", "a dog"]}
    (tmp_path / "events.jsonl").write_text(json.dumps(event) + "\n")
    assert example_prompts(demo, tmp_path, count=6) == ["a dog"]


def test_the_bundled_models_are_shown_with_whole_prompts():
    for name in ("demo", "demo-fast"):
        path = registry.resolve(name)
        assert example_prompts(model_info.read_model_info(path).words, path.parent, count=6) == list(DEMO_PROMPTS)
