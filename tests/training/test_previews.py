"""Previews during a training."""

import pytest
import runs
import tiny

pytestmark = pytest.mark.usefixtures("decoded")


def test_previews_show_the_prompts_that_were_asked_for(trained, squares, home):
    tiny.train(squares, preview_prompt=("a red square", "a blue square"))
    asked, captions = (tuple((directory / "previews").glob("*.png")) for directory in (
        tiny.run_directory(home), trained[0]))
    assert [path.name for path in asked] == [path.name for path in captions] == ["step-00000008.png"]
    assert runs.results(tiny.run_directory(home)) == runs.results(trained[0])          # a preview changes no weight
