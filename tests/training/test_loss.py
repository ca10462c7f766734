"""From a batch to its losses, against Improved DDPM's hybrid objective restated from the paper: values and gradients.

Other tests hold what must not matter (the other pictures of the batch, precision, how captions are grouped) and what
must (the index that the network receives, which weights each loss trains).
"""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from diffuse_cli.config import LOSS_WEIGHTINGS
from diffuse_cli.denoiser import network_time
from diffuse_cli.diffusion.losses import noise_weight
from diffuse_cli.diffusion.schedule import STEPS, make_schedule
from diffuse_cli.model_config import PREDICTIONS, ModelConfig, NetworkConfig, TextConfig
from diffuse_cli.network.network import Network
from diffuse_cli.runtime import randomness
from diffuse_cli.training.loss import Batch, Losses, compute_losses

TEXT = TextConfig(vocabulary=300, width=16, layers=1)


def model_config(
    *, prediction: str = "epsilon", schedule: str = "cosine", text: TextConfig | None = None, learned: bool = True
) -> ModelConfig:
    network = NetworkConfig(
        resolution=8, widths=(8, 16), depths=(1, 1), attention=("none", "full"), head_dim=8, groups=4, time_width=32,
        text=text, out_channels=6 if learned else 3)
    return ModelConfig(network=network, schedule=schedule, prediction=prediction)


def make_network(config: ModelConfig) -> Network:
    """A tiny network without layers of zeros: those that start at zero are random, too."""
    network, generator = Network(config.network), torch.Generator().manual_seed(0)
    network.initialise(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1, generator=generator)
    return network


def make_batch(count: int = 6, *, text: bool = False) -> Batch:
    """8-bit pictures at discrete times, including those of the first and of the last step."""
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(256, (count, 3, 8, 8), generator=generator) / 127.5 - 1
    noise = torch.randn(count, 3, 8, 8, generator=generator)
    index = torch.tensor([0, 1, 30, 400, 800, 998, 999][:count])
    tokens = caption_of = None
    if text:
        tokens = torch.randint(3, 300, (3, 77), generator=generator)
        caption_of = torch.arange(count) % 3
    return Batch(image, noise, (index.double() + 1) / STEPS, tokens, caption_of)


def losses_of(network: Network, batch: Batch, config: ModelConfig, **options: object) -> Losses:
    schedule = make_schedule(config.schedule, config.network.schedule_side)
    return compute_losses(network, batch, config=config, schedule=schedule, **{"loss_weighting": "simple", **options})


def gradients(loss: Tensor, network: Network) -> dict[str, Tensor]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


# ── Improved DDPM ───────────────────────────────────────────────────────────────────────────────────────────────────


def improved_ddpm_terms(network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """(L_simple, L_t) of Nichol & Dhariwal 2021 for each picture, float64, L_t in bits per dimension.

    From their betas (eq. 17, at most 0.999) and noise-predicting network alone: eq. 9 noises, 10 and 11 are the
    posterior, 13 is the mean of the model (detached in L_t, section 3.1) and 15 its variance; 5 to 7 are L_t.
    """
    steps = torch.arange(1001, dtype=torch.float64) / 1000
    f = torch.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - f[1:] / f[:-1]).clamp(max=0.999)
    alpha_bar = torch.cumprod(1 - beta, 0)
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    beta_tilde = beta * (1 - previous) / (1 - alpha_bar)
    log_beta_tilde = torch.cat([beta_tilde[1:2], beta_tilde[1:]]).log()

    index = (batch.t * STEPS).round().long() - 1
    beta, alpha_bar, previous, beta_tilde, log_beta_tilde = (
        table[index].reshape(-1, 1, 1, 1) for table in (beta, alpha_bar, previous, beta_tilde, log_beta_tilde))
    image, noise = batch.image.double(), batch.noise.double()
    noisy = alpha_bar.sqrt() * image + (1 - alpha_bar).sqrt() * noise
    epsilon, v = network(noisy.float(), index.float()).double().chunk(2, dim=1)
    simple = (noise - epsilon).square().mean((1, 2, 3))

    true_mean = (previous.sqrt() * beta * image + (1 - beta).sqrt() * (1 - previous) * noisy) / (1 - alpha_bar)
    mean = (noisy - beta / (1 - alpha_bar).sqrt() * epsilon.detach()) / (1 - beta).sqrt()
    fraction = (v + 1) / 2
    model = Normal(mean, torch.exp((fraction * beta.log() + (1 - fraction) * log_beta_tilde) / 2))
    divergence = kl_divergence(Normal(true_mean, torch.exp(log_beta_tilde / 2)), model)
    upper = torch.where(image > 0.999, torch.ones_like(image), model.cdf(image + 1 / 255))
    lower = torch.where(image < -0.999, torch.zeros_like(image), model.cdf(image - 1 / 255))
    decoder = -(upper - lower).clamp(min=1e-12).log()
    first = (index == 0).reshape(-1, 1, 1, 1)
    return simple, torch.where(first, decoder, divergence).mean((1, 2, 3)) / math.log(2)


