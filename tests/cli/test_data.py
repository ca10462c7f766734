"""`diffuse data` as a user sees it: what is on stdout, what on stderr, and the exit code."""

import contextlib
import io
import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from diffuse_cli import config
from diffuse_cli.cli import data
from diffuse_cli.cli.terminal import view
from diffuse_cli.data import dataset, decode_workers
from diffuse_cli.errors import DataError, UsageError
from diffuse_cli.pictures import sheets
from diffuse_cli.storage import home_directory
from diffuse_cli.training.run import open_run


@pytest.fixture
def diffuse(monkeypatch):
    """Run `diffuse data …` in this process; errors that users see come out as what they are."""
    def run(*arguments):
        view.start()
        result = CliRunner().invoke(data.app, list(map(str, arguments)))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result
    yield run
    view.start()


@pytest.fixture
def folder(tmp_path):
    """Nine red pictures, wider than high, with captions."""
    root = tmp_path / "pictures"
    root.mkdir()
    for index in range(9):
        Image.new("RGB", (40, 32), (200 + index, 0, 0)).save(root / f"{index}.png")
        (root / f"{index}.txt").write_text(f"a red thing, number {index}")
    return root


# ── check ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_of_a_good_folder(diffuse, folder):
    result = diffuse("check", folder)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "9 pictures in" in result.stderr
    assert "captions: sidecar .txt (9 of 9 files)" in result.stderr
    for index in (0, 4, 8):
        assert f"a red thing, number {index}" in result.stderr
    assert "no problems" in result.stderr


def test_check_counts_captions_that_no_model_reads_to_their_end(diffuse, folder):
    (folder / "3.txt").write_text(" ".join(f"word{number}" for number in range(80)))
    result = diffuse("check", folder)
    assert result.exit_code == 0
    assert "1 caption is longer than the 77 tokens that a model reads" in " ".join(result.stderr.split())
    assert "no problems" not in result.stderr


def test_check_names_what_is_wrong_and_ends_with_3(diffuse, folder):
    (folder / "\x1b[31m[bold].png").write_text("text")
    (folder / "b.svg").touch()
    (folder / "gone.txt").write_text("no picture")
    result = diffuse("check", folder)
    assert result.exit_code == 3
    assert result.stdout.splitlines() == ["b.svg: drawing", "\\x1b[31m[bold].png: text",
                                          "gone.txt: caption without a picture"]
    assert "skipped 2 of 11 (drawing 1, text 1)" in result.stderr
    assert "problems with the data" not in result.stderr           # they are all there
    assert "\x1b" not in result.output


def test_check_says_what_helps_once_for_each_reason(diffuse, folder):
    for index in range(3):
        (folder / f"{index}.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (folder / "a.heic").write_bytes(b"")
    result = diffuse("check", folder)
    assert result.exit_code == 3
    assert result.stderr.count("git lfs pull") == 1
    assert "  HEIC: pip install pillow-heif\n" in result.stderr
    assert result.stdout.splitlines() == ["a.heic: HEIC", *(f"{index}.png: Git LFS pointer" for index in range(3))]


def test_check_counts_what_other_programs_left(diffuse, folder):
    (folder / "._0.png").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    result = diffuse("check", folder)
    assert result.exit_code == 0
    assert "skipped 2 files of other programs: " in result.stderr


def test_check_and_preview_take_the_background_and_the_white_level(diffuse, folder, tmp_path):
    image = Image.new("RGBA", (40, 40))
    image.paste("white", (10, 10, 30, 30))
    image.save(folder / "0.png")
    Image.fromarray(np.linspace(0, 1023, 1600).reshape(40, 40).astype(np.uint16)).save(folder / "1.png")
    result = diffuse("check", folder)
    assert "choose another --background" in result.stderr
    assert "with --white-level 1023, that value is white" in result.stderr
    assert "--" not in diffuse("check", folder, "--background", "black", "--white-level", 1023).stderr
    diffuse("preview", folder, "--background", "#00ff00", "-o", tmp_path / "sheet.png", "--resolution", 40)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert (sheet == (0, 255, 0)).all(-1).sum() > 3 * 20 * 20
    for wrong in (("--background", "blakc"), ("--white-level", 0), ("--white-level", "nan")):
        with pytest.raises(UsageError, match=wrong[0]):
            diffuse("check", folder, *wrong)


def test_check_and_preview_name_the_fit_and_show_it(diffuse, folder, tmp_path):
    result = diffuse("check", folder)
    assert "fit: pad — 9 of 9 pictures that are not square stand on a plain or transparent ground" in result.stderr
    (line,) = map(json.loads, diffuse("check", folder, "--json").stdout.splitlines())
    assert (line["fit"], line["fit_reason"][:6]) == ("pad", "9 of 9")
    assert "fit: crop — as asked" in diffuse("check", folder, "--fit", "crop").stderr

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 96, 3), dtype=np.uint8)).save(folder / "0.png")
    said = {}
    for fit in ("pad", "crop", "stretch"):
        result = diffuse("preview", folder, "--fit", fit, "--background", "#00ff00", "--resolution", 32,
                         "-o", tmp_path / f"{fit}.png")
        assert f"fit: {fit} — as asked" in result.stderr
        said[fit] = (np.asarray(Image.open(tmp_path / f"{fit}.png")) == (0, 255, 0)).all(-1).sum()
    assert said["crop"] == said["stretch"] == 0
    assert said["pad"] > 32 * 16                           # the bars of the one picture without a plain ground
    with pytest.raises(UsageError, match="--fit does not know 'padd'"):
        diffuse("check", folder, "--fit", "padd")


