"""Names become files below the root, and no name, link or environment variable leads elsewhere."""

import multiprocessing
import os
from pathlib import Path

import pytest

from diffuse_cli.errors import InUseError, ModelError, UsageError
from diffuse_cli.files import durable, locks
from diffuse_cli.storage import home_directory, registry


def _model(name: str) -> Path:
    path = durable.make_directory(registry.model_directory(name)) / registry.MODEL_FILE
    path.write_bytes(b"")
    return path


def test_the_name_of_a_file_is_the_one_that_finds_it(home, tmp_path, monkeypatch):
    path = _model("cars")
    assert registry.name_of(registry.resolve("cars")) == registry.name_of(path) == "cars"
    monkeypatch.chdir(path.parent)
    assert registry.name_of(Path(registry.MODEL_FILE)) == "cars"
    assert registry.name_of(tmp_path / "cars" / registry.MODEL_FILE) is None
    assert registry.name_of(registry.model_directory("cars") / "best.safetensors") is None
    monkeypatch.setenv("DIFFUSE_HOME", "not/absolute")
    assert registry.name_of(path) is None


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────────────

GOOD_NAMES = ["a", "0", "cars-64", "my_model.v2", "a" * 64]
BAD_NAMES = ["", "../x", "/abs", "-rf", ".hidden", "CON", "con", "nul.x", "com1", "a" * 65, "a" * 300, "é", "😀", "a b",
             "a/b", "a\\b", "a\n", "a\x1b", "last", "demo", "a.", "x.safetensors", "Cars"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(name):
    registry.check_name(name)
    assert registry.model_directory(name).parent == home_directory.models_directory()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names(name):
    with pytest.raises(UsageError) as caught:
        registry.model_directory(name)
    assert caught.value.hint


@pytest.mark.parametrize("text", [*GOOD_NAMES, *BAD_NAMES, "My Photos (2024)", "日本", "...", "a" * 55 + ".-.-b"])
def test_every_text_has_a_slug_that_is_a_name(text):
    registry.check_name(registry.slug(text))


def test_slugs_keep_what_they_can():
    assert registry.slug("My Photos (2024)") == "my-photos-2024"
    assert registry.slug("cars") == "cars"
    assert registry.slug("Réunion, Straße 7") == "reunion-strasse-7"


def test_free_names_count_up():
    assert registry.free_name("cars") == "cars"
    _model("cars")
    durable.make_directory(registry.model_directory("cars-2"))      # in training, no model yet
    assert registry.free_name("cars") == "cars-3"
    _model("a" * 64)
    assert registry.free_name("a" * 64) == "a" * 62 + "-2"


def test_model_names_are_those_with_a_model():
    _model("b")
    _model("a")
    durable.make_directory(registry.model_directory("in-training"))
    durable.make_directory(home_directory.models_directory() / ".trash-0")
    (home_directory.models_directory() / ".trash-0" / registry.MODEL_FILE).write_bytes(b"")
    assert registry.model_names() == ["a", "b"]


# ── Which model is meant ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def without_demo(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "absent")


@pytest.fixture
def demo(monkeypatch, tmp_path):
    path = tmp_path / "demo.safetensors"
    path.write_bytes(b"")
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path)
    return path


def test_without_any_model_the_error_says_how_to_get_one():
    with pytest.raises(ModelError, match="no model yet") as caught:
        registry.resolve(None)
    assert caught.value.hint == "Train one first: diffuse train ./images"


def test_the_order_is_environment_last_demo(demo, monkeypatch):
    assert registry.resolve(None) == demo
    first, second = _model("first"), _model("second")
    assert registry.resolve(None) == demo
    registry.set_last("first")
    assert registry.resolve(None) == registry.resolve("last") == first
    monkeypatch.setenv("DIFFUSE_MODEL", "second")
    assert registry.resolve(None) == second
    assert registry.resolve("demo") == demo
    assert registry.resolve("first") == first


def test_a_pointer_to_a_removed_model_points_nowhere(demo):
    _model("cars")
    registry.set_last("cars")
    registry.remove("cars")
    assert registry.last() is None
    assert registry.resolve(None) == demo
    with pytest.raises(ModelError):
        registry.resolve("last")


def test_a_new_model_of_a_removed_name_is_not_the_last(demo):
    _model("cars")
    registry.set_last("cars")
    registry.remove("cars")
    _model("cars")                                                  # in training again
    assert registry.last() is None


@pytest.mark.parametrize("content", [b"", b"../../etc", b"\xff\xfe", b"demo", b"a" * 10_000])
def test_a_damaged_pointer_points_nowhere(home, content):
    (home / "last").write_bytes(content)
    assert registry.last() is None


