"""The cookbook: its pictures are there, and it runs from beginning to end."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("run_cookbook", ROOT / "docs/run_cookbook.py")
cookbook = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cookbook)
PAGE = cookbook.PAGE.read_text(encoding="utf-8")
TASKS = cookbook.tasks(PAGE)


def test_every_task_trains_draws_a_sheet_and_has_its_picture():
    assert sorted(TASKS) == list(range(1, 7))
    for number, script in TASKS.items():
        assert "diffuse train " in script
        assert " --sheet " in script
        assert (ROOT / f"docs/pictures/cookbook-{number}.png").stat().st_size < 60_000
        assert f"(pictures/cookbook-{number}.png)" in PAGE
    assert PAGE.count("```") == 2 * len(TASKS), "each task is one block, and nothing else is"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", sorted(TASKS))
def test_a_task_runs_from_beginning_to_end(number, tmp_path_factory):
    """All in one folder, since the last task starts from the model of the first."""
    folder = tmp_path_factory.getbasetemp() / "cookbook"
    folder.mkdir(exist_ok=True)
    script = TASKS[number]
    if missing := [path for path in re.findall(r"/usr/share/[\w./-]+", script) if not Path(path).exists()]:
        pytest.skip(f"not installed: {missing[0]}")
    if number == 6 and not (folder / "models/models/sprites").exists():
        cookbook.run(1, TASKS[1], folder)
    cookbook.run(number, script, folder)
    assert len(list(folder.glob("*/*-sheet.png"))) >= 1
