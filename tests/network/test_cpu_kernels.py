"""The faster CPU kernels compute the same as torch's, to bf16's three digits, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diffuse_cli.network import cpu_kernels
from diffuse_cli.network.network import Network
from diffuse_cli.network.presets import network_config
from diffuse_cli.runtime import randomness

ROUNDING = 2.0**-8                              # relative rounding of bf16, which has eight bits


def difference(found, expected):
    """The relative difference, as a root mean square."""
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("channels", "groups", "size"), [(32, 32, 8), (48, 16, 6), (64, 1, 5)])
@pytest.mark.parametrize("offset", [0.0, 4.0, 30.0, 300.0])   # far from zero, the variance is a small difference
@pytest.mark.parametrize("modulated", [False, True])
def test_group_norm_and_its_gradients(channels, groups, size, offset, modulated):
    features = (drawn(3, channels, size, size, seed=0) + offset).bfloat16().contiguous(
        memory_format=torch.channels_last)
    norm = nn.GroupNorm(groups, channels)
    with torch.no_grad():
        norm.weight.copy_(drawn(channels, seed=1))
        norm.bias.copy_(drawn(channels, seed=2))
    upstream = drawn(3, channels, size, size, seed=3).bfloat16()
    modulation = tuple(drawn(3, channels, seed=seed).bfloat16().requires_grad_() for seed in (4, 5)) * modulated

    given = features.clone().requires_grad_()
    found = cpu_kernels.normalise(norm, given, modulation or None)
    gradients = torch.autograd.grad(found, (given, norm.weight, norm.bias, *modulation), upstream)
    exact, weight, bias, *scale_and_shift = (one.detach().double().requires_grad_() for one in (
        features, norm.weight, norm.bias, *modulation))
    expected = F.group_norm(exact, groups, weight, bias, norm.eps)
    if modulated:
        scale, shift = scale_and_shift
        expected = expected * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
    wanted = torch.autograd.grad(expected, (exact, weight, bias, *scale_and_shift), upstream.double())

    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert difference(found, expected) < 2 * ROUNDING
    for one, other in zip(gradients, wanted, strict=True):
        assert difference(one, other) < 2 * ROUNDING


def test_a_few_pictures_at_a_time_are_normalised_as_all_at_once(monkeypatch):
    features = drawn(5, 8, 4, 4, seed=0).bfloat16().requires_grad_()
    modulation = tuple(drawn(5, 8, seed=seed).requires_grad_() for seed in (1, 2))
    norm, results = nn.GroupNorm(4, 8), []
    for numbers in (5, 2, 1):
        monkeypatch.setattr(cpu_kernels, "AT_ONCE", numbers * 8 * 4 * 4)
        found = cpu_kernels.normalise(norm, features, modulation)
        results.append((found, *torch.autograd.grad(found.float().square().sum(), (features, *modulation))))
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_attention_and_its_gradients():
    query, key, value = (drawn(2, 3, length, 16, seed=seed).bfloat16().requires_grad_()
                         for seed, length in enumerate((10, 17, 17)))
    upstream = drawn(2, 3, 10, 16, seed=9).bfloat16()
    found = cpu_kernels.attend(query, key, value)
    gradients = torch.autograd.grad(found, (query, key, value), upstream)
    exact = [one.detach().double().requires_grad_() for one in (query, key, value)]
    expected = F.scaled_dot_product_attention(*exact)
    wanted = torch.autograd.grad(expected, exact, upstream.double())
    assert difference(found, expected) < 3 * ROUNDING
    for one, other in zip(gradients, wanted, strict=True):
        assert difference(one, other) < 3 * ROUNDING


def test_a_second_derivative_is_refused():
    features = drawn(2, 8, 4, 4, seed=0).bfloat16().requires_grad_()
    found = cpu_kernels.normalise(nn.GroupNorm(4, 8), features).square().sum()
    gradient, = torch.autograd.grad(found, features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_float32_is_left_to_torch():
    norm, features = nn.GroupNorm(4, 8), drawn(2, 8, 4, 4, seed=0)
    query = drawn(1, 2, 5, 8, seed=1).requires_grad_()
    assert torch.equal(cpu_kernels.normalise(norm, features), norm(features))
    assert torch.equal(cpu_kernels.attend(query, query, query), F.scaled_dot_product_attention(query, query, query))


@pytest.mark.parametrize("vocabulary", [None, 300])
def test_a_network_in_bf16_has_the_gradients_of_float32(vocabulary):
    """The whole network, with no weight zero."""
    network = Network(network_config("nano", 16, vocabulary=vocabulary, learned_variance=True))
    network.initialise(randomness.generator(0, "weights"))
    with torch.no_grad():
        for number, parameter in enumerate(network.unet.parameters()):
            if not parameter.any():
                parameter.copy_(drawn(*parameter.shape, seed=number) * parameter[0].numel() ** -0.5)
    network.place_on(torch.device("cpu"))
    noisy, time = drawn(4, 3, 16, 16, seed=1), torch.tensor([5.0, 300.0, 600.0, 900.0])
    text = None if vocabulary is None else drawn(4, 77, 64, seed=2)

    def gradients(rounded):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rounded):
            answer = network(noisy, time, text)
        answer.float().square().mean().backward()
        return torch.cat([one.grad.flatten() for one in network.unet.parameters() if one.grad is not None])

    assert difference(gradients(True), gradients(False)) < 0.05
