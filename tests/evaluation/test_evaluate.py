"""An evaluation's figures against closed forms, by networks whose outputs are known."""

import dataclasses
import json
import math

import numpy as np
import pytest
import tiny
import torch
from torch import nn

from diffuse_cli.data.split import split_dataset
from diffuse_cli.diffusion.losses import fine_log_variances, prior_bits
from diffuse_cli.diffusion.schedule import STEPS, make_schedule
from diffuse_cli.evaluation import encoder
from diffuse_cli.evaluation import evaluate as evaluation
from diffuse_cli.evaluation.evaluate import evaluate, measure, shuffle_captions
from diffuse_cli.evaluation.held_out import HeldOutPictures, TrainingData
from diffuse_cli.evaluation.result import save_evaluation
from diffuse_cli.files import durable
from diffuse_cli.model_config import ModelConfig, NetworkConfig, TextConfig
from diffuse_cli.network.network import Network
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures.pixels import from_pixels
from diffuse_cli.runtime import randomness
from diffuse_cli.storage.checkpoint import Model
from diffuse_cli.storage.model_info import TrainingSummary

CAPTIONS = ["a red square", "a blue square"] * 8


def config(*, schedule="sigmoid", prediction="v", learned=True, vocabulary=None):
    text = None if vocabulary is None else TextConfig(vocabulary=vocabulary, width=16, layers=1)
    return ModelConfig(schedule=schedule, prediction=prediction, network=NetworkConfig(
        resolution=8, widths=(8,), depths=(1,), attention=("none",), head_dim=8, groups=4, time_width=32, text=text,
        out_channels=6 if learned else 3))


def pixels(count, *, seed=0):
    return np.random.default_rng(seed).integers(60, 200, (count, 8, 8, 3), np.uint8)


def untrained(*, text=False, **options):
    """A model before its first step: its network always outputs 0."""
    tokenizer = train_tokenizer(CAPTIONS) if text else None
    shape = config(vocabulary=tokenizer.get_vocab_size() if tokenizer else None, **options)
    network = Network(shape.network)
    network.initialise(randomness.generator(0, "weights"))
    return Model(shape, network.eval().requires_grad_(False), tokenizer, {}, TrainingSummary(step=0), "f" * 64)


# ── Calls of the network ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_bound_clips_pictures_as_sampling_does_and_the_noise_loss_does_not(monkeypatch):
    """A network that always predicts no noise estimates the picture as z/alpha: far out of range, if not clipped."""
    model, estimates = untrained(prediction="epsilon"), []
    original = evaluation.likelihood.variational_bound

    def spy(denoise, image, **options):
        estimates.append(denoise(torch.full((5, 3, 8, 8), 3.0), torch.ones(5, dtype=torch.float64)).image)
        return original(denoise, image, **options)

    monkeypatch.setattr(evaluation.likelihood, "variational_bound", spy)
    found, _ = measure(model, pixels(5), [""] * 5, seed=0, batch_size=5, precision="fp32")
    assert torch.equal(estimates[0], torch.ones(5, 3, 8, 8))
    assert found.noise_mse.value == pytest.approx(1, rel=0.1)          # it misses all of the noise


# ── A network that outputs 0 ────────────────────────────────────────────────────────────────────────────────────────


def test_before_training_the_noise_loss_is_the_closed_form():
    """v = alpha·noise - sigma·image is taken to be 0, and the error of the noise is alpha²·v²."""
    model, shown = untrained(), pixels(12)
    found, prompts = measure(model, shown, [""] * 12, seed=5, batch_size=5, precision="fp32")
    schedule, image = make_schedule("sigmoid", 8), from_pixels(shown)
    assert prompts is None
    for level, (log_snr, figure) in enumerate(zip(found.log_snr, found.noise_mse_at, strict=True)):
        alpha, sigma = torch.tensor([log_snr, -log_snr]).double().sigmoid().sqrt()
        noise = randomness.normal(randomness.keys(5, "evaluation", level, torch.arange(12)), (3, 8, 8))
        errors = (alpha**2 * (alpha * noise - sigma * image).square()).mean((1, 2, 3))
        assert figure.value == pytest.approx(errors.mean().item(), rel=1e-4)
        assert figure.standard_error == pytest.approx(errors.std().item() / math.sqrt(12), rel=1e-3)
    assert found.log_snr[0] == pytest.approx(schedule.log_snr(torch.tensor([0.001]).double()).item())
    assert found.log_snr[-1] == pytest.approx(schedule.log_snr(torch.ones(1).double()).item())


