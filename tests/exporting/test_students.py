"""Exports of distilled models: every form samples in the student's steps, without guidance and without clipping."""

import dataclasses
import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse_cli import api
from diffuse_cli.config import EXPORT_FORMATS, Sampling
from diffuse_cli.diffusion.distillation import student_times
from diffuse_cli.errors import UsageError
from diffuse_cli.model_config import Student
from diffuse_cli.pictures.pixels import to_pixels
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling.generate import encode_prompts, reverse_diffusion
from diffuse_cli.storage import checkpoint

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["captions", pytest.param("unconditional", marks=pytest.mark.slow)])
def student(request, trained, unconditional, tmp_path_factory):
    """The file of a distilled model of three steps."""
    directory = (trained if request.param == "captions" else unconditional)[0]
    model = checkpoint.load_model(directory / "model.safetensors", CPU)
    guidance = 3.0 if request.param == "captions" else 1.0
    config = dataclasses.replace(model.config, student=Student(evaluations=3, guidance=guidance, teacher="tiny"))
    path = tmp_path_factory.mktemp("student") / "student.safetensors"
    checkpoint.save_model(path, config=config, weights=model.network.state_dict(), tokenizer=model.tokenizer,
                          words=model.words, training=model.training)
    return path


def test_a_file_says_what_it_was_distilled_to(student):
    assert checkpoint.load_model(student, CPU).config.student.evaluations == 3


def test_no_weighting_of_a_loss_that_a_student_does_not_have_is_told(student, tmp_path, command):
    shown = command("models", "show", student)[1]
    assert "from tiny, guided at" in shown
    assert "loss weighting" not in shown
    api.export(student, tmp_path / "exported", to="diffusers")
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "| distilled | from tiny" in card
    assert "objective" not in card


@pytest.mark.parametrize("form", [pytest.param(form, marks=pytest.mark.slow) if form == "onnx" else form
                                  for form in EXPORT_FORMATS])
def test_an_export_is_a_student_too(student, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    out = tmp_path / f"exported{EXPORT_FORMATS[form]}"
    report = api.export(student, out, to=form)
    assert report["verified"]
    if form in ("safetensors", "diffusers"):
        path = out if form == "safetensors" else out / "model_index.json"
        again = checkpoint.load_model(path, CPU)
        assert again.config.student == checkpoint.load_model(student, CPU).config.student


def test_stock_diffusers_takes_the_students_steps(student, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    api.export(student, tmp_path / "exported", to="diffusers")
    index = json.loads((tmp_path / "exported/scheduler/scheduler_config.json").read_text())
    assert index["_class_name"] == "DDIMScheduler"
    model = checkpoint.load_model(student, CPU)
    prompts = ["a red square", "a blue square"] if model.tokenizer is not None else ["", ""]
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(tmp_path / "exported"), local_files_only=True)
    text, negative = encode_prompts(model, prompts)
    *_, last = reverse_diffusion(model.network, model.config, text=text, negative=negative, seeds=[4, 5],
                                 sampling=Sampling.of(model.config))
    if model.tokenizer is None:
        pytest.skip("the unconditional pipeline takes no noise")
    with mock.patch.object(type(pipeline), "prepare_intermediate_images", return_value=start_of(model, [4, 5])):
        images = pipeline(prompt=prompts, num_inference_steps=3, guidance_scale=1.0, clean_caption=False).images
    assert pipeline.scheduler.timesteps.tolist() == [round(1000 * t - 1) for t in student_times(3)[:-1]]
    assert np.abs(np.stack(images).astype(int) - to_pixels(last.noisy).astype(int)).max() <= 1


def start_of(model, seeds):
    """The noise from which `diffuse sample` starts."""
    side = model.config.network.resolution.width
    return randomness.normal(torch.tensor([randomness.key(seed, "sample", -1) for seed in seeds]), (3, side, side))


def test_a_student_is_not_exported_with_another_scheduler(student, tmp_path):
    with pytest.raises(UsageError, match="ddim alone"):
        api.export(student, tmp_path / "exported", to="diffusers", scheduler="ddpm")


@pytest.mark.slow
def test_the_script_of_an_onnx_folder_samples_as_diffuse_does(student, tmp_path):
    pytest.importorskip("onnxruntime")
    api.export(student, tmp_path / "exported", to="onnx")
    prompt = ["a red square"] if checkpoint.load_model(student, CPU).tokenizer is not None else []
    script, out = tmp_path / "exported/sample.py", tmp_path / "out"
    command = [sys.executable, str(script), *prompt, "--seed", "7", "-o", str(out)]
    subprocess.run(command, check=True)
    (picture,) = out.iterdir()
    (expected,) = api.load(student).sample(*prompt, seed=7)
    assert np.abs(np.asarray(Image.open(picture)).astype(int) - np.asarray(expected).astype(int)).max() <= 1
    for options, reason in ((["--steps", "20"], "3 steps of ddim"), (["--guidance", "5"], "guidance is built in"),
                            (["--negative", "blue"], "guidance is built in")):
        refused = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert reason in refused.stderr
    readme = (tmp_path / "exported/README.md").read_text(encoding="utf-8")
    code = readme.partition("```python")[2].partition("```")[0]
    if prompt:
        code += "\nassert pictures.shape[0] == 4"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path / "exported")
