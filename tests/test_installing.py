"""What is missing is installed where the program runs: not beside the Python of the shell."""

import sys

import pytest

from diffuse_cli import installing


@pytest.mark.parametrize(("mark", "package", "expected"), [
    ("", "pillow-heif", "pip install pillow-heif"), ("", "diffuse-cli[onnx]", "pip install 'diffuse-cli[onnx]'"),
    ("pipx_metadata.json", "pillow-heif", "pipx runpip diffuse-cli install pillow-heif"),
    ("pipx_metadata.json", "diffuse-cli[onnx]", "pipx runpip diffuse-cli install 'diffuse-cli[onnx]'"),
    ("uv-receipt.toml", "pillow-heif", "uv tool install diffuse-cli --with pillow-heif"),
    ("uv-receipt.toml", "diffuse-cli[onnx]", "uv tool install 'diffuse-cli[onnx]'")])
def test_the_command_is_that_of_the_program_that_installed_this_one(tmp_path, monkeypatch, mark, package, expected):
    if mark:
        (tmp_path / mark).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    installing.command.cache_clear()
    try:
        assert installing.command(package) == expected
    finally:
        installing.command.cache_clear()
