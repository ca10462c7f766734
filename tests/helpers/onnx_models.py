"""Untrained models for ONNX tests whose outputs depend on every weight, and a context that captures printed output."""

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator

import torch

from diffuse_cli.data import caption_words
from diffuse_cli.model_config import ModelConfig, NetworkConfig, TextConfig
from diffuse_cli.network.network import Network
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.runtime import randomness
from diffuse_cli.storage import checkpoint

CAPTIONS = ["a red car on a road", "a blue fish in the sea", "two green birds", "a house with a yellow door"]


def vocabulary() -> dict[str, int]:
    return train_tokenizer(CAPTIONS).get_vocab()


def make(*, conditional: bool = True, learned: bool = True, prediction: str = "v", schedule: str = "interpolated",
         network: NetworkConfig | None = None) -> checkpoint.Model:
    """A model for 8 × 8 pixels, or with another `network`, without weights that are zero or hardly matter."""
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
    built.place_on(torch.device("cpu")).eval().requires_grad_(False)
    return checkpoint.Model(config=config, network=built, tokenizer=tokenizer,
                            words=caption_words.count_words(CAPTIONS) if conditional else {})


@contextlib.contextmanager
def captured_output() -> Iterator[list[str]]:
    """Capture all that Python and native libraries write to stdout and stderr; the list gets it when the block ends."""
    output: list[str] = []
    python = io.StringIO()
    with tempfile.TemporaryFile() as native, contextlib.redirect_stdout(python), contextlib.redirect_stderr(python):
        originals = [(stream, os.dup(stream)) for stream in (1, 2)]
        try:
            for stream, _ in originals:
                os.dup2(native.fileno(), stream)
            yield output
        finally:
            for stream, original in originals:
                os.dup2(original, stream)
                os.close(original)
            native.seek(0)
            output.append(python.getvalue() + native.read().decode())
