"""Untrained models whose every weight says something, and what is said while they are exported."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator

import torch

from diffuse_cli.config import ModelConfig, NetworkConfig, TextConfig
from diffuse_cli.data import caption_words
from diffuse_cli.network.network import Network
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.runtime import randomness
from diffuse_cli.storage import checkpoint

CAPTIONS = ["a red car on a road", "a blue fish in the sea", "two green birds", "a house with a yellow door"]


def vocabulary() -> dict[str, int]:
    return train_tokenizer(CAPTIONS).get_vocab()


def make(*, conditional: bool = True, learned: bool = True, prediction: str = "v", schedule: str = "interpolated",
         network: NetworkConfig | None = None) -> checkpoint.Model:
    """A model of 8 pixels, or of another `network`, whose silent weights speak as well."""
    tokenizer = train_tokenizer(CAPTIONS) if conditional else None
    text = None if tokenizer is None else TextConfig(vocabulary=tokenizer.get_vocab_size(), width=16, layers=1)
    config = ModelConfig(prediction=prediction, schedule=schedule, network=network or NetworkConfig(
        resolution=8, widths=(16, 32), depths=(1, 1), attention=("text" if conditional else "none", "full"),
        head_dim=16, groups=16, time_width=32, text=text, out_channels=6 if learned else 3))
    built, generator = Network(config.network), randomness.generator("test", 0)
    built.initialise(generator)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * parameter[0].numel() ** -0.5 * torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1 and parameter.std() < 0.5 * parameter[0].numel() ** -0.5:
                parameter.normal_(std=0.5 * parameter[0].numel() ** -0.5, generator=generator)
    built.settle(torch.device("cpu")).eval().requires_grad_(False)
    return checkpoint.Model(config=config, network=built, tokenizer=tokenizer,
                            words=caption_words.count_words(CAPTIONS) if conditional else {})


@contextlib.contextmanager
def overheard() -> Iterator[list[str]]:
    """All that is written to stdout and stderr meanwhile, by Python or by libraries below it; filled in at the end."""
    said: list[str] = []
    python = io.StringIO()
    with tempfile.TemporaryFile() as below, contextlib.redirect_stdout(python), contextlib.redirect_stderr(python):
        kept = [(stream, os.dup(stream)) for stream in (1, 2)]
        try:
            for stream, _ in kept:
                os.dup2(below.fileno(), stream)
            yield said
        finally:
            for stream, before in kept:
                os.dup2(before, stream)
                os.close(before)
            below.seek(0)
            said.append(python.getvalue() + below.read().decode())
