"""Previews during a training."""

from unittest import mock

import numpy as np
import pytest
import runs
import tiny

from diffuse_cli import config
from diffuse_cli.data.caption_words import count_words
from diffuse_cli.data.split import Split
from diffuse_cli.storage.event_log import read_event_log
from diffuse_cli.training.previews import preview_prompts, prompt_to_try

pytestmark = pytest.mark.usefixtures("decoded")


def test_previews_show_the_prompts_that_were_asked_for(trained, squares, home):
    tiny.train(squares, preview_prompt=("a red square", "a blue square"))
    asked, captions = (tuple((directory / "previews").glob("*.png")) for directory in (
        tiny.run_directory(home), trained[0]))
    assert [path.name for path in asked] == [path.name for path in captions] == ["step-00000008.png"]
    assert read_event_log(tiny.run_directory(home)).started["preview_prompt"] == ["a red square", "a blue square"]
    assert runs.results(tiny.run_directory(home)) == runs.results(trained[0])          # a preview changes no weight


def test_prompts_of_known_words_come_first():
    """Of ten held-out captions, three have a word of no other caption: among them the shortest."""
    words = [("a red square",)] * 90 + [(f"a red square {'square ' * number}",) for number in range(7)] + [
        ("a cat",), ("a dog",), ("fish",)]
    session = mock.Mock(dataset=tiny.dataset(words), split=Split(np.arange(90), np.arange(90, 100)),
                        tokenizer=object(), words=count_words(caption for (caption,) in words[:90]))
    session.run.machine.preview_prompt, session.plan.seed = (), 0
    prompts, count = preview_prompts(session)
    assert (len(prompts), count) == (config.PREVIEW_PICTURES, 1)
    assert set(prompts[:7]) == {caption for (caption,) in words[90:97]}
    assert prompt_to_try(session) == "a red square "
