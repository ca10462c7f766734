"""Models that are sound and sealed, but have a configuration that nobody trained: each works in every command.

A configuration that does not work must be refused at the door, with exit code 4. No command may end in a crash.
"""

import random

import consistent_models
import pytest
import tiny
from consistent_models import UNUSUAL, UPSCALERS, configuration, configurations, sealed
from PIL import Image

from diffuse_cli.errors import UsageError
from diffuse_cli.picture_size import Size
from diffuse_cli.storage.model_info import TrainingSummary, read_model_info

PROMISE = "A sound model of any configuration works in every command, or is refused with exit 4"


def quick_commands(model, config, place):
    """Commands that take about a second together on a tiny model."""
    few = () if config.student else ("--steps", 2)                      # a student has its own number of steps
    yield "models", "verify", model
    yield "models", "show", model
    yield ("sample", "a red car", "-m", model, *few, "-n", 2, "--grid", "--sheet", "--animate", "--seed", 1,
           "-o", place / "samples")
    other = () if config.student else ("--guidance", 1, "--sampler", "ddpm")
    yield "sample", "-m", model, *few, *other, "--seed", 1, "-o", place / "one"
    yield "noise-demo", "-m", model, "-n", 2, "-o", place / "demo.png"
    yield "export", model, "--to", "safetensors", "-o", place / "slim.safetensors"


def slow_commands(model, config, pictures, place):
    for format in ("diffusers", "onnx"):
        yield "export", model, "--to", format, "-o", place / format
    yield "evaluate", model, pictures, "-n", 4, "--images", 8
    recipe = ("--schedule", config.schedule, "--prediction", config.prediction, "--variance",
              "learned" if config.learned_variance else "fixed", "--captions", "auto" if config.conditional else "none")
    yield ("train", pictures, "--init", model, "--steps", 2, "--batch-size", 2, "--device", "cpu", "--fresh",
           "--name", "tuned", *recipe)


def acceptable(arguments, config, code) -> bool:
    """0, or a refusal that is documented: stock classes cannot have every shape of an unconditional network, and the
    pictures of the tests, which have colours and no transparency, do not train every model further.
    """
    stock = len(set(config.network.depths)) == 1 and config.network.time_width == 4 * config.network.widths[0]
    refusal = "diffusers" in arguments and not config.conditional and not stock
    return code == (2 if refusal or (arguments[0] == "train" and config.network.channels != 3) else 0)


@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_model_works_in_the_quick_commands(command, tmp_path, counted, name):
    config = configuration(**UNUSUAL[name])
    commands = [*quick_commands(sealed(tmp_path / "model.safetensors", config), config, tmp_path)]
    for arguments in commands:
        code, _, err = command(*arguments)
        assert acceptable(arguments, config, code), err
    counted(PROMISE, "unusual configurations × commands", len(commands))


def upscaler_commands(model, config, first, pictures, place):
    """(expected exit code, command) of a model that only enlarges pictures; `first` draws pictures of 8 pixels."""
    yield 0, ("models", "verify", model)
    yield 0, ("models", "show", model)
    yield 0, ("upscale", pictures / "000.png", "-m", model, "--prompt", "a red car", "-o", place / "large.png")
    yield 0, ("upscale", place / "thin.png", "-m", model, "-o", place / "larger.jpg")
    yield 0, ("sample", "a red car", "-m", first, "--upscaler", model, "--steps", 1, "-n", 2, "-o", place / "samples")
    yield 0, ("export", model, "--to", "safetensors", "-o", place / "slim.safetensors")
    for refused in (("sample", "-m", model), ("noise-demo", "-m", model), ("models", "compare", model, first),
                    ("export", model, "--to", "onnx"), ("export", model, "--to", "web"),
                    ("ui", model, "--no-browser"), ("sample", "-m", first, "--upscaler", first),
                    ("train", pictures, "--upscaler-for", model, "--name", "it")):
        yield 2, refused
    yield 2 if config.conditional else 4, ("train", pictures, "--init", model, "--name", "it")      # knows no captions


@pytest.mark.slow
@pytest.mark.parametrize("name", UPSCALERS)
def test_an_unusual_upscaler_enlarges_and_does_nothing_else(command, squares, tmp_path, counted, name):
    Image.new("RGB", (1, 30)).save(tmp_path / "thin.png")
    first = sealed(tmp_path / "first.safetensors", configuration())
    config = configuration(**UPSCALERS[name])
    model = sealed(tmp_path / "model.safetensors", config)
    commands = [*upscaler_commands(model, config, first, squares, tmp_path)]
    for expected, arguments in commands:
        code, out, err = command(*arguments)
        assert code == expected, f"{arguments} {out} {err}"
        assert sum(line.startswith("error: ") for line in err.splitlines()) == (code != 0), err
    counted(PROMISE, "unusual upscalers × commands", len(commands))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", UPSCALERS)
