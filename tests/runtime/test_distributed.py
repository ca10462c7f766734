"""Several processes train as one would: the same pictures and noise, the same gradient, the same model at the end."""

import contextlib
import os
import re
import socket
import subprocess
import time
from unittest import mock

import pytest
import real
import tiny
import torch
import torch.distributed as dist
import worlds
from safetensors.torch import load_file

from diffuse_cli.cli import processes
from diffuse_cli.cli.terminal import view
from diffuse_cli.config import Machine
from diffuse_cli.data import cached_pixels, decode_workers, file_hashes
from diffuse_cli.errors import DataError, DiffuseError, OutOfMemoryError, UsageError, WorkerError
from diffuse_cli.runtime import launch_environment
from diffuse_cli.runtime.distributed import World, join
from diffuse_cli.runtime.launch_environment import ProcessRank
from diffuse_cli.storage import checkpoint
from diffuse_cli.training import loop, meetings
from diffuse_cli.training.run import join_run, open_run
from diffuse_cli.training.trainer import Trainer

CPU = torch.device("cpu")
PROMISE = "The number of processes changes the speed alone"
SIZES = (1, 2, 4)


# ── Ranks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [0, 1, 7, 12, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 12])
def test_shares_are_all_of_it_once_and_nearly_equal(count, size):
    shares = [ProcessRank(rank, size).share(count) for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("environment", "rank"), [
    ({}, ProcessRank(0, 1, 0)),
    ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, ProcessRank(3, 8, 1)),
    ({"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "2"}, ProcessRank(2, 4, 2)),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, ProcessRank(0, 1, 0)),               # the script of sbatch itself
    ({"SLURM_NTASKS": "8", "SLURM_NPROCS": "8", "SLURM_NNODES": "1"}, ProcessRank(0, 1, 0)),    # a shell of salloc
    ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, ProcessRank(0, 1, 0)),   # srun --pty
    ({"WORLD_SIZE": "4"}, ProcessRank(0, 1, 0)), ({"RANK": "1", "LOCAL_RANK": "1"}, ProcessRank(0, 1, 0)),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, ProcessRank(0, 1, 0)),
])
def test_the_environment_says_which_process_this_is(environment, rank):
    with mock.patch.dict(os.environ, environment):
        assert launch_environment.process_rank() == rank


@pytest.mark.parametrize("environment", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "2"},
                                         {"RANK": "0", "WORLD_SIZE": "0"}, {"RANK": "0", "WORLD_SIZE": "9" * 30}])
def test_an_environment_that_contradicts_itself_is_refused(environment):
    with mock.patch.dict(os.environ, environment), pytest.raises(UsageError, match="RANK="):
        launch_environment.process_rank()


def test_a_batch_too_small_to_be_shared_is_refused():
    with pytest.raises(UsageError, match="a batch of 2 cannot be shared by 4 processes"):
        worlds.trainer(World(ProcessRank(3, 4)), batch_size=2)


# ── Collective operations ───────────────────────────────────────────────────────────────────────────────────────────


def test_collective_operations(tmp_path):
    def work():
        rank = launch_environment.process_rank().rank
        with join(CPU) as world:
            tensor = torch.full((2, 2), float(rank))
            world.broadcast_([tensor])
            value = world.broadcast_json({"who": "main", "list": [1, None]} if world.is_main else "ignored")
            return {"sum": world.all_reduce_sum(torch.tensor([rank + 1.0])),
                    "max": torch.tensor(world.all_reduce_max(10 - rank)),
                    "tensor": tensor, "json": torch.tensor(value == {"who": "main", "list": [1, None]})}

    for result in worlds.run(3, work, tmp_path):
        assert result["sum"].item() == 6
        assert result["max"].item() == 10
        assert result["json"].item()
        assert torch.equal(result["tensor"], torch.zeros(2, 2))