def test_long_pictures_are_warned_of_as_the_fit_treats_them(diffuse, folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 96, 3), dtype=np.uint8)).save(folder / "0.png")
    for fit, said in (("crop", "of which only the centre square is kept"), ("pad", "narrow between bars"),
                      ("stretch", "squeezed")):
        assert f"1 picture longer than 3:1, {said}, for example 0.png" in " ".join(
            diffuse("check", folder, "--fit", fit).stderr.split())


def test_check_of_nothing_but_rubbish_still_reports(diffuse, folder):
    for path in folder.glob("*.png"):
        path.write_text("text")
    result = diffuse("check", folder)
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 9
    assert "skipped 9 of 9" in result.stderr


def test_check_as_json(diffuse, folder):
    (folder / "bad.png").write_text("text")
    result = diffuse("check", folder, "--json")
    (line,) = result.stdout.splitlines()
    report = json.loads(line)
    assert result.exit_code == 3
    assert len(report.pop("id")) == 64
    assert report == {
        "schema": 1, "folder": str(folder), "images": 9, "captioned": 9, "source": "sidecar", "notes": [],
        "warnings": [], "fit": "pad", "fit_reason": mock.ANY, "shapes": None, "colours": "RGB",
        "colours_reason": "pictures have colours",
        "captions": "sidecar .txt (9 of 10 files; 1 has none → empty)",
        "examples": [f"a red thing, number {index}" for index in (0, 4, 8)],
        "problems": [{"name": "bad.png", "reason": "text"}],
    }


