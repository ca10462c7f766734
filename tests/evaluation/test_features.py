"""Features from an encoder trained on a data set: they see visible differences, and are kept and reproducible."""

import dataclasses
import math

import numpy as np
import pytest
import tiny
import torch
from PIL import Image, ImageFilter

from diffuse_cli.data import dataset as cache
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.data.listing import Dataset
from diffuse_cli.evaluation import encoder, features
from diffuse_cli.evaluation.distances import compare
from diffuse_cli.evaluation.encoder import nt_xent
from diffuse_cli.evaluation.features import Features
from diffuse_cli.evaluation.trained_features import open_features
from diffuse_cli.runtime import devices

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "STEPS", 30)
        patch.setattr(encoder, "BATCH", 32)
        patch.setattr(features, "BATCH", 32)
        yield


@pytest.fixture(scope="module")
def demo() -> Dataset:
    """240 scenes of 16 pixels."""
    shown = [scenes.random_scene(0, index) for index in range(240)]
    dataset = tiny.dataset([(scene.caption,) for scene in shown], size=16)
    return dataclasses.replace(dataset, images=np.stack([np.asarray(scenes.draw(scene, 16)) for scene in shown]))


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(encoder, "STEPS", 3)


def opened(dataset: Dataset, directory, positions: range | None = None) -> tuple[Features, list[tuple[int, int]]]:
    """(the features, the reports of progress)."""
    chosen = torch.tensor(list(positions or range(len(dataset.images))))
    steps, told = open_features(dataset, chosen, directory=directory, device=CPU), []
    while True:
        try:
            told.append(next(steps))
        except StopIteration as end:
            return end.value, told


@pytest.fixture(scope="module", params=["captions", "no captions"])
def trained_features(request, demo, tmp_path_factory) -> Features:
    dataset = demo if request.param == "captions" else dataclasses.replace(demo, captions=((),) * 240)
    return opened(dataset, tmp_path_factory.mktemp("cache"), range(140))[0]


def filtered(pixels: np.ndarray, radius: float) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(one).filter(ImageFilter.GaussianBlur(radius))) for one in pixels])


def test_distances_see_sharpness_noise_colour_shape_and_variety(trained_features, demo):
    """The encoder was trained on the first 140 pictures. The rest are as new to it as generated ones would be."""
    pixels = demo.images
    real, fresh = trained_features(pixels[:100]), pixels[140:]
    noise = np.random.default_rng(0).normal(0, 8, fresh.shape)
    quarters = np.roll(fresh, (8, 8), (1, 2))                          # the middle cut out and turned inside out
    red_ones = fresh[[index for index in range(100) if "red" in demo.captions[140 + index][0]]]

    def kernel(changed: np.ndarray) -> float:
        return compare(real, trained_features(changed)).kernel

    floor = compare(real, trained_features(fresh))
    assert abs(floor.kernel) < floor.kernel_standard_error             # trained on or new: no difference
    limit = floor.kernel + 0.1
    assert limit < kernel(filtered(fresh, 0.6)) < kernel(filtered(fresh, 1.2))
    assert limit < kernel(np.clip(fresh + noise, 0, 255).astype(np.uint8))
    assert limit < kernel(fresh[..., [1, 2, 0]])
    assert limit < kernel(quarters)
    assert limit < kernel(red_ones)
    assert compare(real, trained_features(red_ones)).recall < 0.8 * floor.recall


def test_features_are_standardised_over_the_training_pictures(trained_features, demo):
    found = trained_features(demo.images[:140])
    assert found.shape[1] == encoder.ROUGHNESS_FEATURES + 2 * 24 + 2 * 48 + 64 + 96
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.mean(0), torch.zeros(found.shape[1]), atol=1e-3, rtol=0)
    assert found.std(0).median().item() == pytest.approx(1, abs=1e-3)
    assert found.std(0).max() < 1.001


def test_features_of_a_picture_do_not_depend_on_the_other_pictures(trained_features, demo):
    all_of_them = trained_features(demo.images[:70])
    assert torch.equal(trained_features(demo.images[69:70])[0], all_of_them[69])
    assert torch.equal(trained_features(demo.images[30:70]), all_of_them[30:])


# ── Kept and found again ────────────────────────────────────────────────────────────────────────────────────────────


