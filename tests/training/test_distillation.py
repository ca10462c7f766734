"""A student: it learns its teacher's steps, resumes exactly, and samples in few evaluations alone."""

import dataclasses
import itertools
import json
import shutil
from unittest import mock

import pytest
import runs
import tiny
import torch

from diffuse_cli import events
from diffuse_cli.config import Recipe, Sampling
from diffuse_cli.diffusion import distillation as mathematics
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.errors import ModelError, UsageError
from diffuse_cli.model_config import ModelConfig, Student
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.sampling.generate import encode_prompts, generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.sampling.steps import guided_steps, sampling_times_of
from diffuse_cli.storage import checkpoint, run_directory
from diffuse_cli.training import distillation, plan
from diffuse_cli.training.distillation import Condition, Segments, Teacher
from diffuse_cli.training.loss import Batch

pytestmark = pytest.mark.usefixtures("decoded")
CPU = torch.device("cpu")


@pytest.fixture
def teacher(trained):
    return trained[0] / "model.safetensors"


def recipe_of(teacher, **changes):
    return Recipe(**{"init": str(teacher), "evaluations": 2, "steps": 8, "batch_size": 4, **changes})


def distil(squares, teacher, **changes):
    return tiny.train(squares, recipe_of(teacher), name="student", **changes)


def model_of(home, name="student"):
    return checkpoint.load_model(tiny.run_directory(home, name) / "model.safetensors", CPU)


def test_a_student_learns(squares, home, teacher):
    stream = tiny.train(squares, recipe_of(teacher, steps=40, lr=0.01), name="student")
    losses = [event.noise_mse for event in tiny.of_kind(events.Validated, stream)]
    assert len(losses) == 2
    assert losses[-1] < losses[0]
    (started,) = tiny.of_kind(events.Started, stream)
    assert started.student
    assert {dict(started.facts)[name].split(" — ")[1] for name in ("resolution", "fit", "colours", "network")} == {
        "that of its teacher"}
    assert all(event.variance_loss is None for event in tiny.of_kind(events.Stepped, stream))
    model, source = model_of(home), checkpoint.load_model(teacher, CPU)
    assert model.config.student == Student(evaluations=2, guidance=Sampling.guidance, teacher="tiny")
    assert model.training.init_id == source.sha256
    changed = {name for name, value in model.network.state_dict().items()
               if not torch.equal(value, source.network.state_dict()[name])}
    assert "unet.conv_in.weight" in changed
    assert not any(name.startswith("text_encoder.") for name in changed)


def test_a_student_hears_whole_captions_alone(squares, home, teacher, trained):
    distil(squares, teacher)
    told = [run_directory.read_config(path)["plan"] for path in (trained[0], tiny.run_directory(home, "student"))]
    assert [(plan["caption_drop"], plan["word_drop"]) for plan in told] == [(0.1, 0.1), (0.0, 0.0)]


def test_a_student_interrupted_again_and_again_ends_bit_identical(squares, home, teacher):
    distil(squares, teacher)
    straight = runs.results(tiny.run_directory(home, "student"))
    for more in (1, 2, None):
        stream = tiny.train(squares, recipe_of(teacher), name="student", fresh=more == 1, stop_at=more)
    assert stream[-1].complete
    assert runs.results(tiny.run_directory(home, "student")) == straight


def test_a_student_does_not_go_on_with_another_teacher(squares, home, teacher, tmp_path, unconditional):
    copy = tmp_path / "teacher.safetensors"
    copy.write_bytes(teacher.read_bytes())
    tiny.train(squares, recipe_of(copy), name="student", stop_at=3)
    source = checkpoint.load_model(teacher, CPU)
    source.network.unet.conv_in.weight.data.mul_(2)
    checkpoint.save_model(copy, config=source.config, weights=source.network.state_dict(), tokenizer=source.tokenizer,
                          words={}, training=source.training)
    with pytest.raises(ModelError, match="no longer the model"):
        tiny.train(squares, recipe_of(copy), name="student")


def test_an_unconditional_student(squares, home, unconditional):
    recipe = recipe_of(unconditional[0] / "model.safetensors", captions="none")
    assert tiny.train(squares, recipe, name="student")[-1].complete
    model = model_of(home)
    assert model.config.student.guidance == 1
    assert len(list(generate(model, [SampleRequest(sampling=Sampling.of(model.config))]))) == 1


