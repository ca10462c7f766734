"""A file is written as a whole or not at all, whichever call fails."""

import errno
import os
import stat
from pathlib import Path

import pytest

from diffuse_cli.errors import StorageError
from diffuse_cli.files import durable, locks

CALLS = ("write", "fsync", "replace")


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    durable.write(path, b"a long first version")
    durable.write(path, b"short")
    assert path.read_bytes() == b"short"
    assert _names(tmp_path) == {"file"}


def test_files_are_private_whatever_the_umask(tmp_path):
    for umask in (0o000, 0o077, 0o777):
        before = os.umask(umask)
        try:
            directory = durable.make_directory(tmp_path / f"{umask:o}" / "inner")
            durable.write(directory / "file", b"x")
            durable.append(directory / "log", b"x")
        finally:
            os.umask(before)
        assert stat.S_IMODE((directory / "file").stat().st_mode) == 0o600
        assert stat.S_IMODE((directory / "log").stat().st_mode) == 0o600
        assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IMODE(directory.parent.stat().st_mode) == 0o700


def test_shared_output_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        durable.write(tmp_path / "picture", b"x", mode=0o666)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "picture").stat().st_mode) == 0o640


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("way", ["write", "stream"])
def test_a_failing_call_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, way, call, code):
    path = tmp_path / "file"
    durable.write(path, b"old")

    def fails(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(durable.os, call, fails)
    with pytest.raises(StorageError, match=r"cannot write .*file") as caught:
        _write(path, b"new", way)
    monkeypatch.undo()
    assert caught.value.exit_code == 6
    assert path.read_bytes() == b"old"
    assert _names(tmp_path) == {"file"}


@pytest.mark.parametrize("way", ["write", "stream"])
def test_short_writes_are_completed(tmp_path, monkeypatch, way):
    real = os.write
    monkeypatch.setattr(durable.os, "write", lambda descriptor, data: real(descriptor, bytes(data[:3])))
    _write(tmp_path / "file", b"0123456789", way)
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_disk_that_loses_bytes_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(durable.os, "write", lambda _, data: len(data))
    with pytest.raises(StorageError, match="shorter"):
        durable.write(tmp_path / "file", b"0123456789")
    assert not _names(tmp_path)


def test_the_data_is_on_the_disk_before_its_name_and_the_name_before_returning(tmp_path, monkeypatch):
    """In this order a power loss breaks nothing: fsync of the file, rename, fsync of the directory."""
    order: list[str] = []
    for call in ("write", "fsync", "replace"):
        real = getattr(os, call)

        def recorded(*arguments, call=call, real=real):
            directory = call == "fsync" and stat.S_ISDIR(os.fstat(arguments[0]).st_mode)
            order.append("fsync directory" if directory else call)
            return real(*arguments)

        monkeypatch.setattr(durable.os, call, recorded)
    for way in ("write", "stream"):
        order.clear()
        _write(tmp_path / "file", b"data", way)
        assert order == ["write", "fsync", "replace", "fsync directory"]


def test_exclusive_never_replaces(tmp_path):
    path = tmp_path / "file"
    durable.write(path, b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        durable.write(path, b"second", exclusive=True)
    assert path.read_bytes() == b"first"
    assert _names(tmp_path) == {"file"}


def test_exclusive_where_the_file_system_has_no_hard_links(tmp_path, monkeypatch):
    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(durable.os, "link", no_links)
    durable.write(tmp_path / "file", b"first", exclusive=True)
    with pytest.raises(FileExistsError):
        durable.write(tmp_path / "file", b"second", exclusive=True)
    assert (tmp_path / "file").read_bytes() == b"first"
    assert _names(tmp_path) == {"file"}


def test_a_link_is_replaced_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "file").symlink_to(victim)
    durable.write(tmp_path / "file", b"new")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "file").is_symlink()


@pytest.mark.parametrize("refused", ["append", "lock"])
def test_no_writing_through_a_link(tmp_path, refused):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(StorageError):
        _touch(tmp_path / "link", refused)
    assert victim.read_bytes() == b"precious"


def test_an_error_inside_a_stream_publishes_nothing(tmp_path):
    def half(path: Path) -> None:
        with durable.stream(path) as add:
            add(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half(tmp_path / "file")
    assert not _names(tmp_path)


def test_a_draft_is_read_and_then_gone(tmp_path):
    def drafted(error: BaseException | None = None) -> bytes:
        with durable.draft(tmp_path / "file", lambda name: name.write_bytes(b"draft")) as file:
            if error:
                raise error
            return file.read()

    assert drafted() == b"draft"
    assert not _names(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        drafted(KeyboardInterrupt())
    assert not _names(tmp_path)


def test_a_draft_that_cannot_be_written_is_a_storage_error(tmp_path):
    def half(name: Path) -> None:
        name.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"cannot write .*file"), durable.draft(tmp_path / "file", half):
        pass
    assert not _names(tmp_path)


def test_append_adds(tmp_path):
    durable.append(tmp_path / "log", b"1\n")
    durable.append(tmp_path / "log", b"2\n")
    assert (tmp_path / "log").read_bytes() == b"1\n2\n"


def test_a_file_in_place_of_a_directory_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "inner"):
        with pytest.raises(StorageError):
            durable.make_directory(path)


