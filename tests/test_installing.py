"""What is missing is installed where the program runs: not beside the Python of the shell."""

import sys

import pytest

from diffuse_cli import installing


def command_in(prefix, monkeypatch, package):
    """The command that brings a package to the environment at `prefix`."""
    monkeypatch.setattr(sys, "prefix", str(prefix))
    installing.command.cache_clear()
    try:
        return installing.command(package)
    finally:
        installing.command.cache_clear()


@pytest.mark.parametrize(("mark", "package", "expected"), [
    ("", "pillow-heif", "pip install pillow-heif"), ("", "diffuse-cli[onnx]", "pip install 'diffuse-cli[onnx]'"),
    ("pipx_metadata.json", "pillow-heif", "pipx runpip diffuse-cli install pillow-heif"),
    ("pipx_metadata.json", "diffuse-cli[onnx]", "pipx runpip diffuse-cli install 'diffuse-cli[onnx]'"),
    ("uv-receipt.toml", "pillow-heif", "uv tool install diffuse-cli --with pillow-heif"),
    ("uv-receipt.toml", "diffuse-cli[onnx]", "uv tool install 'diffuse-cli[onnx]'")])
def test_the_command_is_that_of_the_program_that_installed_this_one(tmp_path, monkeypatch, mark, package, expected):
    if mark:
        (tmp_path / mark).touch()
    assert command_in(tmp_path, monkeypatch, package) == expected


UV = "[tool]\nrequirements = [{requirements}]\n"


@pytest.mark.parametrize(("requirements", "package", "expected"), [
    ('{ name = "diffuse-cli", extras = ["parquet"] }, { name = "pillow-heif" }', "diffuse-cli[onnx]",
     "uv tool install 'diffuse-cli[onnx,parquet]' --with pillow-heif"),
    ('{ name = "diffuse-cli", extras = ["parquet"] }', "tqdm",
     "uv tool install 'diffuse-cli[parquet]' --with tqdm"),
    ('{ name = "diffuse-cli" }, { name = "tqdm", specifier = ">=4" }', "tqdm",
     "uv tool install diffuse-cli --with tqdm"),
    ('{ name = "diffuse-cli", directory = "/home/ada/my clone" }', "tqdm",
     "uv tool install '/home/ada/my clone' --with tqdm"),
    ('{ name = "diffuse-cli", editable = "/home/ada/clone" }', "diffuse-cli[hub]",
     "uv tool install '/home/ada/clone[hub]'")])
def test_what_uv_installed_before_is_named_again_because_uv_would_remove_it(
        tmp_path, monkeypatch, requirements, package, expected):
    (tmp_path / "uv-receipt.toml").write_text(UV.format(requirements=requirements), encoding="utf-8")
    assert command_in(tmp_path, monkeypatch, package) == expected
