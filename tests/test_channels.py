"""Models of grey pictures, and of transparent ones, in every command: what is read, learnt, shown, drawn, measured and
exported has their channels.
"""

import base64
import dataclasses
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import browser as browsers
import numpy as np
import page_client
import pytest
import tiny
import torch
from PIL import Image

from diffuse_cli import api, events
from diffuse_cli.config import Recipe
from diffuse_cli.errors import DataError, UsageError
from diffuse_cli.evaluation import encoder
from diffuse_cli.exporting import diffusers_comparison
from diffuse_cli.pictures import sheets
from diffuse_cli.reporting import report
from diffuse_cli.storage import checkpoint, registry
from diffuse_cli.training import start

CPU = torch.device("cpu")
OPTIONS = {"save_every": "1", "preview_every": "50%"}
SAMPLE = ("sample", "a red square", "-m", "tiny", "--steps", "2")


@dataclasses.dataclass(frozen=True)
class Kind:
    """What pictures of a kind have: channels, and so the mode of their PNG and how they are called."""

    channels: int
    mode: str
    called: str

    @property
    def recipe(self) -> Recipe:
        """That of a training of two steps on pictures of this kind."""
        return Recipe(resolution=8, preset="nano", steps=2, batch_size=4,
                      background="none" if "A" in self.mode else "white")

    @property
    def options(self) -> tuple[str, ...]:
        return ("--background", "none") if "A" in self.mode else ()

    def draw(self, folder: Path, count: int = 40) -> Path:
        """Captioned squares of 16 pixels on a ground, which may be transparent and hide magenta."""
        tiny.draw_squares(folder, count)
        for path in folder.glob("*.png"):
            with Image.open(path) as image:
                picture = image.convert("RGB" if "RGB" in self.mode else "L").convert("RGBA")
            if "A" in self.mode:
                alpha = Image.new("L", picture.size)
                alpha.paste(255, (3, 3, 13, 11))
                picture = Image.composite(picture, Image.new("RGBA", picture.size, (255, 0, 255, 0)), alpha)
            picture.save(path)
        return folder


KINDS = {"alpha": Kind(4, "RGBA", "RGBA"), "grey": Kind(1, "L", "grey"), "grey alpha": Kind(2, "LA", "grey with alpha")}


@pytest.fixture(scope="module", params=["alpha", "grey", pytest.param("grey alpha", marks=pytest.mark.slow)])
def kind(request) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def trained(kind, tmp_path_factory) -> tiny.Trained:
    directory = tmp_path_factory.mktemp("channels")
    return tiny.trained(kind.draw(directory / "squares"), directory / "home", kind.recipe, **OPTIONS)


@pytest.fixture
def diffuse(command, trained):
    return tiny.runner(command, trained.home)


def opened(path, mode=None):
    """The pixels of a picture file, (H, W, C), which has the mode, if one is given."""
    with Image.open(path) as image:
        assert mode in (None, image.mode)
        return np.atleast_3d(np.array(image))


def is_grey(pixels):
    return (pixels[..., :3] == pixels[..., :1]).all()


# ── Data and training ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_pictures_are_told_before_and_shown(diffuse, trained, kind, tmp_path):
    said = diffuse("data", "check", trained.pictures, *kind.options)
    assert f"colours: {kind.called} — " in said
    report_of_check = json.loads(diffuse("data", "check", trained.pictures, *kind.options, "--json", "-q"))
    assert report_of_check["colours"] == kind.called
    diffuse("data", "preview", trained.pictures, *kind.options, "--resolution", "16", "-o", tmp_path / "x.png")
    sheet = opened(tmp_path / "x.png", "RGB")
    assert is_grey(sheet) == (kind.mode[0] == "L")
    assert not (sheet == (255, 0, 255)).all(-1).any()
    assert dict(tiny.of_kind(events.Started, trained.events)[0].facts)["colours"].startswith(kind.called)


def test_the_model_has_the_channels_and_says_so(diffuse, trained, kind):
    model = checkpoint.load_model(trained.model, CPU)
    assert model.config.network.channels == kind.channels
    assert model.config.network.out_channels == 2 * kind.channels
    assert f"pixels, {kind.called}\n" in diffuse("models", "show", "tiny")
    diffuse("models", "verify", "tiny")


def test_a_resumed_training_ends_as_one_that_was_not_stopped(trained, kind, tmp_path):
    with tiny.at_home(tmp_path):
        tiny.train(trained.pictures, kind.recipe, stop_at=1, **OPTIONS)
        tiny.train(trained.pictures, kind.recipe, **OPTIONS)
    assert (tiny.run_directory(tmp_path) / registry.MODEL_FILE).read_bytes() == trained.model.read_bytes()


