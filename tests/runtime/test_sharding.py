"""Weights divided among processes: the same training as with whole ones, and nobody has more than its share."""

import math
from unittest import mock

import pytest
import tiny
import torch
import worlds
from torch.distributed import fsdp, tensor  # noqa: F401 (once here, not in every process)

from diffuse_cli.errors import UsageError
from diffuse_cli.runtime import launch_environment, sharding
from diffuse_cli.runtime.distributed import World, join
from diffuse_cli.runtime.launch_environment import ProcessRank
from diffuse_cli.storage import checkpoint
from diffuse_cli.training.muon import orthogonal_steps
from diffuse_cli.training.muon_shares import SharedDirections, owners
from diffuse_cli.training.trainer import Trainer

PROMISE = "Dividing the weights among processes changes the memory alone"
CPU = torch.device("cpu")
STEPS = 3
SHAPES = [torch.Size(shape) for shape in ((6, 4), (4, 6), (3, 2, 3, 3), (5, 5), (1, 7), (8, 2, 1, 1))]
possible = pytest.mark.skipif(not sharding.is_possible(CPU), reason="torch 2.6 cannot divide weights on a CPU")
WORLDS = [2, pytest.param(4, marks=pytest.mark.slow)]


# ── Rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_rows_are_those_of_torch(count, size):
    chunks = torch.arange(count).chunk(size)
    for rank in range(size):
        expected = chunks[rank].tolist() if rank < len(chunks) else []
        assert list(range(count))[sharding.rows(count, rank=rank, processes=size)] == expected


