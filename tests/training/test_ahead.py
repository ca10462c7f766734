"""Batches that a thread draws ahead, remembered tokens, and pictures kept on a device: nothing changes but the time."""

import dataclasses
import threading

import numpy as np
import pytest
import tiny
import torch

from diffuse_cli.config import Recipe
from diffuse_cli.data.split import split_dataset
from diffuse_cli.errors import DataError
from diffuse_cli.network.tokenizer import CachedTokens, encode, train_tokenizer
from diffuse_cli.runtime import devices
from diffuse_cli.training.ahead import Ahead
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.pictures import Pictures
from diffuse_cli.training.plan import make_plan

CPU = torch.device("cpu")
CAPTIONS = [("a red square, bright", "red"), ("a blue square",), ()] * 4


def make_batches():
    data = tiny.dataset(CAPTIONS)
    split = split_dataset(data.pixel_hashes)
    tokenizer = train_tokenizer(text for texts in CAPTIONS for text in texts)
    plan, _ = make_plan(Recipe(preset="nano", batch_size=4, steps=100), data, split, resolution=8, fit="crop",
                        tokenizer=tokenizer, init=None, device=CPU)
    plan = dataclasses.replace(plan, flip=True, word_drop=0.3, dropout=0.1)
    return Batches(plan, data, split.train, tokenizer, CPU)


def tensors_of(drawn):
    batch, keys = drawn
    return [batch.image, batch.noise, batch.t, batch.tokens, batch.caption_of, *batch.coefficients.flat(), keys]


def same(one, other):
    return all(map(torch.equal, tensors_of(one), tensors_of(other)))


def threads_ahead():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(Batches, "draw_ahead", lambda self, *args: self._prepare.begin(*args))


# ── The thread ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_ahead_runs_in_a_thread_and_its_value_is_taken_once():
    calls = []
    ahead = Ahead(lambda *args: calls.append((args, threading.current_thread().name)) or sum(args))
    ahead.begin(1, 2)
    assert ahead(1, 2) == 3
    assert ahead(1, 2) == 3
    assert ahead(5) == 5
    assert [name.startswith("ahead") for _, name in calls] == [True, False, False]
    ahead.close()
    assert not threads_ahead()


def test_two_calls_never_run_at_once_and_one_that_is_not_asked_for_is_forgotten():
    running, most = [], []

    def slow(number):
        running.append(number)
        most.append(len(running))
        threading.Event().wait(0.02)
        running.remove(number)
        return number

    ahead = Ahead(slow)
    for number in range(4):
        ahead.begin(number)
        assert ahead(number + 10) == number + 10
    ahead.begin(7)
    ahead.begin(8)
    assert ahead(8) == 8
    ahead.close()
    assert set(most) == {1}


def test_an_error_ahead_is_raised_where_the_value_is_asked_for_and_only_there():
    def fail(number):
        raise DataError(f"no picture {number}")

    ahead = Ahead(fail)
    ahead.begin(3)
    with pytest.raises(DataError, match="no picture 3"):
        ahead(3)
    ahead.begin(4)
    ahead.close()
    assert not threads_ahead()


# ── Batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_batch_drawn_ahead_is_the_one_that_is_drawn_at_once():
    batches, plain = make_batches(), make_batches()
    for step, start, count in ((0, 0, 4), (1, 0, 2), (1, 2, 2), (9, 0, 4)):
        batches.draw_ahead(step, start, count)
        assert same(batches.draw(step, start, count), plain.draw(step, start, count))
    batches.draw_ahead(10, 0, 4)                # of which the micro-batch is then halved
    assert same(batches.draw(10, 0, 2), plain.draw(10, 0, 2))
    assert not same(batches.draw(11, 0, 4), plain.draw(12, 0, 4))
    batches.close()


def test_nothing_is_drawn_ahead_on_a_cpu():
    batches = make_batches()
    batches.draw_ahead(0, 0, 4)
    assert not threads_ahead()


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("end", ["complete", "stopped", "failed"])
def test_no_thread_is_left_when_a_training_ends(squares, home, monkeypatch, end):
    drawn, prepare = [], Batches._prepare_now

    def told(self, step, start, count):
        drawn.append((step, threading.current_thread().name))
        if end == "failed" and step == 3:
            raise DataError("a picture has gone")
        return prepare(self, step, start, count)

    monkeypatch.setattr(Batches, "_prepare_now", told)
    if end == "failed":
        with pytest.raises(DataError, match="a picture has gone"):
            tiny.train(squares)
    else:
        tiny.train(squares, stop_at=3 if end == "stopped" else None)
    assert any(name.startswith("ahead") for _, name in drawn)
    assert max(step for step, _ in drawn) == {"complete": 7, "stopped": 3, "failed": 3}[end]
    assert len(drawn) == len(set(drawn))
    assert not threads_ahead()


# ── Tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_remembered_tokens_are_those_of_the_tokenizer_and_never_more_than_the_limit():
    tokenizer = train_tokenizer(["a red square", "a blue fish"])
    cached = CachedTokens(tokenizer, limit=3)
    for captions in (["red", "", "red"], ["red", "blue"], ["a fish", "fish a", "x", "y", "red"], ["y", "red"], [""]):
        found = cached(captions)
        assert found.dtype == torch.int64
        assert torch.equal(found, encode(tokenizer, captions))
        assert len(cached.rows) <= 3


def test_a_caption_that_is_remembered_is_not_encoded_again(monkeypatch):
    tokenizer, asked = train_tokenizer(["a red square"]), []
    monkeypatch.setattr("diffuse_cli.network.tokenizer.encode",
                        lambda tokenizer, captions: (asked.extend(captions), encode(tokenizer, captions))[1])
    cached = CachedTokens(tokenizer)
    cached(["red", "square", "red"])
    cached(["square", "blue"])
    assert asked == ["red", "square", "blue"]


# ── Pictures on the device ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("as_on_a_gpu")
def test_pictures_on_the_device_are_those_that_would_be_read(monkeypatch):
    batches, plain = make_batches(), make_batches()
    size = batches.dataset.images.nbytes
    batches.draw_ahead(0, 0, 4)                 # before the pictures are moved
    for free, fits in ((0, False), (2 * size - 1, False), (2 * size, True)):
        monkeypatch.setattr(devices, "free_memory", lambda device, free=free: free)
        batches.settle()
        assert (batches._pictures.resident is not None) == fits
        for step in range(3):
            assert same(batches.draw(step, 0, 4), plain.draw(step, 0, 4))
    batches.draw_ahead(7, 0, 4)                 # by positions on the device, which the pictures then leave
    assert batches.release()
    assert not batches.release()
    assert same(batches.draw(7, 0, 4), plain.draw(7, 0, 4))
    batches.close()


def test_pictures_are_moved_in_pieces_without_losing_any(monkeypatch):
    monkeypatch.setattr("diffuse_cli.training.pictures.PIECE", 1000)
    images = np.random.default_rng(0).integers(0, 256, (37, 8, 8, 3), np.uint8)
    pictures = Pictures([images], CPU)
    pictures.settle(10**9)
    assert torch.equal(pictures.resident[0], torch.from_numpy(images))


def test_a_cpu_keeps_no_copy_of_the_pictures():
    assert devices.free_memory(CPU) == 0
