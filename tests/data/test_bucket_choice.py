"""The sizes that `--fit buckets` gives a model: few, alike in area, and near the shapes of the pictures."""

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.data.bucket_choice import MIN_AREA, choose_sizes, describe_sizes, possible_sizes
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.dataset import clear_cache, decode_pictures
from diffuse_cli.data.fitting import fitted_pixels
from diffuse_cli.errors import UsageError
from diffuse_cli.picture_size import Size, kept_share, nearest


def pictures(folder, *sizes, suffix="png", **options):
    for index, size in enumerate(sizes):
        Image.new("RGB", size, (index, 0, 0)).save(folder / f"{index:03d}.{suffix}", **options)
    return find_pictures(folder, captions="none")


def opened(found, sizes, directory):
    steps = decode_pictures(found, resolution=sizes, directory=directory, rendering=Rendering(fit="buckets"))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(("area", "multiple"), [
    (Size(64, 64), 8), (Size(96, 64), 8), (Size(32, 32), 8), (Size(128, 128), 16), (Size(512, 512), 64)])
def test_possible_sizes_are_alike_in_area(area, multiple):
    sizes = possible_sizes(area, multiple=multiple)
    assert all(MIN_AREA * area.pixels <= size.pixels <= area.pixels for size in sizes)
    assert all(side % multiple == 0 for size in sizes for side in size)
    assert {size[::-1] for size in sizes} == set(sizes)              # lying and standing
    assert len(set(sizes)) == len(sizes) >= 3


def test_the_sizes_of_64_pixels():
    assert [str(size) for size in possible_sizes(Size(64, 64), multiple=8)][::2] == [
        "64", "56x72", "48x80", "40x96", "32x128"]
    with pytest.raises(UsageError, match="finds no shape of about 8x24 px"):
        possible_sizes(Size(8, 24), multiple=16)


def test_pictures_of_one_shape_get_one_size(tmp_path):
    assert choose_sizes(pictures(tmp_path, *[(30, 30)] * 9), Size(64, 64), multiple=8)[0] == (Size(64, 64),)


def test_each_shape_that_is_not_rare_gets_its_size_the_commonest_first(tmp_path):
    found = pictures(tmp_path, *[(80, 48)] * 9, *[(20, 20)] * 12, *[(32, 128)] * 7)
    sizes, why = choose_sizes(found, Size(64, 64), multiple=8)
    assert sizes == (Size(64, 64), Size(80, 48))                      # seven are too few for a size of their own
    kept = (9 + 12 + 7 * 0.25) / 28
    alone = (9 * 0.6 + 12 + 7 * 0.25) / 28
    assert why == (f"2 shapes, to which a crop keeps {kept:.0%} of a picture on average; to 64 alone it would keep "
                   f"{alone:.0%}")


def test_photographs_count_as_they_are_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6                            # lies in the file, and is shown standing
    found = pictures(tmp_path, *[(80, 48)] * 8, suffix="jpg", exif=exif)
    assert choose_sizes(found, Size(64, 64), multiple=8)[0] == (Size(48, 80),)
    dataset = opened(found, (Size(80, 48), Size(48, 80)), tmp_path / "cache")
    assert [len(array) for array in dataset.arrays] == [0, 8]


def test_without_a_readable_picture_there_is_a_square(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert choose_sizes(find_pictures(tmp_path), Size(64, 64), multiple=8)[0] == (Size(64, 64),)


def test_a_picture_gets_the_size_that_keeps_most_of_it():
    sizes = possible_sizes(Size(64, 64), multiple=8)
    for width in range(1, 200):
        chosen = nearest(sizes, (width, 60))
        assert kept_share((width, 60), chosen) == max(kept_share((width, 60), size) for size in sizes)


# ── Pictures of several sizes ───────────────────────────────────────────────────────────────────────────────────────

SIZES = (Size(16, 16), Size(32, 8), Size(8, 32))


def noise(index, size):
    return Image.fromarray(np.random.default_rng(index).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.fixture
def mixed(tmp_path):
    """Pictures of three shapes in turn, and one file that is none. → what is found, the pictures"""
    folder = tmp_path / "mixed"
    folder.mkdir()
    images = [noise(index, [(16, 16), (33, 8), (16, 66)][index % 3]) for index in range(11)]
    for index, image in enumerate(images):
        image.save(folder / f"{index:03d}.png")
    (folder / "004b.png").write_bytes(b"no picture")
    return find_pictures(folder, captions="none"), images


def test_each_picture_is_in_the_array_of_its_size(mixed, tmp_path):
    found, images = mixed
    for _ in range(2):                          # decoded, then read from the cache
        dataset = opened(found, SIZES, tmp_path / "cache")
        assert dataset.sizes == SIZES
        assert [len(array) for array in dataset.arrays] == [4, 4, 3]
        assert describe_sizes(dataset) == "16 px: 4 pictures, 32x8 px: 4, 8x32 px: 3"
        for position, image in enumerate(images):
            size = SIZES[dataset.size_number(position)]
            expected = fitted_pixels(image, size, Rendering(fit="buckets"))
            assert np.array_equal(dataset.pixels(np.array([position]))[0], expected)
        groups = dataset.by_size(np.array([10, 0, 2, 6, 1]))
        assert [group.tolist() for group in groups] == [[0, 6], [10, 1], [2]]
        assert dataset.pixels(groups[1]).shape == (2, 8, 32, 3)


def test_a_damaged_array_of_any_size_is_decoded_again(mixed, tmp_path):
    found, _ = mixed
    first = [np.array(array) for array in opened(found, SIZES, tmp_path / "cache").arrays]
    for path in sorted((tmp_path / "cache").rglob("images*.u8")):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        again = opened(found, SIZES, tmp_path / "cache")
        assert all(np.array_equal(one, other) for one, other in zip(first, again.arrays, strict=True))
    assert clear_cache(tmp_path / "cache") > 0


def test_what_is_left_over_is_padded_on_a_plain_ground_and_cropped_elsewhere():
    drawing = Image.new("RGB", (40, 12), "yellow")
    drawing.paste("black", (1, 1, 39, 11))
    padded = fitted_pixels(drawing, Size(32, 8), Rendering(fit="buckets"))
    assert np.array_equal(padded, fitted_pixels(drawing, Size(32, 8), Rendering(fit="pad")))
    assert (padded[:, 0] == (255, 255, 0)).all()
    photograph = noise(0, (40, 12))
    assert np.array_equal(fitted_pixels(photograph, Size(32, 8), Rendering(fit="buckets")),
                          fitted_pixels(photograph, Size(32, 8), Rendering(fit="crop")))
