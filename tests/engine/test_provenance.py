"""What is written into pictures, as other tools parse it, and without loss."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuse_cli import __version__
from diffuse_cli.engine.checkpoint import Model
from diffuse_cli.engine.config import ModelConfig, NetworkConfig, Sampling
from diffuse_cli.engine.generation import Drawn
from diffuse_cli.engine.provenance import MAX_PROMPT, made_of, texts

CONFIG = ModelConfig(
    network=NetworkConfig(resolution=16, widths=(16,), depths=(1,), attention=("full",), head_dim=16, groups=16,
                          time_width=16, text=None), schedule="cosine", prediction="v")
PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def made(prompt="a red car", *, negative="", name="cars", sha256="0123456789abcdef" * 4, seed=7, start=None, **sampling):
    model = Model(CONFIG, None, None, {}, {"name": name}, sha256)
    wanted = Wanted(prompt=prompt, negative=negative, seed=seed - 2 if seed >= 2 else seed, count=3,
                    sampling=Sampling(**sampling), start=start)
    return made_of(Drawn(wanted, 2 if seed >= 2 else 0, np.zeros((16, 16, 3), np.uint8), 0.1), model)


def parse(text):
    """As the readers of such texts do: the last line holds "key: value" pairs, what stands before is the prompt."""
    *lines, last = text.strip().split("\n")
    assert last.startswith("Steps: ")
    values = {key: json.loads(value) if value.startswith('"') else value for key, value in PARAMETER.findall(last)}
    return "\n".join(lines), values


def test_other_tools_can_read_it():
    prompt, values = parse(texts(made(sampler="ddpm", guidance=2.5))["parameters"])
    assert prompt == "a red car"
    assert values == {
        "Steps": "100", "Sampler": "ddpm", "CFG scale": "2.5", "Seed": "7", "Size": "16x16", "Model hash": "0123456789",
        "Model": "cars", "Version": f"diffuse-cli {__version__}"}
    assert next(iter(values)) == "Steps"


def test_without_a_prompt_only_the_line_of_facts_is_left():
    text = texts(made(""))["parameters"]
    assert "\n" not in text
    assert text.startswith("Steps: 20, ")


@pytest.mark.parametrize("name", ["a, Steps: 1", 'say "x"', "two\nlines", "c:\\x", "käse, 1"])
def test_a_name_cannot_pose_as_other_facts(name):
    _, values = parse(texts(made(name=name))["parameters"])
    assert values["Model"] == name
    assert values["Steps"] == "20"


@given(st.text(alphabet=st.characters(codec=None)), st.integers(0, 2**63 - 9))
def test_the_second_text_is_lossless(prompt, seed):
    facts = made(prompt, seed=seed, steps=3, guidance=1.0 / 3, guidance_interval=(0.1, 0.3))
    written = texts(facts)
    assert json.loads(written["diffuse"]) == facts
    assert facts["prompt"] == prompt[:MAX_PROMPT]
    assert (facts["seed"], facts["steps"], facts["guidance"]) == (seed, 3, 1 / 3)
    assert facts["guidance_interval"] == [0.1, 0.3]
    assert written["diffuse"].isascii()
    written["parameters"].encode()                         # lone surrogates would not be


def test_a_sampling_can_be_built_from_it_again():
    asked = Sampling(sampler="heun", steps=7, guidance=1.5, guidance_interval=(0.25, 3.0))
    facts = json.loads(texts(settings(Drawn("x", 0, 1, np.zeros((16, 16, 3)), 0.1), Model(
        CONFIG, None, None, {}, {}, "f" * 64), asked))["diffuse"])
    assert Sampling(sampler=facts["sampler"], steps=facts["steps"], guidance=facts["guidance"],
                    guidance_interval=tuple(facts["guidance_interval"])) == asked


def test_the_interval_that_was_left_open_is_written_down():
    assert made()["guidance_interval"] == [0.2, 1.5]       # 6·16/64


def test_only_what_is_needed_is_told():
    assert set(made()) == {"prompt", "seed", "sampler", "steps", "guidance", "guidance_interval", "size", "model",
                           "model_sha256", "version"}
    assert len(made(name="n" * 1000)["model"]) == 64
    assert made("x" * 5000)["prompt"] == "x" * MAX_PROMPT  # far more than a model reads
