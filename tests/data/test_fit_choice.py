"""The fit that is chosen for a folder: padding for pictures on a plain ground, a crop for others, always the same."""

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.data import fit_choice
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.fit_choice import NEIGHBOURS, PLACES, choose_fit

SEED = 20_261_129


def photograph(index, size=(60, 40)):
    return Image.fromarray(np.random.default_rng(SEED + index).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def drawing(index, size=(60, 40), ground="white"):
    """A bar over nine tenths of the longer side, of which the centre square loses a known share."""
    image, (width, height) = Image.new("RGB", size, ground), size
    share = [0.05 if side == max(size) else 0.4 for side in size]
    image.paste((200, 20, 20), (round(share[0] * width), round(share[1] * height),
                                round((1 - share[0]) * width), round((1 - share[1]) * height)))
    return image


def sprite(index, size=(60, 40)):
    image = Image.new("RGBA", size, (0, 0, 255, 0))
    image.paste((20, 200, 20, 255), (3, 16, 57, 24))
    return image


def cut_out(index, size=(20, 60)):
    """Something of all colours that fills the picture, but for a gap of three pixels."""
    image = photograph(index, size).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 10, 20, 13))
    return image


def chosen(folder, *kinds, rendering=None):
    for index, image in enumerate(kinds):
        image.save(folder / f"{index:04d}.png")
    return choose_fit(find_pictures(folder), rendering or Rendering(), 64)


def test_drawings_are_padded_and_the_figure_is_what_the_crop_would_lose(tmp_path):
    """Of a bar from 0.05 to 0.95 of the width, the middle two thirds keep 0.6667 / 0.9, so 26 % are lost."""
    fit, why = chosen(tmp_path, *map(drawing, range(8)), photograph(8))
    assert (fit, why) == ("pad", "8 of 9 pictures that are not square stand on a plain or transparent ground, and the "
                                 "centre square would cut off 26% of what is on it")


def test_upright_drawings_have_the_same_figure(tmp_path):
    assert chosen(tmp_path, *(drawing(index, (40, 60)) for index in range(4)))[1].endswith("26% of what is on it")


def test_a_picture_that_is_turned_upright_is_measured_as_it_is_seen(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing(0).save(tmp_path / "a.png", exif=exif)
    assert choose_fit(find_pictures(tmp_path), Rendering(), 64)[1].endswith("26% of what is on it")


@pytest.mark.parametrize("background", ["white", "black"])
def test_transparent_pictures_stand_on_the_background_however_little_of_it_is_in_their_border(tmp_path, background):
    assert chosen(tmp_path, *map(sprite, range(8)), rendering=Rendering(background))[0] == "pad"
    assert chosen(tmp_path, *map(cut_out, range(8)), rendering=Rendering(background))[0] == "pad"


def test_photographs_are_cropped(tmp_path):
    fit, why = chosen(tmp_path, *map(photograph, range(8)), drawing(8))
    assert (fit, why) == ("crop", "only 1 of 9 pictures that are not square stand on a plain or transparent ground; "
                                  "33% of the area of the others is cut off")


def test_squares_are_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_choice.decode_workers, "decode_all", None)
    fit, why = chosen(tmp_path, *(drawing(index, (40, 41)) for index in range(8)))
    assert (fit, why) == ("crop", "all pictures that were looked at are square")


def test_files_that_are_no_pictures_do_not_count(tmp_path):
    for index in range(9):
        (tmp_path / f"9{index}.png").write_bytes(b"not a picture")
    assert choose_fit(find_pictures(tmp_path), Rendering(), 64) == ("crop", "no picture can be looked at")
    assert chosen(tmp_path, drawing(0))[0] == "pad"
    data = (tmp_path / "0000.png").read_bytes()                        # the header is sound, the pixels are not there
    (tmp_path / "0000.png").write_bytes(data[:60])
    assert choose_fit(find_pictures(tmp_path), Rendering(), 64) == ("crop", "no picture can be looked at")


@pytest.mark.parametrize("count", [1, PLACES * NEIGHBOURS, PLACES * NEIGHBOURS + 1, 100_000])
def test_a_bounded_number_is_looked_at_from_the_first_to_the_last(count):
    positions = fit_choice._positions(count)
    assert len(set(positions)) == len(positions) == min(count, PLACES * NEIGHBOURS)
    assert positions == sorted(positions)
    assert (positions[0], positions[-1]) == (0, count - 1)
