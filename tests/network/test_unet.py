"""The U-Net against diffusers, and its two contracts with training: the dropout hook and the detached variance."""

from typing import Any

import pytest
import torch
from diffusers_models import stock_unet
from torch import Tensor

from diffuse_cli.model_config import NetworkConfig, TextConfig
from diffuse_cli.network.blocks import sinusoids
from diffuse_cli.network.unet import UNet

TEXT = TextConfig(vocabulary=300, width=32, layers=1)
WIDE_TEXT = TextConfig(vocabulary=300, width=192, layers=1)


def make_config(**changes: Any) -> NetworkConfig:
    defaults: dict[str, Any] = {
        "resolution": 16, "widths": (16, 32), "depths": (1, 2), "attention": ("none", "full"), "head_dim": 8,
        "groups": 8, "time_width": 48, "text": TEXT,
    }
    return NetworkConfig(**(defaults | changes))


CONFIGS = {
    "conditional": make_config(),
    "text-only attention": make_config(widths=(16, 16, 32), depths=(2, 1, 1), attention=("none", "text", "full")),
    "several pooling heads": make_config(text=WIDE_TEXT, head_dim=16, groups=16),
    "attention everywhere": make_config(attention=("text", "full"), out_channels=3),
    "one level": make_config(widths=(16,), depths=(3,), attention=("full",), resolution=8),
    "unconditional": make_config(text=None, depths=(1, 1), time_width=64),
    "unconditional, deep": make_config(
        text=None, widths=(16, 32, 32, 48), depths=(2, 2, 2, 2), attention=("none", "none", "full", "full"),
        time_width=64, head_dim=16, groups=16, out_channels=3,
    ),
}
CONDITIONAL = CONFIGS["conditional"]


def make_unet(config: NetworkConfig, seed: int = 0) -> UNet:
    """A U-Net whose every parameter matters: none is zero, none has its initial value."""
    unet, generator = UNet(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            mean = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            std = 0.1 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.normal_(mean, std, generator=generator)
    return unet


def make_inputs(config: NetworkConfig, count: int = 2, seed: int = 1) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(count, *config.shape, generator=generator)
    time = torch.rand(count, generator=generator) * 999
    text = None if config.text is None else torch.randn(count, 77, config.text.width, generator=generator)
    return noisy, time, text


def call_stock(stock: torch.nn.Module, noisy: Tensor, time: Tensor, text: Tensor | None) -> Tensor:
    return stock(noisy, time).sample if text is None else stock(noisy, time, text).sample


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_output_and_gradients_are_those_of_diffusers(config: NetworkConfig) -> None:
    ours, stock = make_unet(config), stock_unet(config)
    stock.load_state_dict(ours.state_dict(), strict=True)
    noisy, time, text = make_inputs(config)

    ours_out, stock_out = ours(noisy, time, text), call_stock(stock, noisy, time, text)
    assert ours_out.shape == (2, config.out_channels, *config.resolution)
    assert stock_out.std() > 0.3
    assert (ours_out - stock_out).abs().max() < 1e-5

    weights = torch.randn(ours_out.shape, generator=torch.Generator().manual_seed(2))
    (ours_out * weights).sum().backward()
    (stock_out * weights).sum().backward()
    expected = {name: parameter.grad for name, parameter in stock.named_parameters()}
    for name, parameter in ours.named_parameters():
        # Some gradients are zero except for rounding (a key's bias, under a softmax): hence the absolute tolerance.
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=2e-3 * ours_out.numel() ** -0.5)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_norms_are_those_of_diffusers(config: NetworkConfig) -> None:
    """Errors in it would hardly show in a comparison of outputs."""
    def norms(unet: torch.nn.Module) -> dict[str, tuple[int, float]]:
        return {
            name: (module.num_groups, module.eps)
            for name, module in unet.named_modules() if isinstance(module, torch.nn.GroupNorm)
        }

    assert norms(UNet(config)) == norms(stock_unet(config))


def test_the_times_between_stock_steps_count() -> None:
    unet = make_unet(CONDITIONAL)
    noisy, _, text = make_inputs(CONDITIONAL, count=1)
    at = [unet(noisy, torch.tensor([time]), text) for time in (500.0, 500.25, 501.0)]
    assert 0 < (at[1] - at[0]).abs().max() < (at[2] - at[0]).abs().max()


