"""Students of upscalers: they start where their teachers' pictures start, and are told the same small pictures."""

import dataclasses
import shutil

import numpy as np
import pytest
import runs
import tiny
import torch
from cascade import RECIPE

from diffuse_cli import api, events
from diffuse_cli.config import Recipe, Sampling
from diffuse_cli.data.split import split_dataset
from diffuse_cli.diffusion import distillation, upscaling
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.diffusion.upscaling import NOISE_TIME, START_TIME
from diffuse_cli.errors import UsageError
from diffuse_cli.model_config import Student, Upscaling
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures.pixels import from_pixels, to_pixels
from diffuse_cli.reporting.commands import commands
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling.upscale import low_res_of, sampling_of, steps_of
from diffuse_cli.storage import run_directory
from diffuse_cli.storage.event_log import read_event_log
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.distillation import Segments, Teacher
from diffuse_cli.training.loss import Batch
from diffuse_cli.training.plan import make_plan

CPU = torch.device("cpu")
STUDENT = Recipe(init="tiny-x2", evaluations=2, steps=8, batch_size=4)


@pytest.fixture
def diffuse(command, cascade):
    return tiny.runner(command, cascade.home)


@pytest.fixture
def home_of_both(cascade, tmp_path):
    home = cascade.copy(tmp_path / "home", "tiny", "tiny-x2")
    shutil.copytree(cascade.home / "images", home / "images")
    return home


def teacher_of(cascade):
    """The upscaler, whose answers depend on what it is told: 6 steps leave its last layers nearly at zero."""
    with tiny.at_home(cascade.home):
        model = api.load("tiny-x2", device="cpu").model
    for parameter in model.network.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return model


# ── In every command ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_student_is_distilled_shown_and_used(diffuse, cascade, home_of_both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tiny.run_directory(home_of_both))                    # the first model is not needed
    said = diffuse("distill", "tiny-x2", "--evaluations", "2", "--steps", "2", "--batch-size", "4", "--device", "cpu",
                   home=home_of_both)
    assert "distance 0." in said
    assert "use it: diffuse upscale picture.png -m tiny-x2-2-steps" in said
    shown = diffuse("models", "show", "tiny-x2-2-steps", home=home_of_both)
    assert "from tiny-x2, guided at 1; samples in 2 steps" in shown
    assert "pictures 2 times, of 8 to 16 px; trained on crops of 8 px" in shown
    cascade.copy(home_of_both)
    picture = next(cascade.pictures.glob("*.png"))
    diffuse("upscale", picture, "-m", "tiny-x2-2-steps", "-o", tmp_path / "large.png", home=home_of_both)
    assert tiny.size_of(tmp_path / "large.png") == (32, 32)
    said = diffuse("sample", "a red square", "-m", "tiny", "--size", "16", "--upscaler", "tiny-x2-2-steps", "--steps",
                   "2", "-o", tmp_path / "drawn.png", home=home_of_both)
    assert "upscaler tiny-x2-2-steps, distilled to 2 steps" in said
    assert tiny.size_of(tmp_path / "drawn.png") == (16, 16)
    diffuse("export", "tiny-x2-2-steps", "--to", "safetensors", "-o", tmp_path / "slim.safetensors", home=home_of_both)
    diffuse("upscale", picture, "-m", tmp_path / "slim.safetensors", "-o", tmp_path / "again.png", home=home_of_both)
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "large.png").read_bytes()
    assert "stock pipelines start from noise" in diffuse(
        "export", "tiny-x2-2-steps", "--to", "diffusers", "-o", tmp_path / "stock", home=home_of_both, expect=2)
    assert "distilled already" in diffuse(
        "distill", "tiny-x2-2-steps", "--steps", "1", "--device", "cpu", home=home_of_both, expect=2)
    directory = tiny.run_directory(home_of_both, "tiny-x2-2-steps")
    config = run_directory.read_config(directory)
    assert config["plan"]["adversarial"] == 0
    request = config["request"]
    told = [words[1:4] for _, words in commands("tiny-x2-2-steps", request, read_event_log(directory))]
    assert told[0] == ["distill", "tiny-x2", str(cascade.pictures)]
    assert told[1] == ["upscale", "picture.png", "-m"]
    assert {"sample", "evaluate"}.isdisjoint(words[0] for words in told)


def test_without_its_pictures_a_teacher_is_refused_in_one_line(diffuse, cascade, home_of_both, tmp_path):
    config = tiny.run_directory(home_of_both, "tiny-x2") / run_directory.CONFIG_FILE
    config.write_text(config.read_text().replace(str(cascade.pictures), str(tmp_path / "gone")))
    said = diffuse("distill", "tiny-x2", home=home_of_both, expect=3)
    assert "are no longer in" in said
    assert "Give another folder, of pictures of at least 16 px" in said


def test_a_student_interrupted_again_and_again_ends_bit_identical(cascade, home_of_both, tmp_path):
    ends = []
    for home, stops in ((home_of_both, (None,)), (tmp_path / "again", (3, None))):
        if home != home_of_both:
            cascade.copy(home, "tiny-x2")
        with tiny.at_home(home):
            for stop_at in stops:
                stream = tiny.train(cascade.pictures, STUDENT, name="student", save_every="2", stop_at=stop_at)
        assert stream[-1].complete
        ends.append(runs.results(tiny.run_directory(home, "student")))
    assert ends[0] == ends[1]
    (last, *_) = reversed(tiny.of_kind(events.Validated, stream))
    assert 0 < last.noise_mse < 100
    assert len(last.noise_mse_at) == 2                                 # one for each of its steps


