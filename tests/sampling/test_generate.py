"""Generating pictures: each is the same whatever is generated beside it; guidance, masks and frames."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from random_models import disturbed
from torch import nn

from diffuse_cli.config import SAMPLERS, Sampling
from diffuse_cli.diffusion.guidance import dynamic_threshold
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.errors import OutOfMemoryError
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling import generate as generation
from diffuse_cli.sampling.generate import encode_prompts, reverse_diffusion
from diffuse_cli.sampling.guided import guided_denoiser
from diffuse_cli.sampling.request import InitImage, SampleRequest
from diffuse_cli.storage import checkpoint

CPU = torch.device("cpu")
FEW = {"dpmpp-2m": 6, "ddpm": 8, "heun": 3}


@pytest.fixture(scope="module")
def model(trained):
    """The trained model, changed at random so that its outputs depend on everything: after 8 steps they hardly do."""
    return disturbed(checkpoint.load_model(trained[0] / "model.safetensors", CPU))


@pytest.fixture(scope="module")
def without_text(unconditional):
    return checkpoint.load_model(unconditional[0] / "model.safetensors", CPU)


def pixels(model, prompts, *, count=1, seed=0, **sampling):
    sampling.setdefault("steps", FEW[sampling.get("sampler", "dpmpp-2m")])
    settings = Sampling(**{"batch_size": 4, **sampling})
    samples = generation.generate(
        model, [SampleRequest(prompt=prompt, count=count, seed=seed, sampling=settings) for prompt in prompts])
    return {(sample.prompt, sample.seed): sample.pixels for sample in samples}


# ── Batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddpm"])
def test_a_picture_is_the_same_whatever_is_generated_with_it(model, sampler):
    alone = pixels(model, ["a red square"], seed=3, sampler=sampler)["a red square", 3]
    assert alone.shape == (8, 8, 3)
    assert alone.dtype == np.uint8
    among = pixels(model, ["a red square"], count=8, seed=0, sampler=sampler)
    assert len(among) == 8
    mixed = pixels(model, ["a blue square", "", "a red square"], count=3, seed=1, sampler=sampler)
    reordered = pixels(model, ["a red square", "a blue square"], count=3, seed=1, sampler=sampler)
    for together in (among, mixed, reordered):
        assert np.array_equal(together["a red square", 3], alone)
    assert all(np.array_equal(mixed[key], reordered[key]) for key in mixed.keys() & reordered.keys())


def test_seeds_and_prompts_make_pictures_different(model):
    pictures = pixels(model, ["a red square", "a blue square", ""], count=3)
    assert len({picture.tobytes() for picture in pictures.values()}) == 9


def test_samples_come_prompt_by_prompt_with_their_prompt_index_and_seed(model):
    samples = list(generation.generate(model, [
        SampleRequest(prompt=prompt, count=3, seed=7, sampling=Sampling(steps=1, batch_size=4))
        for prompt in ("x", "y")]))
    assert [(sample.prompt, sample.index, sample.seed) for sample in samples] == [
        ("x", 0, 7), ("x", 1, 8), ("x", 2, 9), ("y", 0, 7), ("y", 1, 8), ("y", 2, 9)]
    assert all(sample.seconds > 0 for sample in samples)


def test_progress_is_reported_after_every_step(model):
    def reported(*requests):
        shares = []
        samples = list(generation.generate(model, requests, progress=shares.append))
        assert len(samples) == requests[-1].count * len(requests)
        return shares

    three, two = Sampling(steps=3, batch_size=4), Sampling(steps=2, batch_size=4)
    requests = SampleRequest(prompt="x", count=6, sampling=three), SampleRequest(prompt="y", count=6, sampling=two)
    assert reported(*requests) == pytest.approx(
        [4 / 3, 8 / 3, 4, 4 + 2 / 3, 4 + 4 / 3, 6, 8, 10, 11, 12])
    start = InitImage(image=np.zeros((8, 8, 3), np.uint8), strength=0.5, mask=np.eye(8, dtype=bool))
    shares = reported(SampleRequest(prompt="x", count=2, sampling=Sampling(steps=6, batch_size=4), init=start))
    assert shares == sorted(shares)
    assert shares[-1] == 2


def test_the_batch_size_costs_at_most_a_rounding(model):
    one, eight = pixels(model, ["a red square"], count=5, batch_size=1), pixels(
        model, ["a red square"], count=5, batch_size=8)
    for key, picture in one.items():
        assert np.abs(picture.astype(int) - eight[key]).max() <= 1


def test_batches_are_filled_up_to_one_size(model, monkeypatch):
    """A device may round differently at another batch size, and the last batch must give the same pictures."""
    sizes, generate_batch = [], generation._generate_batch
    monkeypatch.setattr(generation, "_generate_batch", lambda model, batch, **options: (
        sizes.append(len(batch)) or generate_batch(model, batch, **options)))
    request = SampleRequest(prompt="x", count=5, sampling=Sampling(steps=1, batch_size=4))
    samples = list(generation.generate(model, [request]))
    assert (len(samples), sizes) == (5, [4, 4])


def test_generating_leaves_no_trace_in_torch(model):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    request = SampleRequest(prompt="a red square", count=2, sampling=Sampling(steps=2, batch_size=1))
    iterator = generation.generate(model, [request])
    next(iterator)
    assert torch.is_grad_enabled()                         # also while it waits
    assert not torch.is_autocast_enabled("cpu")
    list(iterator)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_every_step_is_a_state_that_ends_in_the_picture(model):
    text, null = encode_prompts(model, ["a red square"])
    steps = list(reverse_diffusion(model.network, model.config, text=text, negative=null, seeds=[5],
                                   sampling=Sampling(steps=4)))
    assert [step.t for step in steps] == sorted((step.t for step in steps), reverse=True)
    assert (len(steps), steps[-1].t) == (4, 0.0)
    picture = pixels(model, ["a red square"], seed=5, steps=4, batch_size=1)["a red square", 5]
    assert np.array_equal(generation.to_pixels(steps[-1].noisy)[0], picture)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddpm"])
def test_the_first_noise_is_that_of_the_seed_alone(model, sampler):
    seen = []
    with mock.patch.object(generation, "run_sampler", lambda name, denoise, noisy, *_, **__: seen.append(noisy) or []):
        list(reverse_diffusion(model.network, model.config, text=None, negative=None, seeds=[9, 4], sampling=Sampling(
            sampler=sampler)))
    for row, seed in zip(seen[0], (9, 4), strict=True):
        key = torch.tensor([randomness.key(seed, "sample", -1)])
        assert torch.equal(row, randomness.normal(key, (3, 8, 8))[0])


@pytest.mark.parametrize("fill", [mock.Mock(side_effect=torch.OutOfMemoryError),
                                  lambda *_, **__: torch.empty(1 << 56, dtype=torch.uint8)], ids=["GPU", "CPU"])
def test_too_little_memory_is_reported_with_the_batch_size(model, fill):
    with mock.patch.object(generation, "reverse_diffusion", fill), \
            pytest.raises(OutOfMemoryError, match="8 pictures at once") as caught:
        list(generation.generate(model, [SampleRequest(prompt="x")]))
    assert "--batch-size" in caught.value.hint


# ── Negatives, and starting from a picture ──────────────────────────────────────────────────────────────────────────

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
LEFT = np.arange(8)[None, :].repeat(8, 0) < 3              # (8, 8): new content at the left
EVERYWHERE = (0.0, 1e9)                                    # few steps at 8 px fall into the usual interval
SAMPLING = Sampling(steps=4, batch_size=2, guidance_interval=EVERYWHERE)


def one(model, **fields):
    request = SampleRequest(**{"sampling": SAMPLING, "seed": 3, "prompt": "a red square", **fields})
    (sample,) = generation.generate(model, [request])
    return sample.pixels


def test_a_negative_takes_the_place_of_the_empty_caption(model):
    plain = one(model)
    assert np.array_equal(one(model, negative=""), plain)
    assert not np.array_equal(one(model, negative="a blue square"), plain)
    guided = {guidance: one(model, negative="a red square", sampling=Sampling(steps=4, batch_size=2, guidance=guidance,
                                                                              guidance_interval=(0.2, 0.2)))
              for guidance in (1.0, 4.0)}
    assert np.array_equal(guided[1.0], guided[4.0])        # where nothing is guided, a negative has no effect
    text, null = encode_prompts(model, ["a red square", "a blue square"])
    schedule = make_schedule(model.config.schedule, 8)
    sampling = Sampling(guidance=0.0, guidance_interval=EVERYWHERE)
    denoise = [guided_denoiser(model.network, model.config, schedule, text=text[:1], negative=negative,
                               sampling=sampling) for negative in (null, text[1:])]
    noisy = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    unguided = guided_denoiser(model.network, model.config, schedule, text=text[1:], negative=null, sampling=Sampling(
        guidance=1.0))
    t = schedule.time_of(torch.zeros(1, dtype=torch.float64)).item()
    expected = dynamic_threshold(unguided(noisy, t).image)  # guidance 0 is the negative alone
    assert torch.allclose(denoise[1](noisy, t).image, expected, atol=1e-5)
    assert not torch.allclose(denoise[0](noisy, t).image, expected, atol=1e-3)


@pytest.mark.parametrize("mask", [None, LEFT])
def test_at_strength_0_a_picture_stays_as_it_is(model, mask):
    assert np.array_equal(one(model, init=InitImage(PICTURE, 0.0, mask)), PICTURE)


def test_every_pixel_value_survives_the_conversion_to_model_range_and_back():
    values = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, 2)[None]
    assert np.array_equal(generation.to_pixels(generation.from_pixels(values)), values)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pixels_outside_the_mask_stay_exactly_as_they_were(model, sampler):
    sampling = Sampling(sampler=sampler, steps=3, batch_size=1)
    for strength in (0.5, 1.0):
        inpainted = one(model, sampling=sampling, init=InitImage(PICTURE, strength, LEFT))
        assert np.array_equal(inpainted[~LEFT], PICTURE[~LEFT])
        assert not np.array_equal(inpainted[LEFT], PICTURE[LEFT])


def test_a_higher_strength_keeps_less_of_the_picture(model):
    change = [np.abs(one(model, init=InitImage(PICTURE, strength)).astype(int) - PICTURE).mean()
              for strength in (0.0, 0.1, 0.9)]
    assert change == sorted(change)
    assert change[0] == 0 < change[1] < change[2]


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddpm"])
def test_pictures_do_not_depend_on_other_requests_with_other_settings(model, sampler):
    """Their negatives, first pictures, masks, sampling settings and places in the list change nothing."""
    sampling = Sampling(sampler=sampler, steps=3, batch_size=4, guidance_interval=EVERYWHERE)
    other = Sampling(sampler="heun", steps=2, batch_size=4)
    requests = [
        SampleRequest(prompt="a red square", count=2, seed=1, sampling=sampling),
        SampleRequest(prompt="a red square", negative="a blue square", seed=1, sampling=sampling),
        SampleRequest(prompt="a red square", seed=1, sampling=sampling, init=InitImage(PICTURE, 0.5)),
        SampleRequest(prompt="a blue square", seed=1, sampling=sampling, init=InitImage(PICTURE[::-1].copy(), 0.5)),
        SampleRequest(prompt="a red square", seed=1, sampling=sampling, init=InitImage(PICTURE, 0.5, LEFT)),
        SampleRequest(prompt="a red square", seed=1, sampling=sampling, init=InitImage(PICTURE, 0.5, ~LEFT)),
        SampleRequest(prompt="a red square", seed=1, sampling=other)]
    alone = [[sample.pixels.tobytes() for sample in generation.generate(model, [request])] for request in requests]
    assert len({picture for pictures in alone for picture in pictures}) == 8
    for order in (requests, requests[::-1], requests[3:] + requests[:3]):
        together = list(generation.generate(model, order))
        assert [sample.request for sample in together] == [request for request in order for _ in range(request.count)]
        for sample in together:
            assert sample.pixels.tobytes() == alone[requests.index(sample.request)][sample.index]


def test_requests_with_the_same_settings_share_batches(model):
    requests = [SampleRequest(prompt=prompt, negative=prompt * 2, seed=k, sampling=SAMPLING)
                for k, prompt in enumerate("abcd")]
    with mock.patch.object(generation, "reverse_diffusion", wraps=reverse_diffusion) as batches:
        list(generation.generate(model, requests))
    assert [call.kwargs["seeds"] for call in batches.call_args_list] == [[0, 1], [2, 3]]


def test_frames_show_state_and_estimate_of_every_step(model):
    request = SampleRequest(prompt="a red square", seed=5, sampling=SAMPLING)
    (plain,), (filmed,) = generation.generate(model, [request]), generation.generate(model, [request], frames=True)
    assert plain.frames is None
    assert filmed.frames.shape == (4, 8, 16, 3)
    assert np.array_equal(filmed.frames[-1][:, :8], plain.pixels)
    assert np.array_equal(filmed.pixels, plain.pixels)
    text, null = encode_prompts(model, ["a red square"] * 2)
    steps = list(reverse_diffusion(
        model.network, model.config, text=text, negative=null, seeds=[5, 5], sampling=SAMPLING))
    for frame, step in zip(filmed.frames, steps, strict=True):
        assert np.abs(frame[:, 8:].astype(int) - generation.to_pixels(step.image)[0]).max() <= 1


# ── Guidance ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _denoisers(model, guidance):
    text, null = encode_prompts(model, ["a red square", "a blue square"])
    schedule = make_schedule(model.config.schedule, 8)
    return [guided_denoiser(model.network, model.config, schedule, text=features, negative=null, sampling=Sampling(
        guidance=guidance, guidance_interval=(0.5, 2.0))) for features in (text, null.expand_as(text))]


def test_guidance_goes_beyond_the_prompt_away_from_the_empty_one(model):
    schedule = make_schedule(model.config.schedule, 8)
    t = schedule.time_of(torch.zeros(1, dtype=torch.float64)).item()         # sigma/alpha = 1: inside
    noisy = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    (guided, _), (plain, empty) = _denoisers(model, 2.0), _denoisers(model, 1.0)
    with_prompt, without = plain(noisy, t), empty(noisy, t)
    expected = dynamic_threshold(without.image + 2 * (with_prompt.image - without.image))
    answer = guided(noisy, t)
    assert answer.guided
    assert torch.allclose(answer.image, expected, atol=1e-5)
    assert torch.allclose(answer.log_fraction, with_prompt.log_fraction, atol=1e-5)     # the prompt's half
    assert not torch.allclose(with_prompt.image, without.image, atol=1e-3)
    outside = schedule.time_of(torch.tensor([6.0, -6.0], dtype=torch.float64)).tolist()
    for t in outside:
        assert not guided(noisy, t).guided
        assert torch.equal(guided(noisy, t).image, plain(noisy, t).image)


def test_the_network_gets_the_stock_time_and_the_fraction_is_clamped(model):
    times = []

    class Spy(nn.Module):
        def forward(self, noisy, time, text, **_):
            times.append(time)
            return torch.full((len(noisy), 6, 8, 8), 9.0)

    schedule = make_schedule(model.config.schedule, 8)
    answer = guided_denoiser(Spy(), model.config, schedule, text=None, negative=None, sampling=Sampling())(
        torch.zeros(2, 3, 8, 8), 0.5)
    assert [time.tolist() for time in times] == [[499.0, 499.0]]
    assert torch.equal(answer.log_fraction, torch.ones(2, 3, 8, 8))          # (9 + 1)/2 is beyond beta
    _, sigma = schedule.alpha_sigma(torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(answer.image, torch.tensor(-9 * sigma.item()))     # of v = 9 at a noisy picture of 0


@pytest.mark.parametrize("start", [(), (InitImage(np.full((8, 8, 3), 255, np.uint8), 0.5),)], ids=["noise", "picture"])
def test_every_estimate_is_within_the_pixel_range(model, start):
    class Silent(nn.Module):
        """A network that predicts no noise at all: it implies the clean picture noisy/alpha."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, noisy, time, text, **_):
            return torch.zeros(len(noisy), 6, 8, 8)

    config = replace(model.config, prediction="epsilon")
    steps = list(reverse_diffusion(Silent(), config, text=None, negative=None, seeds=[3],
                                   sampling=Sampling(steps=6), inits=start))
    assert all(step.image.abs().max() <= 1 for step in steps)
    assert steps[0].image.abs().max() == 1                                   # clipped: it was far outside
    assert steps[-1].noisy.abs().max() <= 1


def test_an_unconditional_model_ignores_prompts_and_guidance(without_text):
    assert encode_prompts(without_text, ["anything"]) == (None, None)
    one = pixels(without_text, ["x"], count=2, guidance=1)
    other = pixels(without_text, [""], count=2, guidance=9)
    assert [picture.tobytes() for picture in one.values()] == [picture.tobytes() for picture in other.values()]
