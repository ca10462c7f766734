"""Requests for samples: values that are out of range are refused."""

import numpy as np
import pytest

from diffuse_cli.errors import UsageError
from diffuse_cli.sampling.request import InitImage, SampleRequest, make_init_image

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"seed": 2**63 - 1, "count": 3}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        SampleRequest(**wrong)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="--strength"):
            InitImage(PICTURE, strength)


@pytest.mark.parametrize("wrong", [{"count": 1.0}, {"seed": "7"}, {"prompt": 3}, {"negative": None}])
def test_values_of_another_type_are_refused(wrong):
    with pytest.raises(UsageError, match="must be"):
        SampleRequest(**wrong)


def test_numpys_integers_become_pythons():
    request = SampleRequest(count=np.int64(2), seed=np.uint8(7))
    assert (type(request.count), type(request.seed)) == (int, int)
    assert (request.count, request.seed) == (2, 7)


def test_a_mask_selects_the_pixels_that_are_at_least_half_white():
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[0, 0], mask[0, 1], mask[0, 2] = 255, (127, 127, 128), (127, 128, 128)
    start = make_init_image(PICTURE, mask, None)
    assert np.argwhere(start.mask).tolist() == [[0, 0], [0, 2]]
    assert start.strength == 1.0                           # unless one is given, with a mask; without it a smaller one
    assert make_init_image(PICTURE, None, None).strength < 1.0