# ── Muon ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_matrices_are_owned_once_and_their_arithmetic_is_shared():
    shapes = [torch.Size((64, 64, 3, 3))] * 8 + [torch.Size((64, 64))] * 8 + [torch.Size((8, 64))]
    for processes in (1, 2, 4):
        owner = owners(shapes, processes)
        costs = [sum(min(shape[0], shape[1:].numel()) * shape.numel() for shape, rank in zip(shapes, owner, strict=True)
                     if rank == process) for process in range(processes)]
        assert max(costs) < 1.1 * min(costs)
    assert set(owners(SHAPES, 50)) <= set(range(50))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-4), (torch.bfloat16, 0.02)])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("size", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_shared_steps_are_those_of_one_process(sharded, size, dtype, error, tmp_path):
    """With eight processes there are more of them than matrices."""
    momenta = [torch.randn(shape, generator=torch.Generator().manual_seed(number))
               for number, shape in enumerate(SHAPES)]

    def work():
        with join(CPU) as world:
            shared = SharedDirections(orthogonal_steps, SHAPES, world, sharded=sharded)
            mine = [momentum[sharding.rows(len(momentum), rank=world.process.rank, processes=size)] if sharded
                    else momentum for momentum in momenta]
            return {str(number): step.clone() for number, step in enumerate(shared(mine, dtype))}

    parts = worlds.run(size, work, tmp_path)
    for number, expected in enumerate(orthogonal_steps(momenta, dtype)):
        found = [torch.cat([part[str(number)] for part in parts])] if sharded else \
            [part[str(number)] for part in parts]
        for one in found:
            assert (one - expected).norm() < error * expected.norm()
            assert (one.shape, one.dtype) == (expected.shape, expected.dtype)


# ── Steps ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def steps_in(size, directory, *, sharded, **options):
    """What each process has after a few steps: whole tensors in the first, the losses, and its share of the numbers."""
    def work():
        with join(CPU) as world:
            one = worlds.trainer(world, sharded=sharded and size > 1, **options)
            losses = torch.stack([one.step().losses for _ in range(STEPS)])
            mine = sum(sharding.local(tensor).numel() for tensor in one.tensors().values())
            with one.whole(moments=True):
                whole = {name: part.clone() for name, part in one.tensors().items()} if world.is_main else {}
                averaged = {f"averaged.{name}": part.clone() for name, part in one.averaged.state_dict().items()
                            } if world.is_main else {}
            assert one.state.gathered == {}
            norms = torch.tensor(one.record()["norms"])
            return {**whole, **averaged, "losses": losses, "norms": norms, "mine": torch.tensor(mine)}

    return worlds.run(size, work, directory)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process has after the same steps, for batches of 12 pictures and of 11."""
    return {count: steps_in(1, tmp_path_factory.mktemp("alone"), sharded=False, batch_size=count)[0]
            for count in (11, 12)}


@possible
@pytest.mark.parametrize("size", WORLDS)
@pytest.mark.parametrize(("batch_size", "micro_batch", "recompute"), [
    (12, 4, False), (11, 5, True)])                                     # 11 = 5 + 6: one pass, and two
def test_steps_are_those_of_one_process(size, batch_size, micro_batch, recompute, alone, tmp_path, counted):
    """Also where blocks compute once more in the backward pass, for which they need their weights again."""
    main, *others = steps_in(size, tmp_path, sharded=True, batch_size=batch_size, micro_batch=micro_batch,
                             recompute=recompute)
    expected = alone[batch_size]
    names = [name for name in expected if name != "mine"]
    assert set(names) == main.keys() - {"mine"}
    for name in names:
        largest = expected[name].abs().max()
        assert (main[name] - expected[name]).abs().max() <= 1e-4 * largest + 1e-9, name
    torch.testing.assert_close(main["losses"], expected["losses"], rtol=1e-5, atol=0)
    for other in others:
        assert torch.equal(other["losses"], main["losses"])
        assert torch.equal(other["norms"], main["norms"])
    shares = [part["mine"].item() for part in (main, *others)]
    assert sum(shares) == expected["mine"]
    assert max(shares) < 1.2 * expected["mine"] / size                              # vectors of few rows divide badly
    counted(PROMISE, "losses within 1e-5, weights and moments within 1e-4, in worlds of 2 and 4", 1)


@possible
def test_a_step_that_is_not_finite_changes_nothing(tmp_path):
    """Although a single process has the number that is not finite."""
    def work():
        with join(CPU) as world:
            one = worlds.trainer(world, sharded=True)
            one.step()
            before = {name: sharding.local(tensor).clone() for name, tensor in one.tensors().items()}
            accumulate = Trainer._accumulate

            def poisoned(self, *arguments, **options):
                losses = accumulate(self, *arguments, **options)
                if world.is_main:
                    sharding.local(self.network.unet.conv_in.weight.grad)[0] = math.nan
                return losses

            with mock.patch.object(Trainer, "_accumulate", poisoned):
                one.step()
            same = [torch.equal(sharding.local(tensor), before[name]) for name, tensor in one.tensors().items()]
            skipped = one.skipped
            one.step()
            return {"same": torch.tensor(all(same)), "skipped": torch.tensor(skipped),
                    "at last": torch.tensor(one.skipped)}

    for found in worlds.run(2, work, tmp_path):
        assert (found["same"].item(), found["skipped"].item(), found["at last"].item()) == (True, 1, 1)


@pytest.mark.parametrize(("count", "size", "micro_batch", "short"), [
    (12, 2, 4, [False, False]), (11, 2, 5, [True, False]), (11, 2, 6, [False, False]), (10, 4, 2, [True, False] * 2)])
def test_a_process_with_fewer_passes_makes_one_more(count, size, micro_batch, short):
    """Otherwise the others would wait for its part of the weights."""
    one = worlds.trainer(World(), batch_size=count, micro_batch=micro_batch)
    one.state.sharded = True
    for rank in range(size):
        one.world = World(ProcessRank(rank, size))
        one.share = one.world.process.share(count)
        assert one._is_a_pass_short() is short[rank]
    passes = [math.ceil(len(ProcessRank(rank, size).share(count)) / micro_batch) + short[rank] for rank in range(size)]
    assert len(set(passes)) == 1


# ── Whole trainings ─────────────────────────────────────────────────────────────────────────────────────────────────


def model_of(home):
    return checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU)


@possible
@pytest.mark.slow
@pytest.mark.usefixtures("decoded")
def test_a_run_goes_on_in_worlds_of_other_sizes(squares, home, tmp_path, counted):
    noise = [worlds.train(size, squares, tmp_path / str(number), stop_at=stop_at, shard=True)
             for number, (size, stop_at) in enumerate([(1, 2), (2, 2), (4, 2), (1, None)])]
    with tiny.at_home(tmp_path / "alone"):
        alone = worlds.train(1, squares, tmp_path / "once")
    torch.testing.assert_close(torch.cat(noise), alone, rtol=0, atol=1e-5)
    counted(PROMISE, "a run that goes on in worlds of 1, 2, 4 and 1: losses within 1e-5", 1)


@possible
@pytest.mark.slow
@pytest.mark.usefixtures("decoded")
def test_an_interrupted_run_goes_on_bit_for_bit(squares, home, tmp_path, counted):
    """Its losses are also those of one process, so this is the quick part of the test above."""
    for number, stop_at in enumerate((3, None)):
        worlds.train(2, squares, tmp_path / str(number), stop_at=stop_at, shard=True)
    with tiny.at_home(tmp_path / "once"):
        noise = worlds.train(2, squares, tmp_path / "uninterrupted", shard=True)
        assert model_of(tmp_path / "once").sha256 == model_of(home).sha256
    with tiny.at_home(tmp_path / "alone"):
        alone = worlds.train(1, squares, tmp_path / "one")
    torch.testing.assert_close(noise, alone, rtol=0, atol=1e-5)
    counted("A run goes on, bit for bit", "with weights divided among two processes, after an interruption", 1)


@possible
@pytest.mark.usefixtures("decoded")
def test_what_cannot_be_divided_is_refused(squares, home, tmp_path):
    def work():
        with pytest.raises(UsageError, match="not compiled"):
            worlds.train_here(squares, shard=True, compile=True)
        return {"rank": torch.tensor(launch_environment.process_rank().rank)}

    assert [part["rank"].item() for part in worlds.run(2, work, tmp_path)] == [0, 1]