def test_a_student_has_no_student(squares, home, teacher):
    distil(squares, teacher)
    with pytest.raises(UsageError, match="distilled already"):
        tiny.train(squares, recipe_of(tiny.run_directory(home, "student") / "model.safetensors"), name="grandchild")


def test_a_model_trained_further_from_a_student_is_none(squares, home, teacher):
    distil(squares, teacher)
    init = str(tiny.run_directory(home, "student") / "model.safetensors")
    tiny.train(squares, Recipe(init=init, steps=2, batch_size=4), name="further")
    assert model_of(home, "further").config.student is None


def test_the_command_finds_the_teachers_pictures_and_says_what_a_student_is(squares, home, trained, command):
    shutil.copytree(trained[0], tiny.run_directory(home))
    with tiny.scaled_down():
        arguments = ("distill", "tiny", "--evaluations", "2", "--steps", "2", "--batch-size", "4", "--device", "cpu")
        code, out, err = command(*arguments)
        assert code == 0, err
        assert "distance 0." in err
        assert tiny.run_directory(home, "tiny-2-steps").name in out
        assert "already trained" in command(*arguments)[2]
        code, out, err = command("sample", "a red square", "-m", "tiny-2-steps", "-o", home / "pictures")
        assert code == 0
        assert "distilled to 2 steps with a guidance of 3 built in" in err
    code, _, err = command("sample", "a red square", "-m", "tiny-2-steps", "--steps", "20")
    assert code == 2
    assert "2 steps of DDIM" in err
    assert not err.startswith("model ")                                    # refused before a model is loaded
    assert "from tiny, guided at 3; samples in 2 steps" in command("models", "show", "tiny-2-steps")[1]
    code, out, _ = command("evaluate", "tiny-2-steps", "-n", "0", "--json")
    assert code == 0
    assert "bits_per_dim" not in json.loads(out)
    assert json.loads(out)["not_measured"].keys() == {"noise_mse", "bits_per_dim"}
    assert "knows only the noise levels of its own steps" in command("evaluate", "tiny-2-steps", "-n", "0")[1]


@pytest.mark.parametrize(("options", "said"), [
    ({"evaluations": 4}, "name of its teacher"), ({"evaluations": 4, "init": "none"}, "name of its teacher"),
    ({"guidance": 3.0}, "for students"), ({"guidance": 3.0, "init": "demo"}, "for students")])
def test_options_of_a_student_are_refused_where_they_would_be_ignored(options, said):
    with pytest.raises(UsageError, match=said):
        Recipe(**options)