def test_a_run_of_grey_pictures_loses_no_colours_that_come_later(diffuse, trained, kind, tmp_path):
    home, folder = tmp_path / "home", tmp_path / "squares"
    shutil.copytree(trained.pictures, folder)
    with tiny.at_home(home):
        tiny.train(folder, kind.recipe, stop_at=1, **OPTIONS)
        (folder / "000.png").write_bytes((KINDS["alpha"].draw(tmp_path / "other", 1) / "000.png").read_bytes())
        if kind.mode[0] == "L":
            with pytest.raises(DataError, match=r"draws grey pictures, and those in .* have colours now"):
                tiny.train(folder, kind.recipe, accept_changes=True, **OPTIONS)
        else:
            tiny.train(folder, kind.recipe, accept_changes=True, **OPTIONS)


def test_previews_and_report_show_them(trained, kind):
    strip = sheets.read_strip(sorted((trained.run / "previews").glob("*.png"))[-1])
    assert strip.shape[1:] == (8, 8, 3)
    assert is_grey(strip) == (kind.mode[0] == "L")
    with tiny.at_home(trained.home):
        page = report.build(trained.run).decode()
        found = [tiny.size_of(io.BytesIO(base64.b64decode(data)))
                 for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)]
        assert found.count((8, 8)) >= len(strip)


def test_a_student_has_the_channels(diffuse, trained, kind, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(trained.home, home)
    diffuse("distill", "tiny", "--steps", "1", "--batch-size", "4", "--device", "cpu", "--name", "student",
            "--preview-every", "100%", home=home)
    student = checkpoint.load_model(tiny.run_directory(home, "student") / registry.MODEL_FILE, CPU)
    assert student.config.network.channels == kind.channels


# ── Sampling ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_samples_sheets_and_animations(diffuse, trained, kind, tmp_path):
    out, mode = tmp_path / "out", kind.mode
    diffuse(*SAMPLE, "-n", "2", "-s", "1", "--grid", "--sheet", "--animate", "--preview", "-o", out)
    files = {path.name: path for path in out.iterdir()}
    single = [path for name, path in files.items() if name.endswith("square.png")]
    assert len(single) == 2
    for path in single:
        opened(path, mode)
    others = [path for path in files.values() if path not in single]
    assert len(others) == 3
    if mode == "L":
        assert all(is_grey(opened(path, "RGB")) for path in others if path.suffix == ".png")
    if mode == "RGBA":
        transparent = opened(single[0], mode)[..., 3] < 255
        assert transparent.any()
    for suffix in ("jpg", "webp"):
        diffuse(*SAMPLE, "-o", tmp_path / f"one.{suffix}")
    assert opened(tmp_path / "one.jpg").shape[2] == (1 if mode == "L" else 3)
    assert opened(tmp_path / "one.webp").shape[2] == (4 if "A" in mode else 3)


def test_the_text_in_a_png_draws_it_again(diffuse, trained, tmp_path):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    diffuse(*SAMPLE, "-s", "5", "-o", first)
    diffuse("sample", "--from", first, "-o", second)
    assert np.array_equal(opened(first), opened(second))


@pytest.mark.parametrize("given", ["RGBA", "RGB", "LA", "L"])
def test_pictures_to_start_from(diffuse, trained, kind, tmp_path, given):
    """Where the mask is black, the picture stays: grey by its brightness, or with its alpha, or opaque."""
    whole = np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8)
    whole[..., 3] = np.maximum(whole[..., 3], 8)                        # a colour that is nearly hidden does not stay
    given_picture = Image.fromarray(whole).convert(given)
    given_picture.save(tmp_path / "init.png")
    half = np.zeros((8, 8), np.uint8)
    half[:, 4:] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    diffuse(*SAMPLE, "--init", tmp_path / "init.png", "--mask", tmp_path / "mask.png", "-o", tmp_path / "out.png")
    drawn, mode = opened(tmp_path / "out.png", kind.mode), kind.mode
    if "A" not in mode and "A" in given:
        ground = Image.new("RGBA", (8, 8), "white")
        given_picture = Image.alpha_composite(ground, given_picture.convert("RGBA"))
    expected = np.atleast_3d(np.array(given_picture.convert("RGBA").convert(mode)))
    assert abs(drawn[:, :4].astype(int) - expected[:, :4]).max() <= 1
    assert (drawn[:, 4:] != expected[:, 4:]).any()


