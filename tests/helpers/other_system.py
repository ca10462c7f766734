"""Runs command lines of `diffuse` in one process that has only what Windows, or macOS, has.

    python -P other_system.py windows '[["models", "list"], ["train", "pictures"]]'

Other packages are imported first, as this system has them. Then the calls and modules that the other system lacks are
deleted, and `sys.platform` has its name. On Windows, moreover, no file that is open can be renamed or removed, nor can
a folder that holds one; and a locked byte can be read by nobody else. Prints what the commands print, and after each
`exit CODE`.
"""

import builtins
import errno
import fcntl
import gc
import importlib
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import types
from pathlib import Path

import PIL.Image

ABSENT = {
    "windows": {
        os: ("fork forkpty sched_getaffinity sched_setaffinity geteuid getuid getegid getgid statvfs sysconf killpg "
             "getpgid setsid getsid waitid mkfifo chown lchown getloadavg posix_spawn nice uname pipe2 O_DIRECTORY "
             "O_NOFOLLOW O_CLOEXEC O_NONBLOCK O_SYNC pread pwrite ctermid ttyname openpty getpriority setpriority"),
        signal: "SIGHUP SIGALRM SIGUSR1 SIGUSR2 SIGKILL SIGPIPE SIGCHLD SIGQUIT alarm setitimer pthread_sigmask pause",
        socket: "AF_UNIX SO_REUSEPORT"},
    "macos": {os: "sched_getaffinity sched_setaffinity waitid pipe2 getxattr posix_fadvise memfd_create",
              socket: "SOCK_CLOEXEC SOCK_NONBLOCK"}}
PACKAGES = (                                    # imported as this system has them
    "asyncio concurrent.futures multiprocessing.connection tempfile matplotlib.backends.backend_svg numpy.random "
    "PIL.features platformdirs rich.console rich.live safetensors.torch tokenizers torch._dynamo torch.distributed "
    "typer.rich_utils")
MODULES = {"windows": "fcntl resource termios pwd grp tty pty readline curses syslog", "macos": ""}
_FCNTL = types.SimpleNamespace(**vars(fcntl))
_locked: dict[tuple[int, int], int] = {}        # device and inode → the byte that is locked
_open_os, _open = os.open, builtins.open


def become(system: str) -> None:
    """Make this process look like one of the other system."""
    for module, names in ABSENT[system].items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    for name in MODULES[system].split():
        sys.modules[name] = None                # type: ignore[assignment]
    os.open = _without_proc(os.open)            # there is no /proc, nor /sys
    io.open = builtins.open = _without_proc(builtins.open)
    if system == "windows":
        sys.platform = "win32"
        sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, locking=_locking)      # type: ignore[assignment]
        subprocess.Popen.kill = lambda self: self.send_signal(9)
        shutil._use_fd_functions = False
        shutil.disk_usage = _disk_usage
        os.read = _read
        os.symlink = _no_links
        for name in ("replace", "rename", "unlink", "remove", "rmdir"):
            setattr(os, name, _refused_if_open(getattr(os, name)))
    else:
        sys.platform = "darwin"
        fcntl.F_FULLFSYNC = 51
        fcntl.fcntl = _fcntl


def _without_proc(function):
    def opened(path, *arguments, **named):
        if str(os.fspath(path) if isinstance(path, os.PathLike) else path).startswith(("/proc/", "/sys/")):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return function(path, *arguments, **named)
    return opened


def _fcntl(descriptor, command, argument=0):
    return os.fsync(descriptor) if command == 51 else _FCNTL.fcntl(descriptor, command, argument)


def _key(descriptor):
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _locking(descriptor, mode, count):
    """As msvcrt.locking: exclusive, for the open file, from its position on."""
    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        _FCNTL.fcntl(descriptor, _FCNTL.F_OFD_SETLK,
                     struct.pack("hhqqi4x", _FCNTL.F_WRLCK, os.SEEK_SET, start, count, 0))
    except OSError as error:
        raise PermissionError(errno.EACCES, "Permission denied") from error
    _locked[_key(descriptor)] = start


def _read(descriptor, count, read=os.read):
    start = _locked.get(_key(descriptor), -1)
    if start >= 0 and (here := os.lseek(descriptor, 0, os.SEEK_CUR)) <= start < here + count:
        raise PermissionError(errno.EACCES, "Permission denied")
    return read(descriptor, count)


def _disk_usage(path, look=os.statvfs):
    free = look(path).f_bavail * look(path).f_frsize
    return types.SimpleNamespace(total=free, used=0, free=free)


def _no_links(*_, **__):
    raise OSError(errno.EPERM, "A required privilege is not held by the client")


def _in_use(path: str) -> bool:
    here = os.path.abspath(path)
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    with _open("/proc/self/maps") as maps:
        names += [line.split(maxsplit=5)[5].strip() for line in maps if line.count("/")]
    return any(name == here or name.startswith(here + "/") for name in names)


def _refused_if_open(function):
    def refusing(path, *arguments, **named):
        paths = [path, *(one for one in arguments if isinstance(one, (str, os.PathLike)))]
        if any(_in_use(os.fspath(one)) for one in paths):
            raise PermissionError(errno.EACCES, "The process cannot access the file: another process uses it",
                                  os.fspath(path))
        return function(path, *arguments, **named)
    return refusing


def main(system: str, lines: list[list[str]]) -> None:
    """Import the packages, become the other system, and run the command lines."""
    for name in PACKAGES.split():
        importlib.import_module(name)
    PIL.Image.init()
    sys.modules["torch"].set_num_threads(1)
    become(system)

    from diffuse_cli import python_process
    from diffuse_cli.cli import app
    from diffuse_cli.cli.terminal import view

    helpers = str(Path(__file__).parent)
    python_process._BOOTSTRAP += f"sys.path.append({helpers!r}); import other_system; other_system.become({system!r}); "
    view.start()
    for line in lines:
        gc.collect()                            # each command has a process of its own elsewhere, and files of its own
        sys.argv[1:] = line
        code = app._run(line)
        print(f"exit {code}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
