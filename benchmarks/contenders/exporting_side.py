"""`diffuse export` as the command does it: read the model, write it in another format, compare, publish."""

import tempfile
from pathlib import Path

import torch

from diffuse_cli.config import Export
from diffuse_cli.exporting import publishing
from diffuse_cli.storage import checkpoint

from . import Contender


def export(form: str, model: str, small: str) -> Contender:
    """A unit is an export of the model file `model` to the format `form`.

    The model file `small` is exported first, so that the memory of the libraries' first use does not count.
    """
    settings = Export(format=form)

    def export_once(path: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            loaded = checkpoint.load_model(path, torch.device("cpu"))
            publishing.export(loaded, Path(work) / f"model{settings.suffix}", settings, source=path)

    def work(count: int) -> None:
        for _ in range(count):
            export_once(Path(model))

    export_once(Path(small))
    return Contender(work=work, facts={})
