"""The peers' own environment, in benchmarks/.peers, made with pip: neither side's packages decide on the other's.

diffusers, denoising-diffusion-pytorch and k-diffusion are on PyPI. improved-diffusion, guided-diffusion, edm and edm2
are not, and are left out.
"""

import subprocess
import sys
import venv
from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / ".peers"
TORCH = "torch==2.13.0"                         # with every package, lest one of them brings another
# The oldest first: k-diffusion asks for numpy 1, which it can do without, and needs what setuptools has lost since;
# datasets asks for numpy 2.
PACKAGES = ("k-diffusion", "setuptools<81", "denoising-diffusion-pytorch", "accelerate", "datasets",
            "diffusers==0.42.1")


def python(directory: Path = DIRECTORY) -> Path:
    """Its interpreter, whether it exists or not."""
    return directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def make(directory: Path = DIRECTORY) -> Path:
    """Make the environment unless it is there. → its interpreter

    Pip chooses the build of torch; without a GPU, a CPU build saves gigabytes if pip is told where there is one
    (`PIP_EXTRA_INDEX_URL`). A package that cannot be installed is named, and what needs it will be left out.
    """
    interpreter = python(directory)
    if interpreter.exists():
        return interpreter
    venv.create(directory, with_pip=True)
    _install(interpreter, required=True)
    for package in PACKAGES:
        _install(interpreter, package)
    return interpreter


def _install(interpreter: Path, *packages: str, required: bool = False) -> None:
    command = [str(interpreter), "-m", "pip", "install", "--quiet", TORCH, *packages]
    if subprocess.run(command, check=required).returncode:
        print(f"could not install {' '.join(packages)}: what needs it is left out", file=sys.stderr)
