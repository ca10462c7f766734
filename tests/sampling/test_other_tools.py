"""The settings of other programs, as they write them, in our words; and what of them is named as left out."""

import json

import numpy as np
import pytest

from diffuse_cli.config import SAMPLERS
from diffuse_cli.pictures.image_files import encode
from diffuse_cli.sampling.other_tools import OtherSettings, parse_png_text, sampler_of, translate
from diffuse_cli.sampling.png_metadata import read_settings

WEB_UI = ("a (red:1.2) car <lora:shiny:0.8>\nin fog\nNegative prompt: blurry, text\nSteps: 20, "
          'Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 1234, Size: 512x512, '
          'Model hash: 0123456789, Model: "some, model", Clip skip: 2')
GRAPH = {
    "3": {"class_type": "KSampler", "is_changed": [float("nan")], "inputs": {
        "seed": 8, "steps": 30, "cfg": 6.5, "sampler_name": "euler_ancestral", "scheduler": "karras", "denoise": 1,
        "positive": ["6", 0], "negative": ["7", 0], "model": ["4", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
    "9": {"class_type": "PrimitiveString", "inputs": {"value": "a red car"}}}
INVOKE = {"app_version": "5.0", "positive_prompt": "a red car", "negative_prompt": "blurry", "seed": 5, "steps": 25,
          "cfg_scale": 7, "scheduler": "heun_k", "width": 512, "model": {"name": "x"}}
OLD_INVOKE = {"model": "sd", "image": {"prompt": [{"prompt": "a red car", "weight": 1}], "steps": 25, "cfg_scale": 7,
                                       "sampler": "k_heun", "seed": 5}}


@pytest.mark.parametrize(("name", "text", "settings"), [
    ("parameters", WEB_UI, OtherSettings(
        prompt="a red car in fog", negative="blurry, text", seed=1234, steps=20, sampler="dpmpp-2m", guidance=7.5,
        ignored=("<lora:shiny:0.8>", "(red:1.2)", "Size", "Model hash", "Model", "Clip skip"))),
    ("prompt", json.dumps(GRAPH), OtherSettings(
        prompt="a red car", negative="blurry", seed=8, steps=30, guidance=6.5,
        ignored=("sampler euler_ancestral", "denoise"))),
    ("invokeai_metadata", json.dumps(INVOKE), OtherSettings(
        prompt="a red car", negative="blurry", seed=5, steps=25, sampler="heun", guidance=7.0,
        ignored=("app_version", "width"))),
    ("sd-metadata", json.dumps(OLD_INVOKE), OtherSettings(
        prompt="a red car", seed=5, steps=25, sampler="heun", guidance=7.0)),
    ("parameters", json.dumps({"prompt": "a red car", "guidance_scale": 4, "seed": "7"}), OtherSettings(
        prompt="a red car", seed=7, guidance=4.0)),
])
def test_settings_of_other_programs_are_read(tmp_path, name, text, settings):
    assert parse_png_text(name, text) == settings
    (tmp_path / "a.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8), texts={name: text}))
    assert read_settings(tmp_path / "a.png") == settings


@pytest.mark.parametrize(("name", "text"), [
    ("parameters", "a car"), ("parameters", ""), ("prompt", "{}"), ("prompt", "[]"), ("prompt", '{"1": {"inputs": 3}}'),
    ("invokeai_metadata", '{"seed": 3}'), ("sd-metadata", '{"image": {"prompt": []}}'), ("prompt", "{" * 10_000)])
def test_a_text_without_settings_is_none(name, text):
    assert parse_png_text(name, text) is None


def test_a_graph_in_a_circle_ends():
    graph = {"1": {"inputs": {"steps": 1, "positive": ["2", 0]}}, "2": {"inputs": {"text": ["2", 0]}}}
    assert parse_png_text("prompt", json.dumps(graph)) == OtherSettings(steps=1)


@pytest.mark.parametrize(("theirs", "ours"), [
    ("DPM++ 2M Karras", "dpmpp-2m"), ("dpmpp_2m", "dpmpp-2m"), ("dpmpp_2m_k", "dpmpp-2m"),
    ("DPMSolverMultistepScheduler", "dpmpp-2m"),
    ("DPM++ SDE", "dpmpp-sde"), ("uni_pc", "unipc"), ("UniPC", "unipc"), ("k_euler", "euler"), ("Euler a", None),
    ("DDIM", "ddim"), ("DDPM", "ddpm"), ("Heun", "heun"), ("LMS", None), *((name, name) for name in SAMPLERS)])
def test_samplers_have_our_names(theirs, ours):
    assert sampler_of(theirs) == ours


@pytest.mark.parametrize(("values", "ignored"), [
    ({"seed": -1}, ()), ({"seed": -2}, ("seed -2",)), ({"steps": 5_000}, ("steps 5000",)), ({"cfg": "x"}, ("cfg x",)),
    ({"seed": 2**64}, (f"seed {2**64}",)), ({"cfg": float("nan")}, ("cfg nan",)), ({"prompt": 3}, ("prompt 3",)),
    ({"steps": []}, ("steps []",)), ({"width": 512}, ("width",))])
def test_a_value_out_of_range_is_left_out_by_name(values, ignored):
    assert translate(values) == OtherSettings(ignored=ignored)
