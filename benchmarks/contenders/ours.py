"""diffuse-cli as a user has it: `planning.make_plan`, `Trainer.step` and `generate.generate` with their defaults."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffuse_cli.checks import to_dict
from diffuse_cli.config import Export, Machine, Recipe, Sampling
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.data.listing import Dataset
from diffuse_cli.data.split import split_dataset
from diffuse_cli.exporting import onnx_folder
from diffuse_cli.model_config import ModelConfig, Student
from diffuse_cli.network.network import Network, flops
from diffuse_cli.network.presets import network_config
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.picture_size import Size
from diffuse_cli.runtime import devices, randomness
from diffuse_cli.runtime.distributed import World
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.sampling.steps import guided_steps
from diffuse_cli.storage import checkpoint
from diffuse_cli.training import memory
from diffuse_cli.training import plan as planning
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.trainer import Trainer

from . import Contender, finish

CAPTIONS = tuple(f"a {colour} {thing}" for colour in scenes.COLOURS for thing in scenes.OBJECTS)
GUIDANCE = 3.0
EPOCHS = 40                                     # few enough that the plan has no dropout, as in a first training


def shape(preset: str, resolution: int, *, conditional: bool) -> dict[str, Any]:
    """The configuration of a preset's network, ready for JSON, from which a peer builds the same network."""
    vocabulary = train_tokenizer(CAPTIONS).get_vocab_size() if conditional else None
    return to_dict(network_config(preset, resolution, vocabulary=vocabulary, learned_variance=True))


def random_pictures(count: int, resolution: int, seed: int) -> np.ndarray:
    """Noise (N, R, R, 3) uint8: a step takes as long as with real pictures."""
    return np.random.default_rng(seed).integers(0, 256, (count, resolution, resolution, 3), np.uint8)


def dataset_of(pixels: np.ndarray, *, conditional: bool, captions: tuple[tuple[str, ...], ...] = ()) -> Dataset:
    """A data set as the cache would return it. captions: those of each picture; (): invented ones."""
    count = len(pixels)
    if not captions:
        captions = tuple((CAPTIONS[k % len(CAPTIONS)],) if conditional else () for k in range(count))
    hashes = tuple(hashlib.sha256(str(k).encode()).hexdigest() for k in range(count))
    return Dataset(images=pixels, captions=captions, names=tuple(f"{k}.png" for k in range(count)), pixel_hashes=hashes,
                   content_id="0" * 64, skipped=(), warnings=())


def make_trainer(dataset: Dataset, recipe: Recipe, *, precision: str = "auto", device: str = "cpu",
                 compiled: bool = False) -> Trainer:
    """The trainer that `diffuse train` would make of a new network, but with whole pictures from the first step on."""
    torch_device = torch.device(device)
    conditional, resolution = recipe.captions != "none", int(dataset.images.shape[1])
    split = split_dataset(dataset.pixel_hashes)
    tokenizer = train_tokenizer(one[0] for one in dataset.captions) if conditional else None
    plan, _ = planning.make_plan(recipe, dataset, split, resolution=resolution, fit="crop", tokenizer=tokenizer,
                                 init=None, device=torch_device)
    plan = dataclasses.replace(plan, half_side_steps=0)
    machine = Machine(precision=precision)
    micro_batch = memory.choose_micro_batch(plan, machine, torch_device, processes=1)
    dataset = dataset.with_channels(plan.model.network.channels)
    return Trainer(plan, Batches(plan, dataset, split.train, tokenizer, torch_device), micro_batch=micro_batch,
                   compiled=compiled, precision=devices.choose_precision(machine, torch_device), world=World())


def training(*, preset: str, resolution: int, batch: int, conditional: bool, precision: str = "auto", seed: int = 0,
             pictures: int = 2048, memory_map: str | None = None, device: str = "cpu", compiled: bool = False,
             optimizer: str = Recipe.optimizer) -> Contender:
    """A unit is a training step. memory_map: a file of `pictures` pictures, as the cache writes it; None: random ones.
    """
    if memory_map is None:
        pixels = random_pictures(pictures, resolution, seed)
    else:
        pixels = np.memmap(Path(memory_map), np.uint8, "r", shape=(pictures, resolution, resolution, 3))
    recipe = Recipe(resolution=Size.of(resolution), preset=preset, batch_size=batch, images=EPOCHS * pictures,
                    captions="auto" if conditional else "none", seed=seed, optimizer=optimizer)
    trainer = make_trainer(dataset_of(pixels, conditional=conditional), recipe, precision=precision, device=device,
                           compiled=compiled)

    def work(steps: int) -> None:
        for _ in range(steps):
            trainer.step()
        finish(device)

    config = trainer.plan.model.network
    network_parameters = sum(one.numel() for one in trainer.network.unet.parameters())
    return Contender(work, {
        "pictures": batch, "parameters": trainer.parameters, "unet_parameters": network_parameters,
        "gflop": 3 * flops(config) / 1e9, "precision": trainer.precision, "dropout": trainer.plan.dropout,
        "optimizer": trainer.plan.optimizer})


def random_model(preset: str, resolution: int, *, conditional: bool, evaluations: int | None = None,
                 seed: int = 0) -> checkpoint.Model:
    """A model with the weights that training starts from, ready to sample. evaluations: of a student."""
    tokenizer = train_tokenizer(CAPTIONS) if conditional else None
    student = None if evaluations is None else Student(evaluations=evaluations, guidance=GUIDANCE, teacher="")
    config = ModelConfig(schedule="interpolated", prediction="v", student=student, network=network_config(
        preset, resolution, vocabulary=None if tokenizer is None else tokenizer.get_vocab_size(),
        learned_variance=True))
    network = Network(config.network)
    network.initialise(randomness.generator(seed, "weights"))
    network.place_on(torch.device("cpu")).requires_grad_(False).eval()
    return checkpoint.Model(config, network, tokenizer)


def sampling(*, preset: str, resolution: int, pictures: int, conditional: bool, precision: str = "fp32",
             sampler: str = "dpmpp-2m", steps: int | None = None, guidance: float = GUIDANCE, everywhere: bool = False,
             batch_size: int = 8, evaluations: int | None = None, seed: int = 0) -> Contender:
    """A unit is `pictures` generated pictures. everywhere: guided at every step, as the peers are. evaluations: of a
    student, which draws in its own way."""
    model = random_model(preset, resolution, conditional=conditional, evaluations=evaluations)
    settings = Sampling(sampler=sampler, steps=steps, guidance=guidance, batch_size=batch_size, precision=precision,
                        guidance_interval=(0.0, 1e9) if everywhere else None)
    if evaluations is not None:
        settings = dataclasses.replace(Sampling.of(model.config), batch_size=batch_size, precision=precision)

    def work(times: int) -> None:
        for _ in range(times):
            requests = [SampleRequest(prompt="a red car", count=pictures, seed=seed, sampling=settings)]
            assert len(list(generate.generate(model, requests))) == pictures

    guided = guided_steps(model.config, settings) if conditional and settings.guidance != 1 else 0
    return Contender(work, {
        "pictures": pictures, "steps": settings.number_of_steps, "guided_steps": guided, "precision": precision,
        "sampler": settings.sampler, "batch": batch_size,
        "parameters": sum(one.numel() for one in model.network.parameters())})


def write_student(folder: Path, preset: str, resolution: int, evaluations: int) -> None:
    """Write a student with random weights for onnxruntime."""
    onnx_folder.write(random_model(preset, resolution, conditional=True, evaluations=evaluations), folder,
                      Export(format="onnx"))