@pytest.mark.parametrize("place", ["cars", "cars/model.safetensors", "alone.safetensors"])
def test_a_student_has_the_name_of_its_teacher(squares, trained, command, tmp_path, place):
    directory = tmp_path / "cars"
    shutil.copytree(trained[0], directory)
    (tmp_path / "alone.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    with tiny.scaled_down():
        code, out, err = command("distill", tmp_path / place, squares, "--evaluations", "1", "--steps", "1",
                                 "--batch-size", "2", "--device", "cpu")
    assert code == 0, err
    assert f"models/{place.partition('/')[0].removesuffix('.safetensors')}-1-steps/" in out


def test_a_student_is_refused_before_it_is_asked_for_pictures(command):
    code, _, err = command("distill", "demo-fast")
    assert code == 2
    assert "demo-fast is distilled already, from demo. Distil that one" in err


def test_guidance_is_refused_where_the_teacher_has_no_captions(command, unconditional):
    code, _, err = command("distill", unconditional[0] / "model.safetensors", "--guidance", "5")
    assert (code, "was trained without captions and knows no guidance" in err) == (2, True)


@pytest.mark.parametrize(("init", "name"), [("demo", "demo"), ("./copy.safetensors", "tiny"), ("/some/run", "tiny")])
def test_a_student_names_its_teacher_as_commands_find_it(teacher, init, name):
    config = plan.student_config(checkpoint.load_model(teacher, CPU), Recipe(init=init, evaluations=2))
    assert config.student.teacher == name


def test_one_step_is_one_step():
    assert [Student(evaluations=count, guidance=3, teacher="x").steps for count in (1, 4)] == ["1 step", "4 steps"]


def test_the_command_needs_pictures(home, trained, command, tmp_path):
    path = tmp_path / "alone.safetensors"
    path.write_bytes((trained[0] / "model.safetensors").read_bytes())
    code, _, err = command("distill", path)
    assert code == 3
    assert "does not know the pictures" in err


# ── The targets and the states ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def segments(teacher):
    model = checkpoint.load_model(teacher, CPU)
    config = dataclasses.replace(model.config, student=Student(evaluations=2, guidance=3.0, teacher="tiny"))
    schedule = make_schedule(config.schedule, 8)
    return model, Segments(Teacher(model.network, encode(model.tokenizer, [""])), config, schedule, "fp32")


def test_the_states_of_a_student_are_those_through_which_it_samples(segments):
    model, segments = segments
    text, negative = encode_prompts(model, ["a red square", "a blue square"])
    noise = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    student = dataclasses.replace(model, config=segments.config)
    (sample,) = generate(student, [SampleRequest(prompt="a red square", sampling=Sampling.of(segments.config))])
    assert sample.pixels.shape == (8, 8, 3)
    half = segments.own_states(model.network, noise, 0.5, Condition(text, negative))
    again = segments.own_states(model.network, noise[:1], 0.5, Condition(text[:1], negative))
    torch.testing.assert_close(half[:1], again, rtol=0, atol=1e-5)
    assert not torch.equal(half, noise)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_noisy_pictures_are_the_students_own(segments, share, monkeypatch):
    """Only at its second step; at the first there is noise alone. The others are pictures with noise."""
    monkeypatch.setattr(distillation, "OWN_SHARE", share)
    model, segments = segments
    asked, started = [], []
    monkeypatch.setattr(Segments, "own_states", lambda self, student, noise, t, condition: (
        asked.append((t, len(noise))), torch.full_like(noise, 9.0))[1])
    monkeypatch.setattr(Segments, "targets", lambda self, noisy, t, condition: (
        started.append((t, noisy)), torch.zeros_like(noisy))[1])
    count = 64
    generator = torch.Generator().manual_seed(0)
    batch = Batch(torch.zeros(count, 3, 8, 8), torch.randn(count, 3, 8, 8, generator=generator),
                  torch.tensor([0.4, 0.9], dtype=torch.float64).repeat(count // 2), encode(model.tokenizer, ["red"]),
                  torch.zeros(count, dtype=torch.int64))
    loss = distillation.DistillationLoss(model.network, mock.Mock(batch_size=count), segments)
    loss(batch, torch.arange(count))
    own = {t: sum(bool((one == 9).all()) for one in noisy) for t, noisy in started}
    assert own[1.0] == 0
    assert own[0.5] == sum(number for _, number in asked)
    assert {t for t, _ in asked} <= {0.5}
    assert own[0.5] == {0.0: 0, 1.0: count // 2}.get(share, own[0.5])
    assert share != 0.5 or count // 8 < own[0.5] < 3 * count // 8


def test_the_targets_are_the_guided_teachers(segments):
    model, segments = segments
    text, negative = encode_prompts(model, ["a red square"])
    noisy = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    guided = segments.targets(noisy, 0.5, Condition(text, negative))
    plain = dataclasses.replace(segments, config=dataclasses.replace(
        segments.config, student=Student(evaluations=2, guidance=1.0, teacher="tiny"))).targets(
            noisy, 0.5, Condition(text, negative))
    unguided = segments.targets(noisy, 0.5, Condition(negative, negative))
    assert (guided - plain).abs().max() > 1e-3
    assert (plain - unguided).abs().max() > 1e-4
    assert guided.abs().max() < 1.5


# ── Sampling ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_student_samples_in_its_steps_alone(segments):
    config: ModelConfig = segments[1].config
    sampling = Sampling.of(config, batch_size=3)
    assert (sampling.sampler, sampling.steps, sampling.guidance, sampling.batch_size) == ("ddim", 2, 1, 3)
    assert sampling_times_of(config, sampling) == mathematics.student_times(2)
    assert guided_steps(config, sampling) == 0
    for wrong in ({"steps": 20}, {"guidance": 3.0}, {"sampler": "ddpm"}):
        with pytest.raises(UsageError, match="distilled to sample in 2 steps of DDIM") as caught:
            Sampling.of(config, **wrong)
        assert caught.value.hint.endswith("a model that was not distilled, such as its teacher or demo")
    model = dataclasses.replace(segments[0], config=config)
    with pytest.raises(UsageError, match="distilled"):
        list(generate(model, [SampleRequest(sampling=Sampling())]))


def test_the_students_steps_are_in_order():
    assert all(t > s for t, s in itertools.pairwise(mathematics.student_times(8)))
