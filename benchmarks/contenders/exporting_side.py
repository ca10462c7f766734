"""`diffuse export`, as the command does it: read the model, write it in another form, compare, put it in its place."""

import tempfile
from pathlib import Path

import torch

from diffuse_cli.config import Export
from diffuse_cli.exporting import publishing
from diffuse_cli.storage import checkpoint

from . import Contender


def export(form: str, model: str, small: str) -> Contender:
    """Ready once the model in the file `small` was exported: what libraries take at their first use is not the model's.
    """
    how = Export(format=form)

    def one(path: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            loaded = checkpoint.load_model(path, torch.device("cpu"))
            publishing.export(loaded, Path(work) / f"model{how.suffix}", how, source=path)

    def work(count: int) -> None:
        for _ in range(count):
            one(Path(model))

    one(Path(small))
    return Contender(work=work, facts={})