# ── States, targets and batches ─────────────────────────────────────────────────────────────────────────────────────


def test_the_states_of_a_student_are_those_through_which_it_draws(cascade):
    model = teacher_of(cascade)
    config = dataclasses.replace(
        model.config, student=Student(evaluations=3, guidance=1.0, teacher="tiny-x2", start=START_TIME))
    student, schedule = dataclasses.replace(model, config=config), make_schedule(config.schedule, 64)
    small = from_pixels(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
    enlarged = from_pixels(to_pixels(upscaling.enlarge(small, 2)))
    prompts, seeds = ["a red square", "a blue square"], [5, 6]
    steps = list(steps_of(student, enlarged, prompts, seeds=seeds, sampling=sampling_of(config)))
    times = distillation.student_times(3, START_TIME)
    assert [step.t for step in steps] == times[1:]

    segments = Segments(Teacher(model.network, encode(model.tokenizer, [""])), config, schedule, "fp32")
    keys = torch.tensor([randomness.key(seed, "upscale", -1) for seed in seeds])
    batch = Batch(enlarged, randomness.normal(keys, (3, 16, 16)), torch.ones(2, dtype=torch.float64),
                  encode(model.tokenizer, prompts), torch.arange(2), low_res=low_res_of(config, enlarged, seeds),
                  enlarged=enlarged)
    condition, first = segments.condition(batch), segments.first_states(batch)
    for t, step in zip(times[1:-1], steps, strict=False):
        torch.testing.assert_close(
            segments.own_states(student.network, first, t, condition), step.noisy, rtol=0, atol=1e-5)
    assert torch.equal(segments.own_states(student.network, first, times[0], condition), first)


def test_targets_and_estimates_depend_on_the_small_picture(cascade):
    model = teacher_of(cascade)
    config = dataclasses.replace(
        model.config, student=Student(evaluations=1, guidance=1.0, teacher="tiny-x2", start=START_TIME))
    segments = Segments(
        Teacher(model.network, encode(model.tokenizer, [""])), config, make_schedule(config.schedule, 64), "fp32")
    noise = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    images = [torch.full((1, 3, 8, 8), value) for value in (-0.5, 0.5)]
    conditions = [segments.condition(Batch(
        image, noise, torch.ones(1, dtype=torch.float64), encode(model.tokenizer, ["a red square"]),
        torch.zeros(1, dtype=torch.int64), low_res=low_res_of(config, image, [0]))) for image in images]
    for answers in ([segments.targets(noise, START_TIME, condition) for condition in conditions],
                    [segments.own_states(model.network, noise, 0.0, condition) for condition in conditions]):
        assert (answers[0] - answers[1]).abs().max() > 1e-2


def test_a_student_is_told_of_small_pictures_as_in_drawing():
    """Their noise always has the level of drawing, and the same picture without it is where the student starts."""
    data = tiny.dataset([("a", "b")] * 7, size=32)
    plan, _ = make_plan(
        dataclasses.replace(RECIPE, upscaler_for="x", factor=4, flip=True, init="none", resolution=16), data,
        split_dataset(data.pixel_hashes, names=data.names, folder=None, limit=None), resolution=16,
        sizes=(Size(32, 32),), fit="crop", tokenizer=None, init=None, device=CPU,
        upscaling=Upscaling(factor=4, small=Size(8, 8)))
    student = Student(evaluations=2, guidance=1.0, teacher="x", start=START_TIME)
    plan = dataclasses.replace(plan, model=dataclasses.replace(plan.model, student=student), batch_size=6)
    batches = Batches(plan, data, np.arange(7), None, CPU)
    whole, _ = batches.draw(3, 0, 6)
    assert whole.low_res.level.tolist() == pytest.approx([1000 * NOISE_TIME - 1] * 6)
    alpha, sigma = make_schedule(plan.model.schedule, 64).alpha_sigma(torch.tensor([NOISE_TIME], dtype=torch.float64))
    noise = (whole.low_res.image - alpha.float() * whole.enlarged) / sigma.float()
    assert noise.mean().item() == pytest.approx(0, abs=0.1)
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(whole.enlarged, torch.cat([batches.draw(3, start, 2)[0].enlarged for start in (0, 2, 4)]))


def test_a_student_of_an_upscaler_starts_below_1_and_no_other(cascade):
    with tiny.at_home(cascade.home):
        first, second = (api.load(name, device="cpu").model.config for name in ("tiny", "tiny-x2"))
    for config, start in ((first, 0.6), (second, 1.0)):
        with pytest.raises(UsageError, match="a distilled upscaler starts at a time below 1"):
            dataclasses.replace(config, student=Student(evaluations=1, guidance=1.0, teacher="x", start=start))
    one = dataclasses.replace(second, student=Student(evaluations=3, guidance=1.0, teacher="x", start=START_TIME))
    assert sampling_of(one) == Sampling(sampler="ddim", steps=3, guidance=1.0)