def test_a_process_that_works_alone_for_longer_than_the_timeout_is_waited_for(tmp_path):
    def work():
        with contextlib.suppress(WorkerError), mock.patch.dict(os.environ, DIFFUSE_TIMEOUT="2"), join(CPU) as world:
            if world.is_main:
                time.sleep(6)
            heard = world.broadcast_json(7)                          # waits patiently
            world.barrier()
            if world.is_main:
                time.sleep(6)
            world.all_reduce_max(1)                               # waits for one timeout only
            return {"heard": torch.tensor(0)}
        return {"heard": torch.tensor(heard)}

    assert [one["heard"].item() for one in worlds.run(2, work, tmp_path)] == [7, 7]


def test_a_process_that_is_left_alone_gets_an_error(tmp_path):
    def work():
        with contextlib.suppress(WorkerError), join(CPU) as world:
            if world.is_main:
                os._exit(0)
            world.all_reduce_max(1)
            return {"told": torch.tensor(False)}
        return {"told": torch.tensor(True)}

    children = [worlds._fork(rank, 2, work, tmp_path) for rank in range(2)]
    for child in children:
        os.waitpid(child, 0)
    assert load_file(tmp_path / "1.safetensors")["told"].item()


# ── One batch ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def one_batch(tmp_path_factory):
    """For each size of world, the batches and the gradients of its processes."""
    return {size: _one_batch(size, tmp_path_factory.mktemp("world")) for size in SIZES}


def _one_batch(size, directory):
    def work():
        with join(CPU) as world:
            one, result = worlds.trainer(world), {}
            for step in (0, 3):
                batch, keys = one.batches.draw(step, one.share.start, len(one.share))
                for name in ("image", "noise", "t"):
                    result[f"{step}.{name}"] = getattr(batch, name)
                result[f"{step}.tokens"], result[f"{step}.keys"] = batch.tokens[batch.caption_of], keys
            result["totals"] = one._gradient_of_batch()
            return result | {f"gradient.{name}": parameter.grad for name, parameter in one.network.named_parameters()
                             if parameter.grad is not None}

    return worlds.run(size, work, directory)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_noise_times_and_captions_are_the_same_in_every_world(size, one_batch, counted):
    (alone,), parts = one_batch[1], one_batch[size]
    for name in (name for name in alone if name[0] in "03"):
        assert torch.equal(torch.cat([part[name] for part in parts]), alone[name]), name
    counted(PROMISE, "order of pictures and noise, exactly, in worlds of 1, 2 and 4", 1)


@pytest.mark.parametrize("size", SIZES)
def test_the_gradient_is_that_of_the_whole_batch_and_the_same_everywhere(size, one_batch, counted):
    (alone,), parts = one_batch[1], one_batch[size]
    names = [name for name in alone if name.startswith("gradient.")]
    assert len(names) > 100
    largest = max(alone[name].abs().max() for name in names)
    for part in parts:
        assert all(torch.equal(part[name], parts[0][name]) for name in (*names, "totals"))
        assert max((part[name] - alone[name]).abs().max() for name in names) < 1e-5 * largest
        torch.testing.assert_close(part["totals"], alone["totals"], rtol=1e-5, atol=0)
    counted(PROMISE, "gradients, within 1e-5, in worlds of 1, 2 and 4", 1)


@pytest.mark.parametrize(("enough", "micro_batch"), [(3, 2), (1, 1), (0, None)])
def test_too_little_memory_of_one_process_halves_the_micro_batch_of_all(enough, micro_batch, one_batch, tmp_path):
    accumulate = Trainer._accumulate

    def scarce(self, start, count, **options):
        result = accumulate(self, start, count, **options)
        if count > enough and not self.world.is_main:
            raise torch.OutOfMemoryError
        return result

    def work():
        with join(CPU) as world:
            one = worlds.trainer(world)
            with mock.patch.object(Trainer, "_accumulate", scarce):
                try:
                    one._gradient_of_batch()
                except OutOfMemoryError as error:
                    return {"refused": torch.tensor(error.exit_code)}
            return {"micro_batch": torch.tensor(one.micro_batch)} | {
                f"gradient.{name}": parameter.grad for name, parameter in one.network.named_parameters()
                if parameter.grad is not None}

    (alone,), parts = one_batch[1], worlds.run(2, work, tmp_path)
    if micro_batch is None:
        assert [part["refused"].item() for part in parts] == [7, 7]
        return
    assert [part["micro_batch"].item() for part in parts] == [micro_batch] * 2
    names = [name for name in alone if name.startswith("gradient.")]
    largest = max(alone[name].abs().max() for name in names)
    assert max((part[name] - alone[name]).abs().max() for part in parts for name in names) < 1e-5 * largest


