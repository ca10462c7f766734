"""Exported folders opened where diffuse-cli is not installed, by three generations of diffusers and transformers.

Slow, and needs a package index. The environments borrow torch and numpy from this one, and install their own libraries.
"""

import itertools
import subprocess
import venv
from pathlib import Path

import numpy as np
import open_folder
import pytest
import torch
from open_folder import GUIDANCE, PROMPTS, small_pictures
from random_models import make_model, make_upscaler

from diffuse_cli.config import EXPORT_SCHEDULERS, Export
from diffuse_cli.exporting import diffusers_export
from diffuse_cli.exporting.diffusers_comparison import SAMPLERS, sample_like_pipeline
from diffuse_cli.exporting.diffusers_export import STUDENT_SCHEDULER
from diffuse_cli.storage import checkpoint, registry

GENERATIONS = {
    "newest": (),                               # those of this environment
    "2025": ("diffusers==0.35.1", "transformers==4.56.2"),
    "2024": ("diffusers==0.27.2", "transformers==4.41.2", "huggingface_hub<0.26"),
}
NAMES = ["the default", "unconditional", "fixed, epsilon, cosine", "unconditional, fixed, v, sigmoid", "x0, linear",
         "nano at 64"]
UPSCALER, STUDENT = "an upscaler", "demo-fast"
STEPS = {"ddpm": 20, "dpmpp-2m": 10, "ddim": 10}
SEED = 5

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", params=GENERATIONS)
def python(request, tmp_path_factory):
    """The Python of an environment with one generation."""
    directory = tmp_path_factory.mktemp("environment")
    requirements = GENERATIONS[request.param]
    venv.create(directory, with_pip=bool(requirements))
    (site_packages,) = directory.glob("lib/python*/site-packages")
    (site_packages / "borrowed.pth").write_text(str(Path(torch.__file__).parents[1]))
    interpreter = directory / "bin" / "python"
    if requirements:
        subprocess.run([interpreter, "-m", "pip", "install", "-q", *requirements], check=True)
    return interpreter


def model_of(name):
    if name == UPSCALER:
        return make_upscaler()
    return checkpoint.load_model(registry.resolve(name), torch.device("cpu")) if name == STUDENT else make_model(name)


@pytest.mark.parametrize(("name", "scheduler"), [
    *itertools.product([*NAMES, UPSCALER], EXPORT_SCHEDULERS), (STUDENT, STUDENT_SCHEDULER)])
def test_another_program_generates_our_pictures(python, name, scheduler, tmp_path):
    model = model_of(name)
    student = model.config.student
    steps, guidance = (STEPS[scheduler], GUIDANCE) if student is None else (student.evaluations, 1.0)
    folder, out = tmp_path / "folder", tmp_path / "pictures.npz"
    folder.mkdir()
    diffusers_export.write(model, folder, Export(format="diffusers", scheduler=scheduler))
    done = subprocess.run(
        [python, "-I", open_folder.__file__, folder, out, str(steps), str(SEED), str(guidance)],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = np.load(out)
    ours = sample_like_pipeline(model, SAMPLERS[str(theirs["scheduler"])], theirs["timesteps"].tolist(), PROMPTS,
                                guidance=guidance, generator=torch.Generator().manual_seed(SEED),
                                small=small_pictures() if model.config.is_upscaler else None)
    assert np.abs(theirs["pictures"].astype(int) - ours.astype(int)).max() <= 1
