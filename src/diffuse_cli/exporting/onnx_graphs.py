"""Turns a model's networks into ONNX graphs: torch traces them, and the exporter's notes are removed.

Also encodes a graph as the bytes of an ONNX file, weight by weight.
"""

import contextlib
import gc
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import installing
from ..errors import UsageError
from ..model_config import ModelConfig
from ..network.network import Network
from ..network.tokenizer import LENGTH

if TYPE_CHECKING:
    import onnx

UNET_FILE, TEXT_ENCODER_FILE, SAMPLER_FILE = "unet.onnx", "text_encoder.onnx", "sampler.onnx"      # in an ONNX folder
TOKENIZER_FILE, CONSTANTS_FILE = "tokenizer.json", "sampler.json"
OPSET = 18                                      # the oldest ONNX opset that the exporter can write: docs/decisions.md
EXTRA = ("onnx", "onnxruntime", "onnxscript")    # the libraries of diffuse-cli[onnx]


def check_extra() -> None:
    """Raise UsageError, with the command that installs them, if libraries of the extra are missing."""
    if any(importlib.util.find_spec(name) is None for name in EXTRA):
        raise UsageError("the onnx format needs libraries that are not installed",
                         hint=f"Install them: {installing.extra('onnx')}")


@dataclass(frozen=True)
class Graph:
    """An ONNX model whose weights are kept beside it, so that a copy of the graph does not copy the weights."""

    model: "onnx.ModelProto"
    weights: "list[onnx.TensorProto]"

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the model's file, one weight after another.

        The library can only serialise a whole model at once, which needs twice the model's size of extra memory
        (measured: 200 MiB for weights of 100 MiB). With the 86 MiB of `small` at 32 px, writing `sampler.onnx` would
        peak at 480 MiB. Piece by piece it peaks at 172 MiB, and the whole export stays below 290 MiB, which the
        comparison takes anyway. The library's other way, weights in a second file, gives users two files to keep.

        A protocol buffers message is a sequence of fields; a field that is itself a message is its number, its length
        and its bytes. The graph is field 7 of a model, and each weight is a field 5 of the graph.
        """
        import onnx

        shell, graph = onnx.ModelProto(), self.model.graph.SerializeToString()
        shell.CopyFrom(self.model)
        shell.ClearField("graph")
        sizes = [weight.ByteSize() for weight in self.weights]
        weight_bytes = sum(len(_field_start(5, size)) + size for size in sizes)
        yield shell.SerializeToString() + _field_start(7, len(graph) + weight_bytes) + graph
        for weight, size in zip(self.weights, sizes, strict=True):
            yield _field_start(5, size) + weight.SerializeToString()


def _field_start(number: int, length: int) -> bytes:
    """Return the bytes before a field that is a message: its number, then its length in groups of 7 bits, lowest first.
    """
    start = bytearray([number << 3 | 2])
    while length > 127:
        start.append(length & 127 | 128)
        length >>= 7
    return bytes(start) + bytes([length])


# ── The networks ────────────────────────────────────────────────────────────────────────────────────────────────────


def unet_graph(network: Network, config: ModelConfig) -> Graph:
    """Trace the U-Net: noisy (batch, C, H, W), time (batch), text (batch, 77, width) → (batch, out_channels, H, W)."""
    network_config = config.network
    noisy = torch.zeros(2, *network_config.shape)
    inputs = {"noisy": noisy, "time": torch.tensor([3.0, 500.0])}
    descriptions = {
        "noisy": "the pictures, in [-1, 1], with their noise",
        "time": "the noise level as the index of 1000 discrete steps, 0 to 999; fractions are allowed",
        "output": f"channels 0 to {network_config.channels - 1}: the prediction ({config.prediction})" + (
            "; the others: the learned variance" if config.learned_variance else ""),
    }
    if network_config.text is not None:
        inputs["text"] = torch.zeros(2, LENGTH, network_config.text.width)
        descriptions["text"] = "what text_encoder.onnx says of the prompts"
    return _trace(network.unet, inputs, "output", descriptions)


def text_encoder_graph(network: Network) -> Graph:
    """Trace the text encoder: tokens (batch, 77) → text (batch, 77, width)."""
    assert network.text_encoder is not None
    return _trace(network.text_encoder, {"tokens": torch.zeros(2, LENGTH, dtype=torch.int64)}, "text", {
        "tokens": f"what tokenizer.json makes of the prompts: always {LENGTH}, the end padded",
        "text": "features of all positions, for the U-Net"})


def _trace(network: nn.Module, inputs: dict[str, Tensor], output: str, descriptions: dict[str, str]) -> Graph:
    """Trace one network for any batch size. inputs: name → example of each argument, in order; output: its name."""
    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    with _silence():
        program = torch.onnx.export(
            network, tuple(inputs.values()), input_names=list(inputs), output_names=[output],
            dynamic_shapes=tuple(batch for _ in inputs), opset_version=OPSET, dynamo=True, external_data=False,
            verbose=False)
        assert program is not None
        traced: onnx.ModelProto = program.model_proto
    del program
    gc.collect()                                # the exporter leaves objects in reference cycles
    weights = list(traced.graph.initializer)
    traced.graph.ClearField("initializer")
    _strip(traced)
    document(traced, descriptions)
    return Graph(traced, weights)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress what the exporter prints, logs and warns of: it is meant for the developers of torch."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _strip(message: Any) -> None:
    """Remove the exporter's notes: the stack traces of all nodes would be many times as large as a small model."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "value_info", "doc_string"):
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for part in (value if field.is_repeated else [value]):
                _strip(part)


def document(model: "onnx.ModelProto", descriptions: dict[str, str]) -> None:
    """Write the descriptions of all inputs and outputs, by name, into the graph."""
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = descriptions[value.name]