def test_the_classic_options_are_improved_ddpm_s_hybrid_objective() -> None:
    """L_hybrid = L_simple + 0.001·L_vlb, and L_vlb, a sum over the 1000 steps, is 1000 times the mean step."""
    config, batch = model_config(), make_batch(7)
    network = make_network(config)
    found = losses_of(network, batch, config, loss_weighting="simple", variance_grad="trunk")
    simple, bound = improved_ddpm_terms(network, batch)
    assert found.variance is not None
    torch.testing.assert_close(found.noise_mse.double(), simple, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.weighted.double(), simple, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.variance.double(), bound, rtol=1e-4, atol=1e-8)

    ours = gradients((found.weighted + found.variance).mean(), network)
    hybrid = gradients(simple.mean() + 0.001 * (1000 * bound.mean()), network)
    for name, expected in hybrid.items():
        assert (ours[name] - expected).norm() <= 1e-4 * expected.norm() + 1e-7, name
    # If the bound trained the mean, or if it were a thousand times weaker, these gradients would differ.
    simple_alone = gradients(improved_ddpm_terms(network, batch)[0].mean(), network)
    assert any((hybrid[name] - simple_alone[name]).norm() > 0.01 * hybrid[name].norm() for name in hybrid)


# ── Which weights each loss trains ──────────────────────────────────────────────────────────────────────────────────


def test_with_the_gradient_at_the_head_the_trunk_is_trained_by_the_noise_loss_alone() -> None:
    config, batch = model_config(), make_batch()
    network = make_network(config)
    head = losses_of(network, batch, config, variance_grad="head")
    trunk = losses_of(network, batch, config, variance_grad="trunk")
    assert head.variance is not None
    assert trunk.variance is not None
    torch.testing.assert_close(head.variance, trunk.variance)
    both = gradients((head.weighted + head.variance).mean(), network)
    noise_alone = gradients(losses_of(network, batch, config).weighted.mean(), network)
    everywhere = gradients(trunk.variance.mean(), network)
    for name in both:
        if not name.startswith("unet.conv_out."):
            torch.testing.assert_close(both[name], noise_alone[name], rtol=1e-5, atol=1e-7)
    assert any(gradient.any() for name, gradient in everywhere.items() if not name.startswith("unet.conv_out."))
    for name in ("unet.conv_out.weight", "unet.conv_out.bias"):
        torch.testing.assert_close(both[name][:3], noise_alone[name][:3], rtol=1e-5, atol=1e-7)     # the prediction
        torch.testing.assert_close(both[name][3:], everywhere[name][3:], rtol=1e-5, atol=1e-7)      # the variance
        assert both[name][3:].any()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_variance_loss_never_trains_the_prediction(prediction: str) -> None:
    config, batch = model_config(prediction=prediction), make_batch()
    network = make_network(config)
    found = losses_of(network, batch, config, variance_grad="trunk").variance
    assert found is not None
    gradient = gradients(found.mean(), network)["unet.conv_out.weight"]
    assert not gradient[:3].any()
    assert gradient[3:].any()


# ── Options ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("loss_weighting", LOSS_WEIGHTINGS)
def test_the_noise_loss_is_that_of_the_implied_noise_and_is_weighted_by_level(prediction, loss_weighting):
    config = model_config(prediction=prediction, schedule="interpolated")
    # At nearly pure noise, float32 is too coarse for the noise that an estimate of the picture implies.
    batch = dataclasses.replace(make_batch(4), t=torch.tensor([0.02, 0.2, 0.5, 0.8], dtype=torch.float64))
    network, schedule = make_network(config), make_schedule("interpolated", 8)
    found = losses_of(network, batch, config, loss_weighting=loss_weighting)

    noisy = schedule.add_noise(batch.image, batch.noise, batch.t)
    with torch.no_grad():
        answer = network(noisy, network_time(batch.t).float())[:, :3]
    image = schedule.image_of(prediction, answer.double(), noisy.double(), batch.t)
    implied = schedule.noise_of(image, noisy.double(), batch.t)
    expected = (batch.noise - implied).square().mean((1, 2, 3))
    weight = noise_weight(loss_weighting, schedule.log_snr(batch.t), 8)
    torch.testing.assert_close(found.noise_mse.double(), expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.weighted.double(), weight * expected, rtol=1e-4, atol=0)


def test_a_fixed_variance_has_no_loss() -> None:
    config = model_config(learned=False)
    found = losses_of(make_network(config), make_batch(), config)
    assert found.variance is None


