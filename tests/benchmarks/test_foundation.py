"""The material and the words of foundations: drawn from their seed alone, free, and named as they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.foundation import clip_art, material, solids, textures, things, words
from benchmarks.foundation.make import MATERIAL
from benchmarks.studies.transfer import retrieval
from diffuse_cli.network.tokenizer import END, PAD, train_tokenizer

SVG = """<svg><metadata><dc:title>{title}</dc:title><rdf:li>clip_art</rdf:li><rdf:li>bird</rdf:li><rdf:li>hash</rdf:li>
<dc:title>Somebody</dc:title><license rdf:resource="http://web.resource.org/cc/{licence}"/></metadata></svg>"""


# ── Material ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["solid", "scene", "texture"])
def test_a_picture_depends_on_seed_and_number_alone(kind):
    (first, captions), (again, same) = (material.draw(kind, 3, seed=5, side=32) for _ in range(2))
    other, _ = material.draw(kind, 4, seed=5, side=32)
    assert first.size == (32, 32)
    assert first.mode == "RGB"
    assert (first.tobytes(), captions) == (again.tobytes(), same)
    assert first.tobytes() != other.tobytes()
    assert all(caption.strip() for caption in captions)


def test_a_drawing_is_used_only_if_it_is_in_the_public_domain(tmp_path):
    for name, licence in (("free", "PublicDomain"), ("other", "by-sa")):
        for root, suffix in (("png", ".png"), ("svg", ".svg")):
            path = tmp_path / root / "animals" / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (20, 10), "red").save(path.with_suffix(".png")) if root == "png" else path.write_text(
                SVG.format(title=f"{name} seagull 02 by Somebody", licence=licence))
    found = clip_art.find_drawings(tmp_path / "png", tmp_path / "svg")
    assert [(drawing.title, drawing.keywords) for drawing in found] == [("free seagull", ("bird", "animal"))]


@pytest.mark.parametrize(("raw", "words_"), [
    ("Cartoon_Tree 01 by Ann", "cartoon tree"), ("bigRedCar-v0.1", "big red car"), ("hash", ""),
    ("l'aquila (blue)", "l'aquila")])
def test_names_become_words(raw, words_):
    assert clip_art.plain(raw) == words_


def test_a_drawing_is_named_by_its_colours(tmp_path):
    Image.new("RGBA", (40, 40), (218, 38, 42)).save(tmp_path / "ball.png")
    drawing = clip_art.Drawing(tmp_path / "ball.png", "ball", ("toy",))
    assert clip_art.main_colours(clip_art.opened(drawing.path, 32)) == ["red"]
    for seed in range(20):
        _, captions = clip_art.composed(np.random.default_rng(seed), [drawing], 32)
        assert any("ball" in caption for caption in captions)
        assert any(caption.startswith("ball") for caption in captions)
    picture, captions = clip_art.composed(np.random.default_rng(0), [drawing, drawing], 32)
    assert picture.mode == "RGB"
    assert all(" and " in caption for caption in captions)


# ── Solids and textures ─────────────────────────────────────────────────────────────────────────────────────────────


def test_distances_are_those_of_geometry():
    points = np.random.default_rng(0).normal(0, 1, (500, 3)).astype(np.float32)
    assert things.ball(0, 0, 0, 0.5)(points) == pytest.approx(np.linalg.norm(points, axis=1) - 0.5, abs=1e-6)
    outside = np.maximum(np.abs(points) - 0.3, 0)
    exact = np.linalg.norm(outside, axis=1)
    box = things.block(0, 0, 0, 0.3, 0.3, 0.3, corner=0.0)(points)
    assert np.maximum(box, 0) == pytest.approx(exact, abs=1e-6)
    along = np.array([[0, 0.3, 0.4]], np.float32)
    assert things.bar((0, 0, 0), (0, 1, 0), 0.1)(along) == pytest.approx(0.3, abs=1e-6)
    assert things.ring(0, 0, 0, 1.0, 0.1)(np.array([[1.0, 0.5, 0]], np.float32)) == pytest.approx(0.4, abs=1e-6)


@pytest.mark.parametrize("name", list(things.THINGS))
def test_every_thing_stands_in_the_picture(name):
    parts = things.THINGS[name](lambda low, high: (low + high) / 2)
    axis = np.linspace(-1.0, 1.0, 41, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis + 0.9, axis), -1).reshape(-1, 3)
    inside = np.min([part(points) for part, _ in parts], axis=0) < 0.03
    low, high = points[inside].min(0), points[inside].max(0)
    assert inside.any()
    assert high[1] > 0.1
    assert np.abs(np.concatenate([low[[0, 2]], high[[0, 2]]])).max() <= 0.8          # and not only half of it


def test_a_ball_is_lit_by_the_sun_and_throws_a_shadow():
    ink = np.array([0.9, 0.1, 0.1], np.float32)
    parts = things.THINGS["ball"](lambda low, high: high)
    placed = [solids.Placed(parts, 0.0, 0.0, 0.0, {"main": ink, "dark": ink, "light": ink}, "")]
    pixels = np.asarray(solids.render(placed, "", np.random.default_rng(3), 48), float)
    redness = pixels[..., 0] - pixels[..., 1:].max(-1)
    assert redness[18:30, 18:30].mean() > 40
    assert redness.max() - np.percentile(redness[18:30, 18:30], 5) > 20              # it is not one flat colour


def test_textures_are_pictures():
    for seed in range(40):
        picture, caption = textures.surface(np.random.default_rng(seed), 24)
        assert picture.shape == (24, 24, 3)
        assert caption
        assert -0.01 <= picture.min() <= picture.max() <= 1.2
        ground, where = textures.backdrop(np.random.default_rng(seed), 24)
        assert ground.shape == (24, 24, 3)
        assert where.startswith("on ")


# ── Words ───────────────────────────────────────────────────────────────────────────────────────────────────────────

NOUNS = """  1 This is a licence.
00001 05 n 02 kitten 0 kitty 0 001 @ 00002 n 0000 | young domestic cat; "a kitten"
00002 05 n 01 cat 0 000 | feline mammal
00003 09 n 01 idea 0 001 @ 00002 n 0000 | the content of cognition
"""


def test_wordnet_gives_synonyms_definitions_and_the_words_above(tmp_path):
    (tmp_path / "data.noun").write_text(NOUNS)
    (tmp_path / "data.adj").write_text("00004 00 s 01 feline(a) 0 000 | like a cat\n")
    found = words.read_wordnet(tmp_path)
    assert found == [(["kitten", "kitty"], "young domestic cat", ["cat"]), (["cat"], "feline mammal", []),
                     (["feline"], "like a cat", [])]
    pairs = words.pairs_of(found, [["a cat", "a red cat", "a cat"]])
    assert ("kitten", "young domestic cat") in pairs
    assert ("kitten", "kitty") in pairs
    assert ("kitten", "cat") in pairs
    assert ("a cat", "a red cat") in pairs


def test_words_with_the_same_meaning_lie_near_each_other():
    groups = [["kitten", "cat", "pussy"], ["car", "auto", "bus"], ["tree", "oak", "wood"], ["boat", "ship", "ark"]]
    tokenizer = train_tokenizer([word for group in groups for word in group], vocabulary=400)
    pairs = [(first, second) for group in groups for first in group for second in group if first != second]
    vectors = words.train_vectors(
        tokenizer, pairs, width=128, steps=100, generator=torch.Generator().manual_seed(0))
    assert vectors[[PAD, END]].abs().max() == 0
    used = words.token_rows(tokenizer, [word for group in groups for word in group])
    assert END not in used
    for group in groups:
        others = [word for other in groups if other is not group for word in other]
        near = list(words.neighbours(tokenizer, vectors, group[0], [*group[1:], *others]))
        assert set(near[:2]) == set(group[1:])


# ── The study, and the card ─────────────────────────────────────────────────────────────────────────────────────────


def test_retrieval_is_one_for_the_pictures_themselves_and_a_tenth_by_chance():
    rng = torch.Generator().manual_seed(0)
    real, other = torch.randn(400, 64, generator=rng), torch.randn(400, 64, generator=rng)
    assert retrieval(real, real) == 1
    assert retrieval(real, other) == pytest.approx(0.1, abs=0.05)


def test_the_card_names_every_kind_of_material():
    kinds = {name.rstrip("s") for name, _, _ in MATERIAL}
    assert {kind.rstrip("s") for kind in material.COUNTS} <= kinds
