"""A picture of any shape gets that of the model: its middle, or all of it, padded with its ground or stretched."""

import io

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.fitting import fitted_pixels, ground_colour
from diffuse_cli.data.images import decode_rgb
from diffuse_cli.picture_size import Size

SEED = 20_261_129


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (64, 67), (100, 64), (64, 129)])
def test_a_square_of_the_right_size_is_cut_out_exactly(size):
    random = np.random.default_rng(SEED)
    rgb = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    left, top = (size[0] - 64) // 2, (size[1] - 64) // 2
    np.testing.assert_array_equal(fitted_pixels(Image.fromarray(rgb), 64), rgb[top:top + 64, left:left + 64])


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (70, 64), (9, 7), (1, 1), (3000, 40)])
@pytest.mark.parametrize("resolution", [8, 64])
def test_any_size_becomes_the_square_and_a_constant_stays(size, resolution):
    result = fitted_pixels(Image.new("RGB", size, (10, 200, 30)), resolution)
    assert (result == (10, 200, 30)).all()
    assert result.shape == (resolution, resolution, 3)
    assert result.dtype == np.uint8


def test_stripes_finer_than_a_pixel_become_grey():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fitted_pixels(Image.fromarray(stripes), 60).astype(int) - 127.5).max() < 10


@pytest.mark.parametrize(("size", "resolution"), [(256, 64), (512, 60), (200, 64), (1000, 32)])
def test_fine_stripes_alias_no_more_than_with_pillows_own_gap_of_two(size, resolution):
    """Waves of every length below two pixels of the result; what is left of them is aliasing."""
    place = np.arange(size) + 0.5
    for waves in np.arange(0.55, min(2.5, size / resolution / 2), 0.05):            # in a pixel of the result
        row = np.round(127.5 + 120 * np.sin(2 * np.pi * waves * place * resolution / size)).astype(np.uint8)
        image = Image.fromarray(np.repeat(row[None], size, axis=0)).convert("RGB")
        pillows = image.resize((resolution, resolution), Image.Resampling.LANCZOS, reducing_gap=2.0)
        left = fitted_pixels(image, resolution).astype(float).std()
        assert left <= np.asarray(pillows).astype(float).std() + 0.5


def test_a_step_is_sharp_and_rings_no_more_than_lanczos_does():
    """The step response of Lanczos with three lobes overshoots by 6.5 % of the step, and reaches 98 % in two pixels."""
    step = np.full((256, 256, 3), 50, np.uint8)
    step[:, 128:] = 200
    row = fitted_pixels(Image.fromarray(step), 64)[32, :, 0].astype(float)
    assert row.max() <= 200 + 0.08 * 150
    assert row.min() >= 50 - 0.08 * 150
    assert (np.abs(row[:29] - 50) <= 0.08 * 150).all()
    assert (np.abs(row[34:] - 200) <= 0.08 * 150).all()


# ── Pad and stretch ─────────────────────────────────────────────────────────────────────────────────────────────────

GREEN = (30, 160, 60)


def framed(size, ground, box, colour):
    image = Image.new("RGB", size, ground)
    image.paste(colour, box)
    return image


@pytest.mark.parametrize("size", [(64, 32), (32, 64), (64, 21), (1, 64)])
def test_padding_keeps_every_pixel_between_bars_of_the_ground(size):
    """A picture whose longer side is that of the square is copied into the middle; the rest has its border's colour."""
    random = np.random.default_rng(SEED)
    rgb = np.full((size[1], size[0], 3), GREEN, np.uint8)
    rgb[1:-1, 1:-1] = random.integers(0, 256, rgb[1:-1, 1:-1].shape)
    result = fitted_pixels(Image.fromarray(rgb), 64, Rendering(fit="pad", background="red"))
    left, top = (64 - size[0]) // 2, (64 - size[1]) // 2
    expected = np.full((64, 64, 3), GREEN, np.uint8)
    expected[top:top + size[1], left:left + size[0]] = rgb
    np.testing.assert_array_equal(result, expected)


def test_padding_keeps_proportions():
    image = framed((200, 100), "white", (80, 30, 120, 70), "black")
    dark = np.argwhere(fitted_pixels(image, 60, Rendering(fit="pad")).mean(2) < 128)
    assert (*dark.min(0), *dark.max(0)) == (24, 24, 35, 35)


def test_a_ground_that_is_not_plain_is_padded_with_the_background():
    noise = Image.fromarray(np.random.default_rng(SEED).integers(0, 256, (20, 40, 3), dtype=np.uint8))
    result = fitted_pixels(noise, 40, Rendering(fit="pad", background="#0a1428"))
    assert (result[:10] == (10, 20, 40)).all()
    assert (result[30:] == (10, 20, 40)).all()


