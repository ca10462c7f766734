"""Batches as functions of the step: complete, reproducible, and the same in any micro-batches."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
import tiny
import torch

from diffuse_cli.config import Recipe
from diffuse_cli.data.split import Split, split_dataset
from diffuse_cli.network.tokenizer import encode, train_tokenizer
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures.pixels import to_pixels
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.plan import make_plan

CPU = torch.device("cpu")


def make(captions, *, batch_size=4, seed=0, flip=False, word_drop=0.0, caption_drop=0.0, times="continuous",
         **tags):
    """Batches over pictures with these captions, none held out unless there are 20."""
    data = tiny.dataset(captions)
    split = split_dataset(data.pixel_hashes)
    conditional = any(captions)
    tokenizer = train_tokenizer(text for texts in captions for text in texts) if conditional else None
    recipe = Recipe(preset="nano", batch_size=batch_size, steps=10, seed=seed, times=times)
    plan, _ = make_plan(recipe, data, split, resolution=8, fit="crop", tokenizer=tokenizer, init=None, device=CPU)
    plan = dataclasses.replace(plan, flip=flip, word_drop=word_drop, caption_drop=caption_drop, **tags)
    return Batches(plan, data, split.train, tokenizer, CPU)


def positions(batches, step, start=0, count=None):
    """Which pictures of the data set are in a batch, read from the pixels themselves."""
    batch, _ = batches.draw(step, start, count or batches.plan.batch_size)
    corners = to_pixels(batch.image)[:, 0, 0].astype(int)
    return (corners[:, 0] * 256 + corners[:, 1]).tolist()


def captions_of(batches, step):
    """The captions of a batch, found among those in `known`, by their tokens."""
    batch, _ = batches.draw(step, 0, batches.plan.batch_size)
    return [tuple(row) for row in batch.tokens[batch.caption_of].tolist()]


def tokens_of(batches, text):
    return tuple(encode(batches.tokenizer, [text])[0].tolist())


# ── Which pictures ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("count", "batch_size"), [(12, 4), (7, 4), (3, 8), (1, 4), (30, 8)])
def test_every_training_picture_is_seen_once_an_epoch_and_no_other_ever(count, batch_size):
    batches = make([()] * count, batch_size=batch_size)
    train = batches.train.tolist()
    seen = list(itertools.chain.from_iterable(positions(batches, step) for step in range(3 * count)))
    epochs = [seen[start : start + len(train)] for start in range(0, len(seen) - len(train), len(train))]
    assert len(epochs) >= 5
    assert all(sorted(epoch) == train for epoch in epochs)           # batches span epochs without losing a picture
    if len(train) > 6:
        assert len(set(map(tuple, epochs))) == len(epochs)           # each epoch in an order of its own


def mixed(*, batch_size=4, counts=(12, 9, 3)):
    """Batches of pictures of three sizes, in turn as far as there are any."""
    sizes = (Size(16, 16), Size(32, 8), Size(8, 32))
    numbers = np.array([number for row in itertools.zip_longest(*([k] * count for k, count in enumerate(counts)))
                        for number in row if number is not None], np.uint8)
    arrays = [np.zeros((count, size.height, size.width, 3), np.uint8)
              for count, size in zip(counts, sizes, strict=True)]
    for number, array in enumerate(arrays):
        array[:, 0, 0, 1] = np.flatnonzero(numbers == number)       # by which it is recognised
    data = dataclasses.replace(tiny.dataset([()] * len(numbers)), images=arrays[0], other_images=tuple(arrays[1:]),
                               size_numbers=numbers)
    recipe = Recipe(preset="nano", batch_size=batch_size, steps=10)
    train = np.arange(1, len(numbers))          # the first is held out
    plan, _ = make_plan(recipe, data, Split(train, np.arange(1)), resolution=16, sizes=sizes, fit="buckets",
                        tokenizer=None, init=None, device=CPU)
    return Batches(dataclasses.replace(plan, flip=False), data, train, None, CPU)


@pytest.mark.parametrize("batch_size", [1, 4, 5])
def test_of_several_sizes_a_batch_has_one_and_every_picture_is_seen_once_an_epoch(batch_size):
    batches, seen = mixed(batch_size=batch_size), collections.defaultdict(list)
    for step in range(2 * len(batches.train)):
        shape = batches.draw(step, 0, batch_size)[0].image.shape
        assert shape[0] == batch_size
        seen[tuple(shape[2:])] += positions(batches, step)
    groups = {(16, 16): 0, (8, 32): 1, (32, 8): 2}
    assert seen.keys() == groups.keys()
    for shape, number in groups.items():
        group = [position for position in batches.train.tolist() if batches.dataset.size_numbers[position] == number]
        drawn = seen[shape]
        assert len(drawn) == 2 * batch_size * len(group)            # all pictures equally often
        for start in range(0, len(drawn), len(group)):
            assert sorted(drawn[start : start + len(group)]) == group


def test_of_several_sizes_a_batch_is_the_same_however_it_is_cut_and_in_any_order():
    whole, cut = mixed(), mixed()
    for step in (7, 3, 8, 0):
        batch, keys = whole.draw(step, 0, 4)
        parts = [cut.draw(step, start, count) for start, count in ((0, 1), (1, 3))]
        for field in ("image", "noise", "t"):
            assert torch.equal(getattr(batch, field), torch.cat([getattr(part, field) for part, _ in parts]))
        assert torch.equal(keys, torch.cat([part_keys for _, part_keys in parts]))


def test_pictures_of_several_sizes_that_are_kept_on_the_device_are_the_same():
    kept, read = mixed(), mixed()
    kept._pictures.settle(10**9)
    assert kept._pictures.resident is not None
    for step in range(9):
        assert torch.equal(kept.draw(step, 0, 4)[0].image, read.draw(step, 0, 4)[0].image)


def test_another_seed_means_another_order():
    assert positions(make([()] * 12), 0, count=12) != positions(make([()] * 12, seed=1), 0, count=12)


@pytest.mark.parametrize("cuts", [(1,) * 8, (4, 4), (3, 3, 2), (7, 1)])
def test_a_batch_is_the_same_however_it_is_cut(cuts):
    batches = make([("a red square", "a square"), ("a blue fish",), ()] * 5, batch_size=8, flip=True, word_drop=0.3,
                   caption_drop=0.2)
    whole, keys = batches.draw(3, 0, 8)
    starts = [sum(cuts[:number]) for number in range(len(cuts))]
    parts = [batches.draw(3, start, count) for start, count in zip(starts, cuts, strict=True)]
    for field in ("image", "noise", "t"):
        assert torch.equal(getattr(whole, field), torch.cat([getattr(part, field) for part, _ in parts])), field
    assert torch.equal(whole.tokens[whole.caption_of],
                       torch.cat([part.tokens[part.caption_of] for part, _ in parts]))
    assert torch.equal(keys, torch.cat([part_keys for _, part_keys in parts]))


def test_drawing_needs_no_memory_of_earlier_steps():
    forwards, backwards = make([("x",)] * 9), make([("x",)] * 9)
    drawn = {step: forwards.draw(step, 0, 4)[0] for step in range(6)}
    for step in reversed(range(6)):
        again = backwards.draw(step, 0, 4)[0]
        assert torch.equal(drawn[step].image, again.image)
        assert torch.equal(drawn[step].noise, again.noise)
        assert torch.equal(drawn[step].t, again.t)


def test_noise_times_and_dropout_differ_from_picture_to_picture_and_step_to_step():
    batches = make([()] * 12, batch_size=12)
    drawn = [batches.draw(step, 0, 12) for step in range(4)]
    noise = torch.cat([batch.noise for batch, _ in drawn]).flatten(1)
    assert len(noise.unique(dim=0)) == 48
    assert len(torch.cat([batch.t for batch, _ in drawn]).unique()) == 48
    assert len(torch.cat([keys for _, keys in drawn]).unique()) == 48
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03


def test_times_are_stratified_over_the_global_batch():
    t = make([()] * 12, batch_size=8).draw(5, 0, 8)[0].t
    strata = (t - 0.001) / 0.999 * 8
    assert strata.floor().tolist() == list(range(8))
    discrete = make([()] * 12, batch_size=8, times="discrete").draw(5, 0, 8)[0].t * 1000
    assert torch.equal(discrete, discrete.round())


# ── Captions ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_captions_stay_with_their_pictures():
    captions = [(f"picture number {index}",) for index in range(12)]
    batches = make(captions)
    for step in range(6):
        assert captions_of(batches, step) == [tokens_of(batches, captions[k][0]) for k in positions(batches, step)]


def test_captions_are_dropped_as_often_as_planned():
    batches = make([("a red square",)] * 12, batch_size=32, caption_drop=0.1)
    empty = tokens_of(batches, "")
    dropped = [row == empty for step in range(50) for row in captions_of(batches, step)]
    assert np.mean(dropped) == pytest.approx(0.1, abs=0.025)         # 3.3 standard deviations of 1600 draws


def test_pictures_without_a_caption_have_the_empty_one():
    batches = make([("a red square",), ()] * 6)
    for step in range(6):
        expected = [tokens_of(batches, "" if k % 2 else "a red square") for k in positions(batches, step)]
        assert captions_of(batches, step) == expected


def test_words_are_dropped_as_often_as_planned_but_never_all_of_them():
    words = [f"w{index}" for index in range(10)]
    batches = make([(" ".join(words),)] * 12, batch_size=32, word_drop=0.1)
    kept = []
    for step in range(20):
        batch, _ = batches.draw(step, 0, 32)
        texts = [batches.tokenizer.decode(row) for row in batch.tokens[batch.caption_of].tolist()]
        for text in texts:
            assert [word for word in words if word in text.split()] == text.split()    # in order, none added
            kept.append(len(text.split()))
    assert np.mean(kept) == pytest.approx(9, abs=0.15)               # 4 standard deviations
    lonely = make([("word",)] * 12, batch_size=32, word_drop=0.9)
    assert set(captions_of(lonely, 0)) == {tokens_of(lonely, "word")}


def test_alternatives_are_taken_equally_often():
    batches = make([("first", "second", "third")] * 12, batch_size=32)
    counts = dict.fromkeys(("first", "second", "third"), 0)
    for step in range(40):
        rows = captions_of(batches, step)
        for text in counts:
            counts[text] += rows.count(tokens_of(batches, text))
    assert sum(counts.values()) == 40 * 32
    assert all(abs(count / 1280 - 1 / 3) < 0.05 for count in counts.values())


def test_without_captions_there_are_no_tokens():
    batch, _ = make([()] * 12).draw(0, 0, 4)
    assert batch.tokens is None
    assert batch.caption_of is None


# ── Flips ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_half_of_the_pictures_are_mirrored_when_asked_and_none_otherwise():
    plain, flipping = make([()] * 12, batch_size=32), make([()] * 12, batch_size=32, flip=True)
    mirrored = []
    for step in range(20):
        before, after = plain.draw(step, 0, 32)[0].image, flipping.draw(step, 0, 32)[0].image
        for one, other in zip(before, after, strict=True):
            mirrored.append(torch.equal(other, one.flip(2)))         # left ↔ right, never upside down
            assert mirrored[-1] or torch.equal(other, one)
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.08)


# ── What is held out ────────────────────────────────────────────────────────────────────────────────────────────────


def test_held_out_pictures_are_never_drawn():
    batches = make([()] * 40, batch_size=16)
    held_out = set(split_dataset(batches.dataset.pixel_hashes).held_out.tolist())
    assert len(held_out) == 4
    assert not held_out & {k for step in range(10) for k in positions(batches, step)}


# ── Tags ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def seen_captions(batches, steps=200):
    """How often each sequence of tokens was drawn, over `steps` steps."""
    return collections.Counter(tokens for step in range(steps) for tokens in captions_of(batches, step))


def test_tags_are_shuffled_in_every_order_equally_often():
    batches = make([("red, big, cat",)], batch_size=4, shuffle_tags=True)
    orders = {tokens_of(batches, ", ".join(tags)) for tags in itertools.permutations(("red", "big", "cat"))}
    counts = seen_captions(batches)
    assert counts.keys() == orders
    assert min(counts.values()) > 800 / 6 / 1.5                     # of 800 draws in six orders, 4 deviations


def test_tags_are_left_out_with_their_probability_but_never_all():
    batches = make([("red, big, cat",)], batch_size=4, tag_drop=0.5)
    kept = {tokens_of(batches, ", ".join(tags)): len(tags) for size in (1, 2, 3)
            for tags in itertools.combinations(("red", "big", "cat"), size)}
    counts = seen_captions(batches)
    assert counts.keys() == kept.keys()                              # in their order
    of_three = sum(count for tokens, count in counts.items() if kept[tokens] == 3)
    assert 0.2 < of_three / counts.total() < 0.3                     # 1/8, and 1/8 in which all would be left out


@pytest.mark.parametrize("caption", ["a red car", "one tag,", ""])
def test_captions_without_tags_stay_as_they_are(caption):
    batches = make([(caption,), ("x, y",)] if caption else [("x",), ()], shuffle_tags=True, tag_drop=0.5)
    assert tokens_of(batches, caption) in seen_captions(batches, 20)


def test_varied_tags_are_the_same_in_any_micro_batches():
    batches = make([("red, big, cat",), ("a, b",), ("c, d, e",)], batch_size=6, shuffle_tags=True, tag_drop=0.3)
    whole, _ = batches.draw(5, 0, 6)
    parts = [batches.draw(5, start, 2)[0] for start in (0, 2, 4)]
    assert torch.equal(whole.tokens[whole.caption_of], torch.cat([part.tokens[part.caption_of] for part in parts]))