def test_before_training_the_bound_is_the_sum_over_all_steps():
    """The estimate of the picture is alpha·noisy, clipped, the variance the geometric mean of beta and beta_tilde."""
    model, shown = untrained(), pixels(64)
    found, _ = measure(model, shown, [""] * 64, seed=0, batch_size=64, precision="fp32")
    schedule, image = make_schedule("sigmoid", 8), from_pixels(shown).double()
    t = torch.arange(2, STEPS + 1, dtype=torch.float64) / STEPS
    (alpha, sigma), (before, _) = schedule.alpha_sigma(t), schedule.alpha_sigma(t - 1 / STEPS)
    log_beta, log_beta_tilde = fine_log_variances(schedule, t)
    kept = -torch.expm1(schedule.log_snr(t) - schedule.log_snr(t - 1 / STEPS))
    squared = (before * kept) ** 2 * _squared_error(image, alpha, sigma)          # E (difference of the means)²

    def bits(log_variance):
        return (log_variance - log_beta_tilde + (log_beta_tilde.exp() + squared) / log_variance.exp() - 1) / (
            2 * math.log(2))

    learned = bits((log_beta + log_beta_tilde) / 2).sum() + prior_bits(schedule, image).mean()
    decoder = _decoder_bits(schedule, image)
    assert found.bound.value == pytest.approx((learned + decoder[0.5]).item(), abs=3 * found.bound.standard_error)
    assert found.bound.standard_error < 0.05
    wins = min((bits(log_beta_tilde).sum() + decoder[0]), (bits(log_beta).sum() + decoder[1])) - (
        bits((log_beta + log_beta_tilde) / 2).sum() + decoder[0.5])
    assert found.variance_gain.value == pytest.approx(wins.item(), abs=4 * found.variance_gain.standard_error)
    width = log_beta.exp() - log_beta_tilde.exp()
    lengths = -schedule.log_snr(torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS).diff()
    learned_excess = (((log_beta + log_beta_tilde) / 2).exp() - log_beta_tilde.exp()) / width
    ratio = (lengths * squared / width).sum() / (lengths * learned_excess).sum()
    assert found.variance_calibration.value == pytest.approx(
        ratio.item(), abs=4 * found.variance_calibration.standard_error)