def test_memory_that_runs_out_while_others_wait_ends_with_a_smaller_micro_batch(tmp_path):
    def work():
        with join(CPU) as world:
            one = worlds.trainer(world)
            one._gradient_of_batch()
            with mock.patch.object(Trainer, "_accumulate", side_effect=torch.OutOfMemoryError), \
                    pytest.raises(OutOfMemoryError, match="Resume with --micro-batch 2"):
                one._gradient_of_batch()
        return {"refused": torch.tensor(1)}

    worlds.run(2, work, tmp_path)


@pytest.mark.parametrize(("captioned", "recipe"), [
    (True, {}), (False, {}), (True, {"variance": "fixed"}), (True, {"variance_grad": "trunk"}),
    (False, {"times": "discrete"})])
def test_every_parameter_gets_a_gradient(captioned, recipe):
    """So that DistributedDataParallel need not look for unused ones."""
    one = worlds.trainer(World(), captioned=captioned, **recipe)
    torch.autograd.backward(one.loss(*one.batches.draw(0, 0, 4))[0])
    assert [name for name, parameter in one.network.named_parameters()
            if parameter.requires_grad and parameter.grad is None] == []


def test_a_gpu_is_named_to_nccl_and_what_waits_for_it_is_given_up_after_an_error(monkeypatch):
    """A process that fails must not wait for the others' part of a gradient: that would take until the timeout."""
    called, backend, asked = [], mock.Mock(), {}
    backend.abort.side_effect = lambda: called.append("abort")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "init_process_group", lambda *args, **kwargs: asked.update(kwargs))
    monkeypatch.setattr(dist, "new_group", lambda **kwargs: None)
    monkeypatch.setattr(dist, "group", mock.Mock(WORLD=mock.Mock(_get_backend=lambda device: backend)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: called.append("destroy"))
    monkeypatch.setattr(World, "barrier", lambda self: None)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with join(torch.device("cuda", 0)):
        pass
    assert (called, asked["device_id"]) == (["destroy"], torch.device("cuda", 0))
    with pytest.raises(OutOfMemoryError), join(torch.device("cuda", 0)):
        raise OutOfMemoryError("full", hint="")
    assert called == ["destroy", "abort", "destroy"]
    del backend.abort                                       # gloo in torch 2.6
    with pytest.raises(OutOfMemoryError), join(torch.device("cuda", 0)):
        raise OutOfMemoryError("full", hint="")


def test_a_process_without_memory_ends_at_once_and_the_other_hears_of_it(squares, decoded, home, tmp_path):
    """The timeout of 300 s is longer than this test may take."""
    def work():
        main = launch_environment.process_rank().is_main
        opened = open_run(squares, tiny.RECIPE, Machine(**tiny.OPTIONS)) if main else \
            contextlib.nullcontext(join_run(squares, tiny.RECIPE, Machine(**tiny.OPTIONS)))
        accumulate = Trainer._accumulate

        def scarce(self, start, count, **options):
            if not main and self.global_step == 2:
                raise torch.OutOfMemoryError
            return accumulate(self, start, count, **options)

        with opened as run, tiny.scaled_down(), mock.patch.object(Trainer, "_accumulate", scarce):
            try:
                list(loop.train(run))
            except DiffuseError as error:
                return {"code": torch.tensor(error.exit_code)}
        return {}

    codes = [ended["code"].item() for ended in worlds.run(2, work, tmp_path)]
    assert codes == [WorkerError.exit_code, OutOfMemoryError.exit_code] == [WorkerError.exit_code, 7]


# ── Whole trainings ─────────────────────────────────────────────────────────────────────────────────────────────────


def model_of(home):
    return checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU)


