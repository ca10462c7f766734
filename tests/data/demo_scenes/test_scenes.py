"""The demo data set: what is promised of its words, of its pictures, and of the folder it fills."""

import dataclasses
import itertools
import json
import random
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.data.demo_scenes.scenes import (
    BACKDROPS,
    COLOURS,
    HELD_OUT,
    OBJECTS,
    SIZES,
    Scene,
    draw,
    random_scene,
    scene_with,
)
from diffuse_cli.errors import StorageError, UsageError
from diffuse_cli.files import durable


def pixels(shown: Scene, resolution: int) -> np.ndarray:
    return np.asarray(draw(shown, resolution), dtype=np.float64)


def lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB (0 to 255) → CIELAB under D65: an independent judge of how different colours look."""
    linear = np.where(rgb <= 0.04045 * 255, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    scaled = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def body(shown: Scene, resolution: int) -> np.ndarray:
    """Which pixels are the object: those that stay what they are whatever the backdrop."""
    plain, night, room = (pixels(dataclasses.replace(shown, backdrop=name), resolution)
                          for name in ("plain", "night", "room"))
    return ((plain == night) & (plain == room)).all(axis=-1)


# ── What is in the picture ──────────────────────────────────────────────────────────────────────────────────────────


def test_there_is_enough_to_draw() -> None:
    assert len(OBJECTS) >= 20
    assert len(COLOURS) >= 10
    assert set(BACKDROPS) == {"plain", "sky", "grass", "sea", "night", "room"}
    assert SIZES == ("small", "medium", "large")


def test_scene_is_a_function_of_its_arguments_alone() -> None:
    expected = random_scene(3, 17)
    random.seed(99)
    state = random.getstate()
    assert random_scene(3, 17) == expected
    assert draw(expected, 32).tobytes() == draw(random_scene(3, 17), 32).tobytes()
    assert random.getstate() == state
    assert random_scene(3, 18) != expected
    assert random_scene(4, 17) != expected


def test_held_out_is_a_tenth_spread_over_everything() -> None:
    assert abs(len(HELD_OUT) / (len(COLOURS) * len(OBJECTS)) - 0.1) < 0.005
    assert ("red", "car") not in HELD_OUT
    lost_by_colour, lost_by_object = Counter(c for c, _ in HELD_OUT), Counter(o for _, o in HELD_OUT)
    assert set(lost_by_colour) == set(COLOURS)
    assert set(lost_by_object) == set(OBJECTS)
    assert max(lost_by_colour.values()) <= len(OBJECTS) // 6
    assert max(lost_by_object.values()) <= len(COLOURS) // 6


def test_pairs_keep_to_their_side() -> None:
    drawn = {side: {(s.colour, s.object) for s in (random_scene(0, index, pairs=side) for index in range(3000))}
             for side in ("seen", "held-out", "all")}
    everything = {(colour, thing) for colour in COLOURS for thing in OBJECTS}
    assert drawn["seen"] == everything - HELD_OUT
    assert drawn["held-out"] == HELD_OUT
    assert drawn["all"] == everything


def test_unknown_words_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="pairs does not know 'unseen'"):
        random_scene(0, 0, pairs="unseen")
    with pytest.raises(UsageError, match="Did you mean 'yellow'"):
        scene_with("yelow", "car", seed=0, index=0)
    with pytest.raises(UsageError, match="object does not know 'dragon'"):
        scene_with("red", "dragon", seed=0, index=0)


def test_scene_of_gives_the_pair_and_varies_the_rest() -> None:
    shown = [scene_with("red", "car", seed=0, index=index) for index in range(60)]
    assert {(s.colour, s.object) for s in shown} == {("red", "car")}
    assert {s.backdrop for s in shown} == set(BACKDROPS)
    assert {s.size for s in shown} == set(SIZES)
    assert len({s.caption for s in shown}) > 20
    assert {"a red car", "red car"} <= {s.caption for s in shown}


# ── Captions ────────────────────────────────────────────────────────────────────────────────────────────────────────

PLACES = {"plain": "background", "sky": "sky|clouds", "grass": "grass|meadow", "sea": "sea|water",
          "night": "night|stars", "room": "room|indoors"}
SIZE_WORDS = {"small": "small|little|tiny", "medium": "(?!)", "large": "big|large"}


def test_captions_tell_the_truth_in_good_english() -> None:
    said = Counter()
    for index in range(2000):
        shown = random_scene(1, index, pairs="all")
        words = shown.caption.split()
        assert re.fullmatch(r"[a-z]+( [a-z]+)*", shown.caption)
        assert words.count(shown.object) == 1
        before = words[words.index(shown.object) - 1]
        assert before == shown.colour or (before, shown.colour) == ("gray", "grey")
        assert all((article == "an") == (word[0] in "aeiou")
                   for article, word in pairwise(words) if article in ("a", "an"))
        for attribute, vocabulary in ((shown.backdrop, PLACES), (shown.size, SIZE_WORDS)):
            for name, pattern in vocabulary.items():
                if re.search(rf"\b({pattern})\b", shown.caption):
                    assert name == attribute
                    said[name] += 1
    assert all(said[name] for name in (*PLACES, "small", "large"))
    assert said["medium"] == 0
    assert 400 < said["small"] + said["large"] < 1200                       # sometimes said, sometimes not


# ── Pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("resolution", [8, 32, 50])
def test_picture_has_the_size_asked_for(resolution: int) -> None:
    picture = draw(random_scene(0, 0), resolution)
    assert picture.mode == "RGB"
    assert picture.size == (resolution, resolution)


def test_resolution_out_of_range_is_refused() -> None:
    with pytest.raises(UsageError, match="--resolution"):
        draw(random_scene(0, 0), 4)


@pytest.mark.parametrize("backdrop", BACKDROPS)
def test_same_picture_at_any_resolution(backdrop: str) -> None:
    for index, thing in enumerate(OBJECTS[::4]):
        shown = dataclasses.replace(scene_with("orange", thing, seed=2, index=index), backdrop=backdrop)
        small, reduced = pixels(shown, 32), np.asarray(draw(shown, 128).reduce(4), dtype=np.float64)
        other = pixels(dataclasses.replace(shown, pose="2/elsewhere"), 32)
        assert np.abs(small - reduced).mean() < 4
        assert np.abs(small - reduced).mean() < np.abs(small - other).mean() / 4


@pytest.mark.parametrize(("colour", "thing"), [("red", "car"), ("white", "tree"), ("black", "key"), ("pink", "ball")])
def test_two_pictures_of_a_pair_differ(colour: str, thing: str) -> None:
    alike = [dataclasses.replace(scene_with(colour, thing, seed=0, index=index), backdrop="plain", size="medium")
             for index in range(6)]
    pictures = [pixels(shown, 32) for shown in alike]
    differences = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
    assert min(differences) > 4
    shades = {tuple(np.median(pixels(shown, 32)[body(shown, 32)], axis=0)) for shown in alike}
    assert len(shades) > len(pictures) / 2


def test_every_object_fits_and_has_its_size() -> None:
    for thing in OBJECTS:
        extent = {}
        for size in SIZES:
            longer = []
            for index in range(3):
                mask = body(dataclasses.replace(scene_with("red", thing, seed=5, index=index), size=size), 64)
                assert not mask[0].any()
                assert not mask[-1].any()
                assert not mask[:, 0].any()
                assert not mask[:, -1].any()
                longer.append(max(np.ptp(np.nonzero(mask.any(axis=axis))[0]) + 1 for axis in (0, 1)) / 64)
            extent[size] = longer
            assert min(longer) > 0.28                                         # the rim is not counted
            assert max(longer) < 0.93
        assert np.mean(extent["small"]) < np.mean(extent["medium"]) < np.mean(extent["large"])


@pytest.mark.parametrize("colour", COLOURS)
def test_the_named_colour_dominates_every_object(colour: str) -> None:
    names, references = list(COLOURS), lab(np.array(list(COLOURS.values()), dtype=np.float64))
    for index, thing in enumerate(OBJECTS):
        shown = dataclasses.replace(scene_with(colour, thing, seed=1, index=index), size="large")
        inside = lab(pixels(shown, 48)[body(shown, 48)])
        nearest = np.linalg.norm(inside[:, None] - references, axis=-1).argmin(axis=1)
        share = Counter(names[which] for which in nearest)
        named = share.pop(colour)
        assert named > 0.5 * len(inside), (thing, share)
        assert named > 1.5 * max(share.values(), default=0), (thing, share)


def test_every_object_stands_out_from_every_backdrop() -> None:
    """In the three pixels around the body, rim or backdrop look different from it: told by CIELAB distance."""
    for index, (colour, backdrop) in enumerate(itertools.product(COLOURS, BACKDROPS)):
        first = 2 * index + index // len(BACKDROPS)                           # nearly every object on each backdrop
        for thing in (OBJECTS[first % len(OBJECTS)], OBJECTS[(first + 1) % len(OBJECTS)]):
            shown = dataclasses.replace(scene_with(colour, thing, seed=8, index=index), backdrop=backdrop)
            mask, picture = body(shown, 64), lab(pixels(shown, 64))
            around = np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(7))) > 0
            contrast = np.linalg.norm(picture[around & ~mask] - np.median(picture[mask], axis=0), axis=-1)
            assert np.quantile(contrast, 0.75) > 18, shown


def test_a_plain_backdrop_keeps_clear_of_white_objects() -> None:
    """Pale tones serve purple stars; white ones get a backdrop that they can be seen on."""
    def nearest(colour: str) -> float:
        shown = [dataclasses.replace(scene_with(colour, "star", seed=4, index=index), backdrop="plain", size="small")
                 for index in range(40)]
        white = lab(np.array(COLOURS["white"], dtype=np.float64))
        return min(float(np.linalg.norm(lab(pixels(s, 16)[~body(s, 16)]).mean(axis=0) - white)) for s in shown)

    assert nearest("white") > nearest("purple") + 2


@pytest.mark.slow
def test_colours_can_be_told_apart_at_32_pixels() -> None:
    """A plain logistic regression on 8 × 8 × 8 colour histograms of whole pictures, on unseen pictures."""
    linear_model = pytest.importorskip("sklearn.linear_model")

    def histogram(shown: Scene) -> np.ndarray:
        cells = (pixels(shown, 32) // 32).astype(int) @ [64, 8, 1]
        return np.sqrt(np.bincount(cells.ravel(), minlength=512) / cells.size)

    def examples(first: int, count: int) -> tuple[np.ndarray, list[str]]:
        shown = [random_scene(6, index) for index in range(first, first + count)]
        return np.stack([histogram(s) for s in shown]), [s.colour for s in shown]

    model = linear_model.LogisticRegression(C=30, max_iter=300).fit(*examples(0, 1200))
    assert model.score(*examples(1200, 300)) > 0.95                           # chance is 1/12


# ── The folder ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_demo_folder_holds_pictures_and_their_metadata(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "demo"
    assert list(scenes.write_demo_folder(folder, count=5, resolution=16, seed=7)) == [1, 2, 3, 4, 5]
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert sorted(path.name for path in folder.iterdir()) == [*(row["file_name"] for row in rows), "metadata.jsonl"]
    for index, row in enumerate(rows):
        shown = random_scene(7, index)
        assert row == {"file_name": f"{index:05d}.png", "text": shown.caption, "colour": shown.colour,
                       "object": shown.object, "backdrop": shown.backdrop, "size": shown.size}
        with Image.open(folder / row["file_name"]) as picture:
            assert picture.tobytes() == draw(shown, 16).tobytes()


def test_demo_never_touches_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds something") as refusal:
        list(scenes.write_demo_folder(tmp_path, count=1, resolution=16))
    assert refusal.value.exit_code == 2
    with pytest.raises(UsageError, match="already holds something"):
        list(scenes.write_demo_folder(tmp_path / "holiday.txt", count=1, resolution=16))
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


def test_demo_accepts_an_empty_folder_and_refuses_numbers_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="-n must be between"):
        list(scenes.write_demo_folder(tmp_path, count=0, resolution=16))
    with pytest.raises(UsageError, match="--seed must be between 0 and"):
        list(scenes.write_demo_folder(tmp_path, count=1, resolution=16, seed=-1))
    assert list(scenes.write_demo_folder(tmp_path, count=1, resolution=16)) == [1]


def test_the_folder_is_filled_when_all_is_drawn(tmp_path: Path) -> None:
    """So a kill leaves no half of a folder that could be trained on."""
    writing = scenes.write_demo_folder(tmp_path / "demo", count=2, resolution=16)
    assert next(writing) == 1
    assert not (tmp_path / "demo").exists()
    assert list(writing) == [2]
    assert len(find_pictures(tmp_path / "demo").pictures) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


@pytest.mark.parametrize("there", [Path(), Path("new", "deep")])
def test_demo_that_is_interrupted_leaves_what_was_there_before(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: Path) -> None:
    monkeypatch.chdir(tmp_path)
    writing = scenes.write_demo_folder(there, count=3, resolution=16)
    assert next(writing) == 1
    there.mkdir(parents=True, exist_ok=True)
    (there / "holiday.txt").write_text("mine")
    with pytest.raises(KeyboardInterrupt):
        writing.throw(KeyboardInterrupt)
    assert [path.name for path in there.iterdir()] == ["holiday.txt"]
    (there / "holiday.txt").unlink()
    writing = scenes.write_demo_folder(there / "more", count=3, resolution=16)
    assert next(writing) == 1
    writing.close()                             # nobody asks for the next
    assert list(there.iterdir()) == []
    assert list(scenes.write_demo_folder(there, count=1, resolution=16)) == [1]


@pytest.mark.parametrize("module", [Image.Image, durable.os])
def test_a_disk_that_gets_full_is_left_as_it_was(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    writing = scenes.write_demo_folder(tmp_path / "new" / "demo", count=2, resolution=16)
    if module is Image.Image:
        assert next(writing) == 1
    monkeypatch.setattr(module, "save" if module is Image.Image else "fsync", full)
    with pytest.raises(StorageError, match="no space left"):
        list(writing)
    assert list(tmp_path.iterdir()) == []


def test_disk_trouble_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StorageError, match=r"cannot write .*00000\.png: no space left"):
        list(scenes.write_demo_folder(tmp_path / "demo", count=1, resolution=16))
    monkeypatch.undo()
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(StorageError, match=r"metadata\.jsonl"):
        list(scenes.write_demo_folder(tmp_path / "other", count=1, resolution=16))