def _squared_error(image, alpha, sigma):
    """E (clip(alpha·noisy) - image)² over all pixels and their noise, at each of (T,) levels; by quadrature."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(101))
    values, counts = image.unique(return_counts=True)
    alpha, sigma, values = alpha[:, None, None], sigma[:, None, None], values[None, :, None]
    guess = (alpha * (alpha * values + sigma * nodes)).clamp(-1, 1)                             # (T, values, nodes)
    errors = (guess - values).square() @ weights / weights.sum()
    return errors @ counts.double() / counts.sum()


def _decoder_bits(schedule, image):
    """-log2 of the mass on each pixel's bin, for a network that outputs 0, at t = 1/1000, for three variances."""
    t = torch.tensor([1 / STEPS], dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(t)
    log_beta, log_beta_tilde = fine_log_variances(schedule, t)
    noise = torch.randn(40, *image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, result = alpha * (alpha * image + sigma * noise), {}
    for fraction in (0, 0.5, 1):
        deviation = torch.lerp(log_beta_tilde, log_beta, fraction).div(2).exp()
        edges = [(image + side / 255 - mean) / deviation for side in (-1, 1)]
        mass = torch.special.ndtr(edges[1]) - torch.special.ndtr(edges[0])
        result[fraction] = -mass.clamp(min=1e-12).log2().mean()
    return result


def test_a_network_that_outputs_0_ignores_captions():
    found, prompts = measure(untrained(text=True), pixels(16), CAPTIONS, seed=0, batch_size=16, precision="fp32")
    assert prompts.true == prompts.shuffled == prompts.empty == found.noise_mse
    assert prompts.shuffled_rise.value == prompts.empty_rise.value == 0


def test_a_fixed_variance_is_not_judged():
    found, _ = measure(untrained(learned=False), pixels(3), [""] * 3, seed=0, batch_size=2, precision="fp32")
    assert found.variance_gain is found.variance_calibration is None


def test_batches_only_round():
    model = untrained(text=True)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    one, other = (measure(model, pixels(16), CAPTIONS, seed=0, batch_size=size, precision="fp32") for size in (16, 5))
    for name in ("bound", "area", "noise_mse", "variance_gain"):
        assert getattr(one[0], name).value == pytest.approx(getattr(other[0], name).value, rel=1e-4)
    assert one[1].shuffled.value == pytest.approx(other[1].shuffled.value, rel=1e-5)
    assert one[1].shuffled_rise.value != 0


# ── The effect of captions ──────────────────────────────────────────────────────────────────────────────────────────


class Painter(nn.Module):
    """Estimates every picture as evenly bright: 0.5 for a red caption, -0.5 for blue, 0 for none, and 0.1 too much."""

    def __init__(self, tokenizer):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.red, self.blue = (tokenizer.encode(f"a {name} square").ids for name in ("red", "blue"))

    def encode(self, tokens):
        rows = tokens.tolist()
        return torch.tensor([0.5 if row == self.red else -0.5 if row == self.blue else 0.0 for row in rows])

    def forward(self, noisy, time, text, **_):
        return (text[:, None, None, None] + 0.1).expand(len(noisy), 3, 8, 8)


def test_the_rise_of_the_loss_shows_that_captions_matter():
    """The error is 0.1 with the true caption, 1 ± 0.1 with the other one, 0.5 ± 0.1 with none; rises are their ratios.

    A picture without a caption, of which the network knows nothing, is not counted.
    """
    tokenizer = train_tokenizer(CAPTIONS)
    model = Model(config(prediction="x0", learned=False, vocabulary=tokenizer.get_vocab_size()), Painter(tokenizer),
                  tokenizer)
    levels = np.array([0.5, -0.5] * 8 + [0.9])
    shown = np.broadcast_to(np.round((levels + 1) * 127.5).astype(np.uint8)[:, None, None, None], (17, 8, 8, 3))
    _, prompts = measure(model, shown, [*CAPTIONS, ""], seed=0, batch_size=7, precision="fp32")
    assert prompts.shuffled_rise.value == pytest.approx(100, rel=0.02)
    assert prompts.empty_rise.value == pytest.approx(25, rel=0.02)
    for true, wrong, none in zip(prompts.true_at, prompts.shuffled_at, prompts.empty_at, strict=True):
        assert wrong.value / true.value == pytest.approx(101, rel=0.02)
        assert none.value / true.value == pytest.approx(26, rel=0.02)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_every_caption_is_replaced_by_another_one_and_always_by_the_same(count):
    captions = [f"picture {k % count}" for k in range(3 * count)] + [""]
    for seed in range(20):
        wrong = shuffle_captions(captions, seed)
        assert all(one != other for one, other in zip(captions, wrong, strict=True) if one)
        assert wrong[-1] == ""
        assert len(set(zip(captions, wrong, strict=True))) == count + 1
        assert sorted(wrong) == sorted(captions)
    assert shuffle_captions(["same", "same", ""], 0) is None


def test_one_caption_for_all_cannot_be_shuffled():
    _, prompts = measure(untrained(text=True), pixels(4), ["a red square"] * 4, seed=0, batch_size=4, precision="fp32")
    assert prompts.shuffled is prompts.shuffled_rise is prompts.shuffled_at is None
    assert prompts.empty_rise.value == 0
    assert measure(untrained(text=True), pixels(4), [""] * 4, seed=0, batch_size=4, precision="fp32")[1] is None


# ── The whole ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quick(monkeypatch):
    """An encoder that is hardly trained."""
    monkeypatch.setattr(encoder, "STEPS", 2)


def heldout(count=12):
    dataset = tiny.dataset([(caption, "another") for caption in CAPTIONS] + [()] * 14)
    split = split_dataset(dataset.pixel_hashes)
    return HeldOutPictures(dataset, split.train[:count], TrainingData(dataset, split.train[count:], split.held_out),
                   held_out_by_run=False)


def test_an_evaluation_is_a_function_of_its_seed(quick, tmp_path):
    model, reports = untrained(text=True), []

    def run(seed, limit=100):
        return evaluate(model, heldout(), num=8, seed=seed, limit=limit, batch_size=8, precision="fp32", cache=tmp_path,
                        progress=lambda *report: reports.append(report))

    one, again, other = run(0), run(0), run(1)
    assert one.to_dict() == again.to_dict()
    assert one.gallery == again.gallery
    assert one.to_dict() != other.to_dict()
    assert one.likelihood.bound.value == pytest.approx(other.likelihood.bound.value, rel=0.1)
    assert run(0, limit=5).held_out == 5
    for what in ("measuring pictures", "generating pictures", "training an encoder"):
        assert any(stage == what and done == total for stage, done, total in reports), what
        assert all(done <= total for stage, done, total in reports if stage == what)


def test_without_generated_pictures_there_are_no_distances(tmp_path):
    found = evaluate(untrained(text=True), heldout(), num=0, seed=0, limit=100, batch_size=8, precision="fp32",
                     cache=tmp_path)
    assert found.distances is found.memorisation is found.gallery is None
    assert found.to_dict()["distances"] is found.to_dict()["memorisation"] is None


def test_a_model_of_one_picture_is_compared_by_an_encoder_of_others(quick, tmp_path):
    pictures = heldout()
    training = dataclasses.replace(pictures.training, train=pictures.training.train[:1])
    found = evaluate(untrained(text=True), dataclasses.replace(pictures, training=training), num=8, seed=0, limit=100,
                     batch_size=8, precision="fp32", cache=tmp_path)
    assert math.isfinite(found.distances.drawn.kernel)


def test_prompts_are_the_captions_of_the_pictures_in_turn(quick, tmp_path, monkeypatch):
    prompts = []
    monkeypatch.setattr(evaluation, "_generate",
                        lambda model, captions, **_: prompts.extend(captions) or pixels(len(captions)))
    pictures = heldout(5)
    evaluate(untrained(text=True), pictures, num=8, seed=0, limit=5, batch_size=8, precision="fp32", cache=tmp_path)
    first = [next(iter(pictures.dataset.captions[position]), "") for position in pictures.positions.tolist()]
    assert prompts == (first + first)[:8]
    assert "a red square" in prompts


@pytest.mark.parametrize(("num", "batch_size", "generated_at_once"), [(5, 64, 5), (9, 8, 5), (8, 8, 8)])
def test_batches_are_of_one_size_and_no_larger_than_needed(
        quick, tmp_path, monkeypatch, num, batch_size, generated_at_once):
    sizes = []

    def generate(model, prompts, *, sampling, **_):
        sizes.append(sampling.batch_size)
        return pixels(len(prompts))

    monkeypatch.setattr(evaluation, "_generate", generate)
    evaluate(untrained(text=True), heldout(), num=num, seed=0, limit=8, batch_size=batch_size, precision="fp32",
             cache=tmp_path)
    assert sizes == [generated_at_once]


def test_each_picture_is_generated_from_its_own_noise():
    """Pictures of one prompt differ as well: picture k has seed + k, as `sampling.generate` gives it."""
    from diffuse_cli.config import Sampling
    from diffuse_cli.sampling.generate import generate
    from diffuse_cli.sampling.request import SampleRequest

    model, sampling = untrained(text=True), Sampling(batch_size=3)
    found = evaluation._generate(model, ["a red square"] * 5, size=Size(8, 8), seed=7, sampling=sampling,
                                 progress=lambda *_: None)
    expected = [picture.pixels for picture in generate(
        model, [SampleRequest(prompt="a red square", count=5, seed=7, sampling=sampling)])]
    assert found.shape == (5, 8, 8, 3)
    assert np.abs(found.astype(int) - np.stack(expected)).max() <= 1
    assert len({picture.tobytes() for picture in found}) == 5


def test_the_newest_evaluation_is_kept_and_contains_no_path(quick, tmp_path):
    run = durable.make_directory(tmp_path / "somebody" / "run")
    model = untrained(text=True)
    options = {"seed": 0, "limit": 100, "batch_size": 8, "precision": "fp32", "cache": tmp_path}
    save_evaluation(run, evaluate(model, heldout(), num=8, **options))
    text = (run / "evaluation.json").read_text()
    assert json.loads(text)["pictures"] == {"held_out": 12, "train": 15, "own": False}
    assert "somebody" not in text
    assert (run / "closest.png").read_bytes().startswith(b"\x89PNG")
    save_evaluation(run, evaluate(model, heldout(), num=0, **options))
    assert sorted(path.name for path in run.iterdir()) == ["evaluation.json"]