@pytest.mark.usefixtures("decoded")
def test_resuming_in_worlds_of_other_sizes_changes_the_speed_alone(squares, home, tmp_path, counted):
    noise = [worlds.train(size, squares, tmp_path / str(number), stop_at=stop_at)
             for number, (size, stop_at) in enumerate([(1, 2), (2, 2), (1, 2), (4, None)])]
    with tiny.at_home(tmp_path / "alone"):
        alone = worlds.train(1, squares, tmp_path / "once")
    torch.testing.assert_close(torch.cat(noise), alone, rtol=1e-4, atol=0)
    counted(PROMISE, "going on in worlds of 1, 2, 1 and 4", 1)


def test_pictures_of_several_sizes_are_the_same_in_every_world(home, tmp_path, counted):
    folder = tiny.draw_shapes(tmp_path / "shapes")
    noise = [worlds.train(size, folder, tmp_path / str(size), recipe=tiny.BUCKETS, stop_at=stop_at)
             for size, stop_at in ((2, 3), (1, None))]
    assert len(model_of(home).config.network.sizes) == 3
    with tiny.at_home(tmp_path / "alone"):
        alone = worlds.train(1, folder, tmp_path / "once", recipe=tiny.BUCKETS)
    torch.testing.assert_close(torch.cat(noise), alone, rtol=1e-4, atol=0)
    counted(PROMISE, "pictures of several sizes, going on in worlds of 2 and 1", 1)


@pytest.mark.parametrize("again", [False, True])
def test_one_process_of_each_machine_reads_decodes_and_compares_the_pictures(again, squares, home, tmp_path):
    """Of three processes on two machines, one is the second of its machine: it finds everything done."""
    def work():
        rank = launch_environment.process_rank().rank
        local = {"LOCAL_RANK": "01"[rank == 1], "DIFFUSE_HOME": str(home / ("b" if rank == 2 else "a"))}
        with mock.patch.dict(os.environ, local), \
                mock.patch.object(file_hashes, "open_regular", wraps=file_hashes.open_regular) as opened, \
                mock.patch.object(cached_pixels, "verify", wraps=cached_pixels.verify) as verified, \
                mock.patch.object(decode_workers, "decode_all", wraps=decode_workers.decode_all) as decoded, \
                mock.patch.object(meetings, "WORKING_SECONDS", 0):
            worlds.train_here(squares, stop_at=1)
        return {"calls": torch.tensor([opened.call_count, verified.call_count, decoded.call_count])}

    if again:
        for name in "ab":
            with tiny.at_home(home / name):
                worlds.run(1, lambda: {"step": torch.tensor(worlds.train_here(squares, stop_at=1)[-1].step)}, tmp_path)
    files = len(list(squares.rglob("*.png")))
    first, second, other = (one["calls"].tolist() for one in worlds.run(3, work, tmp_path / "world"))
    assert first == other == ([0, 1, 0] if again else [files, 0, 1])
    assert second == [0, 0, 0]