def test_sinusoids_are_cosines_then_sines_in_float32() -> None:
    time = torch.tensor([0.0, 3.0], dtype=torch.float64)
    features = sinusoids(time, 8)
    frequencies = 10_000 ** -(torch.arange(4) / 4)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    torch.testing.assert_close(features[1], torch.cat([(3 * frequencies).cos(), (3 * frequencies).sin()]))


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    unet = make_unet(CONDITIONAL)
    noisy, time, text = make_inputs(CONDITIONAL, count=3)
    assert text is not None
    together = unet(noisy, time, text)
    alone = torch.cat([unet(noisy[i:i + 1], time[i:i + 1], text[i:i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_bf16_autocast_runs_forward_and_backward() -> None:
    unet = make_unet(CONDITIONAL)
    noisy, time, text = make_inputs(CONDITIONAL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = unet(noisy, time, text, detach_variance=True)
    exact = unet(noisy, time, text)
    assert (rough.float() - exact).abs().mean() < 0.03 * exact.abs().mean()
    rough.float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in unet.parameters())


def test_channels_last_changes_nothing() -> None:
    unet = make_unet(CONDITIONAL)
    noisy, time, text = make_inputs(CONDITIONAL)
    expected = unet(noisy, time, text)
    rearranged = unet.to(memory_format=torch.channels_last)(noisy.to(memory_format=torch.channels_last), time, text)
    torch.testing.assert_close(rearranged, expected, rtol=0, atol=1e-5)


# ── Dropout ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropout_is_called_once_for_every_residual_block_of_at_most_16_pixels() -> None:
    config = make_config(
        resolution=64, widths=(16, 16, 32, 32), depths=(1, 1, 1, 2), attention=("none", "none", "none", "full")
    )
    shapes: list[tuple[int, ...]] = []

    def record(hidden: Tensor) -> Tensor:
        shapes.append(tuple(hidden.shape))
        return hidden

    unet, (noisy, time, text) = make_unet(config), make_inputs(config, count=1)
    with_hook = unet(noisy, time, text, dropout=lambda: record)
    down = [(1, 16, 16, 16), (1, 32, 16, 16), (1, 32, 8, 8), (1, 32, 8, 8), (1, 32, 8, 8)]
    middle = [(1, 32, 8, 8)] * 2
    up = [(1, 32, 8, 8)] * 3 + [(1, 32, 16, 16)] * 3
    assert shapes == down + middle + up
    assert torch.equal(with_hook, unet(noisy, time, text))


def test_dropout_stands_before_the_second_convolution() -> None:
    """If every mask is zero, a residual block is its shortcut plus the bias of conv2."""
    unet, (noisy, time, text) = make_unet(CONDITIONAL), make_inputs(CONDITIONAL)

    def silence(hidden: Tensor) -> Tensor:
        return hidden * 0

    assert not torch.equal(unet(noisy, time, text, dropout=lambda: silence), unet(noisy, time, text))
    unet(noisy, time, text, dropout=lambda: silence).sum().backward()
    for name, parameter in unet.named_parameters():
        silenced = ".resnets." in name or "samplers." in name
        if silenced and any(part in name for part in ("norm1", "conv1", "time_emb_proj", "norm2", "conv2.weight")):
            assert parameter.grad is not None
            assert not parameter.grad.any(), name
        elif silenced:
            assert parameter.grad is not None
            assert parameter.grad.any(), name


# ── Detached variance ───────────────────────────────────────────────────────────────────────────────────────────────


def gradients(unet: UNet, output: Tensor) -> dict[str, Tensor]:
    found = torch.autograd.grad(output, list(unet.parameters()), allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for (name, parameter), gradient in zip(unet.named_parameters(), found, strict=True)
    }


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_features_are_the_last_maps_of_the_way_down(config: NetworkConfig) -> None:
    ours = make_unet(config)
    seen: list[Tensor] = []
    last = [[*block.resnets, *block.attentions][-1] for block in ours.down_blocks]
    hooks = [part.register_forward_hook(lambda _, inputs, output: seen.append(output))
             for part in (*last, ours.mid_block)]
    features = ours.features(*make_inputs(config))
    for hook in hooks:
        hook.remove()
    assert [one.shape[1] for one in features] == [*config.widths, config.widths[-1]]
    for one, other in zip(features, seen, strict=True):
        assert torch.equal(one, other)


def test_detached_variance_has_the_same_numbers_and_trains_its_own_rows_only() -> None:
    unet, inputs = make_unet(CONDITIONAL), make_inputs(CONDITIONAL)
    attached, detached = unet(*inputs), unet(*inputs, detach_variance=True)
    torch.testing.assert_close(detached, attached, rtol=0, atol=1e-6)

    expected, found = (gradients(unet, output[:, 3:].square().mean()) for output in (attached, detached))
    for name in found:
        if name.startswith("conv_out"):
            torch.testing.assert_close(found[name], expected[name])
            assert found[name][3:].any()
            assert not found[name][:3].any()
        else:
            assert not found[name].any(), name
            assert "k_proj" in name or "to_k" in name or expected[name].any(), name


def test_detached_variance_leaves_the_gradient_of_the_prediction_alone() -> None:
    unet, inputs = make_unet(CONDITIONAL), make_inputs(CONDITIONAL)
    expected, found = (
        gradients(unet, unet(*inputs, detach_variance=detach)[:, :3].square().mean()) for detach in (False, True)
    )
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-7)


def test_without_variance_channels_there_is_nothing_to_detach() -> None:
    config = CONFIGS["attention everywhere"]
    unet, inputs = make_unet(config), make_inputs(config)
    assert torch.equal(unet(*inputs, detach_variance=True), unet(*inputs))
