"""Worlds for tests: processes that meet as those of one training do, forked from this one, with a core's worth each."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffuse_cli.runtime import launch_environment

Work = Callable[[], dict[str, Tensor]]


def run(size: int, work: Work, directory: Path) -> list[dict[str, Tensor]]:
    """What `work` returned in each of `size` processes, by rank. A process that failed fails the test."""
    directory.mkdir(parents=True, exist_ok=True)
    children = [_fork(rank, size, work, directory) for rank in range(size)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * size, codes
    return [load_file(directory / f"{rank}.safetensors") for rank in range(size)]


def _fork(rank: int, size: int, work: Work, directory: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        environment = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo",
                       launch_environment.RENDEZVOUS: str(directory / "meeting")}
        with mock.patch.dict(os.environ, environment if size > 1 else {}):
            save_file({name: tensor.contiguous() for name, tensor in work().items()},
                      directory / f"{rank}.safetensors")
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
