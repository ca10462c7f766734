"""The environment of the peers, the libraries that diffuse-cli is compared with, made with pip in benchmarks/.peers.

It is separate so that the packages of one side do not decide on the versions of the other's. diffusers,
denoising-diffusion-pytorch and k-diffusion are on PyPI. improved-diffusion, guided-diffusion, edm and edm2 are not, and
are left out.
"""

import subprocess
import sys
import venv
from pathlib import Path

DIRECTORY = Path(__file__).parents[1] / ".peers"
TORCH = "torch==2.13.0"                         # named with every package, so that none of them brings another
# In the order of installation, the oldest first: k-diffusion asks for numpy 1 but works without it, and needs a part
# of setuptools that newer versions lack; datasets, installed after it, asks for numpy 2.
PACKAGES = ("k-diffusion", "setuptools<81", "denoising-diffusion-pytorch", "accelerate", "datasets",
            "diffusers==0.42.1")


def python(directory: Path = DIRECTORY) -> Path:
    """The path of the environment's Python, whether it exists or not."""
    return directory / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def make(directory: Path = DIRECTORY) -> Path:
    """Make the environment unless it exists. → its Python

    Pip chooses the build of torch. On a machine without a GPU, a CPU build saves gigabytes: PIP_EXTRA_INDEX_URL tells
    pip where there is one. A package that cannot be installed is named on stderr, and its contenders will be left out.
    Raises CalledProcessError if torch cannot be installed.
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
        print(f"could not install {' '.join(packages)}; contenders that need it are left out", file=sys.stderr)
