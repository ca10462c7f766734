"""Models as one HTML file: its code computes what the model computes, and it loads nothing from elsewhere."""

import base64
import dataclasses
import hashlib
import html
import json
import random
import re
import unicodedata
from pathlib import Path

import numpy as np
import onnx_models
import pytest
import random_models
import torch
import web_pages

from diffuse_cli.config import Export, Sampling
from diffuse_cli.errors import ExportError, UsageError
from diffuse_cli.exporting import web_page
from diffuse_cli.exporting.verification import answers_and_limit, largest_difference, require_agreement
from diffuse_cli.model_config import PREDICTIONS, SCHEDULES, NetworkConfig, Student, TextConfig
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.picture_size import Size
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling.generate import encode_prompts, generate
from diffuse_cli.sampling.request import SampleRequest

WEB = Export(format="web")
with_node = pytest.mark.skipif(web_pages.NODE is None, reason="needs Node")


def written(model, folder: Path, **options) -> Path:
    path = folder / "model.html"
    web_page.write(model, path, WEB, **options)
    return path


# ── What the page computes ──────────────────────────────────────────────────────────────────────────────────────────


def odd_network(text: bool) -> NetworkConfig:
    """Sizes that are no multiples of the tiles in which the page computes; the lowest map is one pixel."""
    return NetworkConfig(
        resolution=12, widths=(10, 15, 30), depths=(2, 1, 1), attention=("text" if text else "full", "none", "full"),
        head_dim=5, groups=5, time_width=18, out_channels=3,
        text=TextConfig(vocabulary=len(onnx_models.vocabulary()), width=130, layers=2) if text else None)


MODELS = {
    "odd": lambda: onnx_models.make(network=odd_network(True)),
    "odd without text": lambda: onnx_models.make(conditional=False, network=odd_network(False)),
    "wide": lambda: onnx_models.make(network=dataclasses.replace(odd_network(True), resolution=Size(24, 8))),
    "one pixel": lambda: onnx_models.make(conditional=False, network=dataclasses.replace(
        odd_network(False), resolution=8, widths=(10, 10, 10, 15), depths=(1, 1, 1, 1),
        attention=("none", "none", "none", "full"))),
    **{name: lambda name=name: random_models.make_model(name) for name in random_models.QUICK},
}


@with_node
@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_the_pages_networks_answer_as_the_model(name, tmp_path):
    """Up to the rounding of float32: the weights are those that were read back."""
    model = MODELS[name]()
    model = web_page._read(written(model, tmp_path), model)
    shape = model.config.network
    noisy = randomness.normal(torch.tensor([randomness.key(3)]), shape.shape)
    text, _ = encode_prompts(model, ["a red car"])
    answer = web_pages.compute(tmp_path / "model.html", """
        const {layers, tokenizer} = openModel(held);
        const text = tokenizer && encodeText(layers, tokenizer.encode("a red car"));
        const answers = [0, 437.5, 999].map(time => predict(layers, Float32Array.from(inputs), time, text));
        return {text: text && Array.from(text), answers: answers.map(answer => Array.from(answer))};
    """, noisy.flatten().tolist())
    for time, flat in zip((0.0, 437.5, 999.0), answer["answers"], strict=True):
        expected, limit = answers_and_limit(model.network, noisy, torch.tensor([time]), text)
        assert largest_difference(expected[0, :3], torch.tensor(flat).reshape(3, *noisy.shape[2:])) <= limit
    if text is not None:
        features = torch.tensor(answer["text"]).reshape(shape.text.width, 80)[:, :77].T
        assert largest_difference(text[0], features) < 1e-5


def pictures_of(model, requests):
    """The same pictures by the model itself, (N, R, R, 3) uint8."""
    chosen = [SampleRequest(prompt=request["prompt"], negative=request["negative"], seed=request["seed"],
                            sampling=Sampling(sampler=request["sampler"], steps=request["steps"],
                                              guidance=request["guidance"])) for request in requests]
    return np.stack([sample.pixels for sample in generate(model, chosen)])


def request(seed=0, **options):
    return {"prompt": "a red car", "negative": "", "seed": seed, "sampler": "dpmpp-2m", "steps": 3, "guidance": 3.0,
            **options}


REQUESTS = [request(), request(2**63 - 2, sampler="ddim", steps=5), request(7, steps=14, guidance=6.5),
            request(8, steps=1), request(9, steps=2, guidance=1.0), request(10, negative="a fish", prompt="")]


@with_node
@pytest.mark.parametrize(("prediction", "schedule"), [
    *((PREDICTIONS[k % 3], schedule) for k, schedule in enumerate(SCHEDULES)), ("epsilon", "interpolated")])
@pytest.mark.parametrize("conditional", [True, False])
def test_the_page_draws_what_the_model_draws(tmp_path, conditional, prediction, schedule):
    model = onnx_models.make(conditional=conditional, prediction=prediction, schedule=schedule)
    model = web_page._read(written(model, tmp_path), model)
    drawn = web_pages.draw(tmp_path / "model.html", REQUESTS)
    assert np.abs(drawn.astype(int) - pictures_of(model, REQUESTS)).max() <= 2


@with_node
def test_a_students_page_draws_in_its_steps(tmp_path):
    model = onnx_models.make()
    model = dataclasses.replace(model, config=dataclasses.replace(
        model.config, student=Student(evaluations=3, guidance=3.0, teacher="")))
    model = web_page._read(written(model, tmp_path), model)
    requests = [request(seed, sampler="ddim", guidance=1.0) for seed in range(3)]
    drawn = web_pages.draw(tmp_path / "model.html", requests)
    assert np.abs(drawn.astype(int) - pictures_of(model, requests)).max() <= 2


