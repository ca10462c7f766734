"""The peers' own environment: made with pip, beside this file, so that neither side's packages decide on the other's.

diffusers, denoising-diffusion-pytorch and k-diffusion are on PyPI. improved-diffusion, guided-diffusion, edm and edm2
are not, and are left out.
"""

import subprocess
import sys
import venv
from pathlib import Path

DIRECTORY = Path(__file__).parent / ".peers"
TORCH = "torch==2.13.0"
PACKAGES = ("diffusers==0.42.1", "accelerate", "datasets", "denoising-diffusion-pytorch")
# k-diffusion asks for packages of its training script that fail to install here and there; its networks need these.
WITHOUT_DEPENDENCIES = ("k-diffusion",)
NEEDED_BY_THEM = ("einops", "dctorch", "torchdiffeq", "torchsde", "jsonmerge", "torchvision", "scipy", "scikit-image",
                  "kornia", "rotary-embedding-torch", "clean-fid", "clip-anytorch", "wandb")


def python(directory: Path = DIRECTORY) -> Path:
    """Its interpreter, whether it exists or not."""
    return directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def make(directory: Path = DIRECTORY) -> Path:
    """Make the environment unless it is there. → its interpreter

    The torch that is installed first may be a CPU build, if pip is told where to find one (`PIP_EXTRA_INDEX_URL`).
    A package that cannot be installed is named, and its contenders will be left out.
    """
    interpreter = python(directory)
    if interpreter.exists():
        return interpreter
    venv.create(directory, with_pip=True)
    _install(interpreter, TORCH, required=True)
    for package in PACKAGES:
        _install(interpreter, package)
    for package in NEEDED_BY_THEM:
        _install(interpreter, package)
    for package in WITHOUT_DEPENDENCIES:
        _install(interpreter, "--no-deps", package)
    return interpreter


def _install(interpreter: Path, *what: str, required: bool = False) -> None:
    command = [str(interpreter), "-m", "pip", "install", "--quiet", *what]
    if subprocess.run(command, check=required).returncode:
        print(f"could not install {what[-1]}: what needs it is left out", file=sys.stderr)
