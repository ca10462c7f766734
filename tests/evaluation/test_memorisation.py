"""Copies of training pictures are distinguished from new pictures, and chance alone gives no verdict."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy.stats import nhypergeom

from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.evaluation import memorisation
from diffuse_cli.evaluation.memorisation import MEMORISING, NOT_MEMORISING, TOO_FEW, detect_memorisation
from diffuse_cli.events import without_non_finite

NONE = np.empty((0, 16, 16, 3), np.uint8)
random = np.random.default_rng(0)


@pytest.fixture(scope="module")
def drawn_scenes():
    """400 scenes of 16 pixels: 300 to train on, 100 new ones."""
    return np.stack([np.asarray(scenes.draw(scenes.random_scene(0, index), 16)) for index in range(400)])


@pytest.fixture(scope="module")
def training(drawn_scenes):
    return drawn_scenes[:300]


@pytest.fixture(scope="module")
def fresh(drawn_scenes):
    return drawn_scenes[300:]


def copies(pictures: np.ndarray, *, spread: float = 8) -> np.ndarray:
    return np.clip(pictures + random.normal(0, spread, pictures.shape), 0, 255).astype(np.uint8)


# ── The verdict ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("copy", [
    lambda pictures: pictures,
    copies,
    lambda pictures: copies(pictures[:, :, ::-1]),                     # mirrored, as training with --flip draws
    lambda pictures: np.roll(pictures, 1, axis=2),                     # shifted by a pixel of 16
    lambda pictures: np.clip(pictures.astype(int) + 6, 0, 255).astype(np.uint8),        # a little brighter
], ids=["exact", "noisy", "mirrored", "shifted", "brighter"])
def test_a_planted_memoriser_is_called_memorising(training, fresh, copy):
    found = detect_memorisation(copy(training[:80]), training, fresh)
    assert found.verdict == MEMORISING
    assert found.p_value < 1e-6
    assert found.sentence.startswith("memorising: ")


def test_a_memoriser_of_a_part_is_noticed(training, fresh):
    found = detect_memorisation(np.concatenate([fresh[:80], copies(training[:20])]), training, NONE)
    assert found.verdict == MEMORISING
    assert {pair.drawn for pair in found.pairs[:20]} == set(range(80, 100))
    assert all(pair.training == pair.drawn - 80 for pair in found.pairs[:20])


def test_new_pictures_are_not_memorised(training, fresh):
    found = detect_memorisation(fresh, training, fresh)
    assert found.verdict == NOT_MEMORISING
    assert found.p_value > 0.01
    assert found.held_out == found.drawn                               # the same pictures, judged in the same way
    assert found.expected == pytest.approx(found.control.share, abs=0.01)


def test_twenty_pictures_are_judged_without_any_held_out(training, fresh):
    twenty = training[:20]
    assert detect_memorisation(copies(twenty[np.arange(60) % 20]), twenty, NONE).verdict == MEMORISING
    assert detect_memorisation(fresh[:60], twenty, NONE).verdict == NOT_MEMORISING


def test_data_full_of_near_copies_sets_its_own_measure(training):
    """Each scene is there in two noisy takes. A third take of it is close to a training picture, but not a copy."""
    takes = np.concatenate([copies(training, spread=12), copies(training, spread=12)])
    new_takes = copies(training[:150], spread=12)
    assert detect_memorisation(new_takes, takes, NONE).verdict == NOT_MEMORISING
    assert detect_memorisation(takes[:150], takes, NONE).verdict == MEMORISING


def test_copies_are_found_among_pictures_that_hardly_differ():
    """White pictures with a pale dot each: distances are small compared with the colours."""
    def dotted(count, seed):
        pictures = np.full((count, 64, 64, 3), 255, np.uint8)
        random = np.random.default_rng(seed)
        for picture, (x, y) in zip(pictures, random.integers(0, 62, (count, 2)), strict=True):
            picture[y : y + 2, x : x + 2] = random.integers(215, 256, 3)
        return pictures

    some = dotted(300, 0)
    assert detect_memorisation(some[:64], some, some[:0]).verdict == MEMORISING
    assert detect_memorisation(dotted(64, 1), some, some[:0]).verdict == NOT_MEMORISING


def test_exact_copies_among_the_training_pictures_change_nothing(training, fresh):
    twice = np.concatenate([training, training])
    assert detect_memorisation(fresh, twice, NONE) == detect_memorisation(fresh, training, NONE)
    assert detect_memorisation(copies(training[:80]), twice, NONE).verdict == MEMORISING


@pytest.mark.parametrize(("training_pictures", "drawn"), [(300, 9), (300, 0), (10, 10), (4, 60), (2, 60), (1, 60)])
def test_too_few_pictures_are_not_judged(training, training_pictures, drawn):
    few = training[:training_pictures]
    found = detect_memorisation(few[np.arange(drawn) % training_pictures], few, NONE)
    assert found.verdict == TOO_FEW
    assert str(drawn) in found.sentence
    json.dumps(without_non_finite(found.to_dict()), allow_nan=False)
    assert detect_memorisation(training[:10], training[:20], NONE).verdict == MEMORISING     # with more, they are


def test_chance_rarely_gives_a_verdict(training):
    """Of many draws of new pictures, at most about LEVEL are called memorising."""
    pool = random.normal(128, 40, (2000, 8, 8, 3)).clip(0, 255).astype(np.uint8)
    verdicts = [detect_memorisation(pool[order[:30]], pool[order[30:130]], NONE).verdict
                for order in (random.permutation(2000) for _ in range(100))]
    assert verdicts.count(MEMORISING) <= 4
    assert verdicts.count(NOT_MEMORISING) >= 96


# ── Its parts ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("drawn", "control", "rank"), [(10, 20, 1), (50, 300, 3), (200, 150, 2)])
def test_the_chance_of_suspects_is_scipys_negative_hypergeometric_distribution(drawn, control, rank):
    for suspects in range(0, drawn + 1, 5):
        expected = nhypergeom(drawn + control, drawn, rank).sf(suspects - 1)
        assert memorisation.chance_of_suspects(suspects, generated=drawn, control=control, rank=rank) == pytest.approx(
            expected, rel=1e-6, abs=1e-12)


def test_the_ratio_is_that_of_the_definition(monkeypatch, training, fresh):
    monkeypatch.setattr(memorisation, "_ELEMENTS", 2000)               # many small blocks give the same
    found = detect_memorisation(fresh[:10], training, NONE)

    def colours(pictures):
        return pictures.reshape(len(pictures), 8, 2, 8, 2, 3).mean((2, 4))

    mirrored = training[:, :, ::-1]
    for pair in found.pairs:
        generated = colours(fresh[pair.drawn][None])
        gaps = np.minimum(*(np.sqrt(np.square(colours(side) - generated).mean((1, 2, 3)))
                            for side in (training, mirrored)))
        assert pair.training == gaps.argmin()
        assert pair.distance == pytest.approx(gaps.min(), rel=1e-4)
        assert pair.ratio == pytest.approx(gaps.min() / np.sort(gaps)[:20].mean(), rel=1e-4)
    assert [pair.ratio for pair in found.pairs] == sorted(pair.ratio for pair in found.pairs)


def test_training_pictures_are_not_compared_with_themselves(training):
    found = detect_memorisation(training[:10], training, training[:50])
    assert found.held_out.quantiles[-1] < 0.01                         # these are
    assert found.control.quantiles[0] > 0.1
    assert found.control.count == 300


def test_the_dictionary_contains_only_the_closest_pairs(training, fresh):
    fields = without_non_finite(detect_memorisation(fresh, training, NONE).to_dict(pairs=3))
    fields = json.loads(json.dumps(fields, allow_nan=False))
    assert len(fields["pairs"]) == 3
    assert fields["drawn"]["quantiles"]["0.5"] == pytest.approx(0.8, abs=0.1)
    assert fields["held_out"] == {"count": 0, "suspect": 0, "share": None, "quantiles": {}}


def test_no_training_picture_is_shown_twice(training):
    drawn = np.concatenate([training[:3], training[:3], training[1:2]])        # each of three, again and again
    found = memorisation.detect_memorisation(drawn, training, training[:0])
    shown = found.closest(5)
    assert [pair.ratio for pair in shown] == sorted(pair.ratio for pair in shown)
    assert sorted(pair.training for pair in shown) == [0, 1, 2]
    assert [pair.training for pair in found.closest(2)] == [pair.training for pair in shown[:2]]


def test_the_gallery_shows_each_pair_one_above_the_other(training):
    found = detect_memorisation(training[50:60], training, NONE)
    gallery = np.asarray(Image.open(io.BytesIO(memorisation.gallery(found.pairs[:4], training[50:60], training))))
    shown = training[50:60][found.pairs[0].drawn].repeat(7, 0).repeat(7, 1)     # 16 pixels, enlarged
    places = [top for top in range(len(gallery) - 112) if np.array_equal(gallery[top : top + 112, 6:118, :3], shown)]
    assert len(places) == 2
