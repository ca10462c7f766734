"""diffusers as its training examples use it (`train_unconditional.py`, `train_text_to_image.py`), restated.

The network is the same as that of diffuse-cli, built from its shape. The frozen text encoder of the example is left
out, so that it costs nothing here.
"""

from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from . import Contender, finish, torchvision_operators, training_gflop  # noqa: F401  (before the next lines)

import diffusers  # isort: skip
from diffusers.optimization import get_scheduler  # isort: skip
from diffusers.training_utils import EMAModel  # isort: skip

LENGTH = 77                                     # tokens of a caption, with padding
BLOCKS = {False: {"none": "Resnet{}sampleBlock2D", "full": "Attn{}Block2D"},
          True: {"none": "Resnet{}sampleBlock2D", "text": "SimpleCrossAttn{}Block2D",
                 "full": "SimpleCrossAttn{}Block2D"}}


def build(shape: dict[str, Any]) -> nn.Module:
    """The U-Net of `ours.shape`. It predicts the noise alone, because the examples have no learned variance."""
    text = shape["text"]
    blocks = BLOCKS[text is not None]
    common = {
        "sample_size": shape["resolution"], "in_channels": shape["channels"], "out_channels": shape["channels"],
        "block_out_channels": tuple(shape["widths"]), "norm_num_groups": shape["groups"],
        "attention_head_dim": shape["head_dim"], "resnet_time_scale_shift": "scale_shift",
        "down_block_types": tuple(blocks[kind].format("Down") for kind in shape["attention"]),
        "up_block_types": tuple(blocks[kind].format("Up") for kind in reversed(shape["attention"]))}
    if text is None:
        return diffusers.UNet2DModel(
            **common, layers_per_block=shape["depths"][0], attn_norm_num_groups=shape["groups"],
            downsample_type="resnet", upsample_type="resnet", freq_shift=0)
    heads = max(1, text["width"] // 64)
    return diffusers.UNet2DConditionModel(
        **common, layers_per_block=list(shape["depths"]), time_embedding_dim=shape["time_width"],
        resnet_skip_time_act=True, time_embedding_act_fn="silu", cross_attention_dim=text["width"],
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", mid_block_only_cross_attention=False,
        only_cross_attention=[kind == "text" for kind in shape["attention"]], addition_embed_type="text",
        addition_embed_type_num_heads=heads)


class Trainer:
    """The loop of the examples: DDPM noise, mean squared error of the noise, AdamW, clipping, EMA.

    Like them it reads the loss in every step. Settings are the examples' defaults, but for their options `lr` and
    `mixed_precision`.
    """

    def __init__(self, shape: dict[str, Any], *, mixed_precision: str, lr: float, steps: int, seed: int,
                 device: str = "cpu") -> None:
        torch.manual_seed(seed)
        self.conditional = shape["text"] is not None
        self.accelerator = Accelerator(cpu=device == "cpu", mixed_precision=mixed_precision)
        network = build(shape)
        self.gflop = gflop(network, shape)
        self.ema = EMAModel(network.parameters(), model_cls=type(network), model_config=network.config,
                            use_ema_warmup=not self.conditional, inv_gamma=1.0, power=0.75, decay=0.9999)
        betas, decay = ((0.9, 0.999), 1e-2) if self.conditional else ((0.95, 0.999), 1e-6)
        optimizer = torch.optim.AdamW(network.parameters(), lr=lr, betas=betas, weight_decay=decay, eps=1e-8)
        rate = get_scheduler("constant" if self.conditional else "cosine", optimizer=optimizer, num_warmup_steps=500,
                             num_training_steps=steps)
        self.network, self.optimizer, self.rate = self.accelerator.prepare(network, optimizer, rate)
        self.ema.to(self.accelerator.device)
        self.noise_scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")

    def step(self, images: Tensor, text: Tensor | None) -> float:
        """Train on images (N, 3, R, R) in [-1, 1] with text features (N, 77, width). → the loss"""
        noise = torch.randn_like(images)
        timesteps = torch.randint(0, 1000, (len(images),), device=images.device).long()
        noisy = self.noise_scheduler.add_noise(images, noise, timesteps)
        with self.accelerator.accumulate(self.network):
            prediction = predict(self.network, noisy, timesteps, text)
            loss = F.mse_loss(prediction.float(), noise.float())
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.rate.step()
            self.optimizer.zero_grad()
        if self.accelerator.sync_gradients:
            self.ema.step(self.network.parameters())
        return loss.detach().item()


def predict(network: nn.Module, noisy: Tensor, time: Tensor | int, text: Tensor | None) -> Tensor:
    """The network's prediction of the noise in `noisy`, (N, 3, R, R)."""
    if text is None:
        return network(noisy, time, return_dict=False)[0]
    return network(noisy, time, encoder_hidden_states=text, return_dict=False)[0]


def gflop(network: nn.Module, shape: dict[str, Any]) -> float:
    """GFLOP of a training step for one picture."""
    text = None if shape["text"] is None else torch.zeros(1, LENGTH, shape["text"]["width"])
    pixels = torch.zeros(1, 3, shape["resolution"], shape["resolution"])
    return training_gflop(lambda: predict(network, pixels, torch.zeros(1).long(), text))


def training(*, shape: dict[str, Any], batch: int, mixed_precision: str = "no", seed: int = 0, device: str = "cpu",
             ) -> Contender:
    """A unit is a training step, on pictures and text features that lie ready in the device's memory."""
    trainer = Trainer(shape, mixed_precision=mixed_precision, lr=1e-4, steps=100_000, seed=seed, device=device)
    images = torch.rand(batch, 3, shape["resolution"], shape["resolution"], device=device) * 2 - 1
    text = torch.randn(batch, LENGTH, shape["text"]["width"], device=device) if shape["text"] else None

    def work(steps: int) -> None:
        for _ in range(steps):
            trainer.step(images, text)
        finish(device)

    return Contender(work, {
        "pictures": batch, "parameters": sum(one.numel() for one in trainer.network.parameters()),
        "gflop": trainer.gflop, "precision": {"no": "fp32"}.get(mixed_precision, mixed_precision)})


def sampling(*, shape: dict[str, Any], pictures: int, steps: int = 50, guidance: float = 7.5,
             scheduler: str = "DDIMScheduler", precision: str = "fp32", seed: int = 0) -> Contender:
    """A unit is one batch of `pictures` pictures, generated with guidance at every step where there is text.

    This is the loop of a pipeline, with both halves of guidance in one pass. The pipelines of the library add a VAE, a
    safety checker or a second U-Net, which would be unfair. precision: "bf16" is a pipeline loaded with that dtype.
    """
    torch.manual_seed(seed)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    network = build(shape).to(dtype).eval().requires_grad_(False)
    solver = getattr(diffusers, scheduler)(num_train_timesteps=1000, beta_schedule="linear")
    size, width = shape["resolution"], shape["text"] and shape["text"]["width"]
    text = torch.randn(2 * pictures, LENGTH, width, dtype=dtype) if width else None

    @torch.no_grad()
    def work(times: int) -> None:
        for _ in range(times):
            noise = torch.randn(pictures, 3, size, size, dtype=dtype)
            generate(network, solver, noise, text, steps, guidance).cpu()

    return Contender(work, {
        "pictures": pictures, "steps": steps, "guided_steps": steps if width else 0, "precision": precision,
        "sampler": scheduler, "batch": pictures, "parameters": sum(one.numel() for one in network.parameters())})


@torch.no_grad()
def generate(
    network: nn.Module, solver: Any, noisy: Tensor, text: Tensor | None, steps: int, guidance: float
) -> Tensor:
    """noisy: (N, 3, R, R), pure noise; text: (2·N, 77, width), first of empty captions, then of the prompts.

    → pictures (N, R, R, 3) uint8
    """
    solver.set_timesteps(steps)
    for time in solver.timesteps:
        halves = noisy if text is None else torch.cat([noisy, noisy])
        prediction = predict(network, solver.scale_model_input(halves, time), time, text)
        if text is not None:
            without, with_text = prediction.chunk(2)
            prediction = without + guidance * (with_text - without)
        noisy = solver.step(prediction, time, noisy, return_dict=False)[0]
    return ((noisy.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
