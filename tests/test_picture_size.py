"""Sizes of pictures as they are written and read, the network that each gets, and what they are kept under."""

import contextlib
import dataclasses
import itertools
import json

import numpy as np
import pytest
import tiny

from diffuse_cli.checks import from_dict, parse_size, to_dict
from diffuse_cli.config import PRESETS, Recipe
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.decoded_pictures import key_of
from diffuse_cli.errors import UsageError
from diffuse_cli.model_config import ModelConfig
from diffuse_cli.network.network import flops
from diffuse_cli.network.presets import map_sizes, network_config
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures import image_files, sheets


@pytest.mark.parametrize(("text", "message"), [
    ("abc", "does not understand 'abc'"), ("64x", "does not understand"), ("64x96x3", "does not understand"),
    ("6.4x96", "does not understand"), ("0x64", "too small"), ("4x64", "too small"), ("8x-8", "too small"),
    ("60x96", "multiples of 8"), ("12", "multiple of 8"), ("1024x512", "524,288 pixels"), ("-8", "between 8 and 512"),
    ("1024", "between 8 and 512")])
def test_an_impossible_size_gets_one_line(command, text, message, tmp_path):
    code, out, err = command("train", tiny.draw_bars(tmp_path, 1), "--resolution", text)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["96x64", "64X96", "8x64", "512x512", "1024x256", " 64x96 "])
def test_possible_sizes_are_taken(text):
    size = parse_size(text)
    assert Recipe(resolution=size).resolution == size


def test_files_of_squares_are_as_before_and_others_are_read_back():
    square, other = (network_config("nano", size, vocabulary=None, learned_variance=True)
                     for size in (64, Size(96, 64)))
    assert to_dict(square)["resolution"] == 64
    assert to_dict(other)["resolution"] == "96x64"
    for network in (square, other):
        config = ModelConfig(network=network, schedule="cosine", prediction="v")
        assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config
    for wrong in ("64", "64x", [64, 96], 64.0, None, True, "10000000000x8"):
        with pytest.raises(UsageError, match="resolution"):
            from_dict(type(square), {**to_dict(square), "resolution": wrong})
    with pytest.raises(UsageError, match="cannot be halved"):
        dataclasses.replace(other, resolution=Size(96, 60))


def test_every_shape_has_a_network_and_costs_what_its_pixels_do():
    for size in (Size(96, 64), Size(64, 128), Size(8, 64), Size(104, 40), Size(1024, 256)):
        sizes = map_sizes(size)
        assert sizes[0] == size
        assert all((above.width, above.height) == (2 * below.width, 2 * below.height)
                   for above, below in itertools.pairwise(sizes))
        for preset in PRESETS:
            network_config(preset, size, vocabulary=1000, learned_variance=True)
    oblong, square = (flops(network_config("nano", size, vocabulary=None, learned_variance=True))
                      for size in (Size(96, 64), Size(64, 64)))
    assert oblong / square == pytest.approx(1.5, rel=0.05)


def test_width_and_height_have_caches_of_their_own():
    sizes = (Size(16, 8), Size(8, 16), Size(16, 16), Size(8, 8))
    keys = {size: key_of(["a" * 64], (size,), Rendering()) for size in sizes}
    assert len(set(keys.values())) == 4


def test_a_strip_that_lies_about_its_width_is_refused(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), np.uint8)
    (tmp_path / "strip.png").write_bytes(sheets.encode_strip(pictures))
    assert np.array_equal(sheets.read_strip(tmp_path / "strip.png"), pictures)
    for text in ("0", "999999", "-1", "x", "99999999999999"):
        sheet = image_files.encode(sheets.tile(pictures, columns=3), texts={"width": text})
        (tmp_path / "wrong.png").write_bytes(sheet)
        with contextlib.suppress(ValueError):
            assert sheets.read_strip(tmp_path / "wrong.png").shape[1:3] == (8, 8)  # as a strip of squares
