"""Finding, locking and leaving runs, and the protocol by which states are saved; without any tensor."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
from unittest import mock

import pytest
import tiny
from PIL import Image

from diffuse_cli.checks import from_dict
from diffuse_cli.config import Machine, Plan, Recipe
from diffuse_cli.data import fit_choice
from diffuse_cli.errors import DataError, InUseError, ModelError, StorageError, UsageError
from diffuse_cli.files import durable
from diffuse_cli.storage import registry, run_directory, safetensors_file, training_states
from diffuse_cli.training.run import open_run

PLAN = from_dict(Plan, {
    "model": {"network": {"resolution": 8, "widths": [16], "depths": [1], "attention": ["full"], "head_dim": 16,
                          "groups": 16, "time_width": 32, "text": None}, "schedule": "cosine", "prediction": "v"},
    "preset": "nano", "loss_weighting": "simple", "variance_grad": "head", "times": "continuous", "optimizer": "adamw",
    "seed": 0, "batch_size": 4, "steps": 8, "lr": 0.001, "warmup_steps": 1, "cooldown_steps": 2, "dropout": 0.0,
    "caption_drop": 0.0, "word_drop": 0.0, "flip": False, "train_images": 22, "validation_images": 2,
    "validation_probe": 2, "validate_steps": 4, "keep_best": True, "data_id": "0", "init_id": None})
RECIPE = Recipe(resolution=8)


def begin(folder, recipe=RECIPE, **options):
    """Begin a run, or find it again: its name and its plan as found."""
    with open_run(folder, recipe, Machine(**options)) as run:
        found = run.plan
        run.write_plan(PLAN)
        return run.name, found


# ── Names and requests ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_request_finds_the_same_run(squares, monkeypatch):
    assert begin(squares) == ("squares-8", None)
    assert begin(squares) == ("squares-8", PLAN)
    monkeypatch.chdir(squares)
    assert begin(run_directory.Path(".")) == ("squares-8", PLAN)                      # from wherever it is asked for
    assert begin(run_directory.Path("../squares")) == ("squares-8", PLAN)


def test_another_recipe_takes_the_next_free_name(squares):
    assert begin(squares)[0] == "squares-8"
    assert begin(squares, Recipe(resolution=8, seed=1)) == ("squares-8-2", None)
    assert begin(squares, Recipe(resolution=8, seed=2)) == ("squares-8-3", None)
    assert begin(squares, Recipe(resolution=8, seed=1)) == ("squares-8-2", PLAN)
    assert begin(squares, Recipe(resolution=16)) == ("squares-16", None)


def test_folders_of_the_same_name_are_different_requests(squares, tmp_path):
    begin(squares)
    assert begin(tiny.draw_squares(tmp_path / "squares", 8))[0] == "squares-8-2"


def test_manifests_in_one_folder_are_different_requests(tmp_path):
    folder = tiny.draw_squares(tmp_path / "all.v2", 3)
    for name, picture in (("a", "000.png"), ("b", "001.png")):
        (folder / f"{name}.jsonl").write_text(json.dumps({"file_name": picture, "text": "x"}))
    assert [begin(folder / "a.jsonl")[0], begin(folder / "b.jsonl")[0]] == ["a-8", "b-8"]
    assert begin(folder)[0] == "all.v2-8"


def test_machine_options_are_no_part_of_a_request(squares):
    begin(squares)
    assert begin(squares, micro_batch=1, save_every="1m", precision="bf16", preview_prompt=("x",))[1] == PLAN


def test_a_named_run_with_another_recipe_is_refused_with_the_difference(squares):
    begin(squares, name="cars")
    with pytest.raises(UsageError) as caught:
        begin(squares, Recipe(resolution=8, lr=0.5, seed=3), name="cars")
    assert "(lr: not given → 0.5; seed: 0 → 3)" in caught.value.what
    assert "--fresh" in caught.value.hint
    assert begin(squares, name="cars")[1] == PLAN


def test_a_run_of_a_version_without_an_option_has_its_default(squares, home):
    begin(squares)
    path = home / "models/squares-8/config.json"
    config = json.loads(path.read_text())
    assert [config["request"]["recipe"].pop(name) for name in ("background", "white_level", "fit")] == [
        "white", None, "auto"]
    path.write_text(json.dumps(config))
    assert begin(squares) == ("squares-8", PLAN)
    path.write_text(json.dumps(config))
    assert begin(squares, name="squares-8") == ("squares-8", PLAN)
    path.write_text(json.dumps(config))
    with pytest.raises(UsageError, match="background: white → black"):
        begin(squares, Recipe(resolution=8, background="black"), name="squares-8")


@pytest.mark.parametrize(("stored", "asked"), [
    ({"caption": "a square", "captions": "sidecar"}, {"caption": "a square"}),
    ({"captions": "none", "shuffle_tags": True, "tag_dropout": 0.1}, {"captions": "none"})])
def test_a_run_of_a_version_that_took_options_which_deny_one_another_is_resumed(squares, home, stored, asked):
    recipe = Recipe(resolution=8, **asked)
    begin(squares, recipe)
    path = home / "models/squares-8/config.json"
    config = json.loads(path.read_text())
    config["request"]["recipe"] |= stored
    path.write_text(json.dumps(config))
    assert begin(squares, recipe, name="squares-8") == ("squares-8", PLAN)
    path.write_text(json.dumps(config))
    assert begin(squares, recipe) == ("squares-8", PLAN)


def test_a_run_tells_that_captions_hold_no_tags_to_shuffle(squares):
    with open_run(squares, Recipe(resolution=8, caption="a square", shuffle_tags=True, tag_dropout=0.1),
                  Machine()) as run:
        assert run.found.warnings == ("24 of 24 captions have no tags between commas, so --shuffle-tags or "
                                      "--tag-dropout does not change them",)


def test_the_fit_is_chosen_once_and_a_run_of_a_version_without_it_keeps_its_crop(tmp_path, home, monkeypatch):
    folder = tiny.draw_bars(tmp_path / "bars")
    with open_run(folder, RECIPE, Machine()) as run:
        assert (run.fit, run.rendering.fit, run.why_fit[:8]) == ("pad", "pad", "24 of 24")
        run.write_plan(dataclasses.replace(PLAN, fit="pad"))
    with monkeypatch.context() as patch:
        patch.setattr(fit_choice, "choose_fit", None)
        with open_run(folder, RECIPE, Machine()) as run:
            assert (run.fit, run.why_fit) == ("pad", "that of the run")
        path = home / "models/bars-8/config.json"
        config = json.loads(path.read_text())
        del config["plan"]["fit"], config["request"]["recipe"]["fit"]
        path.write_text(json.dumps(config))
        with open_run(folder, RECIPE, Machine(name="bars-8")) as run:
            assert (run.fit, run.rendering.fit) == ("crop", "crop")
        with open_run(folder, dataclasses.replace(RECIPE, fit="stretch"), Machine(name="other")) as run:
            assert (run.fit, run.why_fit) == ("stretch", "as asked")
    with pytest.raises(UsageError, match=r"fit: auto → stretch"):
        begin(folder, dataclasses.replace(RECIPE, fit="stretch"), name="bars-8")
    with pytest.raises(UsageError, match="--fit does not know 'fill'"):
        Recipe(fit="fill")


def test_an_unknown_colour_is_refused_before_there_is_a_run(squares, home):
    with pytest.raises(UsageError, match="--background does not know the colour"):
        begin(squares, Recipe(background="blakc"))
    assert not list((home / "models").glob("*")) if (home / "models").exists() else True


def test_fresh_moves_the_old_run_aside_and_loses_nothing(squares, home):
    begin(squares, name="cars")
    directory = home / "models" / "cars"
    (directory / "previews").mkdir()
    for file in ("model.safetensors", "previews/x.png", "events.jsonl"):
        (directory / file).write_bytes(file.encode())
    old = {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert begin(squares, name="cars", fresh=True) == ("cars", None)
    aside = home / "models" / "cars-old"
    assert {path.relative_to(aside): path.read_bytes() for path in aside.rglob("*") if path.is_file()} == {
        path: data for path, data in old.items() if path.name != "lock"}
    begin(squares, name="cars", fresh=True)
    assert (home / "models" / "cars-old-2").is_dir()


@pytest.mark.parametrize("killed_at", range(8))
@pytest.mark.parametrize("name", ["squares-8", None])
def test_fresh_that_is_killed_leaves_nothing_of_the_old_run_to_the_new_one(squares, home, killed_at, name):
    begin(squares)
    directory = home / "models" / "squares-8"
    (directory / "previews").mkdir()
    for file in ("tokenizer.json", "model.safetensors", "events.jsonl", "step-00000004.safetensors", "HEAD-0",
                 "previews/x.png"):
        (directory / file).write_bytes(file.encode())
    old = {path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}
    rename, left = os.replace, killed_at

    def killed(source, target):
        nonlocal left
        if str(source).startswith(str(directory)) and ".tmp" not in str(source):
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
        rename(source, target)

    with mock.patch.object(os, "replace", killed), pytest.raises(KeyboardInterrupt) if killed_at < 7 else (
            contextlib.nullcontext()):
        begin(squares, name=name, fresh=True)
    with open_run(squares, RECIPE, Machine(name=name)) as run:
        if killed_at == 0:
            assert run.plan == PLAN                                   # nothing happened yet
        elif killed_at < 7:
            assert run.name == "squares-8"
            assert run.plan is None
            assert os.listdir(run.directory) == ["lock"]
    kept = {path.read_bytes() for path in (home / "models").rglob("*") if path.is_file()}
    assert old <= kept


def test_fresh_that_is_refused_leaves_the_old_run(squares, tmp_path, home):
    (tmp_path / "unreadable").mkdir()
    (tmp_path / "unreadable" / "a.png").write_text("no picture")
    begin(squares, name="cars")
    before = {path: path.read_bytes() for path in (home / "models").rglob("*") if path.is_file()}
    with pytest.raises(ModelError, match="no model 'typo'"):
        begin(squares, Recipe(init="typo"), name="cars", fresh=True)
    with pytest.raises(DataError, match="can be read"):
        begin(tmp_path / "unreadable", Recipe(), name="cars", fresh=True)
    assert {path: path.read_bytes() for path in (home / "models").rglob("*") if path.is_file()} == before


def test_fresh_without_an_old_run_is_nothing_special(squares, home):
    assert begin(squares, name="cars", fresh=True) == ("cars", None)
    assert sorted(os.listdir(home / "models")) == ["cars"]


def test_a_model_that_was_not_trained_here_keeps_its_place(squares, home):
    directory = durable.make_directory(home / "models" / "squares-8")
    (directory / "model.safetensors").write_bytes(b"precious")
    assert begin(squares)[0] == "squares-8-2"
    for rehearsal in (False, True):
        with pytest.raises(UsageError, match="was not trained here"), open_run(
                squares, RECIPE, Machine(name="squares-8"), rehearsal=rehearsal):
            pass
    assert (directory / "model.safetensors").read_bytes() == b"precious"


def test_a_run_that_was_not_begun_leaves_no_directory(squares, home):
    for rehearsal in (False, True):
        with open_run(squares, RECIPE, Machine(), rehearsal=rehearsal) as run:
            assert run.directory.is_dir()
        assert os.listdir(home / "models") == []


@pytest.mark.parametrize("fresh", [False, True])
def test_a_rehearsal_moves_nothing(squares, home, fresh):
    begin(squares)
    with open_run(squares, RECIPE, Machine(fresh=fresh), rehearsal=True) as run:
        assert run.plan == (None if fresh else PLAN)
    assert os.listdir(home / "models") == ["squares-8"]
    assert begin(squares) == ("squares-8", PLAN)


@pytest.mark.parametrize("name", ["../x", "/abs", "-rf", "CON", "con", "a" * 65, "ü", "last", "demo", ""])
def test_names_that_cannot_be(squares, home, name):
    if name:
        with pytest.raises(UsageError, match="name"):
            begin(squares, name=name)
        assert not (home / "models").exists()
    else:
        assert begin(squares, name=name)[0] == "squares-8"                   # as not given


@pytest.mark.parametrize("content", [
    b"", b"{", b"[]", b"null", b'{"request": 1, "plan": {}}', b'{"request": {"recipe": 1}, "plan": {}}',
    b'{"request": {"recipe": {}}}', b"\xff", b"[" * 100_000, b'{"request": {"recipe": {}}, "plan": NaN}'])
def test_a_damaged_plan_is_said_to_be(squares, home, content):
    begin(squares)
    path = home / "models" / "squares-8" / "config.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match="is damaged") as caught:
        begin(squares)
    assert str(path) in caught.value.what
    assert caught.value.hint == "To start anew: --name squares-8 --fresh"
    assert begin(squares, name="squares-8", fresh=True) == ("squares-8", None)


# ── Locks, leftovers, data ──────────────────────────────────────────────────────────────────────────────────────────


def test_two_trainings_of_one_run_do_not_meet(squares):
    with open_run(squares, RECIPE, Machine()), pytest.raises(InUseError) as caught:
        begin(squares)
    assert caught.value.exit_code == 5
    assert f"process {os.getpid()}" in caught.value.what
    assert begin(squares)[0] == "squares-8"                                  # free again


def test_what_a_crash_left_behind_is_removed(squares, home):
    begin(squares)
    leftover = home / "models" / "squares-8" / f"{durable.TEMPORARY}0123"
    leftover.write_bytes(b"half a state")
    begin(squares)
    assert not leftover.exists()


def test_folders_that_cannot_be_learnt_from(tmp_path, home):
    for folder in (tmp_path / "missing", tmp_path):
        with pytest.raises(DataError):
            begin(folder)
    assert not (home / "models").exists()


def test_a_run_is_found_and_locked_without_torch(squares):
    code = ("import sys; from pathlib import Path; from diffuse_cli.training.run import open_run; "
            "from diffuse_cli.config import Machine, Recipe\n"
            f"with open_run(Path({str(squares)!r}), Recipe(), Machine(device='cpu')) as run: "
            "print(run.name, 'torch' in sys.modules)")
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout == "squares-16 False\n"


@pytest.mark.parametrize(("sides", "device", "resolution"), [
    ((16, 16, 16), "cpu", 16), ((40, 40, 500), "cpu", 32), ((500,), "cpu", 32), ((500,), "cuda", 64),
    ((40,), "cuda", 32), ((9,), "cpu", 16), ((63, 64, 65), "mps", 64)])
def test_the_resolution_follows_pictures_and_machine(tmp_path, sides, device, resolution):
    from PIL import Image

    for index, side in enumerate(sides):
        Image.new("RGB", (side, side + index)).save(tmp_path / f"{index}.png")
    with open_run(tmp_path, Recipe(), Machine(device=device), rehearsal=True) as run:
        assert run.resolution == (resolution, resolution)


def test_the_resolution_of_init_counts(squares, trained):
    with open_run(squares, Recipe(init=str(trained[0])), Machine()) as run:
        assert (run.resolution, run.why_resolution) == ((8, 8), "that of --init")


def test_a_run_keeps_its_resolution_whatever_pictures_and_machine_are_now(tmp_path, home):
    folder = tiny.draw_squares(tmp_path / "pictures", 2)                           # of 16 pixels
    assert begin(folder, Recipe(), name="cars")[1] is None
    for name in ("000.png", "001.png"):
        Image.new("RGB", (99, 99)).save(folder / name)
    with open_run(folder, Recipe(), Machine(device="cuda", name="cars")) as run:
        assert (run.resolution, run.why_resolution) == (PLAN.model.network.resolution, "that of the run")
    with open_run(folder, Recipe(), Machine(device="cuda", name="cars", fresh=True)) as run:
        assert run.resolution == (64, 64)


def test_no_readable_picture_means_no_resolution(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 1 pictures"):
        begin(tmp_path, Recipe())


# ── States ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def save(directory, step, *, acknowledge=True, content=None, **options):
    """Save a state of so many steps, as training does."""
    path = training_states.state_path(directory, step)
    data = content or b"".join(safetensors_file.encode([("x", "U8", (3,), bytes([step % 256] * 3))], {}))
    durable.write(path, data)
    if acknowledge:
        state = training_states.SavedState(step, path, len(data), hashlib.sha256(data).hexdigest())
        training_states.acknowledge(directory, state, **options)


def whole(directory):
    return [state.step for state in training_states.saved_states(directory) if training_states.is_whole(state)]


def damage(path):
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def test_two_states_are_kept_and_the_newest_comes_first(tmp_path):
    for step in (1, 2, 5, 10, 123_456_789_012):
        save(tmp_path, step)
        assert whole(tmp_path)[0] == step
    assert whole(tmp_path) == [123_456_789_012, 10]
    assert len(list(tmp_path.glob("step-*"))) == 2


def test_heads_take_turns(tmp_path):
    written = []
    for step in (1, 2, 3, 4):
        before = {path.name: path.read_bytes() for path in tmp_path.glob("HEAD-*")}
        save(tmp_path, step)
        written += [path.name for path in sorted(tmp_path.glob("HEAD-*")) if path.read_bytes() != before.get(path.name)]
    assert written == ["HEAD-0", "HEAD-1", "HEAD-0", "HEAD-1"]


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\0" * 80, b'{"step": -1}', b'{"step": 1e400}', None])
def test_a_damaged_head_leaves_the_other(tmp_path, content):
    save(tmp_path, 1)
    save(tmp_path, 2)
    newest = tmp_path / "HEAD-1"
    if content is None:
        newest.unlink()
    else:
        newest.write_bytes(content)
    assert whole(tmp_path) == [1, 2]                       # what is acknowledged comes before what is only whole
    save(tmp_path, 3)
    assert whole(tmp_path)[:2] == [3, 1]


def test_a_head_cannot_name_another_file(tmp_path):
    save(tmp_path, 1)
    fields = json.loads((tmp_path / "HEAD-0").read_bytes())
    (tmp_path / "HEAD-0").write_text(json.dumps({**fields, "file": "../../secret"}))
    assert [state.sha256 for state in training_states.saved_states(tmp_path)] == [None]


def test_a_state_that_was_never_acknowledged_waits_for_the_others_to_fail(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2, acknowledge=False)                   # killed between the two
    assert whole(tmp_path) == [1, 2]
    damage(training_states.state_path(tmp_path, 1))
    assert whole(tmp_path) == [2]


def test_without_heads_the_sealed_states_count(tmp_path):
    for step in (1, 2):
        save(tmp_path, step, acknowledge=False)
    save(tmp_path, 3, acknowledge=False, content=b"not sealed")
    assert whole(tmp_path) == [2, 1]


def test_after_falling_back_the_damaged_state_goes_first(tmp_path):
    save(tmp_path, 10)
    save(tmp_path, 20)
    damage(training_states.state_path(tmp_path, 20))
    assert whole(tmp_path) == [10]
    save(tmp_path, 15)
    assert whole(tmp_path) == [15, 10]                     # never a single whole state
    assert len(training_states.saved_states(tmp_path)) == 2           # and nothing left to warn about
    save(tmp_path, 20)
    assert whole(tmp_path) == [20, 15]
    assert len(os.listdir(tmp_path)) == 4                  # two states, two heads


@pytest.mark.parametrize("later", [(20,), (20, 30), (20, 30, 40)])
def test_rewinding_forgets_all_later_states_and_both_their_heads(tmp_path, later):
    for step in (5, 10, *later):
        save(tmp_path, step, keep=10)
    training_states.rewind(tmp_path, limit=10)
    assert whole(tmp_path)[0] == 10
    assert all(step <= 10 for step in whole(tmp_path))
    save(tmp_path, 12)
    assert whole(tmp_path)[:2] == [12, 10]


def test_rewinding_when_the_disk_fails_is_an_error_and_can_be_done_again(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, keep=10)
    broken = mock.Mock(side_effect=OSError(errno.EIO, "broken"))
    with mock.patch.object(os, "unlink", broken), pytest.raises(StorageError):
        training_states.rewind(tmp_path, limit=10)
    training_states.rewind(tmp_path, limit=10)
    assert whole(tmp_path) == [10]


def test_the_state_to_keep_outlives_the_others(tmp_path):
    for step in (5, 10, 20, 30, 40):
        save(tmp_path, step, keep=10)
    assert whole(tmp_path) == [40, 30, 10]


def test_nothing_is_deleted_before_the_new_head_is_durable(tmp_path, monkeypatch):
    save(tmp_path, 1)
    save(tmp_path, 2)
    write = durable.write

    def failing(path, data, **options):
        if path.name.startswith("HEAD"):
            raise StorageError("full")
        write(path, data, **options)

    monkeypatch.setattr(durable, "write", failing)
    with pytest.raises(StorageError):
        save(tmp_path, 3)
    assert whole(tmp_path) == [2, 1, 3]


def test_what_is_no_state_is_left_alone(tmp_path):
    names = ["step-1.safetensors", "step-00000001.safetensors.bak", "xstep-00000001.safetensors", "model.safetensors"]
    for name in names:
        (tmp_path / name).touch()
    for step in (1, 2, 3):
        save(tmp_path, step)
    assert all((tmp_path / name).exists() for name in names)


def test_a_model_to_start_from_that_is_none(squares, tmp_path):
    with pytest.raises(ModelError):
        begin(squares, Recipe(init=str(tmp_path / "no.safetensors")))
    assert not registry.model_names()