def test_an_unusual_upscaler_is_exported_and_measured_and_taught(command, squares, tmp_path, counted, name):
    config = configuration(**UPSCALERS[name])
    model, pictures = sealed(tmp_path / "model.safetensors", config), tmp_path / "pictures"
    pictures.mkdir()
    for number, path in enumerate(sorted(squares.glob("*.png"))):
        Image.open(path).resize((32, 32)).save(pictures / path.name)    # as large as any of the upscalers draws
        if config.conditional:
            (pictures / f"{path.stem}.txt").write_text("a red car" if number % 2 else "a blue car")
    student = 2 if config.student else 0                                # which is not measured, and teaches no other
    exported = 0 if config.conditional and not config.student else 2    # the stock pipeline knows no other
    commands = [(exported, ("export", model, "--to", "diffusers", "-o", tmp_path / "folder")),
                (student, ("evaluate", model, pictures, "--images", 2)),
                (student, ("distill", model, pictures, "--evaluations", 1, "--steps", 1, "--batch-size", 2,
                           "--device", "cpu", "--name", "taught"))]
    with tiny.scaled_down():
        for expected, arguments in commands:
            code, out, err = command(*arguments)
            assert code == expected, f"{arguments} {out} {err}"
    counted(PROMISE, "unusual upscalers × commands", len(commands))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_models_work_in_every_command(command, squares, tmp_path, counted, seed):
    ran = 0
    for number, config in enumerate(configurations(random.Random(seed), 40)):
        place = tmp_path / str(number)
        place.mkdir()
        model = sealed(place / "model.safetensors", config, seed=number)
        with tiny.scaled_down():
            commands = [*quick_commands(model, config, place)]
            if number % 4 == 0:
                commands += slow_commands(model, config, squares, place)
            for arguments in commands:
                code, _, err = command(*arguments)
                ran += 1
                assert acceptable(arguments, config, code), f"{arguments} {config}: {err}"
    counted(PROMISE, "configurations at random × commands", ran)


@pytest.mark.parametrize("change", [
    {"widths": (9, 9), "groups": 3, "head_dim": 3},                     # the time has as many sines as cosines
    {"widths": (8,) * 4, "depths": (1,) * 4, "attention": ("none",) * 4, "groups": 8},     # norms of a single number
    {"channels": 5, "out_channels": 10}, {"channels": 1}, {"channels": 4},
    {"channels": 6},
    {"out_channels": 4}, {"resolution": 10, "widths": (8,) * 3, "depths": (1,) * 3, "attention": ("none",) * 3},
])
def test_a_configuration_that_cannot_work_is_refused_at_the_door(command, tmp_path, monkeypatch, change):
    """The file is made where the check is missing, as a stranger would make it: tensors and seal fit."""
    with pytest.raises(UsageError):
        configuration(**change)
    path = tmp_path / "model.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(consistent_models.NetworkConfig, "__post_init__",
                      lambda self: object.__setattr__(self, "resolution", Size.of(self.resolution)))
        config = configuration(**change)
        sealed(path, config)
    before = path.read_bytes()
    for arguments in (("models", "verify", path), ("sample", "-m", path, "--grid"), ("export", path, "--to", "onnx"),
                      ("noise-demo", "-m", path)):
        code, out, err = command(*arguments)
        assert (code, out, err.count("\n")) == (4, "", 1), err
    assert path.read_bytes() == before


def test_a_small_file_of_large_pictures_is_announced(command, tmp_path, monkeypatch):
    """The configuration is that of a file of 10 kB. Nothing is sampled: only what is said before counts."""
    config = configuration(resolution=512, widths=(8,), depths=(1,), attention=("none",))
    model = sealed(tmp_path / "model.safetensors", config)
    monkeypatch.setattr("diffuse_cli.cli.sample.write_samples", lambda *_, **__: None)
    code, _, err = command("sample", "-m", model, "--seed", 1, "-o", tmp_path / "out")
    assert code == 0
    assert "pictures of 512 pixels" in err
    small = sealed(tmp_path / "small.safetensors", configuration())
    assert "trillion" not in command("sample", "-m", small, "--seed", 1, "-o", tmp_path / "out")[2]


@pytest.mark.parametrize("background", ["nothing", "rgb(999,0,0)", "hsl(0,0%", " ", "x" * 99, "#12345"])
def test_a_colour_that_is_none_is_refused_where_it_would_be_used(command, tmp_path, background):
    model = sealed(tmp_path / "model.safetensors", configuration(),
                   training=TrainingSummary(name="made", as_read={"name": "made", "background": background}))
    picture = tiny.draw_squares(tmp_path / "pictures", 1) / "000.png"
    for arguments in (("noise-demo", picture, "-m", model), ("sample", "-m", model, "--init", picture)):
        code, out, err = command(*arguments)
        assert (code, out) == (4, ""), err
        assert "colour" in err
    assert command("sample", "-m", model, "--steps", 1, "--seed", 1, "-o", tmp_path / "out")[0] == 0


@pytest.mark.parametrize("entries", [
    {"step": -(2**63), "steps": 2**64 - 1, "lr": 1.7e308, "train_images": -1, "noise_mse": -0.0, "batch_size": 0},
    {"name": "../../../etc/passwd\x1b[2J", "captions": "[bold]\u202e", "preset": "\n" * 500, "delivered": "x" * 10_000},
    {"name": [], "step": "1", "lr": True, "extra": {"deep": [1, {"a": None}]}},
    {"batch_size": [2], "data_id": [[1]], "resolution": {"a": 1}, "steps": {"value": {"value": [1]}}},
])
def test_any_summary_of_a_training_is_shown_and_never_used_as_a_path(command, tmp_path, monkeypatch, entries):
    monkeypatch.chdir(tmp_path)
    model = sealed(tmp_path / "model.safetensors", configuration(), training=TrainingSummary(as_read=entries))
    for arguments in (("models", "show", model), ("models", "show", model, "--json"),
                      ("sample", "-m", model, "--steps", 1, "--seed", 1, "-o", tmp_path / "out"),
                      ("export", model, "--to", "safetensors", "-o", "slim.safetensors"),
                      ("models", "compare", model, "demo", "-n", 0, "-o", "page.html")):
        code, out, err = command(*arguments)
        assert code == 0, err
        assert all(character.isprintable() or character == "\n" for character in out + err)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.safetensors", "out", "page.html", "slim.safetensors"}
    assert read_model_info(tmp_path / "slim.safetensors").config == configuration()
