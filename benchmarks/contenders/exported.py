"""A student as it leaves with `diffuse export --to onnx`: drawn by onnxruntime and the script of the folder alone."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from diffuse_cli.exporting.standalone.sample import BATCH, Sampler, noise_of, step_table

from . import Contender


def _write(folder: Path, preset: str, resolution: int, evaluations: int) -> None:
    """Write the folder, in a process whose memory does not count."""
    from benchmarks.contenders.ours import write_student

    write_student(folder, preset, resolution, evaluations)


def sampling(*, preset: str, resolution: int, pictures: int, evaluations: int) -> Contender:
    """A unit is `pictures` pictures with random weights, drawn as the script draws them."""
    with tempfile.TemporaryDirectory() as folder:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(_write, Path(folder), preset, resolution, evaluations).result()
        sampler = Sampler(Path(folder))
    (name,) = (name for name in sampler.constants["steps"] if name != "columns")
    table = step_table(sampler.constants, evaluations, guided=False, sampler=name)

    def work(times: int) -> None:
        for _ in range(times):
            for first in range(0, pictures, BATCH):
                noise = np.stack([noise_of(first + k, sampler.shape) for k in range(min(BATCH, pictures - first))])
                sampler.generate(noise, table, text=sampler.encode(["a red car"] * len(noise)))

    return Contender(work, {"pictures": pictures, "steps": evaluations, "guided_steps": 0, "precision": "fp32",
                               "sampler": name, "batch": BATCH})
