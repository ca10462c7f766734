"""Every preset is a model of diffusers, has about the size in its table, and exists at every resolution."""

import itertools

import pytest
import torch
from diffusers_models import stock_text_encoder, stock_unet

from diffuse_cli.config import PRESETS
from diffuse_cli.errors import UsageError
from diffuse_cli.model_config import NetworkConfig
from diffuse_cli.network import presets
from diffuse_cli.network.network import Network, flops, parameter_count, parameter_shapes
from diffuse_cli.network.presets import network_config
from diffuse_cli.picture_size import Size

RESOLUTIONS = range(8, 513, 8)
# Million parameters and GFLOP of the U-Net, as designed.
DESIGNED = {
    (32, "nano"): (1.26, 0.55), (32, "micro"): (4.86, 1.46), (32, "small"): (19.4, 5.6), (32, "base"): (60.8, 17.2),
    (32, "large"): (252, 61), (64, "nano"): (1.32, 0.87), (64, "micro"): (4.75, 3.4), (64, "small"): (19.7, 7.2),
    (64, "base"): (63.2, 26), (64, "large"): (282, 106), (128, "nano"): (1.48, 2.7), (128, "micro"): (5.33, 4.7),
    (128, "small"): (19.2, 18.3), (128, "base"): (61.1, 29), (128, "large"): (288, 139),
}


def make(
    preset: str, resolution: int, *, vocabulary: int | None = 4096, learned_variance: bool = True
) -> NetworkConfig:
    return network_config(preset, resolution, vocabulary=vocabulary, learned_variance=learned_variance)


def sides(resolution: int) -> list[int]:
    """The side of the maps at every level, for squares."""
    sizes = presets.map_sizes(Size.of(resolution))
    assert all(size.is_square for size in sizes)
    return [size.width for size in sizes]


def stock_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the models of diffusers and transformers, under the names of a `Network`."""
    with torch.device("meta"):
        parts: dict[str, torch.nn.Module] = {"unet": stock_unet(config)}
        if config.text is not None:
            parts["text_encoder"] = stock_text_encoder(config.text)
    shapes = torch.nn.ModuleDict(parts).state_dict()
    shapes.pop("text_encoder.encoder.embed_tokens.weight", None)            # a second name of `shared`
    return {name: tuple(tensor.shape) for name, tensor in shapes.items()}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("resolution", [32, 64, 128])
@pytest.mark.parametrize("vocabulary", [4096, None])
def test_every_preset_is_a_stock_model(preset: str, resolution: int, vocabulary: int | None) -> None:
    config = make(preset, resolution, vocabulary=vocabulary)
    assert parameter_shapes(config) == stock_shapes(config)


@pytest.mark.parametrize(("resolution", "preset"), DESIGNED)
def test_sizes_are_as_designed(resolution: int, preset: str) -> None:
    config = make(preset, resolution)
    millions, giga = DESIGNED[resolution, preset]
    unet = sum(torch.Size(shape).numel() for key, shape in parameter_shapes(config).items() if key.startswith("unet."))
    assert unet / 1e6 == pytest.approx(millions, rel=0.01)
    assert giga * 0.98 < flops(config) / 1e9 < giga * 1.12                  # with the text encoder's

    unconditional = make(preset, resolution, vocabulary=None)
    assert parameter_count(unconditional) / 1e6 == pytest.approx(millions, rel=0.25)


def test_the_presets_are_ordered_at_every_resolution() -> None:
    for resolution in (8, 16, 24, 40, 48, 96, 104, 256, 512):
        counts = [parameter_count(make(preset, resolution)) for preset in PRESETS]
        assert counts == sorted(counts)
        assert counts[-1] > 50 * counts[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_resolution_has_a_network(preset: str) -> None:
    for resolution in RESOLUTIONS:
        for vocabulary in (1000, None):
            config = make(preset, resolution, vocabulary=vocabulary, learned_variance=False)
            sizes = sides(resolution)
            assert len(config.widths) == len(sizes)
            assert list(config.widths) == sorted(config.widths)
            assert config.attention == (*("full" if size <= 22 else "none" for size in sizes[:-1]), "full")
            assert (config.out_channels, config.text is None) == (3, vocabulary is None)
            if vocabulary is None:
                assert len(set(config.depths)) == 1
                assert config.time_width == 4 * config.widths[0]


def test_maps_are_halved_to_about_8_pixels() -> None:
    assert sides(8) == [8, 4]
    assert sides(16) == [16, 8]
    assert sides(24) == [24, 12, 6]
    assert sides(48) == [48, 24, 12, 6]
    assert sides(96) == [96, 48, 24, 12, 6]
    assert sides(256)[-2:] == [16, 8]
    assert sides(104)[-1] == 13                                         # half of it would not be whole
    for resolution in RESOLUTIONS:
        sizes = sides(resolution)
        assert all(upper == 2 * lower for upper, lower in itertools.pairwise(sizes))
        assert sizes[-1] >= 4
        assert sizes[-1] <= 11 or sizes[-1] % 2


def test_added_levels_are_narrow_and_shallow() -> None:
    config = make("large", 512)
    assert config.widths == (32, 32, 64, 128, 256, 512, 768)
    assert config.depths == (1, 1, 1, 2, 3, 3, 4)
    assert make("small", 16).widths == (128, 256)


@pytest.mark.parametrize(("preset", "resolution"), [("nano", 8), ("micro", 24)])
@pytest.mark.parametrize("vocabulary", [300, None])
def test_counts_are_those_of_the_network_that_is_built(preset: str, resolution: int, vocabulary: int | None) -> None:
    config = make(preset, resolution, vocabulary=vocabulary)
    network = Network(config)
    network.initialise(torch.Generator().manual_seed(0))
    assert parameter_count(config) == sum(parameter.numel() for parameter in network.parameters())
    assert parameter_shapes(config) == {name: tuple(value.shape) for name, value in network.state_dict().items()}
    text = None if vocabulary is None else network.encode(torch.ones(1, 77, dtype=torch.int64))
    assert network(torch.zeros(1, 3, resolution, resolution), torch.zeros(1), text).shape[-1] == resolution


def test_flops_count_multiplications_and_additions() -> None:
    config = make("nano", 32, vocabulary=None)
    smaller = make("nano", 32, vocabulary=None, learned_variance=False)
    per_output_channel = 2 * 32 * 9 * 32 * 32
    assert flops(config) - flops(smaller) == 3 * per_output_channel


@pytest.mark.parametrize(("preset", "resolution"), [("gigantic", 32), ("nano", 20), ("nano", 0), ("nano", 1024)])
def test_impossible_wishes_are_refused(preset: str, resolution: int) -> None:
    with pytest.raises(UsageError, match=r"--preset|--resolution"):
        make(preset, resolution)
