"""Initial weights: an output of zero, the same for the same seed, distributed as in diffusers, no global generator."""

import math

import pytest
import torch
from diffusers_models import stock_text_encoder, stock_unet

from diffuse_cli.model_config import NetworkConfig
from diffuse_cli.network.network import Network
from diffuse_cli.network.presets import network_config
from diffuse_cli.network.tokenizer import END

CONFIGS = {
    "conditional": network_config("nano", 16, vocabulary=1000, learned_variance=True),
    "unconditional": network_config("nano", 16, vocabulary=None, learned_variance=True),
}


def make_network(config: NetworkConfig, seed: int = 0) -> Network:
    network = Network(config)
    network.initialise(torch.Generator().manual_seed(seed))
    return network


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_output_is_zero_at_the_start_and_learns_from_there(config: NetworkConfig) -> None:
    network, generator = make_network(config), torch.Generator().manual_seed(1)
    text = None if config.text is None else network.encode(torch.randint(3, 1000, (2, 77), generator=generator))
    output = network(torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([0.0, 999.0]), text)
    assert output.shape == (2, 6, 16, 16)
    assert not output.any()
    (output - 1).square().mean().backward()
    assert network.unet.conv_out.weight.grad is not None
    assert network.unet.conv_out.weight.grad.any()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    one, same, other = (make_network(CONFIGS["conditional"], seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if one[name].std() > 0]
    assert drawn
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


def test_the_global_random_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = make_network(CONFIGS["conditional"]).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    second = make_network(CONFIGS["conditional"]).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_nothing_is_left_uninitialised() -> None:
    network = Network(CONFIGS["conditional"])
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(math.nan)
    network.initialise(torch.Generator().manual_seed(0))
    assert all(parameter.isfinite().all() for parameter in network.parameters())
    assert not list(network.buffers())


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_weights_start_as_torch_and_t5_would_start_them_but_for_what_is_silent(config: NetworkConfig) -> None:
    """By mean and standard deviation, against models that diffusers and transformers initialised."""
    torch.manual_seed(0)
    with torch.random.fork_rng():
        expected = {f"unet.{name}": value for name, value in stock_unet(config).state_dict().items()}
        if config.text is not None:
            stock_text = stock_text_encoder(config.text)
            expected |= {f"text_encoder.{name}": value for name, value in stock_text.state_dict().items()}
    for name, found in make_network(config).state_dict().items():
        silent = any(part in name for part in (
            ".conv2.", ".to_out.0.", "unet.conv_out.", ".o.", ".wo.", "positional", "add_embedding.pool.v_proj.bias",
            "add_embedding.proj.bias"))
        louder = 77 / 5 if name == "unet.add_embedding.pool.v_proj.weight" else 1.0
        # Means and deviations of few numbers vary; those of uniform numbers less, by about 1 / √(2·count).
        tolerance = 6 * found.numel() ** -0.5
        std = 0.0 if silent else louder * float(expected[name].std())
        mean = 0.0 if silent else louder * float(expected[name].mean())
        assert float(found.std()) == pytest.approx(std, rel=tolerance), name
        assert float(found.mean()) == pytest.approx(mean, abs=tolerance * max(std, 1e-3)), name


def test_captions_begin_as_bags_of_words() -> None:
    network = make_network(CONFIGS["conditional"])
    texts = torch.zeros(3, 77, dtype=torch.int64)
    texts[0, :4] = torch.tensor([5, 6, 7, END])
    texts[1, :4] = torch.tensor([7, 5, 6, END])
    texts[2, 0] = END
    features = network.encode(texts)
    assert torch.equal(features[0, :3], features[1, [1, 2, 0]])         # a word has the same features at every position
    assert not features[:, 4:].any()                                    # and END and padding have none
    assert not features[2].any()
    pooled = network.unet.add_embedding(features)
    assert torch.allclose(pooled[0], pooled[1], atol=1e-5)


def test_a_network_can_be_built_on_the_meta_device_and_loaded_by_assignment() -> None:
    config = CONFIGS["conditional"]
    with torch.device("meta"):
        network = Network(config)
    assert all(parameter.is_meta for parameter in network.parameters())
    source = make_network(config)
    network.load_state_dict(source.state_dict(), assign=True)
    tokens = torch.tensor([[5, 1] + [0] * 75])
    assert torch.equal(network.encode(tokens), source.encode(tokens))


def test_an_unconditional_network_has_no_text_encoder() -> None:
    network = Network(CONFIGS["unconditional"])
    assert network.text_encoder is None
    assert all(name.startswith("unet.") for name in network.state_dict())
