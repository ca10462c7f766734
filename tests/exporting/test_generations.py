"""The exported folder where diffuse-cli is not installed: in three generations of diffusers and transformers.

Slow, and needs a package index. The environments borrow torch and numpy from this one; what is theirs is installed.
"""

import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from made_models import CONFIGURATIONS, make_model
from open_folder import GUIDANCE, PROMPTS

from diffuse_cli.config import EXPORT_SCHEDULERS, Export
from diffuse_cli.exporting import diffusers_export
from diffuse_cli.exporting.diffusers_comparison import SCHEDULERS, drawn_alike

GENERATIONS = {
    "newest": (),                               # those of this environment
    "2025": ("diffusers==0.35.1", "transformers==4.56.2"),
    "2024": ("diffusers==0.27.2", "transformers==4.41.2", "huggingface_hub<0.26"),
}
NAMES = ["the default", "unconditional", "fixed, epsilon, cosine", "unconditional, fixed, v, sigmoid", "x0, linear",
         "nano at 64"]
STEPS = {"ddpm": 20, "dpmpp-2m": 10, "ddim": 10}
SEED = 5

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module", params=GENERATIONS)
def python(request, tmp_path_factory):
    """The Python of an environment with one generation."""
    directory = tmp_path_factory.mktemp("environment")
    wanted = GENERATIONS[request.param]
    venv.create(directory, with_pip=bool(wanted))
    (room,) = directory.glob("lib/python*/site-packages")
    (room / "borrowed.pth").write_text(str(Path(torch.__file__).parents[1]))
    interpreter = directory / "bin" / "python"
    if wanted:
        subprocess.run([interpreter, "-m", "pip", "install", "-q", *wanted], check=True)
    return interpreter


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    assert request.param in CONFIGURATIONS
    return make_model(request.param)


@pytest.mark.parametrize("scheduler", EXPORT_SCHEDULERS)
def test_a_stranger_draws_our_pictures(python, model, tmp_path, scheduler):
    folder, out = tmp_path / "folder", tmp_path / "drawn.npz"
    folder.mkdir()
    diffusers_export.write(model, folder, Export(format="diffusers", scheduler=scheduler))
    done = subprocess.run(
        [python, "-I", Path(__file__).with_name("open_folder.py"), folder, out, str(STEPS[scheduler]), str(SEED)],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = np.load(out)
    ours = drawn_alike(model, SCHEDULERS[str(drawn["scheduler"])], drawn["timesteps"].tolist(), PROMPTS,
                       guidance=GUIDANCE, generator=torch.Generator().manual_seed(SEED))
    assert np.abs(drawn["pictures"].astype(int) - ours.astype(int)).max() <= 1