def test_a_transparent_picture_is_padded_with_the_background_whatever_its_border_shows():
    """A letter that is cut out tightly: most of its border is ink."""
    letter = Image.new("RGBA", (4, 20), (0, 0, 0, 255))
    letter.paste((9, 9, 9, 0), (0, 4, 4, 6))
    stream = io.BytesIO()
    letter.save(stream, "PNG")
    for background, colour in (("white", 255), ("#646464", 100)):
        rendering = Rendering(fit="pad", background=background)
        result = fitted_pixels(decode_rgb(stream.getvalue(), rendering=rendering), 20, rendering)
        assert (result[:, :8] == colour).all()
        assert (result[:, 12:] == colour).all()
        assert (result[4:6, 8:12] == colour).all()
        assert (result[:4, 8:12] == 0).all()


def test_stretching_keeps_every_pixel_and_fills_the_square():
    halves = framed((40, 10), "blue", (20, 0, 40, 10), "yellow")
    result = fitted_pixels(halves, 80, Rendering(fit="stretch"))
    assert (result[:, :35] == (0, 0, 255)).all()
    assert (result[:, 45:] == (255, 255, 0)).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_square_is_the_same_by_every_fit(fit):
    noise = Image.fromarray(np.random.default_rng(SEED).integers(0, 256, (70, 70, 3), dtype=np.uint8))
    np.testing.assert_array_equal(fitted_pixels(noise, 32, Rendering(fit=fit)), fitted_pixels(noise, 32))


def border(share, size=(40, 60)):
    """A picture in which about so much of the border is GREEN, and the rest all sorts of other colours."""
    width, height = size
    image = Image.new("RGB", size, GREEN)
    places = [(x, y) for y in range(height) for x in range(width) if x in (0, width - 1) or y in (0, height - 1)]
    for index in np.random.default_rng(SEED).permutation(len(places))[round(share * len(places)):]:
        x, y = places[index]
        image.putpixel((x, y), ((x * 37 + y * 91) % 256, (x * 71) % 100 + 156, (y * 53) % 150 + 100))
    return image


def test_a_ground_is_plain_if_most_of_the_border_has_its_colour():
    assert ground_colour(border(1.0)) == GREEN
    found = ground_colour(border(0.7))
    assert found is not None
    assert np.abs(np.subtract(found, GREEN)).max() <= 16
    assert ground_colour(border(0.3)) is None
    assert ground_colour(framed((40, 40), GREEN, (5, 5, 35, 35), "red")) == GREEN          # whatever is inside
    assert ground_colour(Image.new("RGB", (1, 1), GREEN)) == GREEN


def test_noise_of_a_camera_or_a_jpeg_leaves_a_ground_plain():
    values = np.random.default_rng(SEED).normal(200, 5, (50, 80, 3)).round().clip(0, 255).astype(np.uint8)
    found = ground_colour(Image.fromarray(values))
    assert found is not None
    assert np.abs(np.subtract(found, 200)).max() <= 2


# ── Mirroring ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_fitting_commutes_with_mirroring():
    rgb = np.random.default_rng(SEED).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    mirrored = fitted_pixels(Image.fromarray(np.fliplr(rgb)), 32).astype(int)
    assert np.abs(np.fliplr(fitted_pixels(Image.fromarray(rgb), 32)).astype(int) - mirrored).max() <= 2


@pytest.mark.parametrize(("size", "kept"), [((48, 24), (48, 24)), ((60, 24), (48, 24)), ((48, 40), (48, 24))])
def test_a_crop_to_another_shape_is_the_centre(size, kept):
    rgb = np.random.default_rng(SEED).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    left, top = (size[0] - kept[0]) // 2, (size[1] - kept[1]) // 2
    for turned in (rgb, np.ascontiguousarray(rgb.transpose(1, 0, 2))):
        target = Size(*kept) if turned is rgb else Size(*kept[::-1])
        result = fitted_pixels(Image.fromarray(turned), target)
        result = result if turned is rgb else result.transpose(1, 0, 2)
        np.testing.assert_array_equal(result, rgb[top:top + kept[1], left:left + kept[0]])


@pytest.mark.parametrize(("size", "inner"), [((48, 12), (32, 8)), ((10, 40), (4, 16)), ((64, 32), (32, 16)),
                                             ((16, 16), (16, 16)), ((1, 90), (1, 16))])
def test_bars_fill_what_another_shape_leaves(size, inner):
    image = Image.new("RGB", size, (10, 200, 30))
    result = fitted_pixels(image, Size(32, 16), Rendering(fit="pad", background="red"))
    assert result.shape == (16, 32, 3)
    left, top = (32 - inner[0]) // 2, (16 - inner[1]) // 2
    noise = Image.fromarray(np.random.default_rng(SEED).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    bars = np.ones((16, 32), bool)
    bars[top:top + inner[1], left:left + inner[0]] = False
    found = fitted_pixels(noise, Size(32, 16), Rendering(fit="pad", background="red"))
    assert (found[bars] == (255, 0, 0)).all()
    assert not (found[~bars] == (255, 0, 0)).all(axis=1).any()
    assert (result == (10, 200, 30)).all()                              # bars of a plain picture have its colour
    assert fitted_pixels(noise, Size(32, 16), Rendering(fit="stretch")).shape == (16, 32, 3)