def test_the_network_is_given_the_index_of_the_time() -> None:
    config, batch = model_config(), make_batch()
    network, times = make_network(config), []
    network.register_forward_pre_hook(lambda module, inputs: times.append(inputs[1]))
    losses_of(network, batch, config)
    torch.testing.assert_close(times[0], torch.tensor([0.0, 1, 30, 400, 800, 998]), rtol=0, atol=1e-4)
    assert times[0].dtype == torch.float32


# ── What must not matter ────────────────────────────────────────────────────────────────────────────────────────────


def test_losses_of_a_picture_do_not_depend_on_its_batch() -> None:
    config, batch = model_config(), make_batch()
    network, keys = make_network(config), randomness.keys(0, "dropout", 0, torch.arange(6))
    together = losses_of(network, batch, config, dropout=randomness.Dropout(keys, 0.25))
    assert together.variance is not None
    for part in (slice(0, 2), slice(2, 6)):
        micro = Batch(batch.image[part], batch.noise[part], batch.t[part], None, None)
        found = losses_of(network, micro, config, dropout=randomness.Dropout(keys[part], 0.25))
        assert found.variance is not None
        torch.testing.assert_close(found.weighted, together.weighted[part], rtol=1e-5, atol=0)
        torch.testing.assert_close(found.variance, together.variance[part], rtol=1e-5, atol=0)
    without = losses_of(network, batch, config)
    assert not torch.allclose(without.weighted, together.weighted, rtol=1e-3)


def recomputed(network: Network, config: ModelConfig, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of a batch with dropout, and the gradients of their sum."""
    keys = randomness.keys(0, "dropout", 0, torch.arange(6))
    network.zero_grad()
    found = losses_of(network, make_batch(text=True), config, dropout=randomness.Dropout(keys, 0.25),
                      precision=precision)
    found.weighted.sum().backward()
    return found.weighted, {name: parameter.grad for name, parameter in network.named_parameters()
                            if parameter.grad is not None}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_blocks_that_compute_once_more_give_the_same_bits(precision: str) -> None:
    """Masks, types and sums are those of the first time."""
    config = model_config(text=TEXT)
    network, calls = make_network(config), list[int]()
    network.unet.mid_block.resnets[0].register_forward_pre_hook(lambda *_: calls.append(1))
    (expected, gradients), once = recomputed(network, config, precision), len(calls)
    network.unet.recompute = True
    found, again = recomputed(network, config, precision)
    assert (once, len(calls)) == (1, 3)
    assert torch.equal(found, expected)
    for name, gradient in gradients.items():
        assert torch.equal(again[name], gradient), name


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_blocks_that_compute_once_more_are_one_graph(precision: str) -> None:
    config = model_config(text=TEXT)
    network = make_network(config)
    expected, gradients = recomputed(network, config, precision)
    network.unet.recompute = True
    compiled = torch.compile(network.forward, backend="aot_eager", fullgraph=True)
    network.forward = compiled                                                             # type: ignore[method-assign]
    found, again = recomputed(network, config, precision)
    rounding = 1e-5 if precision == "fp32" else 0.05
    torch.testing.assert_close(found, expected, rtol=rounding, atol=0)
    flat, other = (torch.cat([part.flatten() for _, part in sorted(one.items())]) for one in (gradients, again))
    assert (other - flat).norm() <= rounding * flat.norm()  # all together: a key's bias has rounding alone


def test_captions_shared_by_pictures_are_those_encoded_for_each() -> None:
    config, batch = model_config(text=TEXT), make_batch(text=True)
    network = make_network(config)
    assert batch.tokens is not None
    shared = losses_of(network, batch, config)
    for k in range(6):
        alone = Batch(batch.image[k : k + 1], batch.noise[k : k + 1], batch.t[k : k + 1],
                      batch.tokens[k % 3 : k % 3 + 1], torch.zeros(1, dtype=torch.int64))
        torch.testing.assert_close(
            losses_of(network, alone, config).weighted, shared.weighted[k : k + 1], rtol=1e-5, atol=0)
    exchanged = losses_of(network, dataclasses.replace(batch, tokens=batch.tokens.flip(0)), config)
    assert not torch.allclose(shared.weighted, exchanged.weighted, rtol=1e-4)
    gradient = gradients(shared.weighted.mean(), network)
    assert all(gradient[name].any() for name in gradient if name.startswith("text_encoder.") and "bias" not in name)


def test_in_bfloat16_only_the_network_is_rounded() -> None:
    """The noise loss differs as the predictions do, by about 1 %; losses stay float32."""
    config, batch = model_config(), make_batch()
    network = make_network(config)
    full, half = (losses_of(network, batch, config, precision=precision) for precision in ("fp32", "bf16"))
    assert full.variance is not None
    assert half.variance is not None
    for one, other in [(full.weighted, half.weighted), (full.variance, half.variance)]:
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0.05, atol=1e-3)