@with_node
def test_the_page_has_the_noise_of_a_seed(tmp_path):
    page, seeds = written(onnx_models.make(conditional=False), tmp_path), [0, 1, 10**9, 2**63 - 1]
    noise = web_pages.compute(page, "return inputs.map(seed => Array.from(noiseOf(BigInt(seed), 75)))",
                              [str(seed) for seed in seeds])
    keys = torch.tensor([randomness.key(seed, "sample", -1) for seed in seeds])
    assert largest_difference(randomness.normal(keys, (75,)), torch.tensor(noise)) < 1e-6


# ── Tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────


PIECES = [*" ".join(onnx_models.CAPTIONS).split(), "</s>", "<pad>", "<unk>", "</S>", "it's", "we'll", "(red)", "ΟΔΟΣ",
          "İstanbul", "ﬁsh", "½", "\x85", "\ufeff", "\u180e", "\u200b", "12,5", "🚗", "e\u0301", "\ud800", "  ", "\n"]
LETTERS = [letter for letter in map(chr, range(1, 0x1FFFF)) if unicodedata.ucd_3_2_0.category(letter)[0] != "C"]


def random_captions(count: int) -> list[str]:
    """Words that the tokenizer knows, pieces that are hard, and letters of all kinds, with and without spaces.

    The library knows the compatibility forms of an older Unicode than browsers, so letters are those of Unicode 3.2.
    """
    draw = random.Random(5)

    def piece():
        return draw.choice(PIECES) if draw.random() < 0.7 else "".join(draw.choices(LETTERS, k=draw.randrange(5)))

    return [draw.choice(["", " "]).join(piece() for _ in range(draw.choice([1, 2, 5, 60]))) for _ in range(count)]


@pytest.fixture(scope="module")
def page_with_text(tmp_path_factory):
    model = onnx_models.make()
    return model, written(model, tmp_path_factory.mktemp("tokens"))


def assert_same_tokens(model, page, captions):
    script = "const known = new Tokenizer(held.tokenizer.model); return inputs.map(text => known.encode(text));"
    tokens = web_pages.compute(page, script, captions)
    for caption, ids, expected in zip(captions, tokens, encode(model.tokenizer, captions).tolist(), strict=True):
        assert ids == expected, repr(caption)


@with_node
def test_the_page_has_the_tokens_of_a_prompt(page_with_text):
    assert_same_tokens(*page_with_text, random_captions(3_000))


@with_node
def test_the_page_has_the_tokens_of_every_letter(page_with_text):
    captions = [f"a{letter}b {letter}{letter}" for letter in LETTERS]
    assert len(captions) > 50_000
    assert_same_tokens(*page_with_text, captions)


# ── What the page holds ─────────────────────────────────────────────────────────────────────────────────────────────


def test_weights_are_rounded_to_65535_values_for_each_row():
    sizes = torch.tensor([1.0, 1e-3, 1e3, 0.0, 1e-30, 1.0])[:, None, None, None]
    weight = sizes * torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    error = (web_page.rounded(weight) - weight).abs().flatten(1).amax(1)
    largest = weight.abs().flatten(1).amax(1)
    assert (error <= largest / 32_767 * 0.502).all()                   # half a step, and the rounding of float32
    assert (web_page.rounded(weight).flatten(1).abs().amax(1) == largest).all()
    assert torch.equal(web_page.rounded(weight[:, 0, 0, 0]), weight[:, 0, 0, 0])


def test_comparisons_hold_and_fail_if_the_page_holds_another_model(tmp_path):
    model = onnx_models.make()
    page = written(model, tmp_path)
    require_agreement(web_page.compare(model, page, WEB))
    with torch.no_grad():
        model.network.unet.conv_in.weight *= 1.001
    with pytest.raises(ExportError, match="weights"):
        require_agreement(web_page.compare(model, page, WEB))


def policy_of(text: str) -> dict[str, str]:
    policy = html.unescape(re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1])
    return {name: value for name, _, value in (part.strip().partition(" ") for part in policy.split(";"))}


def test_the_pages_policy_admits_its_own_script_and_nothing_else(tmp_path):
    text = written(onnx_models.make(), tmp_path).read_text(encoding="utf-8")
    policy = policy_of(text)
    assert policy.pop("default-src") == "'none'"
    for directive, tag in (("script-src", "script"), ("style-src", "style")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy.pop(directive)
    assert policy == {"worker-src": "blob:", "base-uri": "'none'", "form-action": "'none'"}
    assert not re.search(r'\b(src|href)="|https?:|@import|url\(', text)


def test_foreign_text_stays_text(tmp_path):
    """A word or a prompt cannot end the element that holds it, nor a file's name the title."""
    evil = "</script><script>alert(1)</script>"
    model = dataclasses.replace(onnx_models.make(), words={evil: 3})
    page = tmp_path / "<img src=x>.html"
    web_page.write(model, page, WEB, prompts=[evil])
    text = page.read_text(encoding="utf-8")
    assert "<img" not in text
    assert "alert(1)</script>" not in text
    content = json.loads(text.split('id="model">')[1].split("</script>")[0])
    assert content["words"][0] == evil
    assert content["prompts"] == [evil]


def test_a_model_too_large_for_a_browser_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(web_page, "MAX_WEIGHTS", 1_000)
    with pytest.raises(UsageError, match="million weights"):
        written(onnx_models.make(), tmp_path)
    assert not list(tmp_path.iterdir())
