"""A network that starts from one of other channels answers as that one does, in what both draw."""

import pytest
import torch
from consistent_models import configuration

from diffuse_cli.network.channels import with_channels
from diffuse_cli.network.network import Network


def _network(channels, out_channels, weights=None):
    network = Network(configuration(channels=channels, out_channels=out_channels, text=None).network)
    if weights is None:
        network.initialise(torch.Generator().manual_seed(0))
        torch.nn.init.normal_(network.unet.conv_out.weight, std=0.1, generator=torch.Generator().manual_seed(1))
        torch.nn.init.normal_(network.unet.conv_out.bias, std=0.1, generator=torch.Generator().manual_seed(2))
    else:
        network.load_state_dict(weights)
    return network.requires_grad_(False).eval()


def _noisy(channels, seed=3):
    return torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


TIME = torch.tensor([20.0, 700.0])


@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.parametrize("colours", [1, 3])
def test_a_new_alpha_channel_changes_no_colour(colours, answers):
    source = _network(colours, answers * colours)
    target = _network(colours + 1, answers * (colours + 1),
                      with_channels(source.state_dict(), source.config, colours + 1))
    noisy = _noisy(colours + 1)
    expected = source(noisy[:, :colours], TIME).unflatten(1, (answers, colours))
    answer = target(noisy, TIME).unflatten(1, (answers, colours + 1))
    assert torch.allclose(answer[:, :, :colours], expected, atol=1e-6)
    assert not answer[:, :, colours:].any()


@pytest.mark.parametrize("alpha", [0, 1])
def test_grey_is_answered_as_the_mean_of_equal_colours(alpha):
    source = _network(3 + alpha, 2 * (3 + alpha))
    target = _network(1 + alpha, 2 * (1 + alpha), with_channels(source.state_dict(), source.config, 1 + alpha))
    noisy = _noisy(1 + alpha)
    expected = source(torch.cat([noisy[:, :1]] * 3 + [noisy[:, 1:]], dim=1), TIME).unflatten(1, (2, 3 + alpha))
    answer = target(noisy, TIME).unflatten(1, (2, 1 + alpha))
    assert torch.allclose(answer[:, :, :1], expected[:, :, :3].mean(2, keepdim=True), atol=1e-6)
    assert torch.allclose(answer[:, :, 1:], expected[:, :, 3:], atol=1e-6)


def test_colours_and_alpha_become_what_they_are_alone():
    """In one step as in two."""
    source = _network(3, 6)
    at_once = with_channels(source.state_dict(), source.config, 2)
    grey = with_channels(source.state_dict(), source.config, 1)
    in_two = with_channels(grey, source.config.with_channels(1), 2)
    assert all(torch.allclose(at_once[name], in_two[name], atol=1e-7) for name in at_once)


@pytest.mark.parametrize(("source", "target"), [(1, 3), (4, 3), (2, 1), (1, 4), (4, 1)])
def test_what_is_not_there_cannot_be_drawn(source, target):
    network = _network(source, source)
    with pytest.raises(ValueError, match="cannot become"):
        with_channels(network.state_dict(), network.config, target)
