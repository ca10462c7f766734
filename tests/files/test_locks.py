"""One process at a time holds a directory's lock, and the others are told which."""

import multiprocessing

import pytest

from diffuse_cli.errors import InUseError
from diffuse_cli.files import durable, locks, temporaries


def test_the_second_of_two_processes_is_told_who_holds_the_lock(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path / "cars" / "lock", theirs))
    holder.start()
    try:
        assert ours.poll(30)
        with (pytest.raises(InUseError, match=f"'cars' is in use: training by process {holder.pid} on") as caught,
              locks.lock(tmp_path / "cars" / "lock", doing="training")):
            pass
        assert caught.value.exit_code == 5
    finally:
        holder.kill()                                               # the kernel releases its lock
        holder.join(30)
    with locks.lock(tmp_path / "cars" / "lock", doing="training"):
        pass


def test_a_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        with locks.lock(tmp_path / "lock", doing="nothing"):
            pass


def test_a_lock_on_what_was_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    """Here the file is opened, then removed with its directory, then locked: the lock would protect nothing."""
    directory = durable.make_directory(tmp_path / "cars")
    real = temporaries.fcntl.flock

    def removed_first(*arguments: int) -> None:
        durable.remove_tree(directory)
        real(*arguments)

    monkeypatch.setattr(temporaries.fcntl, "flock", removed_first)
    with pytest.raises(InUseError, match="just removed"), locks.lock(directory / "lock", doing="training"):
        pass


def _hold(path, connection) -> None:
    with locks.lock(path, doing="training"):
        connection.send("locked")
        connection.recv()
