"""Drawing pictures: each the same in any company; and measuring: exact where the answer is known."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from torch import nn

from diffuse_cli.config import SAMPLERS, VALIDATION_LEVELS, Sampling
from diffuse_cli.diffusion.guidance import dynamic_threshold
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.errors import OutOfMemoryError, UsageError
from diffuse_cli.evaluation.noise_curve import noise_curve, validation_times
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling import generate as generation
from diffuse_cli.sampling.generate import encode_prompts, guided_denoiser, reverse_diffusion
from diffuse_cli.sampling.request import InitImage, SampleRequest
from diffuse_cli.storage import checkpoint

CPU = torch.device("cpu")
FEW = {"dpmpp-2m": 6, "ddpm": 8, "heun": 3}


@pytest.fixture(scope="module")
def model(trained):
    """The trained model, made to mind prompts, noise and fractions: after 8 steps it hardly does."""
    loaded = checkpoint.load_model(trained[0] / "model.safetensors", CPU)
    generator = torch.Generator().manual_seed(0)
    for parameter in loaded.network.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return loaded


@pytest.fixture(scope="module")
def without_text(unconditional):
    return checkpoint.load_model(unconditional[0] / "model.safetensors", CPU)


def pixels(model, prompts, *, count=1, seed=0, **sampling):
    sampling.setdefault("steps", FEW[sampling.get("sampler", "dpmpp-2m")])
    how = Sampling(**{"batch_size": 4, **sampling})
    drawn = generation.generate(
        model, [SampleRequest(prompt=prompt, count=count, seed=seed, sampling=how) for prompt in prompts])
    return {(picture.prompt, picture.seed): picture.pixels for picture in drawn}


# ── Drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddpm"])
def test_a_picture_is_the_same_in_any_company(model, sampler):
    alone = pixels(model, ["a red square"], seed=3, sampler=sampler)["a red square", 3]
    assert alone.shape == (8, 8, 3)
    assert alone.dtype == np.uint8
    among = pixels(model, ["a red square"], count=8, seed=0, sampler=sampler)
    assert len(among) == 8
    mixed = pixels(model, ["a blue square", "", "a red square"], count=3, seed=1, sampler=sampler)
    turned = pixels(model, ["a red square", "a blue square"], count=3, seed=1, sampler=sampler)
    for company in (among, mixed, turned):
        assert np.array_equal(company["a red square", 3], alone)
    assert all(np.array_equal(mixed[key], turned[key]) for key in mixed.keys() & turned.keys())


def test_seeds_and_prompts_make_pictures_different(model):
    drawn = pixels(model, ["a red square", "a blue square", ""], count=3)
    assert len({picture.tobytes() for picture in drawn.values()}) == 9


def test_pictures_come_prompt_by_prompt_and_tell_what_they_are(model):
    drawn = list(generation.generate(model, [
        SampleRequest(prompt=prompt, count=3, seed=7, sampling=Sampling(steps=1, batch_size=4))
                              for prompt in ("x", "y")]))
    assert [(picture.prompt, picture.index, picture.seed) for picture in drawn] == [
        ("x", 0, 7), ("x", 1, 8), ("x", 2, 9), ("y", 0, 7), ("y", 1, 8), ("y", 2, 9)]
    assert all(picture.seconds > 0 for picture in drawn)


def test_drawing_tells_after_every_step_how_much_is_done(model):
    def told(*wanted):
        shares = []
        assert len(list(generation.generate(model, wanted, progress=shares.append))) == wanted[-1].count * len(wanted)
        return shares

    how, more = Sampling(steps=3, batch_size=4), Sampling(steps=2, batch_size=4)
    requests = SampleRequest(prompt="x", count=6, sampling=how), SampleRequest(prompt="y", count=6, sampling=more)
    assert told(*requests) == pytest.approx(
        [4 / 3, 8 / 3, 4, 4 + 2 / 3, 4 + 4 / 3, 6, 8, 10, 11, 12])
    start = InitImage(image=np.zeros((8, 8, 3), np.uint8), strength=0.5, mask=np.eye(8, dtype=bool))
    shares = told(SampleRequest(prompt="x", count=2, sampling=Sampling(steps=6, batch_size=4), init=start))
    assert shares == sorted(shares)
    assert shares[-1] == 2


def test_the_batch_size_costs_at_most_a_rounding(model):
    one, eight = pixels(model, ["a red square"], count=5, batch_size=1), pixels(
        model, ["a red square"], count=5, batch_size=8)
    for key, picture in one.items():
        assert np.abs(picture.astype(int) - eight[key]).max() <= 1


def test_batches_are_filled_up_to_one_size(model, monkeypatch):
    """So that a picture is computed alike in the last one, where a device computes other shapes otherwise."""
    sizes, draw_batch = [], generation._generate_batch
    monkeypatch.setattr(generation, "_generate_batch",
                        lambda model, batch, **how: sizes.append(len(batch)) or draw_batch(model, batch, **how))
    request = SampleRequest(prompt="x", count=5, sampling=Sampling(steps=1, batch_size=4))
    drawn = list(generation.generate(model, [request]))
    assert (len(drawn), sizes) == (5, [4, 4])


def test_drawing_leaves_no_trace_in_torch(model):
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
    steps = list(reverse_diffusion(model.network, model.config, text=text, null=null, seeds=[5],
                               sampling=Sampling(steps=4)))
    assert [step.t for step in steps] == sorted((step.t for step in steps), reverse=True)
    assert (len(steps), steps[-1].t) == (4, 0.0)
    drawn = pixels(model, ["a red square"], seed=5, steps=4, batch_size=1)["a red square", 5]
    assert np.array_equal(generation.to_pixels(steps[-1].noisy)[0], drawn)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddpm"])
def test_the_first_noise_is_that_of_the_seed_alone(model, sampler):
    seen = []
    with mock.patch.object(generation, "run_sampler", lambda name, denoise, noisy, *_, **__: seen.append(noisy) or []):
        list(reverse_diffusion(model.network, model.config, text=None, null=None, seeds=[9, 4], sampling=Sampling(
            sampler=sampler)))
    for row, seed in zip(seen[0], (9, 4), strict=True):
        key = torch.tensor([randomness.key(seed, "sample", -1)])
        assert torch.equal(row, randomness.normal(key, (3, 8, 8))[0])


@pytest.mark.parametrize("fill", [mock.Mock(side_effect=torch.OutOfMemoryError),
                                  lambda *_, **__: torch.empty(1 << 56, dtype=torch.uint8)], ids=["GPU", "CPU"])
def test_too_little_memory_is_said_to_be(model, fill):
    with mock.patch.object(generation, "reverse_diffusion", fill), \
            pytest.raises(OutOfMemoryError, match="8 pictures at once") as caught:
        list(generation.generate(model, [SampleRequest(prompt="x")]))
    assert "--batch-size" in caught.value.hint


# ── Negatives, and starting from a picture ──────────────────────────────────────────────────────────────────────────

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
LEFT = np.arange(8)[None, :].repeat(8, 0) < 3              # (8, 8): new content at the left
EVERYWHERE = (0.0, 1e9)                                    # few steps at 8 px fall into the usual interval
HOW = Sampling(steps=4, batch_size=2, guidance_interval=EVERYWHERE)


def one(model, **wanted):
    request = SampleRequest(**{"sampling": HOW, "seed": 3, "prompt": "a red square", **wanted})
    (drawn,) = generation.generate(model, [request])
    return drawn.pixels


def test_a_negative_takes_the_place_of_the_empty_caption(model):
    plain = one(model)
    assert np.array_equal(one(model, negative=""), plain)
    assert not np.array_equal(one(model, negative="a blue square"), plain)
    guided = {guidance: one(model, negative="a red square", sampling=Sampling(steps=4, batch_size=2, guidance=guidance,
                                                                              guidance_interval=(0.2, 0.2)))
              for guidance in (1.0, 4.0)}
    assert np.array_equal(guided[1.0], guided[4.0])        # nowhere guided: nowhere a negative
    text, null = encode_prompts(model, ["a red square", "a blue square"])
    schedule = make_schedule(model.config.schedule, 8)
    denoise = [guided_denoiser(model.network, model.config, schedule, text=text[:1], null=negative, sampling=Sampling(
        guidance=0.0, guidance_interval=EVERYWHERE)) for negative in (null, text[1:])]
    noisy = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    plainly = guided_denoiser(model.network, model.config, schedule, text=text[1:], null=null, sampling=Sampling(
        guidance=1.0))
    t = schedule.time_of(torch.zeros(1, dtype=torch.float64)).item()
    expected = dynamic_threshold(plainly(noisy, t).image)  # guidance 0 is the negative alone
    assert torch.allclose(denoise[1](noisy, t).image, expected, atol=1e-5)
    assert not torch.allclose(denoise[0](noisy, t).image, expected, atol=1e-3)


@pytest.mark.parametrize("mask", [None, LEFT])
def test_at_strength_0_a_picture_stays_as_it_is(model, mask):
    assert np.array_equal(one(model, init=InitImage(PICTURE, 0.0, mask)), PICTURE)


def test_every_byte_survives_the_way_through_the_model():
    every = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, 2)[None]
    assert np.array_equal(generation.to_pixels(generation.from_pixels(every)), every)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_the_mask_does_not_show_stays_exactly_as_it_was(model, sampler):
    how = Sampling(sampler=sampler, steps=3, batch_size=1)
    for strength in (0.5, 1.0):
        drawn = one(model, sampling=how, init=InitImage(PICTURE, strength, LEFT))
        assert np.array_equal(drawn[~LEFT], PICTURE[~LEFT])
        assert not np.array_equal(drawn[LEFT], PICTURE[LEFT])


def test_a_stronger_start_leaves_less_of_the_picture(model):
    change = [np.abs(one(model, init=InitImage(PICTURE, strength)).astype(int) - PICTURE).mean()
              for strength in (0.0, 0.1, 0.9)]
    assert change == sorted(change)
    assert change[0] == 0 < change[1] < change[2]


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddpm"])
def test_what_is_drawn_in_different_ways_keeps_its_pictures(model, sampler):
    """Negatives, starts and masks of others, their sampling and their place in the list change nothing."""
    how = Sampling(sampler=sampler, steps=3, batch_size=4, guidance_interval=EVERYWHERE)
    other = Sampling(sampler="heun", steps=2, batch_size=4)
    orders = [
        SampleRequest(prompt="a red square", count=2, seed=1, sampling=how),
        SampleRequest(prompt="a red square", negative="a blue square", seed=1, sampling=how),
        SampleRequest(prompt="a red square", seed=1, sampling=how, init=InitImage(PICTURE, 0.5)),
        SampleRequest(prompt="a blue square", seed=1, sampling=how, init=InitImage(PICTURE[::-1].copy(), 0.5)),
        SampleRequest(prompt="a red square", seed=1, sampling=how, init=InitImage(PICTURE, 0.5, LEFT)),
        SampleRequest(prompt="a red square", seed=1, sampling=how, init=InitImage(PICTURE, 0.5, ~LEFT)),
        SampleRequest(prompt="a red square", seed=1, sampling=other)]
    alone = [[drawn.pixels.tobytes() for drawn in generation.generate(model, [order])] for order in orders]
    assert len({picture for pictures in alone for picture in pictures}) == 8
    for turn in (orders, orders[::-1], orders[3:] + orders[:3]):
        together = list(generation.generate(model, turn))
        assert [drawn.request for drawn in together] == [order for order in turn for _ in range(order.count)]
        for drawn in together:
            assert drawn.pixels.tobytes() == alone[orders.index(drawn.request)][drawn.index]


def test_what_is_drawn_alike_shares_batches(model):
    alike = [SampleRequest(prompt=prompt, negative=prompt * 2, seed=k, sampling=HOW) for k, prompt in enumerate("abcd")]
    with mock.patch.object(generation, "reverse_diffusion", wraps=reverse_diffusion) as batches:
        list(generation.generate(model, alike))
    assert [call.kwargs["seeds"] for call in batches.call_args_list] == [[0, 1], [2, 3]]


def test_frames_show_state_and_estimate_of_every_step(model):
    wanted = SampleRequest(prompt="a red square", seed=5, sampling=HOW)
    (plain,), (shown,) = generation.generate(model, [wanted]), generation.generate(model, [wanted], frames=True)
    assert plain.frames is None
    assert shown.frames.shape == (4, 8, 16, 3)
    assert np.array_equal(shown.frames[-1][:, :8], plain.pixels)
    assert np.array_equal(shown.pixels, plain.pixels)
    text, null = encode_prompts(model, ["a red square"] * 2)
    steps = list(reverse_diffusion(model.network, model.config, text=text, null=null, seeds=[5, 5], sampling=HOW))
    for frame, step in zip(shown.frames, steps, strict=True):
        assert np.abs(frame[:, 8:].astype(int) - generation.to_pixels(step.image)[0]).max() <= 1


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"seed": 2**63 - 1, "count": 3}])
def test_what_cannot_be_wanted_is_refused(wrong):
    with pytest.raises(UsageError):
        SampleRequest(**wrong)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="--strength"):
            InitImage(PICTURE, strength)


# ── Guidance ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _denoisers(model, guidance):
    text, null = encode_prompts(model, ["a red square", "a blue square"])
    schedule = make_schedule(model.config.schedule, 8)
    return [guided_denoiser(model.network, model.config, schedule, text=features, null=null, sampling=Sampling(
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


def test_the_network_is_told_the_stock_time_and_the_fraction_is_clamped(model):
    asked = []

    class Spy(nn.Module):
        def forward(self, noisy, time, text, **_):
            asked.append(time)
            return torch.full((len(noisy), 6, 8, 8), 9.0)

    schedule = make_schedule(model.config.schedule, 8)
    answer = guided_denoiser(Spy(), model.config, schedule, text=None, null=None, sampling=Sampling())(
        torch.zeros(2, 3, 8, 8), 0.5)
    assert [time.tolist() for time in asked] == [[499.0, 499.0]]
    assert torch.equal(answer.log_fraction, torch.ones(2, 3, 8, 8))          # (9 + 1)/2 is beyond beta
    _, sigma = schedule.alpha_sigma(torch.tensor(0.5, dtype=torch.float64))
    assert torch.allclose(answer.image, torch.tensor(-9 * sigma.item()))     # of v = 9 at a noisy picture of 0


@pytest.mark.parametrize("start", [(), (InitImage(np.full((8, 8, 3), 255, np.uint8), 0.5),)], ids=["noise", "picture"])
def test_every_estimate_is_within_the_pixel_range(model, start):
    class Silent(nn.Module):
        """It finds no noise anywhere: the picture that follows is the noisy one, 1/alpha times over."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, noisy, time, text, **_):
            return torch.zeros(len(noisy), 6, 8, 8)

    config = replace(model.config, prediction="epsilon")
    steps = list(reverse_diffusion(Silent(), config, text=None, null=None, seeds=[3], sampling=Sampling(steps=6),
                               inits=start))
    assert all(step.image.abs().max() <= 1 for step in steps)
    assert steps[0].image.abs().max() == 1                                   # which is a clip: it was far outside
    assert steps[-1].noisy.abs().max() <= 1