def test_removing_is_durable_or_an_error(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(durable, "sync_directory", synced.append)
    (tmp_path / "file").touch()
    durable.remove(tmp_path / "file")
    assert not _names(tmp_path)
    assert synced == [tmp_path]
    with pytest.raises(StorageError):
        durable.remove(tmp_path / "file")


def test_remove_tree_removes_all_and_what_an_earlier_one_left(tmp_path):
    (tmp_path / ".trash-0").mkdir()
    tree = durable.make_directory(tmp_path / "tree" / "inner").parent
    (tree / "file").write_bytes(b"x")
    durable.remove_tree(tree)
    assert not _names(tmp_path)


def test_a_tree_killed_half_way_is_out_of_sight(tmp_path, monkeypatch):
    tree = durable.make_directory(tmp_path / "tree")
    monkeypatch.setattr(durable.shutil, "rmtree", lambda *_, **__: None)       # the process dies here
    durable.remove_tree(tree)
    assert not tree.exists()


def test_remove_temporaries_spares_everything_else(tmp_path):
    (tmp_path / "previews").mkdir()
    for name in ("model.safetensors", "previews/1.png", f"{durable.TEMPORARY}1", f"previews/{durable.TEMPORARY}2"):
        (tmp_path / name).write_bytes(b"x")
    durable.remove_temporaries(tmp_path)
    assert _names(tmp_path) == {"model.safetensors", "previews"}
    assert _names(tmp_path / "previews") == {"1.png"}


def test_a_full_disk_says_how_much_is_missing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "write", full)
    with pytest.raises(StorageError, match=r"need 3\.0 MB, [\d.]+ MB free") as caught:
        durable.write(tmp_path / "file", bytes(3 * 2**20))
    assert "Make room" in caught.value.hint
    with pytest.raises(StorageError, match=r"space left on device, [\d.]+ MB free"):
        durable.write(tmp_path / "file", b"a few bytes, of which nobody wants to hear")


def test_free_bytes_of_what_is_not_there_yet(tmp_path):
    assert durable.free_bytes(tmp_path / "not" / "yet") > 0


def _write(path: Path, data: bytes, way: str) -> None:
    if way == "write":
        durable.write(path, data)
    else:
        with durable.stream(path) as add:
            add(data)


def _touch(path: Path, way: str) -> None:
    if way == "append":
        durable.append(path, b"x")
    else:
        with locks.lock(path, doing="nothing"):
            pass


# ── Staging ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _staged(target: Path, *, folder: bool, content: str = "new", **options) -> None:
    with durable.staging(target) as room:
        staged = room / target.name
        if folder:
            durable.make_directory(staged / "inner")
            (staged / "inner" / "file").write_text(content)
        else:
            staged.write_text(content)
        assert not target.exists() or options
        durable.publish(staged, target, **options)


@pytest.mark.parametrize("folder", [True, False])
def test_what_is_staged_appears_whole_and_leaves_nothing_beside_it(tmp_path, folder):
    target = tmp_path / "new" / "deep" / "target"
    _staged(target, folder=folder)
    assert (target / "inner" / "file" if folder else target).read_text() == "new"
    assert _names(target.parent) == {"target"}
    with pytest.raises(FileExistsError):
        _staged(target, folder=folder, content="other", replace=False)
    _staged(target, folder=folder, content="newer", replace=True)
    assert (target / "inner" / "file" if folder else target).read_text() == "newer"
    assert _names(target.parent) == {"target"}


def test_what_fails_while_it_is_staged_leaves_no_directory_behind(tmp_path):
    def interrupted() -> None:
        with durable.staging(tmp_path / "new" / "deep" / "target") as room:
            (room / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert _names(tmp_path) == set()


@pytest.mark.parametrize("nth", [1, 2])
def test_an_interrupt_between_two_renames_leaves_the_old_folder_or_the_new_one(tmp_path, monkeypatch, nth):
    target, calls, real = tmp_path / "target", [], os.replace
    _staged(target, folder=True, content="old")

    def interrupted_after(source: object, name: object) -> None:
        real(source, name)
        calls.append(name)
        if len(calls) == nth:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted_after)
    with pytest.raises(KeyboardInterrupt):
        _staged(target, folder=True, content="new", replace=True)
    assert (target / "inner" / "file").read_text() == ("old", "new")[nth - 1]
    assert _names(tmp_path) == {"target"}


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_replacing_a_folder_never_loses_the_old_one(tmp_path, monkeypatch, nth):
    """Whichever rename fails, the old folder or the new one is whole at its place."""
    target, calls, real = tmp_path / "target", [], os.replace
    _staged(target, folder=True, content="old")

    def fails_once(source: object, name: object) -> None:
        calls.append(name)
        if len(calls) == nth:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, name)

    monkeypatch.setattr(os, "replace", fails_once)
    if nth <= 2:
        with pytest.raises(StorageError):
            _staged(target, folder=True, replace=True)
    else:
        _staged(target, folder=True, replace=True)
    assert (target / "inner" / "file").read_text() == ("old" if nth <= 2 else "new")
    assert _names(tmp_path) == {"target"}


def test_everything_that_is_staged_is_made_durable_before_it_has_its_name(tmp_path, monkeypatch):
    synced, real = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino) or real(descriptor))
    monkeypatch.setattr(durable, "_sync_tree", lambda path, real=durable._sync_tree: (synced.clear(), real(path)))
    _staged(tmp_path / "target", folder=True)
    for path in (tmp_path / "target", tmp_path / "target" / "inner", tmp_path / "target" / "inner" / "file", tmp_path):
        assert path.stat().st_ino in synced, path
