"""The demo scenes that the parts train on, drawn once for each resolution."""

from pathlib import Path

from benchmarks.gpu import Settings
from diffuse_cli.data.demo_scenes.scenes import write_demo_folder


def folder(settings: Settings, *, resolution: int, count: int) -> Path:
    """A folder of captioned scenes; `count` counts only when it is drawn."""
    directory = settings.out / f"scenes-{resolution}"
    if not directory.exists():
        for _ in write_demo_folder(directory, count=count, resolution=resolution):
            pass
    return directory
