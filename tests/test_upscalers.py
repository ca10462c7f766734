"""Upscalers in every command: trained on crops, resumed, drawn with after a first model or alone, and exported."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from cascade import RECIPE
from PIL import Image

from diffuse_cli import api, events
from diffuse_cli.checks import from_dict, to_dict
from diffuse_cli.config import Export, Recipe
from diffuse_cli.data.fitting import fitted_pixels
from diffuse_cli.data.split import split_dataset
from diffuse_cli.diffusion import upscaling
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.errors import DataError, DiffuseError, UsageError
from diffuse_cli.exporting import diffusers_comparison
from diffuse_cli.model_config import ModelConfig, Upscaling
from diffuse_cli.network.presets import upscaler_config
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures.pixels import from_pixels
from diffuse_cli.storage import registry
from diffuse_cli.storage.model_info import read_model_info
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.low_res import SmallPictures
from diffuse_cli.training.plan import make_plan
from diffuse_cli.training.run import open_run

STATE = "step-00000006.safetensors"


@pytest.fixture
def diffuse(command, cascade):
    return tiny.runner(command, cascade.home)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


# ── Training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_plan_and_the_model_say_what_is_enlarged(diffuse, cascade):
    facts = dict(next(event for event in cascade.events if isinstance(event, events.Started)).facts)
    assert facts["resolution"] == "8 px — as asked"
    assert facts["fit"] == "crop — that of the model whose pictures are enlarged; enlarged from 8 px"
    assert facts["starts from"] == "tiny — for its words; all else is new"
    info = read_model_info(tiny.run_directory(cascade.home, "tiny-x2") / registry.MODEL_FILE)
    network = info.config.network
    assert (network.upscaling, network.resolution) == (Upscaling(factor=2, small=Size(8, 8)), Size(8, 8))
    assert set(network.attention[:-1]) == {"none"}
    assert network.attention[-1] == network.middle_attention == "text"
    assert "pictures 2 times, of 8 to 16 px; trained on crops of 8 px" in diffuse("models", "show", "tiny-x2")
    diffuse("models", "verify", "tiny-x2")
    with tiny.at_home(cascade.home):
        assert registry.last() == "tiny"                               # `sample` without -m draws with it
    assert re.search(r"tiny-x2 +x2 ", diffuse("models", "ls"))
    page = (tiny.run_directory(cascade.home, "tiny-x2") / registry.REPORT_FILE).read_text()
    assert "diffuse sample -m tiny --upscaler tiny-x2" in page


@pytest.mark.slow
def test_a_dry_run_chooses_crops_of_the_size_that_is_drawn(diffuse, cascade):
    told = diffuse("train", cascade.pictures, "--upscaler-for", "tiny", "--factor", "2", "--dry-run", "--device", "cpu",
                   "--steps", "2", "--name", "other")
    assert "resolution: 16 px — crops of the pictures of 16 px that it will draw" in told


def test_a_resumed_training_ends_as_one_that_was_not_stopped(cascade, tmp_path):
    with tiny.at_home(cascade.copy(tmp_path / "home")):
        for stop_at in (1, 2, None):
            tiny.train(cascade.pictures, RECIPE, name=None, save_every="2", stop_at=stop_at)
    for name in (registry.MODEL_FILE, STATE):
        once, again = (tiny.run_directory(home, "tiny-x2") / name for home in (cascade.home, tmp_path / "home"))
        assert once.read_bytes() == again.read_bytes()


def test_it_begins_with_the_words_of_its_model(cascade, tmp_path):
    with tiny.at_home(cascade.copy(tmp_path / "home")):
        tiny.train(cascade.pictures, dataclasses.replace(RECIPE, steps=1, lr=1e-7), name=None)
        first, second = (api.load(name, device="cpu").model for name in ("tiny", "tiny-x2"))
    assert first.tokenizer.to_str() == second.tokenizer.to_str()
    for name, weight in first.network.text_encoder.state_dict().items():
        assert torch.allclose(weight, second.network.text_encoder.state_dict()[name], atol=1e-4)


@pytest.mark.parametrize(("changes", "start"), [
    ({}, "tiny-x2"), ({"preset": "micro"}, "tiny"), ({"resolution": 16}, "tiny-x2"), ({"schedule": "cosine"}, "tiny"),
    ({"init": "none"}, None)])
def test_it_starts_from_the_bundled_upscaler_of_its_form(cascade, tmp_path, monkeypatch, changes, start):
    files = {name: tiny.run_directory(cascade.home, name) / registry.MODEL_FILE for name in ("tiny", "tiny-x2")}
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    shutil.copy(files["tiny-x2"], bundled / "upscaler-x2.safetensors")
    monkeypatch.setattr(registry, "_BUNDLED", bundled)
    recipe = dataclasses.replace(RECIPE, steps=2, **changes)
    with tiny.at_home(cascade.copy(tmp_path / "home")):
        for stop_at in (1, None):                                      # a run that has begun keeps its start
            facts = dict(tiny.of_kind(events.Started, tiny.train(
                cascade.pictures, recipe, name=None, stop_at=stop_at))[0].facts)
            assert facts["starts from"].startswith({
                "tiny-x2": "upscaler-x2 — it has seen", "tiny": "tiny — for its words", None: "a new network"}[start])
        model = api.load("tiny-x2", device="cpu").model
    assert model.training.init_id == (start and read_model_info(files[start]).sha256)
    if start == "tiny-x2":
        config = api.load(str(files["tiny-x2"]), device="cpu").model.config
        assert model.config == dataclasses.replace(config, network=dataclasses.replace(
            config.network, resolution=recipe.resolution))


@pytest.mark.parametrize(("crop", "batch_size"), [(32, 16), (64, 16), (128, 4), (256, 1)])
def test_larger_crops_are_fewer_and_the_network_is_the_same(crop, batch_size):
    """As many pixels in a batch and in the default budget, and from 64 px on the same levels and noise."""
    data = tiny.dataset([("a", "b")] * 20)
    plan, _ = make_plan(Recipe(upscaler_for="x", init="none"), data, split_dataset(data.pixel_hashes), resolution=crop,
                        sizes=(Size(256, 256),), fit="crop", tokenizer=None, init=None, device=torch.device("cpu"),
                        upscaling=Upscaling(factor=4, small=Size(64, 64)))
    assert (plan.batch_size, plan.steps, plan.half_side_steps) == (batch_size, 6250, 0)
    assert plan.model.network.schedule_side == 64
    of_64 = upscaler_config("nano", Size(64, 64), Upscaling(factor=4, small=Size(64, 64)), text=None,
                            learned_variance=True)
    same = dataclasses.replace(of_64, resolution=Size(crop, crop))
    assert (plan.model.network == same) == (crop >= 64)


def plan_and_data(count: int = 7):
    """A plan for crops of 16 pixels of pictures of 32 that stand for themselves, and a data set of such."""
    data = tiny.dataset([("a", "b")] * count, size=32)
    plan, _ = make_plan(
        Recipe(upscaler_for="x", preset="nano", steps=4, batch_size=6, init="none", flip=True), data,
        split_dataset(data.pixel_hashes, names=data.names, folder=None, limit=None), resolution=16,
        sizes=(Size(32, 32),), fit="crop", tokenizer=None, init=None, device=torch.device("cpu"),
        upscaling=Upscaling(factor=4, small=Size(8, 8)))
    return plan, data


def test_a_crop_and_its_small_picture_show_the_same_place():
    plan, data = plan_and_data()
    schedule = make_schedule("interpolated", 64)
    draws = torch.rand(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    draws[:, 2] = 0                                                    # hardly any noise
    given = SmallPictures.of(data, np.arange(7), draws, torch.arange(7), config=plan.model, schedule=schedule)
    for picture, draw, crop, enlarged in zip(data.images, draws, given.crops, given.without_noise(), strict=True):
        row, column = (4 * int(place) for place in draw[:2] * 5)       # from pixels of the small picture on
        place = slice(row, row + 16), slice(column, column + 16)
        assert np.array_equal(crop.numpy(), picture[place])
        small = fitted_pixels(Image.fromarray(picture), 8)             # as a file becomes a picture of the first model
        whole = upscaling.enlarge(from_pixels(small[None]), 4)[0][:, *place]
        inner = slice(2, -2)                                           # a crop ends with its small picture
        assert torch.allclose(enlarged[:, inner, inner], whole[:, inner, inner], atol=1e-5)
    assert torch.allclose(given.with_noise(given.without_noise(), schedule).image, given.without_noise(), atol=0.2)


def test_a_batch_is_the_same_in_pieces_and_differs_from_step_to_step():
    plan, data = plan_and_data()
    batches = Batches(plan, data, np.arange(7), None, torch.device("cpu"))
    whole, _ = batches.draw(3, 0, 6)
    pieces = [batches.draw(3, start, 2)[0] for start in (0, 2, 4)]
    for name in ("image", "noise"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(piece, name) for piece in pieces]))
    for number in (0, 1):
        assert torch.equal(whole.low_res[number], torch.cat([piece.low_res[number] for piece in pieces]))
    assert len(set(whole.low_res.level.tolist())) == 6
    assert not torch.equal(whole.low_res.level, batches.draw(2, 0, 6)[0].low_res.level)
    # a mirrored crop has a mirrored small picture: with little noise, both are alike
    quiet = whole.low_res.level < 200
    assert quiet.any()
    blurred = [torch.nn.functional.avg_pool2d(one[quiet], 4) for one in (whole.image, whole.low_res.image)]
    assert torch.corrcoef(torch.stack([one.flatten() for one in blurred]))[0, 1] > 0.5


def test_pictures_that_are_too_small_are_left_out_and_counted(cascade, tmp_path):
    home, folder = cascade.copy(tmp_path / "home"), tmp_path / "mixed"
    shutil.copytree(cascade.pictures, folder)
    for number in range(3):
        Image.new("RGB", (15, 40), (number, 9, 9)).save(folder / f"small-{number}.png")
    with tiny.at_home(home):
        stream = tiny.train(folder, dataclasses.replace(RECIPE, steps=1), name=None)
        said = [event.message for event in tiny.of_kind(events.Noticed, stream)]
        assert "3 of 27 pictures are smaller than 16 px, and left out" in said
        assert not any("problem" in message for message in said)
        with pytest.raises(DataError, match=r"all 24 pictures in .* are smaller than 32 px"):
            tiny.train(cascade.pictures, dataclasses.replace(RECIPE, factor=4), name=None)


def test_it_starts_from_another_upscaler_and_never_from_another_model(cascade, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(cascade.home, home)
    again = Recipe(upscaler_for="tiny", factor=2, init="tiny-x2", steps=1, batch_size=4)
    with tiny.at_home(home):
        tiny.train(cascade.pictures, again, name="second")
        assert read_model_info(registry.resolve("second")).config.is_upscaler
        for recipe, reason in ((dataclasses.replace(again, init="tiny"), "no upscaler by 2"),
                               (Recipe(init="tiny-x2", steps=1), "only enlarges"),
                               (Recipe(upscaler_for="tiny-x2", steps=1), "only enlarges"),
                               (dataclasses.replace(RECIPE, resolution=24), "crops of 24 px are larger"),
                               (dataclasses.replace(RECIPE, captions="none"), "reads captions")):
            with pytest.raises(DiffuseError, match=reason):
                tiny.train(cascade.pictures, recipe, name="third")


@pytest.mark.parametrize(("options", "reason"), [
    ({"factor": 2}, "--factor is for upscalers"), ({"upscaler_for": "x", "evaluations": 2, "init": "y"}, "distilled")])
def test_recipes_that_contradict_themselves_are_refused(options, reason):
    with pytest.raises(UsageError, match=reason):
        Recipe(**options)


@pytest.mark.slow
def test_an_upscaler_without_captions(diffuse, unconditional, squares, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(unconditional[0].parent.parent, home)
    home.chmod(0o700)
    with tiny.at_home(home):
        tiny.train(squares, dataclasses.replace(RECIPE, captions="none"), name=None)
    diffuse("sample", "-m", "tiny", "--size", "16", "-s", "1", "--steps", "2", "-o", tmp_path / "x.png", home=home)
    assert tiny.size_of(tmp_path / "x.png") == (16, 16)
    assert "needs a network that reads captions" in diffuse(
        "export", "tiny-x2", "--to", "diffusers", "-o", tmp_path / "stock", home=home, expect=2)


@pytest.mark.slow
def test_a_model_of_several_sizes_is_enlarged_in_each(diffuse, tmp_path):
    home, small, large = tmp_path / "home", tiny.draw_shapes(tmp_path / "small"), tmp_path / "large"
    shutil.copytree(small, large)
    for path in large.glob("*.png"):
        with Image.open(path) as image:
            twice = image.resize((2 * image.width, 2 * image.height), Image.Resampling.NEAREST)
        twice.save(path)
    with tiny.at_home(home):
        tiny.train(small, dataclasses.replace(tiny.BUCKETS, steps=1))
        tiny.train(large, dataclasses.replace(RECIPE, resolution=None), name=None)
        info = read_model_info(registry.resolve("tiny-x2"))
    assert info.config.network.resolution == Size(16, 16)
    for size in ("32", "64x16", "16x64"):
        out = tmp_path / f"{size}.png"
        diffuse("sample", "a red bar", "-m", "tiny", "--size", size, "-s", "1", "--steps", "2", "-o", out, home=home)
        assert str(Size(*tiny.size_of(out))) == size


# ── Drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_picture_is_drawn_by_both_models_and_drawn_again(diffuse, tmp_path):
    out = tmp_path / "out"
    diffuse("sample", "a red square", "-m", "tiny", "--size", "16", "-n", "3", "-s", "5", "--steps", "2", "-o", out)
    pictures = sorted(out.iterdir())
    assert [tiny.size_of(path) for path in pictures] == [(16, 16)] * 3
    diffuse("sample", "--from", pictures[1], "-o", tmp_path / "again.png")
    assert np.array_equal(pixels_of(pictures[1]), pixels_of(tmp_path / "again.png"))
    # the same in two commands, whatever is drawn beside it
    diffuse("sample", "a red square", "-m", "tiny", "-s", "6", "--steps", "2", "-o", tmp_path / "small.png")
    diffuse("upscale", tmp_path / "small.png", "-m", "tiny-x2", "--prompt", "a red square", "-s", "6", "-o",
            tmp_path / "large.png")
    assert np.array_equal(pixels_of(pictures[1]), pixels_of(tmp_path / "large.png"))


def test_python_draws_the_same(diffuse, cascade, tmp_path):
    diffuse("sample", "a red square", "-m", "tiny", "--upscaler", "tiny-x2", "-s", "5", "--steps", "2", "-o",
            tmp_path / "x.png")
    with tiny.at_home(cascade.home):
        model, upscaler = (api.load(name, device="cpu") for name in ("tiny", "tiny-x2"))
        (picture,) = model.sample("a red square", seed=5, steps=2, upscaler=upscaler)
        with pytest.raises(UsageError, match="only enlarges"):
            upscaler.sample("a red square")
    assert np.array_equal(np.asarray(picture), pixels_of(tmp_path / "x.png"))
    assert json.loads(picture.info["diffuse"])["upscaler"] == "tiny-x2"


def test_the_prompt_and_the_seed_of_an_upscaler_matter(cascade):
    from diffuse_cli.sampling.upscale import enlarge

    with tiny.at_home(cascade.home):
        model = api.load("tiny-x2", device="cpu").model
    for parameter in model.network.parameters():                       # 6 steps leave the last layers nearly at zero
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    small = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    usual, seeded, prompted, other = (
        enlarge(model, pixels, [prompt], seeds=[seed], precision="fp32").astype(int)
        for pixels, prompt, seed in ((small, "a red square", 0), (small, "a red square", 1), (small, "blue", 0),
                                     (255 - small, "a red square", 0)))
    assert all(abs(usual - changed).max() > 2 for changed in (seeded, prompted, other))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 7), (24, 10)])
def test_any_picture_can_be_enlarged(diffuse, tmp_path, width, height):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in.png")
    diffuse("upscale", tmp_path / "in.png", "-m", "tiny-x2", "-o", tmp_path / "out.png")
    assert tiny.size_of(tmp_path / "out.png") == (2 * width, 2 * height)


def test_the_one_of_the_program_enlarges_by_4_alone(command, cascade, tmp_path):
    diffuse = tiny.runner(command, cascade.copy(tmp_path / "home"))
    assert "no upscaler makes the pictures of this model 2 times as large" in diffuse(
        "sample", "-m", "tiny", "--size", "16", expect=4)
    diffuse("sample", "-m", "tiny", "--size", "32", "-o", tmp_path / "large.png")
    assert tiny.size_of(tmp_path / "large.png") == (32, 32)
    Image.new("RGB", (9, 7), "red").save(tmp_path / "red.png")
    diffuse("upscale", tmp_path / "red.png", "-o", tmp_path / "red-large.png")
    assert tiny.size_of(tmp_path / "red-large.png") == (36, 28)
    large = pixels_of(tmp_path / "red-large.png").reshape(7, 4, 9, 4, 3)
    assert np.abs(large.mean((1, 3)) - (255, 0, 0)).max() < 6          # colours are those of the small picture


@pytest.mark.parametrize(("arguments", "code", "reason"), [
    (("sample", "-m", "tiny-x2"), 2, "this model is an upscaler"),
    (("sample", "-m", "tiny", "--upscaler", "tiny"), 2, "that model is no upscaler"),
    (("sample", "-m", "tiny", "--upscaler", "tiny-x2", "--size", "8"), 2, "makes no pictures of 8 px"),
    (("sample", "-m", "tiny", "--size", "24"), 2,
     "was not trained on pictures of 24 px. It draws 8, and 32 with an upscaler"),
    (("sample", "-m", "tiny", "--size", "16", "--animate"), 2, "--animate shows one model"),
    (("upscale", "PICTURE", "-m", "tiny"), 2, "that model is no upscaler. Leave it out, as one comes with the program"),
    (("upscale", "missing.png", "-m", "tiny-x2"), 3, "missing.png cannot be used: not there"),
    (("upscale", ".", "-m", "tiny-x2"), 3, ". cannot be used: a folder"),
    (("evaluate", "tiny-x2", "-n", "9"), 2, "an upscaler is measured on crops"),
    (("evaluate", "tiny-x2", "--size", "16"), 2, "an upscaler is measured on crops"),
    (("noise-demo", "-m", "tiny-x2"), 2, "this model is an upscaler"),
    (("ui", "tiny-x2"), 2, "this model is an upscaler"),
    (("export", "tiny-x2", "--to", "web"), 2, "--to web has no place for an upscaler"),
    (("train", "PICTURES", "--factor", "3", "--upscaler-for", "tiny"), 2, "--factor must be 2 or 4, not 3")])
def test_what_cannot_be_is_refused_in_one_line(diffuse, cascade, tmp_path, monkeypatch, arguments, code, reason):
    monkeypatch.chdir(tmp_path)
    picture = next(cascade.pictures.glob("*.png"))
    places = {"PICTURE": picture, "PICTURES": cascade.pictures}
    said = diffuse(*(places.get(argument, argument) for argument in arguments), expect=code)
    assert reason in said
    assert not list(tmp_path.iterdir())


def test_a_picture_that_would_take_too_much_memory_is_refused(diffuse, tmp_path):
    Image.new("RGB", (6000, 900)).save(tmp_path / "in.png")
    assert "more than 16,777,216 pixels" in diffuse("upscale", tmp_path / "in.png", "-m", "tiny-x2", expect=2)


# ── Exports ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_exports_are_read_back_and_enlarge_the_same(diffuse, cascade, tmp_path):
    """The export compares itself with the model; where stock diffusers is installed, in its own pipeline."""
    diffuse("export", "tiny-x2", "--to", "safetensors", "-o", tmp_path / "slim.safetensors")
    diffuse("export", "tiny-x2", "--to", "diffusers", "-o", tmp_path / "stock")
    index = json.loads((tmp_path / "stock/model_index.json").read_text())
    assert index["_class_name"] == "IFSuperResolutionPipeline"
    unet = json.loads((tmp_path / "stock/unet/config.json").read_text())
    assert (unet["in_channels"], unet["class_embed_type"], unet["sample_size"]) == (6, "timestep", 16)
    assert "image=small, height=2 * small.height" in (tmp_path / "stock/README.md").read_text()
    if diffusers_comparison.versions():
        report = json.loads((tmp_path / "stock/export.json").read_text())
        compared = {entry["what"]: entry["max_abs"] for entry in report["comparisons"]}
        assert compared["diffusers: pixels of the pipeline's pictures"] <= 1 / 255
    picture, drawn = next(cascade.pictures.glob("*.png")), []
    for number, model in enumerate(("tiny-x2", tmp_path / "slim.safetensors", tmp_path / "stock")):
        diffuse("upscale", picture, "-m", model, "-o", tmp_path / f"{number}.png")
        drawn.append(pixels_of(tmp_path / f"{number}.png"))
    assert np.array_equal(drawn[0], drawn[1])
    assert np.array_equal(drawn[0], drawn[2])


def test_a_pipeline_of_another_program_is_refused(diffuse, tmp_path):
    diffuse("export", "tiny-x2", "--to", "diffusers", "--no-verify", "-o", tmp_path / "stock")
    path = tmp_path / "stock/model_index.json"
    index = json.loads(path.read_text())
    del index["_diffuse_upscaler"]
    path.write_text(json.dumps(index))
    assert "only those of its pipelines are supported that" in diffuse(
        "upscale", next(tmp_path.glob("stock/*.md")), "-m", tmp_path / "stock", expect=4)


@pytest.mark.skipif(not diffusers_comparison.versions(), reason="diffusers is not installed")
def test_a_wrong_level_of_noise_is_found_by_the_stock_pipeline(cascade, tmp_path):
    from diffuse_cli.exporting import diffusers_export

    with tiny.at_home(cascade.home):
        model = api.load("tiny-x2", device="cpu").model
    (tmp_path / "stock").mkdir()
    diffusers_export.write(model, tmp_path / "stock", Export(format="diffusers"))
    path = tmp_path / "stock/image_noising_scheduler/scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"trained_betas": config["trained_betas"][::-1]}))
    found = diffusers_comparison.compare(model, tmp_path / "stock", Export(format="diffusers"))
    assert [one.what for one in found if not one.holds] == ["diffusers: pixels of the pipeline's pictures"]


def test_files_cannot_say_impossible_things_of_an_upscaler(cascade):
    info = read_model_info(tiny.run_directory(cascade.home, "tiny-x2") / registry.MODEL_FILE)
    described = to_dict(info.config)
    for changes, reason in (
            ({"upscaling": {"factor": 3, "small": 8}}, "2 or 4"), ({"upscaling": {"factor": 4, "small": 256}}, "1024"),
            ({"upscaling": {"factor": 2}}, "small is missing"), ({"buckets": [8, "16x8"]}, "one size")):
        with pytest.raises(UsageError, match=reason):
            from_dict(ModelConfig, described | {"network": described["network"] | changes})
    with pytest.raises(UsageError, match="distilled"):
        from_dict(ModelConfig, described | {"student": {"evaluations": 2, "guidance": 1.0, "teacher": "x"}})


def test_a_run_that_was_found_keeps_what_it_enlarges(cascade, tmp_path):
    with tiny.at_home(cascade.home), open_run(
            cascade.pictures, RECIPE, dataclasses.replace(api.Machine(device="cpu"))) as run:
        assert run.name == "tiny-x2"
        assert (run.sizes, run.resolution) == ((Size(16, 16),), Size(8, 8))


def test_without_one_of_its_own_a_model_has_that_of_the_program(diffuse, cascade, tmp_path, monkeypatch):
    home = cascade.copy(tmp_path / "home")
    with tiny.at_home(cascade.home):
        own = registry.resolve("tiny-x2")
    (tmp_path / "bundled").mkdir()
    shutil.copy(own, tmp_path / "bundled/upscaler-x2.safetensors")
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "bundled")
    said = diffuse("sample", "a red square", "-m", "tiny", "--size", "16", "-s", "1", "--steps", "2", "-o",
                   tmp_path / "x.png", home=home)
    assert "upscaler upscaler-x2, which comes with the program" in said
    assert tiny.size_of(tmp_path / "x.png") == (16, 16)
    with tiny.at_home(home):
        assert registry.upscaler_for(registry.resolve("tiny"), 4) is None
    with tiny.at_home(cascade.home):
        assert registry.upscaler_for(registry.resolve("tiny"), 2) == own
    assert "reserved" in diffuse("train", cascade.pictures, "--name", "upscaler-x2", home=home, expect=2)
