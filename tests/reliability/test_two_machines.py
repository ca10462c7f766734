"""Two machines, which are two network namespaces of one, with a virtual cable: torchrun on each, and gloo between them.

Each has a directory of models of its own; they share the cable alone. Needs root, and is skipped where the system does
not allow such namespaces.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys

import pytest
import tiny
from real import command, environment, is_learning, processes_of, sha256_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PROMISE = "Two machines train as one, and neither outlives the other"
TIMEOUT = 20                                    # seconds until a silent machine is given up


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True)


@pytest.fixture
def machines():
    """The names of two namespaces with a cable between them."""
    if shutil.which("ip") is None:
        pytest.skip("there is no program `ip`")
    names = [f"diffuse{os.getpid()}-{number}" for number in range(2)]
    try:
        for name in names:
            made = ip("netns", "add", name)
            if made.returncode:
                pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
        laid = ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        if laid.returncode:
            pytest.skip(f"no virtual cable here: {laid.stderr.strip()}")
        for number, name in enumerate(names):
            ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@contextlib.contextmanager
def trained_on(machines, homes, folder, *more, **variables):
    """The torchruns of both machines, while they train."""
    with contextlib.ExitStack() as stack:
        running = []
        for number, (name, home) in enumerate(zip(machines, homes, strict=True)):
            home.mkdir(mode=0o700)
            launcher = [sys.executable, "-P", "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
                        "--node-rank", str(number), "--master-addr", "10.77.0.1", "--master-port", "29400",
                        "--no-python"]
            running.append(stack.enter_context(subprocess.Popen(
                ["ip", "netns", "exec", name, *launcher, *command(folder, *more)], stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE, text=True, start_new_session=True,
                env=environment(home, GLOO_SOCKET_IFNAME="cable", TP_SOCKET_IFNAME="cable", **variables))))
        try:
            yield running
        finally:
            for one in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.pid, signal.SIGKILL)
            for pid in [pid for home in homes for pid in processes_of(home)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("more", [(), ("--shard",)])
def test_the_model_is_that_of_two_processes_on_one_machine(more, machines, squares, tmp_path, counted):
    homes = [tmp_path / "first", tmp_path / "second"]
    with trained_on(machines, homes, squares, "-q", *more) as running:
        said = [one.communicate(timeout=600)[1] for one in running]
        assert [one.returncode for one in running] == [0, 0], said
    alone = tmp_path / "alone"
    alone.mkdir(mode=0o700)
    subprocess.run(command(squares, "--procs", "2", "-q", *more), env=environment(alone), check=True, timeout=600)
    assert sha256_of(homes[0]) == sha256_of(alone)
    assert not (homes[1] / "models").exists()                                      # only the first machine writes
    counted(PROMISE, "the same bits as on one machine, with whole and with divided weights", 1)


@pytest.mark.parametrize("how", ["its processes are killed", "its cable is cut"])
def test_a_lost_machine_ends_the_other(how, machines, squares, tmp_path, counted):
    homes = [tmp_path / "first", tmp_path / "second"]
    with trained_on(machines, homes, squares, "--steps", "100000", DIFFUSE_TIMEOUT=str(TIMEOUT)) as (first, second):
        wait_until(is_learning(homes[0]), 600)
        if how == "its cable is cut":
            ip("-n", machines[1], "link", "set", "cable", "down")
        else:
            for pid in (second.pid, *processes_of(homes[1])):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        said = first.communicate(timeout=120)[1]
        assert first.returncode != 0
        assert "error: another of the processes has ended, or does not answer" in said
        assert not processes_of(homes[0])
    assert list(tiny.run_directory(homes[0]).iterdir())
    counted(PROMISE, f"a machine is lost: {how}", 1)
