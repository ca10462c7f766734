"""A model's networks as ONNX graphs, traced by torch and freed of what the exporter notes down beside them.

Knows no files, and nothing of sampling.
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

from ..config import ModelConfig
from ..errors import UsageError
from ..network.network import Network
from ..network.tokenizer import LENGTH

if TYPE_CHECKING:
    import onnx

UNET_FILE, TEXT_ENCODER_FILE, SAMPLER_FILE = "unet.onnx", "text_encoder.onnx", "sampler.onnx"      # of an ONNX folder
TOKENIZER_FILE, CONSTANTS_FILE = "tokenizer.json", "sampler.json"
OPSET = 18                                      # the oldest that the exporter can write: docs/decisions.md
EXTRA = ("onnx", "onnxruntime", "onnxscript")


def check_extra() -> None:
    """Raise UsageError, with the command that helps, unless the libraries of the extra are installed."""
    if any(importlib.util.find_spec(name) is None for name in EXTRA):
        raise UsageError("the onnx format needs libraries that are not installed",
                         hint='Install them: pip install "diffuse-cli[onnx]"')


@dataclass(frozen=True)
class Graph:
    """A model in ONNX's form, its weights apart: together they would be copied whenever the graph is."""

    model: "onnx.ModelProto"
    weights: "list[onnx.TensorProto]"

    def pieces(self) -> Iterator[bytes]:
        """The bytes of its file, the weights one by one: never all of them twice in memory.

        A message in protocol buffers' form is a row of fields; a field that is a message is its number, its length and
        its bytes (the graph is field 7 of a model, a weight field 5 of a graph).
        """
        import onnx

        rest, graph = onnx.ModelProto(), self.model.graph.SerializeToString()
        rest.CopyFrom(self.model)
        rest.ClearField("graph")
        sizes = [weight.ByteSize() for weight in self.weights]
        weights = sum(len(_field(5, size)) + size for size in sizes)
        yield rest.SerializeToString() + _field(7, len(graph) + weights) + graph
        for weight, size in zip(self.weights, sizes, strict=True):
            yield _field(5, size) + weight.SerializeToString()


def _field(number: int, length: int) -> bytes:
    """What precedes the bytes of a field that is a message: seven bits at a time, the lowest first."""
    start = bytearray([number << 3 | 2])
    while length > 127:
        start.append(length & 127 | 128)
        length >>= 7
    return bytes(start) + bytes([length])


# ── The networks ────────────────────────────────────────────────────────────────────────────────────────────────────


def unet_graph(network: Network, config: ModelConfig) -> Graph:
    """noisy (batch, C, R, R), time (batch,), text (batch, 77, width) → output (batch, out_channels, R, R)."""
    shape = config.network
    noisy = torch.zeros(2, shape.channels, shape.resolution, shape.resolution)
    inputs = {"noisy": noisy, "time": torch.tensor([3.0, 500.0])}
    told = {
        "noisy": "the pictures, in [-1, 1], with their noise",
        "time": "the noise level as the index of 1000 discrete steps, 0 to 999; fractions are allowed",
        "output": f"channels 0 to {shape.channels - 1}: the prediction ({config.prediction})" + (
            "; the others: the learned variance" if config.learned_variance else ""),
    }
    if shape.text is not None:
        inputs["text"] = torch.zeros(2, LENGTH, shape.text.width)
        told["text"] = "what text_encoder.onnx says of the prompts"
    return _traced(network.unet, inputs, "output", told)


def text_encoder_graph(network: Network) -> Graph:
    """tokens (batch, 77) → text (batch, 77, width)."""
    assert network.text_encoder is not None
    return _traced(network.text_encoder, {"tokens": torch.zeros(2, LENGTH, dtype=torch.int64)}, "text", {
        "tokens": f"what tokenizer.json makes of the prompts: always {LENGTH}, the end padded",
        "text": "features of all positions, for the U-Net"})


def _traced(network: nn.Module, inputs: dict[str, Tensor], output: str, told: dict[str, str]) -> Graph:
    """The graph of one network whose arguments, in their order, and result have these names; any batch size."""
    batch = {0: torch.export.Dim("batch", min=1, max=1024)}
    with _silence():
        program = torch.onnx.export(
            network, tuple(inputs.values()), input_names=list(inputs), output_names=[output],
            dynamic_shapes=tuple(batch for _ in inputs), opset_version=OPSET, dynamo=True, external_data=False,
            verbose=False)
        assert program is not None
        traced: onnx.ModelProto = program.model_proto
    del program
    gc.collect()                                # of the exporter's, in circles
    weights = list(traced.graph.initializer)
    traced.graph.ClearField("initializer")
    _strip(traced)
    document(traced, told)
    return Graph(traced, weights)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What the exporter prints, logs and warns of is for its developers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), \
                contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _strip(message: Any) -> None:
    """Remove the exporter's notes: stack traces of every node would be many times as large as a small model."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "value_info", "doc_string"):
            message.ClearField(field.name)
        elif field.type == field.TYPE_MESSAGE:
            for part in (value if field.is_repeated else [value]):
                _strip(part)


def document(graph: "onnx.ModelProto", told: dict[str, str]) -> None:
    """Say what every input and output means, in the graph itself."""
    for value in (*graph.graph.input, *graph.graph.output):
        value.doc_string = told[value.name]
