"""The network as a whole: text encoder and U-Net, trained together, saved together, started by one method.

Does not know noise, files, devices or how it is trained. Nothing here draws from the global random generator.
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..config import NetworkConfig
from .blocks import Dropout
from .text_encoder import TextEncoder
from .tokenizer import END, LENGTH, PAD
from .unet import UNet

WORDS = 5                                               # that a caption has, in order of magnitude
SILENT_AT_START = ("conv2", "to_out.0", "conv_out")     # zero: every residual branch, and the output


class Network(nn.Module):
    """`encode` captions once, then call with them at every time. `text_encoder` is None when unconditional.

    A new network's weights are uninitialised memory: call `initialise`, or load a state dict.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        device = torch.empty(0).device                  # where a `with torch.device(…)` around this call wants it
        with torch.device("meta"):                      # torch's own random start would be wasted, and is global
            self.unet = UNet(config)
            self.text_encoder = None if config.text is None else TextEncoder(config.text)
        if device.type != "meta":
            self.to_empty(device=device)

    def settle(self, device: torch.device) -> "Network":
        """Move to a device, with the memory order in which its convolutions are fastest: channels last, but on MPS."""
        self.to(device)
        if device.type != "mps":
            self.to(memory_format=torch.channels_last)              # type: ignore[call-overload]
        return self

    def encode(self, tokens: Tensor) -> Tensor:
        """tokens (M, 77) int64 → text (M, 77, text width). Only for conditional networks."""
        assert self.text_encoder is not None, "an unconditional network reads no text"
        text: Tensor = self.text_encoder(tokens)
        return text

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        text: Tensor | None = None,
        *,
        dropout: Dropout | None = None,
        detach_variance: bool = False,
    ) -> Tensor:
        """noisy (N, C, H, W), time (N,), text (N, 77, text width) → (N, out_channels, H, W); see `UNet.forward`."""
        output: Tensor = self.unet(noisy, time, text, dropout=dropout, detach_variance=detach_variance)
        return output

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Start all weights anew: the same generator state gives the same weights. It must be on their device.

        As torch and T5 would start them, but for what is silent, and what reads text: captions begin as bags of words,
        each word as loud as in any other caption, and nothing that all captions share.
        """
        for name, module in self.unet.named_modules():                  # uniform within ± 1/√fan-in; norms the identity
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
            elif isinstance(module, nn.Linear | nn.Conv2d):
                assert module.bias is not None
                bound = 0.0 if name.endswith(SILENT_AT_START) else module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                module.bias.uniform_(-bound, bound, generator=generator)
        if self.text_encoder is None or self.config.text is None:
            return

        pooled = self.unet.add_embedding
        pooled.pool.positional_embedding.zero_()
        pooled.pool.v_proj.weight.mul_(LENGTH / WORDS)                  # it averages 77 positions, few of them words
        pooled.pool.v_proj.bias.zero_()
        pooled.proj.bias.zero_()

        # Normal with std 1/√fan-in, but embeddings 1, and queries smaller by √d, the scale that T5's attention lacks.
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


def _shadow(config: NetworkConfig) -> Network:
    """The network without its numbers: shapes only, whatever its size."""
    with torch.device("meta"):
        return Network(config)


def parameter_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Names, as in `Network.state_dict()`, and shapes of all parameters; no memory is allocated for them."""
    return {name: tuple(tensor.shape) for name, tensor in _shadow(config).state_dict().items()}


def parameter_count(config: NetworkConfig) -> int:
    """The number of parameters, text encoder included; no memory is allocated for them."""
    return sum(math.prod(shape) for shape in parameter_shapes(config).values())


def flops(config: NetworkConfig) -> int:
    """Floating point operations of one forward pass for one picture and its caption; a multiply-add counts as two."""
    network = _shadow(config)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        text = None if config.text is None else network.encode(torch.empty(1, LENGTH, dtype=torch.int64))
        network(torch.empty(1, config.channels, config.resolution, config.resolution), torch.empty(1), text)
    return int(counter.get_total_flops())
