"""Models on the Hugging Face Hub, against a server on this machine: uploaded with a card, downloaded within limits."""

import json
import shutil
import sys

import fake_hub
import pytest
import tiny

from diffuse_cli import hub as addresses
from diffuse_cli.config import Export
from diffuse_cli.errors import UsageError
from diffuse_cli.exporting import hub_upload, model_card
from diffuse_cli.files.strict_json import MAX_JSON_BYTES
from diffuse_cli.storage import registry


@pytest.fixture
def hub(tmp_path):
    with fake_hub.fake_hub(str(tmp_path / "hub-cache")) as hub:
        yield hub


@pytest.fixture
def model(trained, home):
    registry_directory = shutil.copytree(trained[0], home / "models" / "tiny")
    registry.set_last("tiny")
    return registry_directory


def _push(command, tmp_path, *options):
    with tiny.scaled_down():
        return command("export", "tiny", "--to", "diffusers", "-o", tmp_path / "out", "--no-verify", "--push",
                       "me/squares", *options)


def test_a_model_goes_to_the_hub_and_comes_back(command, model, hub, tmp_path):
    code, out, err = _push(command, tmp_path, "--license", "cc-by-4.0", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert report["pushed"].endswith("/me/squares")
    assert f"uploaded to {report['pushed']}\n" in err
    uploaded = hub.repositories["me/squares"]
    local = {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes()
             for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert uploaded == local
    assert set(report["files"]) == set(local)

    code, out, err = command("models", "show", "hf://me/squares", "--json")
    assert code == 0, err
    shown = json.loads(out)
    assert shown["training"]["name"] == "tiny"
    assert str(tmp_path / "hub-cache") in shown["path"]
    with tiny.scaled_down():
        code, out, err = command("sample", "-m", "hf://me/squares", "a red square", "-o", tmp_path / "a.png", "-s", "1")
        assert code == 0, err
        command("sample", "-m", "tiny", "a red square", "-o", tmp_path / "b.png", "-s", "1")
    pixels = [_pixels(tmp_path / name) for name in ("a.png", "b.png")]
    assert pixels[0] == pixels[1]
    downloads = [request for request in hub.requests if request.startswith("GET") and "/resolve/" in request]
    assert not [request for request in downloads if "README" in request or ".png" in request]


def _pixels(path):
    from PIL import Image

    with Image.open(path) as image:
        return image.tobytes()


def test_the_card_passes_the_schema_and_has_prompts_samples_and_the_licence(command, model, hub, tmp_path):
    from huggingface_hub import ModelCard, ModelCardData

    code, _, err = _push(command, tmp_path, "--license", "cc-by-4.0")
    assert code == 0, err
    assert len(set(hub.cards)) == 1                                    # the Hub was asked before the upload
    card = ModelCard(hub.cards[0])
    data = ModelCardData(**card.data.to_dict())
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "diffusers", "text-to-image")
    assert data.widget
    files = hub.repositories["me/squares"]
    for example in data.widget:
        assert example["text"].endswith("square")
        assert files[example["output"]["url"]].startswith(b"\x89PNG")
        assert f"]({example['output']['url']})" in card.text
    assert 'from_pretrained("me/squares")' in card.text
    for placeholder in ("path/to", "Not chosen", "unknown", "TODO", "More Information"):
        assert placeholder not in card.content


@pytest.mark.parametrize("text", ['a "red" \\ car: - #1', "tab\t, line\nbreak", "\x7f\x85\u2028\ufeff", "ü ☃ 😀",
                                  "\udc00 half", "{{x}} !!python/object:os.system", "---"])
def test_any_prompt_is_one_text_of_the_widget(text):
    import yaml

    (entry,) = yaml.safe_load(model_card._front_matter("text-to-image", [text], "mit").strip("-"))["widget"]
    assert entry["text"] == text.replace("\udc00", "\ufffd")
    assert entry["output"] == {"url": "samples/1.png"}


def test_a_card_that_the_hub_refuses_uploads_nothing_and_the_export_stays(command, model, hub, tmp_path):
    hub.refusal = '"license" must be one of those'
    code, out, err = _push(command, tmp_path, "--license", "nonsense")
    assert (code, out) == (11, "")
    assert "error: cannot upload to me/squares: " in err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1
    assert hub.repositories["me/squares"] == {}
    assert (tmp_path / "out" / "model_index.json").exists()


@pytest.mark.parametrize("there", [False, True])
def test_what_is_private_goes_to_no_public_repository(command, model, hub, tmp_path, there):
    if there:
        hub.repositories["me/squares"] = {}
    code, _, err = _push(command, tmp_path, "--license", "cc-by-4.0", "--private")
    assert (code, bool(hub.repositories["me/squares"]), "me/squares" in hub.private) == (11 if there else 0, not there,
                                                                                       not there), err
    assert ("me/squares is public, and --private was given: nothing was uploaded" in err) is there


def test_a_push_without_a_licence_is_one_line(command, model, hub, tmp_path):
    code, out, err = _push(command, tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("error: --push publishes the model, and needs its licence. For example: --license mit")
    assert err.count("\n") == 1
    assert hub.requests == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("options", "told"), [
    ({"format": "diffusers", "private": True}, "--private is for --push"),
    ({"format": "onnx", "push": "me/x", "license": "mit"}, "--push is for --to diffusers"),
    ({"format": "safetensors", "license": "mit"}, "--license is for --to diffusers"),
    ({"format": "diffusers", "license": "MIT License: yes"}, "--license takes a name")])
def test_what_cannot_be_pushed_is_refused(options, told):
    with pytest.raises(UsageError, match=told):
        Export(**options)


def test_nothing_is_computed_for_a_push_that_cannot_be(monkeypatch, hub):
    with pytest.raises(UsageError, match="owner/name"):
        hub_upload.check("squares")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UsageError, match="hf auth login"):
        hub_upload.check("me/squares")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=r"diffuse-cli\[hub\]"):
        hub_upload.check("me/squares")


