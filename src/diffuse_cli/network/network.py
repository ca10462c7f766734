"""The whole network: text encoder and U-Net as one module, how its weights are initialised, and what a shape costs.

Nothing here draws from torch's global random generator.
"""

import functools
import itertools
import math

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..model_config import NetworkConfig
from .blocks import Attention, Dropout, ResBlock
from .text_encoder import TextEncoder
from .tokenizer import END, LENGTH, PAD
from .unet import UNet

WORDS_PER_CAPTION = 5           # typical number of words in a caption, in order of magnitude
ZERO_AT_START = ("conv2", "to_out.0", "conv_out")       # last layers of all residual branches and of the U-Net: they
#                                                         start at zero, so a new network's output is zero


class Network(nn.Module):
    """The U-Net and its text encoder. Encode captions once with `encode`, then call the network with them at any time.

    `text_encoder` is None in an unconditional network. The weights of a new network are uninitialised memory: call
    `initialise`, or load a state dict.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        device = torch.empty(0).device                  # CPU, or that of a `with torch.device(…)` around this call
        with torch.device("meta"):                      # torch would initialise weights from its global generator
            self.unet = UNet(config)
            self.text_encoder = None if config.text is None else TextEncoder(config.text)
        if device.type != "meta":
            self.to_empty(device=device)

    def place_on(self, device: torch.device) -> "Network":
        """Move to a device, in the memory order in which its convolutions are fastest: channels last, except on MPS.

        → the network itself
        """
        self.to(device)
        if device.type != "mps":
            self.to(memory_format=torch.channels_last)              # type: ignore[call-overload]
        return self

    def parts(self) -> list[nn.Module]:
        """The parts that compute one after the other, each with its own weights alone. Few weights are in none."""
        return [module for module in self.modules() if isinstance(module, ResBlock | Attention | TextEncoder)]

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens of captions (M, 77) int64 → text features (M, 77, text width). Only for conditional networks."""
        assert self.text_encoder is not None, "an unconditional network reads no text"
        text: Tensor = self.text_encoder(tokens)
        return text

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        text: Tensor | None = None,
        *,
        low_res: tuple[Tensor, Tensor] | None = None,
        dropout: Dropout | None = None,
        detach_variance: bool = False,
    ) -> Tensor:
        """The U-Net: noisy (N, C, H, W), time (N,), text (N, 77, text width) → (N, out_channels, H, W).

        The arguments are those of `UNet.forward`.
        """
        output: Tensor = self.unet(
            noisy, time, text, low_res=low_res, dropout=dropout, detach_variance=detach_variance)
        return output

    def features(self, noisy: Tensor, time: Tensor, text: Tensor | None = None) -> list[Tensor]:
        """The maps of the U-Net on the way down, see `UNet.features`."""
        return self.unet.features(noisy, time, text)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Initialise all weights from a generator on their device; the same generator state gives the same weights.

        Weights start as in torch and in T5, with two exceptions: the layers of `ZERO_AT_START`, and the layers that
        read text. These make a bag of words of a caption: every word counts as much as in any other caption, and
        captions have nothing in common but shared words.
        """
        # U-Net: uniform within ±1/√fan-in; norms start as the identity.
        for name, module in self.unet.named_modules():
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
            elif isinstance(module, nn.Linear | nn.Conv2d):
                assert module.bias is not None
                bound = 0.0 if name.endswith(ZERO_AT_START) else module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                module.bias.uniform_(-bound, bound, generator=generator)
        if self.text_encoder is None or self.config.text is None:
            return

        # Summary of the caption: no biases, which all captions would share. Its attention averages 77 positions of
        # which few are words, so the values are larger.
        summary = self.unet.add_embedding
        summary.pool.positional_embedding.zero_()
        summary.pool.v_proj.weight.mul_(LENGTH / WORDS_PER_CAPTION)
        summary.pool.v_proj.bias.zero_()
        summary.proj.bias.zero_()

        # Text encoder: normal with standard deviation 1/√fan-in. Embeddings have 1. Queries are smaller by √d, because
        # T5's attention does not divide by it. The last layers of residual branches start at zero.
        text = self.config.text
        stds = {
            "shared": 1.0, "q": (text.width * text.width // text.heads) ** -0.5,
            "relative_attention_bias": text.width**-0.5, "o": 0.0, "wo": 0.0}
        for name, module in self.text_encoder.named_modules():
            if isinstance(module, nn.RMSNorm):
                module.weight.fill_(1.0)
            elif isinstance(module, nn.Linear | nn.Embedding):
                std = stds.get(name.rpartition(".")[2], module.weight.shape[1] ** -0.5)
                module.weight.normal_(std=std, generator=generator)
        self.text_encoder.shared.weight[[PAD, END]] = 0.0


# ── What a shape costs ──────────────────────────────────────────────────────────────────────────────────────────────


def on_meta_device(config: NetworkConfig) -> Network:
    """The network as shapes only: no memory is allocated for its weights."""
    with torch.device("meta"):
        return Network(config)


def parameter_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter under its name in `Network.state_dict()`; no memory is allocated for parameters."""
    return {name: tuple(tensor.shape) for name, tensor in on_meta_device(config).state_dict().items()}


@functools.lru_cache(maxsize=16)
def parameter_count(config: NetworkConfig) -> int:
    """The number of parameters, those of the text encoder included; no memory is allocated for them."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def flops(config: NetworkConfig) -> int:
    """Floating-point operations of one forward pass for one picture and its caption; a multiply-add counts as two."""
    network = on_meta_device(config)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        _pass_one(network, config)
    return int(counter.get_total_flops())


def activation_bytes(config: NetworkConfig, *, recompute: bool = False) -> int:
    """Bytes that one picture and its caption leave in memory for the backward pass, in float32.

    In bf16 they are about a tenth less, because normalisation keeps float32. Counted on the meta device. recompute:
    blocks keep their inputs alone; what the largest of them needs while it computes once more is added.
    """
    kept, largest = _kept(config, recompute=False)
    return _kept(config, recompute=True)[0] + largest if recompute else kept


@functools.lru_cache(maxsize=16)
def _kept(config: NetworkConfig, *, recompute: bool) -> tuple[int, int]:
    """What a forward pass of one picture keeps, in bytes: all of it, and the largest part of a block."""
    network, kept = on_meta_device(config), dict[int, Tensor]()
    network.unet.recompute = recompute
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    totals = [0]                                # what was kept at each beginning and end of a block

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            kept[tensor.untyped_storage()._cdata] = tensor             # views of one tensor count once
        return tensor

    def note(*_: object) -> None:
        totals.append(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))

    for block in network.parts():
        block.register_forward_pre_hook(note)
        block.register_forward_hook(note)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with torch.device("meta"), torch.enable_grad(), hooks:
        _pass_one(network, config)
    note()
    return totals[-1], max(after - before for before, after in itertools.pairwise(totals))


def _pass_one(network: Network, config: NetworkConfig) -> None:
    """Pass one picture of no content, and its caption, through the network."""
    picture = torch.empty(1, *config.shape)
    text = None if config.text is None else network.encode(torch.empty(1, LENGTH, dtype=torch.int64))
    low_res = {} if config.upscaling is None else {"low_res": (picture, torch.empty(1))}
    network(picture, torch.empty(1), text, **low_res)
