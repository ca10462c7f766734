"""Counts what a GPU would have to begin in a step, for networks of any size: torch's meta device computes nothing.

An operation counts once unless it is a view. Those over lists of tensors count once, too, although CUDA begins one
kernel for every 30 to 110 tensors of a list. What autocast does is imitated, because torch has none for this device.
"""

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import tiny
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from diffuse_cli import denoiser
from diffuse_cli.config import Recipe, Sampling
from diffuse_cli.data.split import split_dataset
from diffuse_cli.network.network import Network
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.runtime.distributed import World
from diffuse_cli.sampling.generate import encode_prompts, reverse_diffusion
from diffuse_cli.storage.checkpoint import Model
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.muon import orthogonal_steps
from diffuse_cli.training.plan import make_plan
from diffuse_cli.training.trainer import Trainer

DEVICE = torch.device("meta")
CAPTIONS = [("a red square",), ("a blue square",)] * 6
LOWERED = (
    F.conv2d, F.linear, F.scaled_dot_product_attention, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm)
NOTHING = re.compile("empty|unsafe_view|detach")          # operations that begin nothing either
RAISED = (F.group_norm, F.layer_norm, F.interpolate, torch.softmax, Tensor.softmax, F.softmax)


_HERE = torch.library.Library("aten", "IMPL", "Meta")                  # where torch has no such step of its own
if not torch._C._dispatch_has_kernel_for_dispatch_key("aten::_fused_sgd_", "Meta"):
    _HERE.impl("_fused_sgd_", lambda *tensors, **options: None)


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        on_device = any(isinstance(value, Tensor) and value.device == DEVICE for value in _leaves((args, result)))
        if on_device and not operation.is_view and not NOTHING.search(str(operation)):
            self.counts[str(operation)] += 1
        return result


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    tree_map(found.append, value)
    return found


class _Autocast(TorchFunctionMode):
    """bf16 for products, float32 for norms. Each weight is converted once, as autocast remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        wanted = torch.bfloat16 if function in LOWERED else torch.float32 if function in RAISED else None
        if wanted is not None:
            args, kwargs = tree_map(lambda value: self._cast(value, wanted), (args, kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _cast(self, value: Any, wanted: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == wanted:
            return value
        if not (value.is_leaf and value.requires_grad):
            return value.to(wanted)
        if id(value) not in self.known:
            self.known[id(value)] = value, value.to(wanted)
        return self.known[id(value)][1]


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Operation → how often it was begun on the device inside."""
    with _Counting() as counting:
        yield counting.counts


@contextlib.contextmanager
def on_device(precision: str) -> Iterator[None]:
    """Networks are made on the meta device, with autocast imitated; values that are read from it are ones."""
    def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
        return _Autocast() if precision == "bf16" else contextlib.nullcontext()

    make = Network.__init__

    def made(network: Network, config: Any) -> None:
        with torch.device("meta"):
            make(network, config)

    with mock.patch.object(Network, "__init__", made), mock.patch.object(Network, "initialise"), \
            mock.patch.object(denoiser, "_autocast", autocast), \
            mock.patch.object(Tensor, "tolist", _read), \
            mock.patch.object(_foreach_utils, "_get_foreach_kernels_supported_devices", return_value=["meta"]):
        yield


_tolist = Tensor.tolist


def _read(tensor: Tensor) -> Any:
    return [1.0] * tensor.numel() if tensor.device == DEVICE else _tolist(tensor)


def make_trainer(preset: str, resolution: int, *, batch_size: int = 4, compiled: bool | None = False) -> Trainer:
    data = tiny.dataset(CAPTIONS, size=resolution)
    split = split_dataset(data.pixel_hashes)
    tokenizer = train_tokenizer(text for texts in CAPTIONS for text in texts)
    recipe = Recipe(preset=preset, batch_size=batch_size, steps=100)
    plan, _ = make_plan(recipe, data, split, resolution=resolution, fit="crop", tokenizer=tokenizer, init=None,
                        device=torch.device("cpu"))
    plan = dataclasses.replace(plan, half_side_steps=0)                # a step with whole pictures
    return Trainer(plan, Batches(plan, data, split.train, tokenizer, DEVICE), precision="bf16",
                   micro_batch=batch_size, compiled=compiled, world=World())


@dataclass(frozen=True)
class Launches:
    """Of a training step: all, and those of parts of it."""

    step: int
    network: int                                # text encoder and U-Net, forward and backward
    muon: int                                   # all of it
    directions: int                             # `orthogonal_steps` alone

    @property
    def compiled(self) -> int:
        """The step, if torch compiles: each of the five graphs counts once, two of them backward."""
        return self.step - self.network - self.directions + 5

    @property
    def compiled_muon(self) -> int:
        return self.muon - self.directions + 1


def of_training(preset: str, resolution: int = 64) -> Launches:
    with on_device("bf16"):
        trainer = make_trainer(preset, resolution)
        trainer.step()
        with counted() as of_step:
            trainer.step()
        muon = trainer.optimizer.parts[-1]
        with counted() as of_muon:
            muon.step()
        gradients = [parameter.grad for parameter in muon.param_groups[0]["params"]]
        with torch.no_grad(), counted() as of_directions:
            orthogonal_steps(gradients, torch.bfloat16)
        return Launches(of_step.total(), _of_network(trainer), of_muon.total(), of_directions.total())


def _of_network(trainer: Trainer) -> int:
    batch, _ = trainer.batches.draw(0, 0, trainer.plan.batch_size)
    trainer.optimizer.zero_grad()
    with counted() as counts:
        text = denoiser.encode_captions(trainer.network, batch.tokens, batch.caption_of, precision="bf16")
        time = torch.empty(len(batch.image), device=DEVICE)
        with denoiser._autocast(DEVICE, "bf16"):
            output = trainer.network(batch.image, time, text, detach_variance=True)
        output.backward(output.detach())
    return counts.total()


def of_sampling(preset: str, resolution: int = 64) -> int:
    """Of a guided step of the default sampler."""
    with on_device("bf16"):
        trainer = make_trainer(preset, resolution)
        network = trainer.network.requires_grad_(False).eval()
        model = Model(config=trainer.plan.model, network=network, tokenizer=trainer.batches.tokenizer)
        text, negative = encode_prompts(model, ["a red square", "blue"])
        sampling = Sampling(steps=6, guidance_interval=(0.0, 1e9), precision="bf16")
        steps = reverse_diffusion(network, model.config, text=text, negative=negative, seeds=[1, 2], sampling=sampling)
        next(steps), next(steps)
        with counted() as counts:
            next(steps)
        return counts.total()
