"""Files that a folder of downloaded pictures may hold are never run, whatever Python would import under their names.

The commands run in the folder of the pictures, where a module lies for every name of the standard library and of every
installed package. Each writes its name into a file when it is imported.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from real import environment

from diffuse_cli import python_process

DIFFUSE = str(Path(sys.executable).with_name("diffuse"))
PLANT = "import os\nwith open(os.environ['WITNESS'], 'a') as witness: witness.write(__name__ + '\\n')\n"
# What Python itself imports for `-m` before the program begins. docs/cli.md says to add -P.
OF_PYTHON = {*sys.builtin_module_names, "collections", "contextlib", "functools", "importlib", "keyword", "operator",
             "reprlib", "runpy", "types", "warnings", "diffuse_cli", "encodings", "_collections_abc", "abc", "codecs",
             "io", "os", "posixpath", "genericpath", "site", "stat", "_sitebuiltins", "zipimport", "_distutils_hack"}
# How the program is started → command, environment, and names that nobody can keep Python from importing.
STARTS = {
    "diffuse": ([DIFFUSE], {}, set()),
    "python -P -m": ([sys.executable, "-P", "-m", "diffuse_cli"], {}, set()),
    "python -m": ([sys.executable, "-m", "diffuse_cli"], {}, OF_PYTHON),
    # The script that pip makes for `diffuse` imports `re` before the program begins.
    "PYTHONPATH=:": ([DIFFUSE], {"PYTHONPATH": ":/nowhere"},
                     OF_PYTHON | {"sitecustomize", "usercustomize", "re", "enum", "copyreg"}),
    "torchrun": ([str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2",
                  "--no-python", DIFFUSE], {}, set()),
    "torchrun -m": ([str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2",
                     "-m", "diffuse_cli"], {}, OF_PYTHON),
}
TRAIN = "train . --name again --resolution 8 --preset nano --steps 2 --batch-size 4 --device cpu -q"
SAMPLE = "sample red -m tiny --steps 2 -o {out} -q"
QUICK = [("diffuse", f"{SAMPLE} --procs 2 --grid"),
         ("python -m", "data preview . --resolution 16 -o {out}/sheet.png -q")]
SLOW = [*((start, f"{TRAIN} --procs 2") for start in STARTS if "torchrun" not in start),
        *((start, words) for start in STARTS if "torchrun" in start for words in (TRAIN, SAMPLE)),
        ("diffuse", f"{TRAIN} --log tensorboard"),
        *(("python -m", words) for words in (
            "noise-demo 000.png --num 2 -m tiny -o {out}/strip.png -q", "noise-demo --plot -o {out}/plot.png -q",
            "evaluate tiny . -n 4 -q", "export tiny --to diffusers -o {out}/folder -q",
            "export tiny --to onnx -o {out}/onnx -q", "export tiny --to safetensors -o {out}/slim.safetensors -q",
            "models show tiny --html -o {out}/report.html -q", "models ls", "models verify tiny", "data check .",
            "data demo {out}/scenes -n 2 --resolution 16", "data clear"))]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tiny.draw_squares(tmp_path_factory.mktemp("planted") / "pictures")


def plant(folder, spared):
    """A module for every name but these, and a configuration that matplotlib would obey."""
    names = sys.stdlib_module_names | importlib.metadata.packages_distributions().keys()
    for name in filter(str.isidentifier, (names | {"sitecustomize", "usercustomize"}) - spared):
        if name in ("numpy", "PIL", "diffuse_cli"):
            (folder / name).mkdir()
            (folder / name / "__init__.py").write_text(PLANT)
        else:
            (folder / f"{name}.py").write_text(PLANT)
    (folder / "matplotlibrc").write_text("figure.figsize: 1000000, 1000000\n")


@pytest.mark.parametrize(("start", "words"), [
    *QUICK, *(pytest.param(*case, marks=[pytest.mark.slow, pytest.mark.timeout(600)]) for case in SLOW)])
def test_nothing_in_the_folder_of_pictures_is_run(start, words, pictures, trained, home, tmp_path, counted):
    shutil.copytree(trained[0], tiny.run_directory(home))
    shutil.copytree(trained[0].parent.parent / "images", home / "images")
    folder, witness = tmp_path / "pictures", tmp_path / "witness"
    shutil.copytree(pictures, folder)
    program, more, spared = STARTS[start]
    plant(folder, spared)
    plain = {name: value for name, value in environment(home).items() if not name.startswith("PYTHON")}
    done = subprocess.run([*program, *words.format(out=tmp_path).split()], cwd=folder, capture_output=True, text=True,
                          timeout=300, env={**plain, **more, "WITNESS": str(witness)})
    assert not witness.exists(), witness.read_text()
    assert done.returncode == 0, done.stderr
    counted("Nothing that lies in the current directory is run",
            f"a module for every importable name, started by `{start}`", 1)


def test_a_planted_module_would_be_noticed(tmp_path):
    plant(tmp_path, OF_PYTHON)
    witness = tmp_path / "witness"
    subprocess.run([sys.executable, "-c", "import typer"], cwd=tmp_path, capture_output=True,
                   env={**os.environ, "WITNESS": str(witness)})
    assert "typer" in witness.read_text()


def test_libraries_that_obey_the_current_directory_are_used_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with python_process.elsewhere():
        assert Path.cwd() == Path(python_process.__file__).parents[1]
    assert Path.cwd() == tmp_path
    (tmp_path / "deleted").mkdir()
    monkeypatch.chdir(tmp_path / "deleted")
    (tmp_path / "deleted").rmdir()
    with python_process.elsewhere(tmp_path), pytest.raises(FileNotFoundError):
        Path.cwd()                                      # nothing lies in it, and nobody could come back