def test_an_unconditional_model_draws_whatever_is_said(without_text):
    assert encode_prompts(without_text, ["anything"]) == (None, None)
    one = pixels(without_text, ["x"], count=2, guidance=1)
    other = pixels(without_text, [""], count=2, guidance=9)
    assert [picture.tobytes() for picture in one.values()] == [picture.tobytes() for picture in other.values()]


# ── Measuring ───────────────────────────────────────────────────────────────────────────────────────────────────────

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def curve(model, network=None, *, images=IMAGES, tokens=None, micro_batch=4):
    if tokens is None and model.config.conditional:
        tokens = encode(model.tokenizer, ["a red square"] * len(images))
    return noise_curve(network or model.network, config=model.config, images=images, tokens=tokens, device=CPU,
                       schedule=make_schedule(model.config.schedule, 8), micro_batch=micro_batch, precision="fp32")


class Silent(nn.Module):
    """A network that answers 0."""

    def forward(self, noisy, time, text=None, **_):
        return torch.zeros(len(noisy), 6, 8, 8)


def test_a_silent_network_has_the_error_of_the_closed_form(without_text):
    """v = alpha·noise - sigma·image, and the noise's error is alpha²·v²: its mean, over known noise and pictures."""
    schedule = make_schedule("interpolated", 8)
    found = curve(without_text, Silent())
    for level, (time, value) in enumerate(zip(validation_times(), found, strict=True)):
        alpha, sigma = schedule.alpha_sigma(time)
        noise = randomness.normal(randomness.keys(0, "validation", level, torch.arange(6)), (3, 8, 8))
        v = alpha * noise - sigma * IMAGES
        assert value == pytest.approx((alpha**2 * v.square().mean()).item(), rel=1e-5)