def test_an_encoder_is_trained_once_and_always_the_same(demo, tmp_path, few_steps):
    state = torch.random.get_rng_state()
    first, told = opened(demo, tmp_path / "one", range(40))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(torch.random.get_rng_state(), state)            # the global generator is not used
    again, told = opened(demo, tmp_path / "one", range(40))
    assert told == []
    elsewhere, told = opened(demo, tmp_path / "two", range(40))
    assert len(told) == 3
    for other in (again, elsewhere):
        assert torch.equal(first(demo.images), other(demo.images))


def test_other_pictures_have_another_encoder(demo, tmp_path, few_steps):
    first, _ = opened(demo, tmp_path, range(40))
    second, told = opened(demo, tmp_path, range(1, 41))
    third, more = opened(dataclasses.replace(demo, content_id="1" * 64), tmp_path, range(40))
    assert told
    assert more
    assert not torch.equal(first(demo.images), second(demo.images))
    assert torch.equal(first(demo.images), third(demo.images))


def test_another_torch_or_device_makes_its_own_encoder(demo, tmp_path, few_steps, monkeypatch):
    """Their sums are rounded in other ways, and so would the distances be, depending on who was first."""
    opened(demo, tmp_path)
    for owner, name, value in ((torch, "__version__", "9.9"), (devices, "describe_device", lambda device: "NVIDIA X"),
                               (torch.backends.cpu, "get_cpu_capability", lambda: "other")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert opened(demo, tmp_path)[1]    # it is trained
            assert not opened(demo, tmp_path)[1]
    assert not opened(demo, tmp_path)[1]


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1000], lambda data: b"", lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]],
    ids=["short", "empty", "one bit"])
def test_a_damaged_encoder_is_noticed_and_replaced(demo, tmp_path, few_steps, damage):
    first, _ = opened(demo, tmp_path, range(32))
    (path,) = tmp_path.glob("*/encoder.safetensors")
    good = path.read_bytes()
    path.write_bytes(damage(good))
    again, told = opened(demo, tmp_path, range(32))
    assert len(told) == 3
    assert path.read_bytes() == good
    assert torch.equal(first(demo.images[:9]), again(demo.images[:9]))


def test_where_nothing_can_be_written_an_encoder_is_trained_and_not_kept(demo, tmp_path, few_steps):
    (tmp_path / "no-directory").write_text("")
    first, told = opened(demo, tmp_path / "no-directory", range(32))
    assert len(told) == 3
    assert torch.equal(first(demo.images[:9]), opened(demo, tmp_path / "kept", range(32))[0](demo.images[:9]))


def test_the_encoder_goes_with_the_decoded_pictures_when_the_cache_is_cleared(demo, tmp_path, few_steps):
    opened(demo, tmp_path, range(32))
    assert cache.clear_cache(tmp_path) > 100_000
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "size"), [(2, 8), (3, 24), (2, 128)])
def test_any_size_and_two_pictures_are_enough(tmp_path, few_steps, count, size):
    dataset = tiny.dataset([("a square",)] * count, size=size)
    found = opened(dataset, tmp_path)[0](dataset.images)
    assert found.shape == (count, 316)
    assert torch.isfinite(found).all()


# ── Its parts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nt_xent_of_known_vectors():
    """Pairs that agree and are orthogonal to all others: -log(e^(1/τ) / (e^(1/τ) + 2N - 2))."""
    peak = math.exp(1 / encoder.TEMPERATURE)
    pairs = torch.eye(4).repeat(2, 1) * torch.arange(1.0, 9)[:, None]  # lengths do not matter
    assert nt_xent(pairs).item() == pytest.approx(-math.log(peak / (peak + 6)), rel=1e-5)
    assert nt_xent(torch.ones(8, 4)).item() == pytest.approx(math.log(7), rel=1e-5)


def test_crops_are_pixels_of_their_picture_and_nothing_else():
    image = torch.arange(2 * 3 * 16 * 16.0).view(2, 3, 16, 16)
    crops = encoder._crops(image, torch.Generator().manual_seed(0))
    assert crops.shape == (2, 3, 12, 12)
    for crop, whole in zip(crops, image, strict=True):
        top, left = divmod(int(crop[0, 0, 0] - whole[0, 0, 0]), 16)
        assert torch.equal(crop, whole[:, top : top + 12, left : left + 12])


def test_the_encoder_learns_the_words_that_tell_pictures_apart():
    captions = [("a red car",), ("a Red bus.", "transport"), ("a blue car",), ("a blue zebra",), ()]
    found = encoder._words(tiny.dataset(captions), torch.arange(4))
    assert found.T.tolist() == [[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 0, 0]]         # blue, car, red; not "a"
    assert encoder._words(tiny.dataset([()] * 3), torch.arange(3)).shape == (3, 0)
