"""Install the lowest versions that pyproject.toml allows into fresh environments, and run a part of the tests there.

    python tests/lowest_versions.py [OPTIONS OF PIP...]

For example `--extra-index-url URL` for an index that has torch without CUDA. A floor that fails here is too low: raise
it, and run this again. What the tests themselves need is installed in its newest version.
"""

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
# Every library is used by one of these: training, sampling, pictures, captions, models, curves, terminal.
TESTS = ("tests/cli/test_app.py", "tests/cli/test_sample.py", "tests/cli/test_noise_demo.py", "tests/test_api.py",
         "tests/data/test_images.py", "tests/data/test_sources.py", "tests/data/test_text_files.py", "tests/storage",
         "tests/training/test_trainer.py", "tests/reporting/test_loggers.py",
         # Old versions of torch import sympy for sampling, which costs time and nothing else.
         "--deselect", "tests/test_api.py::test_sampling_does_not_import_the_compiler")
ROUNDS = ((("tensorboard", "parquet"), TESTS), (("onnx",), ("tests/exporting/test_onnx.py",)))


def floors(extras: tuple[str, ...]) -> list[str]:
    """The requirements of the program and of these extras, each at exactly the lowest version that meets them all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest: dict[str, str] = {}
    for line in [*project["dependencies"], *(line for one in extras for line in project["optional-dependencies"][one])]:
        name, version = line.split(">=")
        lowest[name] = max(version, lowest.get(name, "0"), key=lambda text: [int(part) for part in text.split(".")])
    return [f"{name}=={version}" for name, version in lowest.items()]


def main() -> None:
    codes = []
    for extras, tests in ROUNDS:
        with tempfile.TemporaryDirectory() as place:
            venv.create(place, with_pip=True)
            python = str(Path(place) / "bin" / "python")
            install = [python, "-m", "pip", "install", "-q", *sys.argv[1:]]
            subprocess.run([*install, *floors(extras), *TOOLS, "-e", str(ROOT)], check=True)
            subprocess.run([python, "-m", "pip", "list"], check=True)
            codes.append(subprocess.run([python, "-m", "pytest", "-n", "1", *tests], cwd=ROOT).returncode)
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
