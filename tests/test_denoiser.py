"""The joint of network and schedule: how times are given to the network, and how its output is split."""

import pytest
import torch

from diffuse_cli.denoiser import network_time, split_prediction
from diffuse_cli.model_config import ModelConfig, NetworkConfig


def model_config(*, out_channels: int) -> ModelConfig:
    network = NetworkConfig(
        resolution=8, widths=(8, 16), depths=(1, 1), attention=("none", "full"), head_dim=8, groups=4, time_width=32,
        text=None, out_channels=out_channels)
    return ModelConfig(network=network, schedule="cosine", prediction="epsilon")


def test_times_are_given_as_the_indices_of_1000_steps() -> None:
    assert network_time(torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)).tolist() == pytest.approx([0, 499, 999])
    assert network_time(0.25).item() == 249


def test_the_output_is_prediction_then_variance_in_float32() -> None:
    output = torch.arange(6).to(torch.bfloat16).reshape(1, 6, 1, 1).expand(2, 6, 8, 8)
    prediction, channels = split_prediction(output, model_config(out_channels=6))
    assert channels is not None
    assert (prediction.dtype, channels.dtype) == (torch.float32, torch.float32)
    assert prediction[0, :, 0, 0].tolist() == [0, 1, 2]
    assert channels[0, :, 0, 0].tolist() == [3, 4, 5]


def test_a_fixed_variance_has_no_channels() -> None:
    prediction, channels = split_prediction(torch.ones(2, 3, 8, 8), model_config(out_channels=3))
    assert prediction.shape == (2, 3, 8, 8)
    assert channels is None