def test_levels_are_the_middles_of_equal_intervals():
    times = validation_times()
    assert len(times) == VALIDATION_LEVELS == 8
    assert times.diff().tolist() == pytest.approx([0.999 / 8] * 7)
    assert times.mean() == pytest.approx((0.001 + 1) / 2)


def test_measuring_twice_gives_the_same_numbers_and_cutting_only_rounds(model):
    whole = curve(model, micro_batch=6)
    assert curve(model, micro_batch=6) == whole
    for micro_batch in (1, 4, 100):
        assert curve(model, micro_batch=micro_batch) == pytest.approx(whole, rel=1e-5)


def test_each_picture_is_measured_with_its_own_caption(model):
    captions = ["a red square", "a blue square", "a red square", "", "a green square", "a blue square"]
    mixed = curve(model, tokens=encode(model.tokenizer, captions))
    with mock.patch.object(model.network, "encode", wraps=model.network.encode) as encoded:
        assert curve(model, tokens=encode(model.tokenizer, captions), micro_batch=6) == pytest.approx(mixed, rel=1e-5)
        assert all(len(call.args[0]) == 4 for call in encoded.call_args_list)          # each distinct caption once
    swapped = curve(model, tokens=encode(model.tokenizer, captions[::-1]))
    assert swapped != pytest.approx(mixed, rel=1e-5)
