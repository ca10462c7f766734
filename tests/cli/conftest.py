"""`diffuse sample` as tests call it."""

import pytest

from diffuse_cli.cli import app, view
from diffuse_cli.engine import registry

QUICK = ("--steps", "2", "--batch-size", "2")


@pytest.fixture
def diffuse(capsys, monkeypatch, tmp_path):
    """Run `diffuse sample …` in an empty directory of its own: (exit code, stdout, stderr)."""
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "absent")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments, quick=True):
        view.start()
        code = app._run(["sample", *(QUICK if quick else ()), *map(str, arguments)])
        return code, *capsys.readouterr()

    yield run
    view.start()


@pytest.fixture
def model(trained):
    return trained[0] / "model.safetensors"