def test_a_pipe_in_the_place_of_the_pointer_holds_nothing_up(home):
    os.mkfifo(home / "last")
    assert registry.last() is None


def test_an_empty_name_is_not_the_last_model():
    """A script passes it for a variable that is not set."""
    with pytest.raises(UsageError, match="empty"):
        registry.resolve("")


def test_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"")
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / registry.MODEL_FILE).write_bytes(b"")
    assert registry.resolve("x.safetensors") == Path("x.safetensors")
    assert registry.resolve("./x.safetensors") == Path("x.safetensors")
    assert registry.resolve(str(file)) == file
    assert registry.resolve("./run") == Path("run") / registry.MODEL_FILE
    monkeypatch.setenv("HOME", str(tmp_path))
    assert registry.resolve("~/x.safetensors") == file
    for missing in ("./nothing", "y.safetensors", "~/y", "a/b"):
        with pytest.raises(ModelError, match="there is no file"):
            registry.resolve(missing)
    with pytest.raises(ModelError, match=r"hf://nobody is no address of a model. Write hf://owner/name"):
        registry.resolve("hf://nobody")


@pytest.mark.parametrize(("typed", "meant"), [("car-64", "cars-64"), ("Cars-64", "cars-64"), ("dmeo", "demo")])
def test_misspelt_names_are_corrected(demo, typed, meant):
    _model("cars-64")
    with pytest.raises(ModelError) as caught:
        registry.resolve(typed)
    assert f"Did you mean {meant}?" in caught.value.hint


def test_a_folder_of_that_name_is_told_and_one_without_a_model_is_no_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cars-diffusers").mkdir()
    (tmp_path / "cars.html").write_bytes(b"")
    for typed, kind in (("cars-diffusers", "folder"), ("cars.html", "file")):
        with pytest.raises(ModelError, match="there is no model") as caught:
            registry.resolve(typed)
        assert caught.value.hint == f"For the {kind} of that name, write .{os.sep}{typed}"
    for empty in ("./cars-diffusers", "."):
        with pytest.raises(ModelError, match="holds no model") as caught:
            registry.resolve(empty)
        assert registry.MODEL_FILE in caught.value.hint


def test_a_wrong_name_in_the_environment_is_told_as_such(monkeypatch):
    for wrong in ("nosuch", "./nosuch"):
        monkeypatch.setenv("DIFFUSE_MODEL", wrong)
        with pytest.raises(ModelError, match=r"^DIFFUSE_MODEL: there is no"):
            registry.resolve(None)


@pytest.mark.parametrize("name", ["..", "x\x1b[2J", "a" * 10_000])
def test_a_name_never_leaves_the_directory(name):
    with pytest.raises(ModelError):
        registry.resolve(name)
    with pytest.raises(ModelError):
        registry.remove(name)


# ── Removing ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_remove_takes_the_directory_and_nothing_else(home):
    _model("cars")
    keep = _model("boats")
    registry.remove("cars")
    assert registry.model_names() == ["boats"]
    assert keep.exists()
    assert [path.name for path in home_directory.models_directory().iterdir()] == ["boats"]


def test_a_directory_in_which_training_never_saved_can_be_removed():
    durable.make_directory(registry.model_directory("cars"))
    registry.remove("cars")
    assert not registry.model_directory("cars").exists()


def test_a_model_in_training_is_not_removed():
    path = _model("cars")
    ours, theirs = multiprocessing.Pipe()
    trainer = multiprocessing.get_context("fork").Process(target=_train, args=(path.parent / "lock", theirs))
    trainer.start()
    try:
        assert ours.poll(30)
        with pytest.raises(InUseError, match="training by process") as caught:
            registry.remove("cars")
        assert "--name" not in caught.value.hint
        assert path.exists()
    finally:
        trainer.kill()
        trainer.join(30)
    registry.remove("cars")
    assert not path.exists()


def test_the_demo_model_stays(demo):
    with pytest.raises(UsageError):
        registry.remove("demo")
    assert demo.exists()


def _train(path, connection) -> None:
    with locks.lock(path, doing="training"):
        connection.send("locked")
        connection.recv()


def test_a_model_that_was_never_saved_is_told_apart_from_none():
    durable.make_directory(registry.model_directory("begun"))
    with pytest.raises(ModelError, match="'begun' is in training or was interrupted, and has not been saved yet"):
        registry.resolve("begun")
    with pytest.raises(ModelError, match="there is no model 'nothing'"):
        registry.resolve("nothing")