# ── Downloads ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("files", "sizes", "told"), [
    ({"model.safetensors": b"x"}, {"model.safetensors": 2**40}, "the limit is 68,719,476,736 bytes"),
    ({"model_index.json": b"{}"}, {"model_index.json": MAX_JSON_BYTES + 1}, "its model_index.json is 1,048,577 bytes"),
    ({"pytorch_model.bin": b"x", "README.md": b""}, {}, "there is neither model_index.json nor model.safetensors"),
    ({"model.safetensors": b"\x80\x04pickle"}, {}, "never loads pickles"),
    ({"model_index.json": b"[" * 100_000}, {}, "cannot use")])
def test_a_download_has_the_limits_of_every_model_file(command, hub, files, sizes, told):
    hub.repositories["me/evil"], hub.told_sizes = files, sizes
    code, out, err = command("models", "show", "hf://me/evil")
    assert (code, out) == (4, "")
    assert told in err
    assert err.count("\n") == 1
    fetched = [request for request in hub.requests if request.startswith("GET /me/evil/resolve/")]
    assert len(fetched) == ("never" in told or told == "cannot use")   # nothing that is too large is fetched


def test_a_model_file_alone_can_be_on_the_hub_and_is_kept(command, model, hub, monkeypatch):
    hub.repositories["me/tiny"] = {"model.safetensors": (model / "model.safetensors").read_bytes(), "notes.txt": b"x"}
    code, first, err = command("models", "path", "hf://me/tiny@main")
    assert code == 0, err
    monkeypatch.setattr(hub, "answer", lambda *_: (503, {}, b""))      # the Hub is away
    assert command("models", "path", "hf://me/tiny@main")[:2] == (0, first)
    code, _, err = command("models", "path", "hf://me/other")
    assert code == 4
    assert err.startswith("error: cannot get hf://me/other: ")
    assert err.count("\n") == 1


def test_without_the_library_the_remedy_is_named(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, err = command("models", "path", "hf://me/tiny")
    assert (code, err) == (4, "error: hf://me/tiny needs huggingface_hub. pip install 'diffuse-cli[hub]'\n")


@pytest.mark.parametrize(("text", "expected"), [
    ("hf://me/x", ("me/x", None)), ("hf://me/x@v1.0/2", ("me/x", "v1.0/2")), ("hf://me/../x", None), ("me/x", None),
    ("hf://me", None), ("https://me/x", None), ("hf://../x", None), ("hf://me/x?y", None)])
def test_addresses(text, expected):
    assert addresses.parse_address(text) == expected
