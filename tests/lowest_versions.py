"""Install the lowest versions that pyproject.toml allows into a fresh environment, and run a part of the tests there.

    python tests/lowest_versions.py [OPTIONS OF PIP...]

For example `--extra-index-url URL` for an index that has torch without CUDA. A floor that fails here is too low: raise
it, and run this again. What the tests themselves need is installed in its newest version.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
EXTRAS = ("tensorboard", "parquet", "onnx")
# Every library is used by one of these: training, sampling, pictures, captions, models, exports, curves, terminal.
TESTS = ("tests/cli/test_app.py", "tests/cli/test_sample.py", "tests/cli/test_noise_demo.py", "tests/test_api.py",
         "tests/data/test_images.py", "tests/data/test_sources.py", "tests/data/test_text_files.py",
         "tests/network/test_tokenizer.py", "tests/storage", "tests/training/test_trainer.py",
         "tests/reporting/test_loggers.py", "tests/exporting/test_onnx.py")


def floors(extras: tuple[str, ...] = EXTRAS) -> list[str]:
    """The requirements of the program and of these extras, each at exactly its lowest version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [re.sub(">=", "==", line) for line in wanted]


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        venv.create(place, with_pip=True)
        python = str(Path(place) / "bin" / "python")
        install = [python, "-m", "pip", "install", "-q", *sys.argv[1:]]
        subprocess.run([*install, *floors(), *TOOLS, "-e", str(ROOT)], check=True)
        subprocess.run([python, "-m", "pip", "list"], check=True)
        sys.exit(subprocess.run([python, "-m", "pytest", "-n", "1", *TESTS], cwd=ROOT).returncode)


if __name__ == "__main__":
    main()
