"""Worlds for tests: processes that meet as those of one training do, forked from this one, with a core's worth each."""

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffuse_cli import events
from diffuse_cli.config import Machine, Recipe
from diffuse_cli.data.split import split_dataset
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.runtime import launch_environment
from diffuse_cli.training import loop, meetings, monitor
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.plan import make_plan
from diffuse_cli.training.run import join_run, open_run
from diffuse_cli.training.trainer import Trainer

CPU = torch.device("cpu")
CAPTIONS = [("a red square", "red"), ("a blue square",)] * 6
Work = Callable[[], dict[str, Tensor]]


def run(size: int, work: Work, directory: Path) -> list[dict[str, Tensor]]:
    """What `work` returned in each of `size` processes, by rank. A process that failed fails the test."""
    directory.mkdir(parents=True, exist_ok=True)
    children = [_fork(rank, size, work, directory) for rank in range(size)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * size, codes
    return [load_file(directory / f"{rank}.safetensors") for rank in range(size)]


def trainer(world, *, micro_batch=4, batch_size=12, captioned=True, sharded=False, recompute=False,
            compiled=False, **recipe):
    """A trainer of a small network with 12 pictures, the same in every process."""
    data = tiny.dataset(CAPTIONS)
    split = split_dataset(data.pixel_hashes)
    tokenizer = train_tokenizer(text for texts in CAPTIONS for text in texts) if captioned else None
    recipe = Recipe(preset="nano", batch_size=batch_size, steps=100, flip=True, **recipe)
    plan, _ = make_plan(recipe, data, split, resolution=8, fit="crop", tokenizer=tokenizer, init=None, device=CPU)
    batches = Batches(plan, data, split.train, tokenizer, CPU)
    with tiny.scaled_down():
        one = Trainer(plan, batches, precision="fp32", micro_batch=micro_batch, compiled=compiled, world=world,
                      sharded=sharded, recompute=recompute)
    numbers = {}
    for number, (name, parameter) in enumerate(one.network.named_parameters()):    # no layer of zeros: every gradient
        values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))             # counts
        numbers[f"weights.{name}"] = 0.1 * values
    one.state.load(numbers)
    one.broadcast_state()
    return one


def train(size, folder, directory, *, recipe=tiny.RECIPE, stop_at=None, **options):
    """Train on a folder in a world; → the noise losses of the steps, as the main process reports them."""
    def work():
        stream = train_here(folder, recipe=recipe, stop_at=stop_at, **options)
        assert stream[-1].complete == (stop_at is None)
        return {"noise": torch.tensor([event.noise_mse for event in tiny.of_kind(events.Stepped, stream)])}

    return run(size, work, directory)[0]["noise"]


def train_here(folder, *, recipe=tiny.RECIPE, stop_at=None, **options):
    """What one process of a training does, which meets the others after every step. → its events"""
    main, machine = launch_environment.process_rank().is_main, Machine(**tiny.OPTIONS, **options)
    opened = open_run(folder, recipe, machine) if main else contextlib.nullcontext(join_run(folder, recipe, machine))
    with opened as run, tiny.scaled_down(), mock.patch.object(monitor, "REPORT_SECONDS", 0), \
            mock.patch.object(meetings, "SECONDS", 0):
        return list(loop.train(run, should_stop=tiny.StopAfter(stop_at)))


def _fork(rank: int, size: int, work: Work, directory: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        environment = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo",
                       launch_environment.RENDEZVOUS: str(directory / "meeting")}
        with mock.patch.dict(os.environ, environment if size > 1 else {}), warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)              # which users would see
            save_file({name: tensor.contiguous() for name, tensor in work().items()},
                      directory / f"{rank}.safetensors")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