def test_quiet_check_prints_only_problems(diffuse, folder):
    (folder / "bad.png").write_text("text")
    result = diffuse("check", folder, "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "bad.png: text\n", "")


def test_check_warns_of_few_pictures_but_does_not_fail(diffuse, folder):
    for index in range(1, 9):
        (folder / f"{index}.png").unlink()
        (folder / f"{index}.txt").unlink()
    result = diffuse("check", folder)
    assert result.exit_code == 0
    assert "warning: 1 picture: the model will memorise it" in result.stderr


@pytest.mark.parametrize("captions", ["metadata", "nonsense"])
def test_captions_are_those_of_training(diffuse, folder, captions):
    with pytest.raises(DataError if captions == "metadata" else UsageError, match="--captions"):
        diffuse("check", folder, "--captions", captions)
    assert "captions: none" in diffuse("check", folder, "--captions", "none").stderr


@pytest.mark.parametrize("command", ["check", "preview", "demo"])
def test_an_empty_name_is_not_the_current_directory(diffuse, folder, tmp_path, monkeypatch, command):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty" if command == "demo" else folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="no folder of pictures was given"):
        diffuse(command, "")
    assert sorted(tmp_path.rglob("*")) == before
    if command != "preview":                                        # because a preview is never written into the folder
        assert diffuse(command, ".", *(("-n", 1) if command == "demo" else ())).exit_code == 0


# ── preview ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_preview_shows_the_crop_enlarged_and_prints_its_path(diffuse, folder, tmp_path):
    split = np.zeros((32, 64, 3), np.uint8)
    split[:, 16:48] = (0, 0, 255)               # the centre square is blue, the rest black
    for path in folder.glob("*.png"):
        Image.fromarray(split).save(path)
    target = tmp_path / "new" / "sheet.png"
    result = diffuse("preview", folder, "-o", target, "--resolution", 32, "--fit", "crop")
    assert (result.exit_code, result.stdout) == (0, f"{target}\n")
    picture = np.asarray(Image.open(target))
    blue = (picture == (0, 0, 255)).all(-1)
    assert blue.sum() == 9 * 128 * 128          # nine squares, four times as large, and nothing of the rest
    assert not (picture[:128] == 0).all(-1).any()


def test_preview_says_what_check_says_of_the_captions(diffuse, folder, tmp_path):
    (folder / "labels.csv").write_text("file,width\n0.png,7\n", encoding="utf-8")
    lines = [{line for line in diffuse(*command).stderr.splitlines() if line.startswith(("note", "warning"))}
             for command in (("check", folder), ("preview", folder, "-o", tmp_path / "sheet.png"))]
    assert lines[0] == lines[1] != set()


def test_preview_takes_a_free_name_and_never_replaces_a_file(diffuse, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [diffuse("preview", folder).stdout for _ in range(3)]
    assert names == ["preview.png\n", "preview-2.png\n", "preview-3.png\n"]
    before = (tmp_path / "preview.png").stat()
    with pytest.raises(UsageError, match="exists already"):
        diffuse("preview", folder, "-o", "preview.png")
    assert (tmp_path / "preview.png").stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(UsageError, match=r"\.png"):
        diffuse("preview", folder, "-o", "sheet.jpg")


def test_preview_is_never_written_among_the_pictures(diffuse, folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    for arguments in ((".",), (folder, "-o", folder / "deep" / "sheet.png")):
        with pytest.raises(UsageError, match="among the pictures"):
            diffuse("preview", *arguments)
    assert sorted(folder.iterdir()) == before


def test_preview_of_nothing_that_can_be_shown(diffuse, folder, tmp_path):
    for path in folder.glob("*.png"):
        path.write_text("text")
    with pytest.raises(DataError, match="skipped 9 of 9"):
        diffuse("preview", folder, "-o", tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("resolution", ["7", "100000", "-1"])
def test_preview_refuses_impossible_resolutions(diffuse, folder, tmp_path, resolution):
    with pytest.raises(UsageError, match="--resolution must be between"):
        diffuse("preview", folder, "-o", tmp_path / "a.png", "--resolution", resolution)


def test_captions_are_drawn_and_their_absence_as_well():
    def ink(captions):
        picture = Image.open(io.BytesIO(sheets.captioned_sheet(np.full((1, 64, 64, 3), 255, np.uint8), [captions])))
        return (np.asarray(picture) < 255).any(-1).sum()
    assert ink(("a",)) < ink(("a red car",)) < ink(("a red car", "another"))
    assert ink(()) > 0
    assert ink(("日本語 ‮ \u200b",)) > 0


@pytest.mark.parametrize(("text", "lines"), [
    ("", []), ("short", ["short"]), ("one two three", ["one two", "three"]),
    ("unbreakably", ["unbreaka", "bly"]), ("a b c d e f g h i j k l m n", ["a b c d", "e f g h", "i j k l…"]),
])
def test_text_is_wrapped_and_cut(text, lines):
    assert sheets.wrap(text, lambda line: len(line) <= 8) == lines


# ── demo, clear, help ───────────────────────────────────────────────────────────────────────────────────────────────


def test_demo_makes_a_folder_that_check_accepts(diffuse, tmp_path):
    folder = tmp_path / "scenes"
    result = diffuse("demo", folder, "-n", 12, "--resolution", 32, "--seed", 3)
    assert (result.exit_code, result.stdout) == (0, f"{folder}\n")
    assert f"diffuse train {folder}" in result.stderr
    report = json.loads(diffuse("check", folder, "--json").stdout)
    assert (report["images"], report["captioned"], report["source"], report["problems"]) == (12, 12, "metadata", [])
    assert report["warnings"] == []
    with pytest.raises(UsageError):
        diffuse("demo", folder, "-n", 12)


def test_demo_that_is_interrupted_can_be_asked_for_again(diffuse, tmp_path, monkeypatch):
    folder = tmp_path / "scenes"

    def interrupted(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(data.progress, "of", lambda *_: contextlib.nullcontext(interrupted))
        assert diffuse("demo", folder, "-n", 3, "--resolution", 16).exit_code == 130
    assert not folder.exists()
    assert diffuse("demo", folder, "-n", 3, "--resolution", 16).exit_code == 0


def test_check_sees_the_pictures_as_large_as_training_would(diffuse, tmp_path):
    """So that it warns of what training would warn of, and what it has decoded is found again."""
    folder = tmp_path / "scenes"
    diffuse("demo", folder, "-n", 30, "--resolution", 16)
    assert json.loads(diffuse("check", folder, "--json").stdout)["warnings"] == []           # enlarged, at 64 pixels
    with open_run(folder, config.Recipe(), config.Machine(), rehearsal=True) as run, \
            mock.patch.object(decode_workers, "decode_all", side_effect=AssertionError):
        assert run.resolution == (16, 16)
        list(dataset.open_dataset(run.found, resolution=16, directory=home_directory.cache_directory()))


def test_clear_empties_the_cache_and_not_the_folder(diffuse, folder):
    diffuse("preview", folder, "-o", folder.parent / "sheet.png")
    assert any(home_directory.cache_directory().iterdir())
    before = sorted(folder.iterdir())
    assert "freed 0.1 MB" in diffuse("clear").stderr                # 9 · 64 · 64 · 3 bytes and a little
    assert not any(home_directory.cache_directory().iterdir())
    assert json.loads(diffuse("clear", "--json").stdout) == {"schema": 1, "freed": 0}
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("command", [[], ["check"], ["preview"], ["demo"], ["clear"]])
def test_help_comes_without_the_heavy_modules(command):
    code = ("import sys; from diffuse_cli.cli import data\n"
            f"try: data.app({[*command, '--help']!r})\n"
            "except SystemExit as leave: assert leave.code == 0\n"
            "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout
