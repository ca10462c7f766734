"""`diffuse sample` as tests call it."""

import pytest

from diffuse_cli.storage import registry

QUICK = ("--steps", "2", "--batch-size", "2")


@pytest.fixture
def diffuse(command, monkeypatch, tmp_path):
    """Run `diffuse sample …` in an empty directory of its own: (exit code, stdout, stderr)."""
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "absent")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    return lambda *arguments, quick=True: command("sample", *(QUICK if quick else ()), *arguments)


@pytest.fixture
def model(trained):
    return trained[0] / "model.safetensors"
