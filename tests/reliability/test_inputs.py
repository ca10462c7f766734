"""Every path that a user can name may be a pipe, a device, a folder or too large: refused in one line, without waiting.

A strange file beside a model must not hold a command up either: its folder may have been downloaded.
"""

import os
import shutil

import pytest
import tiny
from consistent_models import configuration, sealed

TOO_LARGE = 2**43                               # more than any limit; a sparse file takes no room

# option → the command line with the path at {}, and the exit code of a refusal
PATHS = {
    "train --config": (("train", "--config", "{}"), 2),
    "train --config as TOML": (("train", "--config", "{}.toml"), 2),
    "train --captions": (("train", "PICTURES", "--captions", "{}.csv", "--dry-run"), 3),
    "train DIR as a table": (("train", "{}.jsonl", "--dry-run"), 3),
    "train DIR as a list": (("train", "{}.txt", "--dry-run"), 3),
    "train DIR as a zip": (("train", "{}.zip", "--dry-run"), 3),
    "train DIR as a tar": (("train", "{}.tar", "--dry-run"), 3),
    "train DIR as parquet": (("train", "{}.parquet", "--dry-run"), 3),
    "train --init": (("train", "PICTURES", "--init", "{}.safetensors", "--dry-run"), 4),
    "sample -m": (("sample", "-m", "{}.safetensors"), 4),
    "sample --prompts": (("sample", "-m", "MODEL", "--prompts", "{}"), 3),
    "sample --from": (("sample", "--from", "{}"), 3),
    "sample --init": (("sample", "-m", "MODEL", "--init", "{}"), 3),
    "sample --mask": (("sample", "-m", "MODEL", "--init", "PICTURE", "--mask", "{}"), 3),
    "evaluate --features": (("evaluate", "MODEL", "PICTURES", "--features", "{}"), 4),
    "evaluate DIR": (("evaluate", "MODEL", "{}.jsonl"), 3),
    "export": (("export", "{}.safetensors", "--to", "safetensors"), 4),
    "noise-demo": (("noise-demo", "{}"), 3),
    "noise-demo -m": (("noise-demo", "-m", "{}.safetensors"), 4),
    "models show": (("models", "show", "{}.safetensors"), 4),
    "models verify": (("models", "verify", "{}.safetensors"), 4),
    "data check": (("data", "check", "{}.jsonl"), 3),
}


def make_pipe(path):
    os.mkfifo(path)


def make_device(path):
    path.symlink_to("/dev/zero")


def make_large(path):
    with path.open("wb") as file:
        file.truncate(TOO_LARGE)


def make_folder(path):
    path.mkdir()


KINDS = {"a pipe": make_pipe, "a device": make_device, "too large": make_large, "a folder": make_folder}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return sealed(tmp_path_factory.mktemp("models") / "model.safetensors", configuration())


@pytest.mark.parametrize("option", PATHS)
def test_a_path_that_is_no_file_is_refused_in_one_line(command, tmp_path, monkeypatch, counted, model, squares, option):
    monkeypatch.chdir(tmp_path)
    arguments, expected = PATHS[option]
    names = {"MODEL": model, "PICTURES": squares, "PICTURE": squares / "000.png"}
    for number, (kind, make) in enumerate(KINDS.items()):
        place = tmp_path / str(number) / "given"
        place.parent.mkdir()
        line = [str(names.get(part, part)).replace("{}", str(place)) for part in arguments]
        given = next(part for part in line if part.startswith(str(place)))
        make(type(place)(given))
        code, out, err = command(*line)
        assert (code, out) == (expected, ""), f"{kind}: {code} {err}"
        assert len([text for text in err.splitlines() if text.startswith("error: ")]) == 1, err
    counted("A path that is no file of a sensible size is refused, without waiting", "options × kinds of paths",
            len(KINDS))


@pytest.mark.parametrize("name", ["config.json", "events.jsonl", "evaluation.json", "closest.png", "previews"])
def test_a_pipe_beside_a_model_holds_nothing_up(command, tmp_path, model, squares, name):
    copy = shutil.copy(model, tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / name)
    for arguments in (("models", "show", copy), ("models", "show", copy, "--html", "-o", tmp_path / "page.html"),
                      ("evaluate", copy, squares, "-n", 0, "--images", 1),
                      ("export", copy, "--to", "safetensors", "--no-verify", "-o", tmp_path / "slim.safetensors")):
        with tiny.scaled_down():
            assert command(*arguments)[0] in (0, 4, 6)


def test_pipes_in_the_cache_hold_nothing_up(trained, squares, home):
    shutil.copytree(trained[0].parent.parent, home, dirs_exist_ok=True)
    found = [path for pattern in ("images/*/index.jsonl", "images/seen-*.jsonl", "models/tiny/HEAD-?", "last",
                                  "models/tiny/step-00000008.safetensors") for path in home.glob(pattern)]
    assert len(found) >= 5
    for path in found:
        path.unlink()
        os.mkfifo(path)
    assert tiny.train(squares)[-1].complete
