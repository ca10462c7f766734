"""Helpers for real trainings of a small network: the real command line in processes of their own."""

import os
import sys
import time
from pathlib import Path

import tiny
import torch

from diffuse_cli.storage import checkpoint


def command(folder, *more):
    options = "--name tiny --resolution 8 --preset nano --steps 8 --batch-size 4 --save-every 3 --preview-every 100%"
    return [sys.executable, "-m", "diffuse_cli", "train", str(folder), *options.split(), *more]


def environment(home, **more):
    plain = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return plain | {"DIFFUSE_HOME": str(home), "OMP_NUM_THREADS": "1"} | more


def processes_of(home):
    """The ids of the living processes whose DIFFUSE_HOME is `home`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DIFFUSE_HOME={home}\0".encode() in path.read_bytes() + b"\0":
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid() and _is_alive(pid)]


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def sha256_of(home):
    return checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", torch.device("cpu")).sha256


def is_learning(home):
    log = tiny.run_directory(home) / "events.jsonl"
    return lambda: log.exists() and '"started"' in log.read_text()
