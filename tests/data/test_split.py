"""The split: how many pictures are held out, and that their contents alone decide which."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffuse_cli.data.split import held_out_limit, side_by_side_splits, split_dataset, validation_count
from diffuse_cli.errors import DataError


@pytest.mark.parametrize(("pictures", "held_out"), [
    (1, 0), (19, 0), (20, 2), (300, 30), (640, 64), (1000, 64), (1280, 64), (2000, 100), (40_960, 2048),
    (1_000_000, 2048)])
def test_how_many_are_held_out(pictures, held_out):
    assert validation_count(pictures) == held_out


@given(st.lists(st.integers(0, 30), min_size=1, max_size=19) | st.lists(st.integers(0, 30), min_size=20, max_size=60),
       st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_split_depends_on_contents_and_not_on_names(contents, random):
    hashes = tuple(f"{content:02x}" for content in contents)
    split = split_dataset(hashes)
    assert sorted(split.train.tolist() + split.held_out.tolist()) == list(range(len(hashes)))
    assert len(split.held_out) <= validation_count(len(hashes))
    train, held_out = ({hashes[k] for k in part.tolist()} for part in (split.train, split.held_out))
    assert not train & held_out                                      # a picture and its copy are on one side
    assert len(split.train) > 0

    order = list(range(len(hashes)))                                 # renaming changes the order of the pictures
    random.shuffle(order)
    renamed = split_dataset(tuple(hashes[k] for k in order))
    assert {hashes[order[k]] for k in renamed.held_out.tolist()} == held_out


@given(st.sets(st.integers(0, 9999), min_size=20, max_size=200), st.sets(st.integers(0, 9999), max_size=400),
       st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_a_changed_data_set_never_holds_out_what_was_trained_on(contents, added, random):
    old = [f"{content:04x}" for content in contents]
    before = split_dataset(old)
    limit = held_out_limit(before, old)
    trained, held_out = ({old[k] for k in part.tolist()} for part in (before.train, before.held_out))
    new = sorted({*random.sample(old, len(old) // 2), *(f"{content:04x}" for content in added), *sorted(trained)[:1]})
    after = split_dataset(new, limit=limit)
    assert not trained & {new[k] for k in after.held_out.tolist()}
    assert not held_out & {new[k] for k in after.train.tolist()}     # and the other way round
    assert sorted([*after.train.tolist(), *after.held_out.tolist()]) == list(range(len(new)))
    same = split_dataset(old, limit=limit)
    assert (same.train.tolist(), same.held_out.tolist()) == (before.train.tolist(), before.held_out.tolist())


def test_a_limit_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(DataError, match="none can be trained on"):
        split_dataset(("a", "b"), limit="b")


def test_a_folder_can_be_held_out():
    names = ("test/1.png", "test/2.png", "tests/3.png", "train/4.png", "train/test/5.png")
    split = split_dataset(("a", "b", "c", "b", "d"), names=names, folder="./test/")
    assert (split.train.tolist(), split.held_out.tolist()) == ([2, 3, 4], [0])       # "b" is trained on as well


def test_shards_of_a_split_can_be_held_out():
    names = ("data/test-00000-of-00002/1.png", "data/test-00001-of-00002/1.png", "data/tests-1/1.png",
             "data/train-00000-of-00001/1.png", "test-1.png")
    split = split_dataset(tuple("abcde"), names=names, folder="data/test")
    assert (split.train.tolist(), split.held_out.tolist()) == ([2, 3, 4], [0, 1])
    assert side_by_side_splits(names) == ("data/train", "data/test", "data/test")


@pytest.mark.parametrize(("names", "splits"), [
    (("train/1.png", "val/1.png"), ("train", "val", "val")),
    (("a/Train/b/1.png", "a/Test/1.png"), ("a/Train", "a/Test", "a/Test")),
    (("train-000000/1.png", "train-000001/1.png", "val_000/1.png"), ("train", "val", "val")),
    (("trainA/1.png", "trainB/1.png", "testA/1.png", "testB/1.png"), ("trainA", "testA", "test*")),
    (("train/1.png", "test/1.png", "val/1.png"), ("train", "test", "test,val")),
    (("horse/train/1.png", "horse/test/1.png", "zebra/train/1.png", "zebra/test/1.png"),
     ("horse/train", "horse/test", "*/test")),
    (("train/1.png", "a/test/1.png"), None), (("train.png", "test.png"), None),
    (("trains-1/1.png", "test/1.png"), None),
    ((), None)])
def test_splits_side_by_side(names, splits):
    assert side_by_side_splits(names) == splits
    if splits:
        split = split_dataset([str(number) for number in range(len(names))], names=names, folder=splits[-1])
        assert all("train" in names[position].lower() for position in split.train)
        assert not any("train" in names[position].lower() for position in split.held_out)


@pytest.mark.parametrize(("folder", "count"), [("missing", "no picture"), ("all", "every picture")])
def test_a_folder_that_leaves_nothing_is_refused(folder, count):
    with pytest.raises(DataError, match=f"--held-out {folder} would hold out {count}"):
        split_dataset(("a", "b"), names=("all/1.png", "all/2.png"), folder=folder)
