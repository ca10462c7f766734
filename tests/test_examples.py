"""The notebooks in examples/: what they run is there, what they show is small, and they run from beginning to end."""

import ast
import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

import diffuse_cli
from diffuse_cli.cli import app

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
MAX_BYTES = 300_000

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [{**cell, "source": "".join(cell["source"])} for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_code_uses_what_is_public(path):
    for cell in cells(path, "code"):
        lines = cell["source"].splitlines()
        for command in (line.removeprefix("!diffuse ") for line in lines if line.startswith("!")):
            name, *words = shlex.split(command)
            inner = app._command().commands[name]
            if hasattr(inner, "commands"):
                inner = inner.commands[words.pop(0)]
            inner.make_context(None, words)
        tree = ast.parse("\n".join(line for line in lines if not line.startswith("!")))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffuse_cli"):
                assert node.module == "diffuse_cli"
                assert {alias.name for alias in node.names} <= set(diffuse_cli.__all__)
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_")


def test_outputs_are_there_and_small(path):
    assert path.stat().st_size < MAX_BYTES
    assert any(cell["outputs"] for cell in cells(path, "code"))
    for cell in cells(path, "code"):
        assert not [output for output in cell["outputs"] if output["output_type"] == "error"]
        assert not re.search(r"/(tmp|home|root)/", json.dumps(cell["outputs"]))


def test_links_lead_somewhere(path):
    targets = [target for cell in cells(path, "markdown") for target in re.findall(r"\]\(([^)\s]+)\)", cell["source"])]
    assert targets
    assert [target for target in targets if "://" not in target and not (FOLDER / target).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_notebooks_run(path, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=3000, kernel_name="python3",
                            resources={"metadata": {"path": str(tmp_path)}}).execute()
