"""How often a step moves data to a device and waits for it, counted on a device that is not there.

On a GPU every copy from ordinary memory and every value that the CPU reads stops the program until the device has done
all that it was given. A training step needs one of them: the norm of the gradient, by which the CPU decides whether to
update the weights. The batch itself must reach the device, in one copy for which nothing waits.
"""

import dataclasses

import elsewhere
import numpy as np
import pytest
import tiny
import torch

from diffuse_cli.config import SAMPLERS, Recipe, Sampling
from diffuse_cli.data.split import split_dataset
from diffuse_cli.model_config import Student
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.runtime.distributed import World
from diffuse_cli.runtime.transfer import Packed
from diffuse_cli.sampling.generate import encode_prompts, reverse_diffusion
from diffuse_cli.sampling.request import InitImage
from diffuse_cli.storage.checkpoint import Model
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.plan import make_plan
from diffuse_cli.training.trainer import Trainer

CAPTIONS = [("a red square, bright", "red"), ("a blue square",), ()] * 4


def make_trainer(*, micro_batch=4, model=None, **changes):
    """A trainer on the device that is not there; the changes are those of its plan, `model` those of the plan's."""
    data = tiny.dataset(CAPTIONS)
    split = split_dataset(data.pixel_hashes)
    tokenizer = train_tokenizer(text for texts in CAPTIONS for text in texts)
    with tiny.scaled_down():
        plan, _ = make_plan(Recipe(preset="nano", batch_size=4, steps=100), data, split, resolution=8, fit="crop",
                            tokenizer=tokenizer, init=None, device=torch.device("cpu"))
    plan = dataclasses.replace(plan, model=dataclasses.replace(plan.model, **model or {}), **changes)
    trainer = Trainer(plan, Batches(plan, data, split.train, tokenizer, elsewhere.DEVICE), precision="fp32",
                      micro_batch=micro_batch, compiled=False, world=World())
    if trainer.teacher is not None:
        trainer.start_from(trainer.network.state_dict())
    return trainer


@pytest.mark.parametrize(("options", "copies"), [
    ({}, 1), ({"flip": True, "dropout": 0.1, "word_drop": 0.2, "tag_drop": 0.2}, 1), ({"micro_batch": 2}, 2),
    ({"model": {"prediction": "x0", "schedule": "linear"}, "loss_weighting": "min-snr"}, 1),
    # A student's teacher walks from other times: their coefficients, and which pictures have them, are a second copy.
    ({"model": {"student": Student(evaluations=4, guidance=2.0, teacher="tiny")}}, 2)])
def test_a_training_step_waits_once_and_moves_each_micro_batch_at_once(options, copies):
    with elsewhere.chosen():
        trainer = make_trainer(**options)
        trainer.step()
        with elsewhere.counted() as counts:
            trainer.step()
        trainer.batches.close()
    assert counts["launches"] > 100
    assert (counts["to device"], counts["waiting"], counts["to host"]) == (copies, 0, 1)


@pytest.fixture(scope="module")
def model():
    with elsewhere.chosen():
        trainer = make_trainer()
        return Model(config=trainer.plan.model, network=trainer.network.eval(), tokenizer=trainer.batches.tokenizer)


@pytest.mark.parametrize("kind", ["new", "init", "mask"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_step_of_a_sampler_moves_or_reads_anything(model, sampler, kind):
    mask = np.arange(64).reshape(8, 8) > 40 if kind == "mask" else None
    inits = [] if kind == "new" else [InitImage(np.full((8, 8, 3), 99, np.uint8), 0.9, mask)] * 2
    sampling = Sampling(steps=4, sampler=sampler, guidance=3.0, guidance_interval=(0.0, 20.0))
    with elsewhere.chosen():
        text, negative = encode_prompts(model, ["a red square", "blue"])
        steps = reverse_diffusion(model.network, model.config, text=text, negative=negative, seeds=[1, 2],
                                  sampling=sampling, inits=inits)
        next(steps)                             # everything that the steps need is moved before the first
        with elsewhere.counted() as counts:
            states = list(steps)
    assert len(states) >= 2
    assert counts["launches"] > 100
    assert (counts["to device"], counts["to host"]) == (0, 0)


def test_tensors_of_all_kinds_arrive_together():
    tensors = [torch.arange(5, dtype=torch.uint8), torch.tensor([[1.5, -2.0]]), torch.tensor([True, False, True]),
               torch.zeros(0, 3, dtype=torch.int64), torch.tensor([2**62 + 1, -7]),
               torch.rand(4, 3, dtype=torch.float64)]
    assert all(one is other for one, other in zip(Packed(tensors, torch.device("cpu")).send(), tensors, strict=True))
    with elsewhere.chosen(), elsewhere.counted() as counts:
        arrived = [tensor.here for tensor in Packed(tensors, elsewhere.DEVICE).send()]
    assert (counts["to device"], counts["waiting"]) == (1, 0)
    assert torch.equal(arrived.pop(), tensors.pop().float())
    for there, here in zip(arrived, tensors, strict=True):
        assert there.dtype == here.dtype
        assert torch.equal(there, here)
