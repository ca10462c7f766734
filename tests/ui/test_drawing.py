"""What is drawn for the page: the files of `diffuse sample`, by the command that the page copies."""

import base64
import io
import json
import os
import shlex
import shutil
import socket
import struct
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from page_client import pictures_in, served
from PIL import Image

from diffuse_cli.errors import ModelError
from diffuse_cli.pictures.image_files import encode
from diffuse_cli.pictures.pixels import to_pixels
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import registry
from diffuse_cli.storage.model_info import read_model_info
from diffuse_cli.ui import drawing as drawings
from diffuse_cli.ui.drawing import Drawing, Queue
from diffuse_cli.ui.form import Form


def _told(drawing: Drawing) -> list[dict[str, object]]:
    """What the page is told of a drawing, so far."""
    return [drawing.messages.get() for _ in range(drawing.messages.qsize())]


def _photo(path: Path) -> bytes:
    """A picture that must be cropped, turned upright and shrunk."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)).resize((70, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, quality=95, exif=exif)
    return path.read_bytes()


@pytest.mark.parametrize("form", [
    {"prompt": "a red square", "count": 2},
    {"seed": str(2**63 - 100), "steps": 2},
    {"prompt": "--steps 'quoted' \"twice\" $HOME `id` \\ ; é ☃\nsecond line", "negative": "-blue", "steps": 2},
    {"prompt": "-h", "seed": "2", "negative": "a blue square", "sampler": "ddpm", "steps": 3, "guidance": 1.7,
     "guidance_interval": [0.1, 2.5], "batch_size": 2, "precision": "bf16", "count": 3},
    {"prompt": "a red square", "seed": "5", "sampler": "heun", "steps": 2, "guidance": 1 / 3}])
def test_the_pictures_are_the_files_of_the_copied_command(client, command, tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    messages = client.draw(**form)
    assert "error" not in messages[-2]
    program, *words = shlex.split(messages[0]["command"])
    code, out, _ = command(*words)
    assert (program, code) == ("diffuse", 0)
    files = [Path(line).read_bytes() for line in out.splitlines()]
    assert len(files) == form.get("count", 1)
    assert pictures_in(messages) == files
    names = [f"{number:05d}-{message['name']}" for number, message in enumerate(
        message for message in messages if "picture" in message)]
    assert names == [os.path.basename(line) for line in out.splitlines()]


@pytest.mark.parametrize(("form", "options"), [
    ({}, ""), ({"sampler": "dpmpp-2m", "steps": 20, "guidance": 3, "batch_size": 8, "precision": "fp32"}, ""),
    ({"sampler": "ddim", "steps": 40}, " --sampler ddim"), ({"steps": 40}, " --steps 40"),
    ({"guidance_interval": [0.2, 0.75]}, ""), ({"guidance_interval": [0.2, 6]}, " --guidance-interval 0.2 6"),
    ({"guidance": 0.1 + 0.2}, " --guidance 0.30000000000000004"), ({"negative": "a b"}, " --negative 'a b'")])
def test_the_command_has_no_option_that_changes_nothing(client, form, options):
    model = read_model_info(registry.resolve("tiny"))
    values = Form.read(json.dumps({"model": "tiny", "seed": "1", "prompt": "it's", **form}).encode())
    command = values.command(values.request(model), model.config)
    assert command == f"""diffuse sample 'it'"'"'s' -m tiny -n 1 -s 1{options}"""


@pytest.mark.parametrize(("strength", "mask"), [(None, False), (0.3, False), (0.75, False), (None, True), (0.9, True)])
def test_a_picture_to_start_from_is_that_of_the_command(client, command, tmp_path, monkeypatch, strength, mask):
    """The page sends the square that it shows; the command reads the photo itself."""
    monkeypatch.chdir(tmp_path)
    photo = _photo(tmp_path / "a photo.jpg")
    status, square = client.ask("POST", "fitted?model=tiny", photo)
    assert (status, Image.open(io.BytesIO(square)).size) == (200, (8, 8))
    form = {"init": base64.b64encode(square).decode(), "init_name": "a photo.jpg", "strength": strength, "steps": 2}
    if mask:
        painted = np.zeros((8, 8, 3), np.uint8)
        painted[2:5, 1:6] = 255
        Path("mask.png").write_bytes(encode(painted))
        form["mask"] = base64.b64encode(encode(painted)).decode()
    messages = client.draw(prompt="a red square", seed="3", batch_size=2, count=2, **form)
    words = shlex.split(messages[0]["command"])[1:]
    assert ("--strength" in words) == (strength is not None and strength != (1 if mask else 0.75))
    code, out, _ = command(*words)
    assert code == 0
    assert pictures_in(messages) == [Path(line).read_bytes() for line in out.splitlines()]
    with Image.open(out.splitlines()[0]) as image:
        assert ("mask_sha256" in json.loads(image.text["diffuse"])) == mask


def test_the_larger_size_of_a_model_with_an_upscaler(cascade, home, command, tmp_path, monkeypatch):
    """It is one choice of the page, and the picture is that of `sample --size`; the file brings the choice back."""
    monkeypatch.chdir(tmp_path)
    cascade.copy(home, "tiny", "tiny-x2")
    with served("tiny") as client:
        offered = {model["name"]: model["larger"] for model in client.get_json("options")["models"]}
        assert (offered["tiny"], "tiny-x2" in offered) == (["16x16", "32x32"], False)
        messages = client.draw(prompt="a red square", seed="5", steps=2, count=2, size="16x16")
        _, body = client.ask("POST", "settings", pictures_in(messages)[0])
        status, line = client.ask("POST", "draw", json.dumps({"model": "tiny", "size": "24x24"}).encode())
    assert (status, line.decode().startswith("this model cannot draw pictures of 24x24 px")) == (400, True)
    assert json.loads(body)["values"]["size"] == "16x16"
    words = shlex.split(messages[0]["command"])[1:]
    assert words[words.index("--size") + 1] == "16x16"
    code, out, _ = command(*words)
    assert code == 0
    assert pictures_in(messages) == [Path(line).read_bytes() for line in out.splitlines()]
    assert Image.open(io.BytesIO(pictures_in(messages)[0])).size == (16, 16)


def test_the_denoising_is_shown_as_it_happens(client):
    messages = client.draw(prompt="a red square", count=11, sampler="ddim", steps=6, seed="1")
    kinds = [next(kind for kind in ("command", "loading", "note", "estimates", "picture", "done", "end")
                  if kind in message) for message in messages]
    assert (kinds[0], kinds[-1], kinds.count("picture")) == ("command", "end", 11)
    firsts = [(message["first"], len(message["estimates"])) for message in messages if "estimates" in message]
    assert set(firsts) <= {(0, 8), (8, 3)}                             # two batches, without what only fills them up
    assert kinds.index("estimates") < kinds.index("picture")
    for message in messages:
        for estimate in message.get("estimates", ()):
            assert Image.open(io.BytesIO(base64.b64decode(estimate))).size == (8, 8)
    done = [message["done"] for message in messages if "done" in message]
    assert done == sorted(done)
    assert (len(done), done[-1]) == (12, 11)


def test_the_last_estimate_is_the_picture(client):
    """What is shown are the estimates of the very pictures, in their order."""
    model = Queue()._model(registry.resolve("tiny"))
    seen: list[np.ndarray] = []
    samples = list(generate.generate(model, [SampleRequest(prompt="a red square", count=3, seed=1)],
                                     watch=lambda estimates: seen.append(to_pixels(estimates))))
    assert len(seen) == samples[0].request.sampling.number_of_steps
    assert np.array_equal(seen[-1], np.stack([sample.pixels for sample in samples]))
    assert not np.array_equal(seen[0], seen[-1])


def test_remarks_of_the_command_are_made_in_the_page_too(client, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    messages = client.draw(prompt="a zebra square", seed="1")
    notes = [message["note"] for message in messages if "note" in message]
    assert notes == ["the model has never seen the word 'zebra'"]
    _, _, err = command(*shlex.split(messages[0]["command"])[1:])
    assert f"warning: {notes[0]}" in err


# ── The queue ───────────────────────────────────────────────────────────────────────────────────────────────────────


class _Endless:
    """In the place of `generate`: one drawing that goes on until it is cancelled, and all later ones as they are."""

    def __init__(self, monkeypatch) -> None:
        self.original, self.started, self.ended, self.count = generate.generate, threading.Event(), False, 0
        monkeypatch.setattr(generate, "generate", self)

    def __call__(self, model, requests, *, enlarge, watch, progress):
        self.count += 1
        if self.count > 1:
            yield from self.original(model, requests, enlarge=enlarge, watch=watch, progress=progress)
            return
        self.started.set()
        try:
            while True:
                watch(torch.zeros(1, 3, 8, 8))
                time.sleep(0.01)
        finally:
            self.ended = True


def _leave(answer) -> None:
    """End a connection as a browser does that is closed: what comes is not read."""
    sock = answer.fp.raw._sock
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    answer.close()


def test_one_is_drawn_at_a_time_and_a_browser_that_leaves_cancels_it(client, monkeypatch):
    endless = _Endless(monkeypatch)
    body = json.dumps({"model": "tiny", "prompt": "a red square"}).encode()
    first = client.open("POST", "draw", body)
    assert endless.started.wait(60)
    waiting = [client.open("POST", "draw", body) for _ in range(drawings.MAX_WAITING)]
    status, line = client.ask("POST", "draw", body)
    assert (status, line.decode()) == (400, "8 drawings wait already. Try again when one of them is finished")
    assert endless.count == 1
    for answer in waiting[2:]:
        _leave(answer)
    _leave(first)
    for answer in waiting[:2]:
        messages = [json.loads(line) for line in answer.read().splitlines()]
        assert len(pictures_in(messages)) == 1
        assert messages[-1] == {"end": True}
    assert endless.ended


def test_a_model_that_is_trained_again_is_loaded_again(client, squares):
    queue = Queue()
    path = registry.resolve("tiny")
    model = queue._model(path)
    assert queue._model(path) is model
    os.utime(path, (1, 1))
    assert queue._model(path) is not model
    path.unlink()
    with pytest.raises(ModelError, match="the file of the model is gone"):
        queue._model(path)


def test_errors_are_told_and_unforeseen_ones_end_the_program_as_well(client, monkeypatch):
    monkeypatch.setattr(generate, "generate", mock.Mock(side_effect=ModelError("it is odd", hint="Go")))
    assert client.draw()[-2:] == [{"error": "it is odd. Go"}, {"end": True}]
    monkeypatch.setattr(generate, "generate", mock.Mock(side_effect=ZeroDivisionError))
    queue, path = Queue(), registry.resolve("tiny")
    drawing = Drawing(path, read_model_info(path).config, SampleRequest())
    queue.add(drawing)
    with pytest.raises(ZeroDivisionError):
        queue.work(path)
    messages = _told(drawing)
    assert [message for message in messages if "error" in message] == [
        {"error": "an unforeseen error ended the program; the terminal says more"}]
    assert messages[-1] == {"end": True}


@pytest.mark.parametrize("name", ["foundation-nano-32", "demo-fast"])
def test_a_drawing_is_refused_if_another_model_took_the_place_of_its_file(client, name):
    """The request was judged, and its picture fitted, for the former one."""
    path = registry.resolve("tiny")
    info = read_model_info(path)
    picture = base64.b64encode(encode(np.zeros((8, 8, 3), np.uint8))).decode()
    drawing, queue = Drawing(path, info.config, Form(model="tiny", init=picture, steps=2).request(info)), Queue()
    shutil.copy(registry.resolve(name), path)
    queue.add(drawing)
    queue.fail(EOFError())
    with pytest.raises(EOFError):
        queue.work(path)
    messages = _told(drawing)
    assert messages[1:] == [
        {"error": "the model became another one while the drawing waited. Load the page again"}, {"end": True}]


def test_a_drawing_that_ctrl_c_ends_is_told_so(client, monkeypatch):
    monkeypatch.setattr(generate, "generate", mock.Mock(side_effect=KeyboardInterrupt))
    queue, path = Queue(), registry.resolve("tiny")
    drawing = Drawing(path, read_model_info(path).config, SampleRequest())
    queue.add(drawing)
    with pytest.raises(KeyboardInterrupt):
        queue.work(path)
    messages = _told(drawing)
    assert messages[-2:] == [{"error": "the program was ended in the terminal"}, {"end": True}]


# ── Settings of a picture ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_of_ours_fills_the_form_and_is_drawn_again(client):
    form = {"prompt": "a red square", "negative": "a blue square", "seed": str(2**60 + 1), "sampler": "ddpm",
            "steps": 3, "guidance": 1.7, "guidance_interval": [0.1, 2.5], "batch_size": 2, "count": 2}
    second = pictures_in(client.draw(**form))[1]
    status, body = client.ask("POST", "settings", second)
    settings = json.loads(body)
    assert (status, settings["notes"]) == (200, [])
    assert settings["values"] == {**form, "count": 1, "seed": str(2**60 + 2), "model": "tiny", "precision": "fp32"}
    assert pictures_in(client.draw(**settings["values"])) == [second]


def test_what_a_picture_lacks_is_said(client, home, tmp_path):
    square = base64.b64encode(encode(np.zeros((8, 8, 3), np.uint8))).decode()
    drawn = pictures_in(client.draw(prompt="a red square", init=square, mask=square, strength=0.5))[0]
    settings = json.loads(client.ask("POST", "settings", drawn)[1])
    assert settings["values"]["strength"] == 0.5
    assert settings["notes"] == ["It was drawn from another picture and a mask, which must be given again."]
    shutil.rmtree(home / "models" / "tiny")
    settings = json.loads(client.ask("POST", "settings", drawn)[1])
    assert "model" not in settings["values"]
    assert settings["notes"][0] == "The model that drew it, 'tiny', is not here; another one draws another picture."


def test_pictures_of_other_programs_are_read_as_far_as_they_go(client):
    text = "a red square\nNegative prompt: blue\nSteps: 12, Sampler: DDIM, CFG scale: 4, Seed: 5, Size: 64x64"
    settings = json.loads(client.ask("POST", "settings", encode(np.zeros((8, 8, 3), np.uint8),
                                                                texts={"parameters": text}))[1])
    assert settings["values"] == {"prompt": "a red square", "negative": "blue", "count": 1, "seed": "5", "steps": 12,
                                  "sampler": "ddim", "guidance": 4.0}
    assert settings["notes"] == ["The picture was made by another program; this model draws another one.",
                                 "Without counterpart here: Size 64x64."] or "Size" in settings["notes"][1]


def test_what_holds_no_settings_is_refused_without_naming_temporary_files(client, tmp_path):
    for picture in (_photo(tmp_path / "x.jpg"), encode(np.zeros((8, 8, 3), np.uint8)), b"", b"\x89PNG\r\n\x1a\nno"):
        status, line = client.ask("POST", "settings", picture)
        assert status == 400
        assert line.startswith(b"the picture holds no sampling settings")
    status, line = client.ask("POST", "fitted?model=tiny", b"no picture")
    assert status == 400
    assert line.startswith(b"the picture cannot be used: ")
