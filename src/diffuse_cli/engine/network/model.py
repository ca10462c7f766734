"""The network as a whole: text encoder and U-Net, trained together, saved together, started by one method.

Does not know noise, files, devices or how it is trained. Nothing here draws from the global random generator.
"""

import torch
from torch import Tensor, nn

from ..config import NetworkConfig
from .blocks import Dropout, TextPool
from .text import TextEncoder
from .unet import UNet

ZERO_AT_START = ("conv2", "to_out.0", "conv_out")       # every residual branch, and the output, are silent at first


class Network(nn.Module):
    """`encode` captions once, then call with them at every time. `text_encoder` is None when unconditional.

    A new network's weights are uninitialised memory: call `initialise`, or load a state dict.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        device = torch.get_default_device()
        with torch.device("meta"):                      # torch's own random start would be wasted, and is global
            self.unet = UNet(config)
            self.text_encoder = None if config.text is None else TextEncoder(config.text)
        self.to_empty(device=device)

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
        """Start all weights anew: the same generator state gives the same weights. It must be on their device."""
        self._initialise_unet(generator)
        self._initialise_text_encoder(generator)

    def _initialise_unet(self, generator: torch.Generator) -> None:
        """As torch would (uniform within ± 1/√fan-in; norms the identity), but with silent branches and output."""
        for name, module in self.unet.named_modules():
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                module.weight.fill_(1.0)
                module.bias.zero_()
            elif isinstance(module, nn.Linear | nn.Conv2d):
                assert module.bias is not None
                bound = 0.0 if name.endswith(ZERO_AT_START) else module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                module.bias.uniform_(-bound, bound, generator=generator)
            elif isinstance(module, TextPool):
                width = module.positional_embedding.shape[1]
                module.positional_embedding.normal_(std=width**-0.5, generator=generator)

    def _initialise_text_encoder(self, generator: torch.Generator) -> None:
        """As T5 starts: normal with std 1/√fan-in; queries smaller by √d, for its attention has no scale of its own."""
        if self.text_encoder is None or self.config.text is None:
            return
        width, head_dim = self.config.text.width, self.config.text.width // self.config.text.heads
        for name, parameter in self.text_encoder.named_parameters():
            if parameter.ndim == 1:                                         # the scales of the norms
                parameter.fill_(1.0)
            elif name == "shared.weight":
                parameter.normal_(std=1.0, generator=generator)
            elif name.endswith("relative_attention_bias.weight"):
                parameter.normal_(std=width**-0.5, generator=generator)
            else:
                fan_in = parameter.shape[1] * (head_dim if name.endswith("SelfAttention.q.weight") else 1)
                parameter.normal_(std=fan_in**-0.5, generator=generator)