def test_python_draws_them(trained, kind):
    with tiny.at_home(trained.home):
        model = api.load("tiny", device="cpu")
        pictures = model.sample("a red square", n=2, steps=2, seed=0)
        assert pictures[0].mode == kind.mode
        assert pictures._repr_png_().startswith(b"\x89PNG")
        (changed,) = model.sample("a red square", steps=2, seed=0, init=Image.new("RGB", (9, 9), "red"))
        assert changed.mode == kind.mode


def test_the_page_to_draw_with(trained, kind):
    with tiny.at_home(trained.home), page_client.served("tiny") as client:
        (picture,) = page_client.pictures_in(client.draw(prompt="a red square", count=1, seed="0", steps=2))
        opened(io.BytesIO(picture), kind.mode)


def test_noise_demo(diffuse, trained, kind, tmp_path):
    for number, image in enumerate(((), (trained.pictures / "000.png",))):
        diffuse("noise-demo", *image, "-m", "tiny", "-n", "2", "-o", tmp_path / f"{number}.png")
        assert is_grey(opened(tmp_path / f"{number}.png", "RGB")) == (kind.mode[0] == "L")


# ── Evaluation and export ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_is_evaluated(diffuse, trained, kind):
    with mock.patch.object(encoder, "STEPS", 2):
        result = json.loads(diffuse("evaluate", "tiny", "-n", "10", "--device", "cpu", "--json", "-q"))
    assert result["distances"]["features"].endswith("on a grey ground") == ("A" in kind.mode)
    assert result["memorisation"]["verdict"]


@pytest.mark.slow
def test_a_model_is_evaluated_on_other_pictures_and_compared(diffuse, trained, kind, tmp_path):
    other = tiny.draw_squares(tmp_path / "of colours")
    with mock.patch.object(encoder, "STEPS", 2):
        output = diffuse("evaluate", "tiny", other, "-n", "4", "--device", "cpu", "--json")
    assert json.loads(next(line for line in output.splitlines() if line.startswith("{")))["distances"] is not None
    assert ("have colours, of which it is measured on the green ones" in output) == (kind.mode[0] == "L")
    diffuse("models", "compare", "tiny", "demo", "-o", tmp_path / "page.html")


def test_files_and_folders_of_exports(diffuse, trained, kind, tmp_path):
    diffuse("export", "tiny", "--to", "safetensors", "-o", tmp_path / "slim.safetensors")
    diffuse("export", "tiny", "--to", "diffusers", "-o", tmp_path / "stock")
    for path in (tmp_path / "slim.safetensors", tmp_path / "stock/model_index.json"):
        assert checkpoint.load_model(path, CPU).config.network.channels == kind.channels
        diffuse("sample", "a red square", "-m", path, "--steps", "2", "-o", tmp_path / f"{path.stem}.png")
        opened(tmp_path / f"{path.stem}.png", kind.mode)
    opened(next((tmp_path / "stock").glob("*/1.png")), kind.mode)
    compared = [entry["what"] for entry in json.loads((tmp_path / "stock/export.json").read_text())["comparisons"]]
    assert "diffusers: pixels of the pipeline's pictures" in compared or not diffusers_comparison.versions()


@pytest.mark.slow
@pytest.mark.parametrize("conditional", [True, False])
def test_stock_pipelines_draw_them(diffuse, trained, kind, tmp_path, conditional):
    diffusers = pytest.importorskip("diffusers")
    home, more = trained.home, {"prompt": ["a red square"], "clean_caption": False}
    if not conditional:
        home, more = tmp_path / "home", {}
        with tiny.at_home(home):
            tiny.train(trained.pictures, dataclasses.replace(kind.recipe, captions="none", steps=1))
    diffuse("export", "tiny", "--to", "diffusers", "-o", tmp_path / "stock", home=home)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(tmp_path / "stock"))
    (picture,) = pipeline(num_inference_steps=2, **more).images
    assert picture.mode == kind.mode


