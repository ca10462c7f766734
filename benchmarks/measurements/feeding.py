"""Pictures per CPU second from a folder into batches: 256 px on the disk, 64 px in a batch, one process.

diffuse-cli decodes each picture once and then maps the decoded bytes into memory. `datasets` behind a `DataLoader`,
with the transforms of diffusers' examples, decodes in every epoch. "The first time" is a whole folder that neither has
seen: it is found, hashed or listed, decoded, and written to a cache.

The second table has the growth with the number of pictures, noise of 16 px in single files and in tar files of 1,000:
of the first time, and of a second start, which recognises the cache. Memory is the peak of the process that asks for
the data set; its decoders are processes of their own.
"""

import dataclasses
import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness.figures import exponent, format_number, format_spread, ratios, spread
from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import rates, table

SIZE, RESOLUTION = 256, 64                      # pixels on a side: of the files, and in a batch
COUNT = 512                                     # pictures in the folder
THEIRS = "datasets and DataLoader"
SMALL = 16                                      # pixels on a side of the pictures with which growth is measured
SHARD = 1_000                                   # pictures in a tar file


def write_folder(folder: Path, form: str) -> None:
    """Write scenes of the demo data as files. form: "jpg" or "png"."""
    from diffuse_cli.data.demo_scenes import scenes

    folder.mkdir()
    for index in range(COUNT):
        scenes.draw(scenes.random_scene(0, index, pairs="all"), SIZE).save(folder / f"{index:04d}.{form}")


def measure(settings: Settings, report: dict[str, Any]) -> None:
    report["cases"] = []
    with tempfile.TemporaryDirectory() as work:
        for form in ("jpg", "png"):
            folder = Path(work) / form
            write_folder(folder, form)
            options = {"folder": str(folder), "resolution": RESOLUTION}
            sides = {"diffuse-cli": Side("feeding_sides:ours", options),
                     "diffuse-cli, the first time": Side("feeding_sides:ours_first_time", options),
                     THEIRS: Side("feeding_sides:theirs", options, peer=True),
                     f"{THEIRS}, the first time": Side("feeding_sides:theirs_first_time", options, peer=True)}
            report["cases"].append({"title": form, "sides": interleave(sides, settings)})
    report["growth"] = growth(settings)


def write_noise(folder: Path, count: int, *, shards: bool) -> None:
    """Write small pictures of noise, each with a name and pixels of its own, as files or as members of tar files."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for start in range(0, count, SHARD):
        names = [f"{index:06d}.png" for index in range(start, min(start + SHARD, count))]
        files = []
        for _ in names:
            stream = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (SMALL, SMALL, 3), dtype=np.uint8)).save(stream, "PNG")
            files.append(stream.getvalue())
        if shards:
            with tarfile.open(folder / f"{start // SHARD:04d}.tar", "w") as archive:
                for name, data in zip(names, files, strict=True):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
        else:
            for name, data in zip(names, files, strict=True):
                (folder / name).write_bytes(data)


def growth(settings: Settings) -> list[dict[str, Any]]:
    """A case for each kind of data set: its sizes, and for each way to open it the results at each size."""
    counts = (1_000, 10_000) if settings.quick else (1_000, 10_000, 100_000)
    cases = []
    with tempfile.TemporaryDirectory() as work:
        for title in ("files", "tar shards"):
            sides: dict[str, Side] = {}
            for count in counts:
                folder = Path(work) / f"{title} {count}"
                write_noise(folder, count, shards=title != "files")
                options = {"folder": str(folder), "resolution": SMALL}
                sides[f"the first time {count}"] = Side("feeding_sides:ours_first_time", options)
                sides[f"a second start {count}"] = Side("feeding_sides:ours_again", options)
            once = dataclasses.replace(settings, repetitions=min(settings.repetitions, 2))
            results = interleave(sides, once, count=1)
            cases += [{"title": f"{title}, {way}", "sides": {str(count): results[f"{way} {count}"] for count in counts}}
                      for way in ("the first time", "a second start")]
    return cases


def growth_rows(cases: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for case in cases:
        sizes = [float(size) for size in case["sides"]]
        seconds = [spread([one["cpu"] for one in side["repetitions"]]).median for side in case["sides"].values()]
        peaks = [side["peak"] / 2**20 for side in case["sides"].values()]
        power, residual = exponent(sizes, seconds)
        last, _ = exponent(sizes[-2:], seconds[-2:])
        rows.append([case["title"], " · ".join(f"{size:,.0f}" for size in sizes),
                     " · ".join(map(format_number, seconds)), f"**{power:.2f}**", f"{last:.2f}", f"{residual:.2f}",
                     " · ".join(f"{peak:,.0f}" for peak in peaks)])
    return rows


def render(report: dict[str, Any]) -> list[str]:
    rows = []
    for case in report["cases"]:
        base = case["sides"].get(THEIRS)
        for name, side in case["sides"].items():
            ratio = "–" if base is None else f"{ratios(rates(side), rates(base)).median:,.1f}"
            rows.append([case["title"].upper(), name, format_spread(rates(side)), ratio])
    lines = table(["files", "", "pictures per CPU second", "times the peer"], rows)
    if "growth" in report:
        heads = ["opening", "pictures", "CPU s", "exponent", "of the last two", "residual", "peak memory, MiB"]
        lines += ["", *table(heads, growth_rows(report["growth"]))]
    return lines