def test_pictures_that_one_process_cannot_use_end_all_with_the_same_error(home, tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")

    def work():
        with pytest.raises(DataError, match="skipped 4 of 4"):
            worlds.train_here(tmp_path / "pictures")
        return {"ended": torch.tensor(1)}

    assert len(worlds.run(2, work, tmp_path / "world")) == 2


@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_resuming_in_a_world_of_the_same_size_is_bit_identical(squares, home, tmp_path, size, counted):
    for number, stop_at in enumerate((3, 2, None)):
        worlds.train(size, squares, tmp_path / str(number), stop_at=stop_at)
    interrupted = model_of(home).sha256
    with tiny.at_home(tmp_path / "once"):
        worlds.train(size, squares, tmp_path / "uninterrupted")
        assert model_of(tmp_path / "once").sha256 == interrupted
    counted("A run goes on, bit for bit", "in worlds of 2 and of 4, after two interruptions", 1)


@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize(("seconds", "step"), [(0, 3), (1e9, 6)])
def test_a_signal_to_one_process_stops_them_all_at_their_next_meeting(seconds, step, squares, home, tmp_path):
    """After three steps, if they meet after each; otherwise at the third duty of the main process: 3, 4 and 6."""
    def work():
        main = launch_environment.process_rank().is_main
        machine = Machine(**tiny.OPTIONS)
        opened = open_run(squares, tiny.RECIPE, machine) if main else \
            contextlib.nullcontext(join_run(squares, tiny.RECIPE, machine))
        with opened as run, tiny.scaled_down(), mock.patch.object(meetings, "SECONDS", seconds):
            *_, end = loop.train(run, should_stop=tiny.StopAfter(None if main else 3 if seconds == 0 else 4))
        return {"step": torch.tensor(end.step), "interrupted": torch.tensor(end.reason == "SIGINT")}

    for ended in worlds.run(2, work, tmp_path):
        assert (ended["step"].item(), ended["interrupted"].item()) == (step, True)


def test_variables_that_another_program_left_behind_are_named(monkeypatch):
    """After a torchrun that died, nobody answers at its address."""
    def nobody_answers(*_, **__):
        raise torch.distributed.DistNetworkError("timed out after 300s; 1/2 clients joined")

    monkeypatch.setattr(torch.distributed, "init_process_group", nobody_answers)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29777"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WorkerError, match="not all of the 2 processes") as found, join(torch.device("cpu")):
        pass
    assert "unset them" in found.value.hint


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_waits_for_others_says_so(rank, monkeypatch, capsys):
    """Perhaps nobody started them, and the variables are left over."""
    monkeypatch.setattr(processes, "WAITING_SECONDS", 0)
    view.start()
    line = f"not connected yet: .* this is process {int(rank) + 1} of 2"
    for variables, waits, expected in (({}, True, False), ({"RANK": rank, "WORLD_SIZE": "2"}, False, False),
                                       ({"RANK": rank, "WORLD_SIZE": "2"}, True, True)):
        with mock.patch.dict(os.environ, variables), processes.process_duties(waits=waits):
            time.sleep(0.5)
        assert bool(re.search(line, capsys.readouterr().err)) is expected
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    with mock.patch.dict(os.environ, {"RANK": rank, "WORLD_SIZE": "2"}), processes.process_duties():
        time.sleep(0.5)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("rank", ["0", "1"])
def test_variables_that_are_left_over_are_named_while_it_waits_and_at_the_end(rank, squares, home):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    waiting = real.environment(home, RANK=rank, WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1",
                               MASTER_PORT=port, DIFFUSE_TIMEOUT="60")
    ended = subprocess.run(real.command(squares), env=waiting, capture_output=True, text=True, timeout=280)
    first, *_, last = ended.stderr.splitlines()
    assert "not connected yet: the environment (RANK and WORLD_SIZE" in first
    assert last.startswith("error: not all of the 2 processes")
    assert ended.returncode == 9


@pytest.mark.parametrize("timeout", ["soon", "nan", "inf", "0", "-5", "1e300", " "])
def test_a_timeout_that_is_none_is_a_usage_error(monkeypatch, timeout):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "DIFFUSE_TIMEOUT": timeout}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="DIFFUSE_TIMEOUT="), join(torch.device("cpu")):
        pass


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_process_that_nobody_meets_says_so(monkeypatch, tmp_path, rank):
    """The error of torch has neither a class nor a word of its own; taken for a fault of ours, it would be exit 70."""
    for name, value in {"RANK": rank, "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo", "DIFFUSE_TIMEOUT": "1",
                        launch_environment.RENDEZVOUS: str(tmp_path / "meeting")}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WorkerError, match="does not answer"), join(torch.device("cpu")):
        pass
