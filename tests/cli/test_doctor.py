"""`diffuse doctor`: it says what is there and what is missing, and never fails for what it finds."""

import builtins
import importlib.metadata
import json

from diffuse_cli import __version__


def test_it_says_what_is_there(command, home):
    (home / "images").mkdir(parents=True)
    (home / "images" / "x").write_bytes(bytes(3_000_000))
    code, out, _ = command("doctor")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert (code, lines["diffuse-cli"], lines["directory"]) == (0, __version__, str(home))
    assert lines["cache"].startswith("3 MB")
    assert lines["terminal"].startswith("plain lines")
    assert "torch" in lines
    assert not (home / "models").exists()                              # it changes nothing


def test_json_holds_the_same(command, home):
    _, out, _ = command("doctor", "--json")
    found = json.loads(out)
    assert found["schema"] == 1
    assert found["home"]["path"] == str(home)
    assert set(found["extras"]) == {"hub", "onnx", "parquet", "tensorboard", "wandb"}


def test_what_is_missing_is_named_with_its_command(command, monkeypatch):
    def version(package: str) -> str:
        if package in ("wandb", "onnxruntime"):
            raise importlib.metadata.PackageNotFoundError
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    _, out, _ = command("doctor")
    assert "extra wandb        needs wandb: pip install 'diffuse-cli[wandb]'" in out
    assert "extra onnx         needs onnxruntime: pip install 'diffuse-cli[onnx]'" in out
    assert "extra tensorboard  installed" in out


def test_a_broken_torch_and_home_are_told_and_are_no_failure(command, monkeypatch):
    real = builtins.__import__

    def broken(name, *arguments, **keywords):
        if name == "torch":
            raise OSError("libcudart.so is missing")
        return real(name, *arguments, **keywords)

    monkeypatch.setenv("DIFFUSE_HOME", "relative")
    monkeypatch.setattr(builtins, "__import__", broken)
    code, out, _ = command("doctor")
    assert code == 0
    assert "none can be used: libcudart.so is missing" in out
    assert "cannot be used: DIFFUSE_HOME is not an absolute path" in out
