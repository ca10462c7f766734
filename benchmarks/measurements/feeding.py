"""Pictures per CPU second from a folder into batches: 256 px on the disk, 64 px in a batch, one process.

diffuse-cli decodes each picture once and then maps the decoded bytes into memory. `datasets` behind a `DataLoader`,
with the transforms of diffusers' examples, decodes in every epoch.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness.figures import format_spread, ratios
from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import rates, table

SIZE, RESOLUTION = 256, 64                      # pixels on a side: of the files, and in a batch
COUNT = 512                                     # pictures in the folder
THEIRS = "datasets and DataLoader"


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
                     THEIRS: Side("feeding_sides:theirs", options, peer=True)}
            report["cases"].append({"title": form, "sides": interleave(sides, settings)})


def render(report: dict[str, Any]) -> list[str]:
    rows = []
    for case in report["cases"]:
        base = case["sides"].get(THEIRS)
        for name, side in case["sides"].items():
            ratio = "–" if base is None else f"{ratios(rates(side), rates(base)).median:,.1f}"
            rows.append([case["title"].upper(), name, format_spread(rates(side)), ratio])
    return table(["files", "", "pictures per CPU second", "times the peer"], rows)
