"""The door to files of others: only regular files of limited size, without waiting, and no more than was judged."""

import os
import stat

import pytest

from diffuse_cli.files.input_files import GREW, NOT_REGULAR, check_input, open_input, read_input


def reason(path, limit=100) -> str:
    with pytest.raises(OSError) as refusal:
        read_input(path, limit=limit)
    with pytest.raises(OSError):
        check_input(path, limit=limit)
    return refusal.value.strerror


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_file_up_to_the_limit_is_read(tmp_path, size):
    data = os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "link").symlink_to("file")
    assert read_input(tmp_path / "file", limit=100) == read_input(str(tmp_path / "link"), limit=100) == data
    with open_input(tmp_path / "file", limit=100) as file:
        assert file.seek(1000) == 1000
        assert file.read(10) == b""
        file.seek(size // 2)
        assert file.read() == data[size // 2 :]
        assert file.read(10) == b""


def test_a_larger_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)                    # takes no room on the disk
    assert reason(tmp_path / "huge", 2**20) == "over 1 MB"
    (tmp_path / "file").write_bytes(bytes(101))
    assert reason(tmp_path / "file", 100) == "over 0 KB"


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        assert reason(path) == NOT_REGULAR
    assert "directory" in reason(tmp_path).lower()
    assert "no such file" in reason(tmp_path / "missing").lower()
    (tmp_path / "loop").symlink_to("loop")
    assert "symbolic links" in reason(tmp_path / "loop")
    assert "name" in reason("with\0zero")
    assert not [name for name in os.listdir("/proc/self/fd") if _is_fifo(name)]


def _is_fifo(descriptor: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(f"/proc/self/fd/{descriptor}").st_mode) and \
            os.readlink(f"/proc/self/fd/{descriptor}").endswith("/pipe")
    except OSError:
        return False


@pytest.mark.parametrize("read", [lambda file: file.read(), lambda file: file.read(10**6),
                                  lambda file: [*file], lambda file: file.readinto(bytearray(10**6))])
def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, read):
    (tmp_path / "file").write_bytes(bytes(10))
    with open_input(tmp_path / "file", limit=100) as file:
        with (tmp_path / "file").open("ab") as growing:
            growing.write(bytes(50))
        with pytest.raises(OSError, match=GREW):
            read(file)


def test_a_file_that_shrinks_while_it_is_read_just_ends(tmp_path):
    (tmp_path / "file").write_bytes(bytes(100_000))
    with open_input(tmp_path / "file", limit=10**6) as file:
        os.truncate(tmp_path / "file", 10)
        assert file.read() == bytes(10)


def test_files_without_a_true_size_are_refused():
    """Those of /proc say that they are empty."""
    with pytest.raises(OSError, match=GREW):
        read_input("/proc/self/status", limit=10**6)