@pytest.mark.slow
def test_an_onnx_folder_draws_them(diffuse, trained, kind, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    diffuse("export", "tiny", "--to", "onnx", "-o", tmp_path / "onnx")
    subprocess.run([sys.executable, tmp_path / "onnx/sample.py", "a red square", "--steps", "2", "-o",
                    tmp_path / "out"], check=True, capture_output=True)
    (path,) = (tmp_path / "out").iterdir()
    diffuse(*SAMPLE, "-s", "0", "-o", tmp_path / "ours.png")
    ours = opened(tmp_path / "ours.png", kind.mode)
    assert abs(opened(path, kind.mode).astype(int) - ours).max() <= 1


@pytest.mark.slow
@pytest.mark.skipif(browsers.CHROMIUM is None, reason="needs Chromium")
def test_a_web_page_draws_them(diffuse, trained, tmp_path):
    diffuse("export", "tiny", "--to", "web", "-o", tmp_path / "page.html")
    with browsers.opened(tmp_path / "profile") as browser:
        browser.show(f"{(tmp_path / 'page.html').as_uri()}#prompt=a+red+square&seed=0&count=1&steps=2")
        browser.wait_for("/pictures? in/.test(document.getElementById('status')?.textContent)")
        values = browser.run(
            "Array.from(document.querySelector('canvas').getContext('2d').getImageData(0, 0, 8, 8).data)")
    shown = np.array(values).reshape(8, 8, 4)
    diffuse(*SAMPLE, "-s", "0", "-o", tmp_path / "ours.png")
    with Image.open(tmp_path / "ours.png") as ours:
        expected = np.array(ours.convert("RGBA")).astype(int)
    assert abs(shown[..., 3] - expected[..., 3]).max() <= 2
    seen = expected[..., 3:] / 255                                      # a canvas keeps colours multiplied by alpha
    assert (abs(shown - expected) * seen).max() <= 3


# ── To start from another model ─────────────────────────────────────────────────────────────────────────────────────


def _start(folder, recipe, model):
    return tiny.train(folder, dataclasses.replace(recipe, init=str(model), preset=None, resolution=None), **OPTIONS)


@pytest.fixture(scope="module")
def of_colours(tmp_path_factory):
    """(home, pictures) of a model of colours without alpha."""
    directory = tmp_path_factory.mktemp("colours")
    folder = tiny.draw_squares(directory / "squares")
    with tiny.at_home(directory / "home"):
        tiny.train(folder, dataclasses.replace(KINDS["grey"].recipe, steps=1))
    return directory / "home", folder


def test_a_model_of_colours_learns_alpha_and_keeps_its_channels(of_colours, tmp_path):
    home, _ = of_colours
    model = tiny.run_directory(home) / registry.MODEL_FILE
    for name, channels in (("alpha", 4), ("grey", 3)):
        kind = KINDS[name]
        with tiny.at_home(tmp_path / name):
            stream = _start(kind.draw(tmp_path / f"{name} squares"), kind.recipe, model)
        (started,) = tiny.of_kind(events.Started, stream)
        assert "that of --init" in dict(started.facts)["colours"]
        read = checkpoint.load_model(tiny.run_directory(tmp_path / name) / registry.MODEL_FILE, CPU)
        assert read.config.network.channels == channels


def test_models_that_lack_what_pictures_have_are_refused(command, of_colours, trained, kind, tmp_path):
    """And those that need what they do not have."""
    _, colourful = of_colours
    run = tiny.runner(command, tmp_path)
    expected = "draws transparent pictures" if "A" in kind.mode else "draws grey pictures"
    error = run("train", colourful, "--init", trained.model, "--steps", "1", "--device", "cpu", expect=2)
    assert expected in error
    assert not list((tmp_path / "models").glob("*/*"))


def test_a_foundation_of_colours_begins_one_of_others(trained, kind, tmp_path, of_colours):
    """The first state of the run is that model's, but for the weights that read and answer channels."""
    home, _ = of_colours
    model = tiny.run_directory(home) / registry.MODEL_FILE
    with tiny.at_home(tmp_path), mock.patch.object(start, "_foundation", return_value=str(model)):
        tiny.train(trained.pictures, dataclasses.replace(kind.recipe, steps=1, init="auto"), **OPTIONS)
    read = checkpoint.load_model(tiny.run_directory(tmp_path) / registry.MODEL_FILE, CPU)
    assert read.config.network.channels == kind.channels


def test_upscalers_are_for_red_green_and_blue(diffuse, trained, kind, tmp_path):
    """They enlarge no picture of these models while it is drawn, and none is trained for them."""
    for command in (("train", str(trained.pictures), "--upscaler-for", "tiny", *kind.options, "--dry-run"),
                    (*SAMPLE, "--upscaler", "other", "-o", str(tmp_path / "out"))):
        with mock.patch("diffuse_cli.cli.stages._find", return_value=(Path("other"), None)):
            said = diffuse(*command, expect=2)
        assert "an upscaler enlarges RGB pictures" in said or "upscalers enlarge no transparency" in said


def test_python_refuses_what_an_upscaler_cannot_enlarge(trained):
    with tiny.at_home(trained.home):
        loaded = api.load("tiny")
        with pytest.raises(UsageError, match="an upscaler enlarges RGB pictures"):
            loaded.sample("a red square", upscaler=loaded)
