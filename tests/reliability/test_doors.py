"""The doors to models, pictures and texts of strangers: mutated by the thousand, replayed, and hostile by hand.

The quick tier makes hundreds of attempts at each door, the slow one thousands; the same tests do both.
"""

import contextlib
import json
import os
import random
import resource
import shutil
import sys
import warnings

import consistent_models
import doors
import hostile_models
import pytest
import text_doors
import tiny
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from diffuse_cli.cli.terminal.plain_text import clean, visible
from diffuse_cli.config import Export
from diffuse_cli.data.decode_workers import decode_all
from diffuse_cli.errors import DataError, ModelError
from diffuse_cli.exporting import diffusers_export
from diffuse_cli.pictures.image_files import encode
from diffuse_cli.reporting import page
from diffuse_cli.sampling import png_metadata
from diffuse_cli.storage import checkpoint, safetensors_file
from diffuse_cli.storage.diffusers_config import INDEX_FILE

MODELS = "A model from a stranger is used or refused in one line, and nothing else happens"
PICTURES = "A picture from a stranger becomes pixels or is skipped, and nothing else happens"
TEXTS = "A text from a stranger is shown without its control characters, and means nothing else"
TIERS = [pytest.param(1, id="quick"), pytest.param(40, id="whole", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return consistent_models.sealed(tmp_path_factory.mktemp("model") / "model.safetensors",
                                    consistent_models.configuration())


# ── Every door, mutated and replayed ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("door", doors.DOORS)
def test_sound_inputs_are_accepted(door):
    assert all(doors.is_safe(door, data) for data in doors.sound(door))


@pytest.mark.parametrize("path", [path for door in doors.DOORS for path in doors.corpus(door)],
                         ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_once_found_stays_mended(path):
    doors.is_safe(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("times", TIERS)
@pytest.mark.parametrize("door", doors.DOORS)
def test_mutations_are_accepted_or_refused(door, times, seed, counted):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for data in doors.mutations(door, 250 * times, random.Random(seed)):
            try:
                doors.is_safe(door, data)
            except BaseException:
                (doors.CORPUS / door).mkdir(parents=True, exist_ok=True)
                (doors.CORPUS / door / f"found-{seed}").write_bytes(data)
                raise
    promise = {"picture": PICTURES, "archive": PICTURES, "rows": PICTURES,
               "captions": TEXTS, "png_text": TEXTS, **dict.fromkeys(text_doors.DOORS, TEXTS)}.get(door, MODELS)
    counted(promise, f"mutations at the door {door.replace('_', ' ')}", 250 * times)


# ── Models ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def refused_or_loaded(load) -> bool:
    """Whether `load` refuses; any error but ModelError is raised."""
    try:
        load()
    except ModelError:
        return True
    return False


@pytest.mark.parametrize("times", TIERS)
def test_mutated_models_are_refused(model, tmp_path, times, seed, counted):
    """The seal notices every change of a file that is not sealed again."""
    rng, sound, path = random.Random(seed), model.read_bytes(), tmp_path / "mutated.safetensors"
    for _ in range(90 * times):
        data = doors.mutated(sound, rng)
        path.write_bytes(data)
        assert refused_or_loaded(lambda: checkpoint.load_model(path, CPU)) == (data != sound)
    for _ in range(10 * times):                         # sealed again: whatever it is, it works or is refused
        path.write_bytes(doors.resealed(doors.mutated(sound[: len(sound) // 2], rng) + sound[len(sound) // 2 :]))
        refused_or_loaded(lambda: checkpoint.load_model(path, CPU))
    counted(MODELS, "mutated models", 100 * times)


@pytest.mark.parametrize("times", TIERS)
def test_mutated_states_are_refused(tmp_path, times, seed, counted):
    shapes, path = {"a": (3, 2), "b": (4,)}, tmp_path / "state.safetensors"
    checkpoint.save_state(path, {name: torch.ones(shape) for name, shape in shapes.items()}, {"step": 3})
    rng, sound = random.Random(seed), path.read_bytes()
    for _ in range(100 * times):
        data = doors.mutated(sound, rng)
        path.write_bytes(data)
        assert refused_or_loaded(lambda: checkpoint.load_state(path, shapes)) == (data != sound)
    counted(MODELS, "mutated training states", 100 * times)


@pytest.mark.parametrize("times", TIERS)
def test_mutated_folders_are_used_or_refused(model, tmp_path, times, seed, counted):
    loaded, folder = checkpoint.load_model(model, CPU), tmp_path / "folder"
    folder.mkdir()
    diffusers_export.write(loaded, folder, Export(format="diffusers"))
    rng, files = random.Random(seed), [path for path in folder.rglob("*") if path.is_file()]
    for number in range(60 * times):
        path = files[number % len(files)]
        sound = path.read_bytes()
        path.write_bytes(doors.mutated(sound, rng))
        refused_or_loaded(lambda: checkpoint.load_model(folder / INDEX_FILE, CPU))
        path.write_bytes(sound)
    assert not refused_or_loaded(lambda: checkpoint.load_model(folder / INDEX_FILE, CPU))
    counted(MODELS, "mutated folders of diffusers", 60 * times)


@pytest.mark.parametrize("step", [pytest.param(97, id="quick"), pytest.param(
    1, id="whole", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_truncation_anywhere_is_refused(tmp_path, step, counted):
    path = consistent_models.sealed(tmp_path / "cut.safetensors", consistent_models.configuration(
        widths=(8,), depths=(1,), attention=("none",), text=None))
    size = path.stat().st_size
    for length in range((size - 1) // step * step, -1, -step):
        os.truncate(path, length)
        with pytest.raises(ModelError):
            safetensors_file.read_header(path)
    counted(MODELS, "truncations of a small model", len(range(0, size, step)))


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
    return consistent_models.sealed(
        tmp_path_factory.mktemp("upscaler") / "upscaler.safetensors",
        consistent_models.configuration(**consistent_models.UPSCALERS["twice"]))


def commands(path, pictures, sound=None):
    """Every command that takes a model, with that at `path`; if it is an upscaler, `sound` is a model that draws."""
    yield "models", "show", path
    yield "models", "verify", path
    if sound is not None:
        yield "upscale", pictures / "000.png", "-m", path
        yield "sample", "a red car", "-m", sound, "--upscaler", path
        yield "distill", path, pictures, "--steps", 1, "--name", "taught", "--device", "cpu"
        yield "evaluate", path, pictures, "-n", 0, "--images", 1
        return
    yield "sample", "a red car", "-m", path, "--seed", 1
    yield "export", path, "--to", "onnx"
    yield "export", path, "--to", "web"
    yield "noise-demo", "-m", path
    yield ("train", pictures, "--init", path, "--steps", 1, "--name", "tuned", "--device", "cpu")
    yield "distill", path, pictures, "--steps", 1, "--name", "taught", "--device", "cpu"
    yield "evaluate", path, pictures, "-n", 0, "--images", 1
    yield "models", "compare", path, "demo", "-n", 1


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux alone")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("enlarges", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["models", "upscalers"])
def test_hostile_models_do_nothing_in_any_command(
        command, model, upscaler, squares, tmp_path, monkeypatch, counted, enlarges):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.safetensors"
    files = hostile_models.hostile((upscaler if enlarges else model).read_bytes())
    assert len(files) >= 60
    shutil.copytree(squares, tmp_path / "pictures")
    before, attempts = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for name, data in files.items():
        path.write_bytes(data)
        refusals = 0
        for arguments in commands(path, tmp_path / "pictures", model if enlarges else None):
            code, out, err = command(*arguments)
            errors = [line for line in err.splitlines() if line.startswith("error: ")]
            if arguments[:2] in (("models", "show"), ("models", "verify")) and code == 0:
                continue                                # which do not build the model, and read no tokenizer
            assert (code, out, len(errors)) == (4, "", 1), f"{name}, {arguments[0]}: {code} {out} {err}"
            assert all(character.isprintable() or character == "\n" for character in err), name
            refusals += 1
            attempts += 1
        assert refusals >= (4 if enlarges else 8)
        assert path.read_bytes() == data
        written = {entry.relative_to(tmp_path).parts[0] for entry in tmp_path.rglob("*") if not entry.is_dir()}
        assert written == {"hostile.safetensors", "pictures"}, name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    counted(MODELS, "hostile models × commands", attempts)


def cost(action) -> tuple[float, float]:
    """(seconds of CPU, MB) of a child that does this; the MB are also those of what it shares with this process."""
    pid = os.fork()
    if pid == 0:
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), \
                    contextlib.redirect_stderr(nowhere):
                action()
        finally:
            os._exit(0)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux alone")
def test_a_hostile_model_costs_less_than_a_second_and_200_mb(command, model, squares, tmp_path, monkeypatch, counted):
    """Beyond what the idle program takes, whose libraries were imported before."""
    from diffuse_cli.cli import app

    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.safetensors"
    files = hostile_models.hostile(model.read_bytes())
    path.write_bytes(model.read_bytes())
    for arguments in commands(path, squares):
        command(*arguments)                             # imports what it needs
    (_, idle), attempts = cost(lambda: None), 0
    for name, data in files.items():
        path.write_bytes(data)
        for arguments in commands(path, squares):
            attempts += 1
            seconds, memory = cost(lambda arguments=arguments: app._run([*map(str, arguments)]))
            assert seconds < 1, f"{name}, {arguments[0]}: {seconds} s"
            assert memory - idle < 200, f"{name}, {arguments[0]}: {memory - idle} MB"
    counted(MODELS, "hostile models × commands, each below 1 s and 200 MB", attempts)


# ── Pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("times", TIERS)
def test_mutated_pictures_are_decoded_or_skipped_by_the_workers(tmp_path, times, seed, counted, capfd):
    """In the processes that decode for training: nothing reaches stderr, and sound pictures among them are not lost."""
    rng, paths, count = random.Random(seed), [], 50 * times
    sound = doors.sound("picture")
    for number, data in enumerate(doors.mutations("picture", count, rng)):
        paths += [tmp_path / f"{number}-mutated", tmp_path / f"{number}-sound"]
        paths[-2].write_bytes(data or b"x")
        paths[-1].write_bytes(sound[number % len(sound)])
    capfd.readouterr()                          # making the pictures may print
    results = list(decode_all(paths, resolution=8))
    assert len(results) == len(paths)
    for result in results:
        assert bool(result.reason) != (len(result.pixels) == 8 * 8 * 3)
    assert not [result.reason for result in results[1::2] if result.reason]
    assert capfd.readouterr() == ("", "")
    counted(PICTURES, "mutated pictures in the decoding processes", count)


@pytest.mark.parametrize("option", ["noise-demo", "--init", "--mask", "--from"])
def test_pictures_are_silent_on_stderr(model, tmp_path, capfd, option):
    """Pillow warns and libtiff prints for these; with -q and --json, stderr holds nothing, or one error."""
    from diffuse_cli.cli import app
    from diffuse_cli.cli.terminal import view

    picture = tiny.draw_squares(tmp_path / "pictures", 1) / "000.png"
    odd = {"a.tif": doors._encoded(Image.open(picture), "TIFF", compression="tiff_lzw")[:-40] + bytes(40),
           "b.gif": doors._encoded(Image.open(picture), "GIF")[:-9], "c.png": picture.read_bytes()[:-30]}
    line = {"noise-demo": ("noise-demo", "{}"), "--init": ("sample", "-m", model, "--init", "{}", "--steps", 1),
            "--mask": ("sample", "-m", model, "--init", picture, "--mask", "{}", "--steps", 1),
            "--from": ("sample", "--from", "{}")}[option]
    for name, data in odd.items():
        (tmp_path / name).write_bytes(data)
        place = [*line, "-o", tmp_path / f"{name}.png"]
        for quiet in ("-q", "--json"):
            view.start()
            code = app._run([str(tmp_path / name if part == "{}" else part) for part in place] + [quiet])
            lines = [text for text in capfd.readouterr().err.splitlines()
                     if text and not text.startswith(("model ", "error: "))]
            assert code in (0, 2, 3)
            assert lines == []
            (tmp_path / f"{name}.png").unlink(missing_ok=True)
    view.start()


# ── Texts ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ANYTHING = st.text(st.characters(), max_size=60) | st.binary(max_size=40).map(os.fsdecode) | st.sampled_from((
    "\x1b[2J", "\x1b]0;evil\x07", "[bold red]x[/]", "[link=file:///etc/passwd]x[/link]", "\u202egnp.exe",
    "\u200b", "<script>alert(1)</script>", "\" onload=alert(1) x=\"", "&lt;b&gt;", "${jndi:x}", "a\r\nb", "\x9b31m",
    "</svg>"))
QUICK, WHOLE = 100, 2000


def examples(function):
    """The test with few examples, or as many as the whole run has."""
    count = WHOLE if os.environ.get("DIFFUSE_RELIABILITY_PAGE") else QUICK
    function = pytest.mark.timeout(3600)(function)
    return settings(max_examples=count, deadline=None, derandomize=False, database=None, suppress_health_check=[
        HealthCheck.function_scoped_fixture, HealthCheck.too_slow])(function)


def is_harmless(text: str) -> bool:
    """No byte that a terminal obeys, and no character that hides or reorders others."""
    return all(character == "\n" or visible(character) == character for character in text)


@examples
@given(text=ANYTHING)
def test_texts_are_shown_without_control_characters(command, text):
    """Names and prompts in errors and messages; `[bold]` stays as it is typed."""
    from diffuse_cli.cli.terminal import view

    assert is_harmless(clean(text))
    assert len(clean(text)) <= 200
    for arguments in (("sample", "-m", f"./{text}".replace("\0", "")), ("models", "show", text or "x"),
                      ("train", "--preset", text)):
        code, out, err = command(*arguments)
        assert code in (2, 3, 4), err
        assert out == ""
        assert is_harmless(err)
        assert err.count("error: ") >= 1
    view.start()
    view.warn(text)


@examples
@given(text=ANYTHING)
def test_prompts_are_kept_exactly_in_a_picture_and_shown_harmlessly(tmp_path, text):
    import numpy as np

    typed = text[:4096]
    metadata = png_metadata.SampleMetadata(**{
        **doors.SETTINGS, "prompt": typed, "guidance_interval": (0.2, 6.0), "size": (8, 8)})
    (tmp_path / "made.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8), texts=png_metadata.png_texts(metadata)))
    assert png_metadata.read_settings(tmp_path / "made.png") == metadata


@examples
@given(text=ANYTHING)
def test_captions_are_read_as_they_are_written(tmp_path, text):
    from diffuse_cli.data import tables
    from diffuse_cli.data.containers import File

    path = tmp_path / "metadata.jsonl"
    path.write_text(json.dumps({"file_name": "a.png", "text": text}) + "\n")
    (row,) = tables.read_rows(File("metadata.jsonl", path), is_picture=lambda value: False, notes=[])
    assert row[1] == {"file_name": "a.png", "text": text}


@examples
@given(text=ANYTHING)
def test_html_is_inert(text):
    shown = page.text(text)
    assert "<" not in shown
    assert '"' not in shown
    assert is_harmless(shown)


@examples
@given(entries=st.dictionaries(st.sampled_from([*doors.SETTINGS, "strength", "init_sha256"]), st.none() | st.integers()
                               | st.floats() | ANYTHING | st.lists(st.integers(), max_size=3), max_size=4))
def test_settings_of_a_picture_are_used_or_refused(tmp_path, entries):
    from PIL import PngImagePlugin

    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("diffuse", json.dumps({**doors.SETTINGS, **entries}))
    Image.new("RGB", (2, 2)).save(tmp_path / "made.png", pnginfo=chunks)
    with contextlib.suppress(DataError):
        found = png_metadata.read_settings(tmp_path / "made.png")
        assert all(getattr(found, name) == (tuple(value) if isinstance(value, list) else value)
                   for name, value in entries.items())


def test_the_texts_were_tried(counted):
    """The counts of the tests above, which hypothesis calls."""
    count = WHOLE if os.environ.get("DIFFUSE_RELIABILITY_PAGE") else QUICK
    for method in ("names and options in messages", "prompts in the metadata of a picture", "captions in a table",
                   "texts in the page of a run", "settings in a picture"):
        counted(TEXTS, method, count)
