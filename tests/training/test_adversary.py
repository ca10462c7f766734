"""The discriminator of a distillation: what it learns, whom it moves, and that it can tell two kinds apart."""

import dataclasses
from unittest import mock

import pytest
import tiny
import torch
from safetensors import safe_open

from diffuse_cli.config import Machine, Recipe
from diffuse_cli.diffusion.distillation import hinge_losses
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.model_config import Student
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.storage import checkpoint, run_directory, training_states
from diffuse_cli.training import loop, plan
from diffuse_cli.training.adversary import Discriminator
from diffuse_cli.training.distillation import DistillationLoss, Segments, Teacher
from diffuse_cli.training.loss import Batch
from diffuse_cli.training.run import open_run

CPU = torch.device("cpu")


@pytest.fixture
def model(trained):
    model = checkpoint.load_model(trained[0] / "model.safetensors", CPU)
    model.network.unet.requires_grad_(True)
    student = Student(evaluations=2, guidance=3.0, teacher="tiny")
    return dataclasses.replace(model, config=dataclasses.replace(model.config, student=student))


@pytest.fixture
def discriminator(model):
    discriminator = Discriminator(model.config)
    discriminator.initialise(torch.Generator().manual_seed(0))
    return discriminator


def maps(model, *, count=4, seed=0, mean=0.0):
    """Made-up features, one map for every head."""
    generator = torch.Generator().manual_seed(seed)
    widths = model.config.network.widths
    return [mean + torch.randn(count, width, 8, 8, generator=generator) for width in (*widths, widths[-1])]


def test_the_hinge_losses_by_hand():
    real, estimated = torch.tensor([0.0, 3.0, -2.0]), torch.tensor([0.0, -3.0, 0.5])
    of_student, of_discriminator = hinge_losses(
        *(values[:, None, None, None] for values in (real, estimated, estimated)))
    assert of_student.tolist() == [0.0, 3.0, -0.5]
    assert of_discriminator.tolist() == [2.0, 0.0, 4.5]


def test_what_it_says_moves_the_student_alone_and_what_it_learns_itself_alone(model, discriminator):
    estimated = [seen.requires_grad_() for seen in maps(model, seed=1)]
    of_student, of_discriminator = discriminator(maps(model), estimated, torch.tensor([0, 1, 0, 1]))
    # All but the last biases, whose gradients cancel while the discriminator is sure of nothing
    weights = [weight for name, weight in discriminator.named_parameters() if not name.endswith("conv_out.bias")]
    assert all(one is None for one in torch.autograd.grad(
        of_student.sum(), weights, retain_graph=True, allow_unused=True))
    assert all(one.abs().max() > 0 for one in torch.autograd.grad(of_student.sum(), estimated, retain_graph=True))
    assert all(one is None for one in torch.autograd.grad(
        of_discriminator.sum(), estimated, retain_graph=True, allow_unused=True))
    assert all(one.abs().max() > 0 for one in torch.autograd.grad(of_discriminator.sum(), weights))


def test_it_learns_to_tell_two_kinds_apart(model, discriminator):
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3)
    for step in range(30):
        of_student, loss = discriminator(
            maps(model, seed=step), maps(model, seed=1000 + step, mean=1.0), torch.zeros(4, dtype=torch.int64))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    assert loss.mean() < 0.5                    # of 2, for one that knows nothing
    assert of_student.mean() > 0.5


def names_in(file):
    """The names of the tensors in a file."""
    with safe_open(file, "pt") as opened:
        return list(opened.keys())


# ── In the loss of a distillation ───────────────────────────────────────────────────────────────────────────────────


def gradients(model, discriminator, rows, *, weight=0.5):
    """The loss of some of six pictures, and the gradients of student and discriminator."""
    generator = torch.Generator().manual_seed(0)
    image, noise = (torch.randn(6, 3, 8, 8, generator=generator) for _ in range(2))
    batch = Batch(image[rows], noise[rows], torch.tensor([0.4, 0.9, 0.3, 1.0, 0.6, 0.2], dtype=torch.float64)[rows],
                  encode(model.tokenizer, ["red"]), torch.zeros(len(rows), dtype=torch.int64))
    teacher = Teacher(model.network, encode(model.tokenizer, [""]))
    segments = Segments(teacher, model.config, make_schedule(model.config.schedule, 8), "fp32")
    plan = mock.Mock(batch_size=6, adversarial=weight)
    loss = DistillationLoss(model.network, plan, segments, discriminator)(batch, torch.arange(6)[rows])
    weights = {name: weight for part in (model.network.unet, discriminator) if part is not None
               for name, weight in part.named_parameters()}
    found = torch.autograd.grad(loss[0], list(weights.values()), allow_unused=True)
    return loss.detach(), {name: one for name, one in zip(weights, found, strict=True) if one is not None}


def test_losses_are_those_without_it_and_gradients_are_not(model, discriminator):
    rows = torch.arange(6)
    without, plain = gradients(model, None, rows)
    silent, same = gradients(model, discriminator, rows, weight=0.0)
    with_it, other = gradients(model, discriminator, rows)
    assert without.tolist() == silent.tolist() == with_it.tolist()
    for name, one in plain.items():
        torch.testing.assert_close(same[name], one, rtol=1e-4, atol=1e-7)
    assert (other["conv_in.weight"] - plain["conv_in.weight"]).abs().max() > 1e-3 * plain["conv_in.weight"].abs().max()
    assert {name for name in other if name.startswith("heads.")} == {
        name for name, _ in discriminator.named_parameters()}


def test_the_student_is_moved_against_what_the_discriminator_says(model, monkeypatch):
    """With the mean of each estimate in the place of its loss, whose gradient is 1/D."""
    moved = []

    class Mean(torch.nn.Module):
        def forward(self, of_teacher, of_student, step):
            assert set(step.tolist()) <= {0, 1}
            of_student[0].register_hook(moved.append)
            return of_student[0].flatten(1).mean(1), torch.zeros(len(step))

    monkeypatch.setattr(Segments, "seen", lambda self, image, *_: [image])
    for weight in (0.0, 0.5):
        gradients(model, Mean(), torch.arange(6), weight=weight)
    expected = torch.full_like(moved[0], 0.5 / (6 * 3 * 8 * 8))
    torch.testing.assert_close(moved[1] - moved[0], expected, rtol=1e-3, atol=1e-7)


def test_a_batch_in_parts_has_the_gradients_of_the_whole(model, discriminator):
    _, whole = gradients(model, discriminator, torch.arange(6))
    parts = [gradients(model, discriminator, rows)[1] for rows in (torch.tensor([0, 1, 2, 3]), torch.tensor([4, 5]))]
    for name, one in whole.items():
        together = sum(part.get(name, torch.zeros_like(one)) for part in parts)
        torch.testing.assert_close(together, one, rtol=1e-3, atol=1e-6)


def test_a_few_steps_have_none(squares, home, trained):
    recipe = Recipe(init=str(trained[0] / "model.safetensors"), evaluations=2, steps=plan.ADVERSARIAL_STEPS - 1,
                    batch_size=4)
    with open_run(squares, recipe, Machine(**{**tiny.OPTIONS, "name": "short"})) as run:
        list(loop.train(run, should_stop=tiny.StopAfter(1)))
    assert run_directory.read_config(tiny.run_directory(home, "short"))["plan"]["adversarial"] == 0


def test_its_state_is_saved_and_a_run_that_was_begun_without_it_goes_on_without(squares, home, trained, monkeypatch):
    recipe = Recipe(init=str(trained[0] / "model.safetensors"), evaluations=2, steps=8, batch_size=4)
    tiny.train(squares, recipe, name="with", stop_at=3)
    assert run_directory.read_config(tiny.run_directory(home, "with"))["plan"]["adversarial"] == plan.ADVERSARIAL
    saved = training_states.saved_states(tiny.run_directory(home, "with"))[0].path
    assert any(name.startswith("discriminator.heads.") for name in names_in(saved))
    assert any(name.startswith("exp_avg_sq.discriminator.heads.") for name in names_in(saved))

    with monkeypatch.context() as earlier:
        earlier.setattr(plan, "ADVERSARIAL", 0.0)
        tiny.train(squares, recipe, name="without", stop_at=3)
    assert tiny.train(squares, recipe, name="without")[-1].complete
    saved = training_states.saved_states(tiny.run_directory(home, "without"))[0].path
    assert not any("discriminator" in name for name in names_in(saved))
