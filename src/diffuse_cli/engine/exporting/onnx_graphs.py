"""A model's networks, and its sampler around them, as ONNX graphs.

The U-Net and the text encoder are traced by torch. The sampler is written down here as ONNX itself, and the two are
put into its places: nothing is traced twice, and its weights are those of the networks. Knows no files.
"""

import contextlib
import gc
import importlib.util
import io
import logging
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..checkpoint import Model
from ..config import NetworkConfig
from ..diffusion.guidance import THRESHOLD_SHARE
from ..errors import UsageError
from ..network.text import LENGTH

if TYPE_CHECKING:
    import onnx

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


def unet_graph(model: Model) -> Graph:
    """noisy (batch, C, R, R), time (batch,), text (batch, 77, width) → output (batch, out_channels, R, R)."""
    network = model.config.network
    noisy = torch.zeros(2, network.channels, network.resolution, network.resolution)
    inputs = {"noisy": noisy, "time": torch.tensor([3.0, 500.0])}
    told = {
        "noisy": "the pictures, in [-1, 1], with their noise",
        "time": "the noise level as the index of 1000 discrete steps, 0 to 999; fractions are allowed",
        "output": f"channels 0 to {network.channels - 1}: the prediction ({model.config.prediction})" + (
            "; the others: the learned variance" if model.config.learned_variance else ""),
    }
    if network.text is not None:
        inputs["text"] = torch.zeros(2, LENGTH, network.text.width)
        told["text"] = "what text_encoder.onnx says of the prompts"
    return _traced(model.network.unet, inputs, "output", told)


def text_encoder_graph(model: Model) -> Graph:
    """tokens (batch, 77) → text (batch, 77, width)."""
    assert model.network.text_encoder is not None
    return _traced(model.network.text_encoder, {"tokens": torch.zeros(2, LENGTH, dtype=torch.int64)}, "text", {
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
    _document(traced, told)
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


def _document(graph: "onnx.ModelProto", told: dict[str, str]) -> None:
    for value in (*graph.graph.input, *graph.graph.output):
        value.doc_string = told[value.name]


# ── The sampler ─────────────────────────────────────────────────────────────────────────────────────────────────────

# In ONNX's own notation. A row of `steps` is what `step_table` of standalone/sample.py says, and the arithmetic is
# that of its `Sampler.draw`. UNet and TextEncoder stand for the graphs above.

_STEP = """
    row = Gather <axis = 0> (steps, number)
    time, from_noisy, from_output, guided, memory, keep, gain = Split <axis = 0, num_outputs = 7> (row)
    $ask
    change = Sub (image, before)
    remembered = Mul (memory, change)
    extrapolated = Add (image, remembered)
    kept = Mul (keep, noisy)
    gained = Mul (gain, extrapolated)
    next_noisy = Add (kept, gained)
    next_go_on = Identity (go_on)
"""
_ESTIMATE = """
    times = Expand (time, asked)
    $output
    prediction = Slice (output, zero, channels, one)
    seen = Mul (from_noisy, noisies)
    said = Mul (from_output, prediction)
    images = Add (seen, said)
"""
_ASK = """
    asked = Identity (count)
    noisies = Identity (noisy)
    $estimate
    image = Identity (images)
"""
# The batch is doubled only where guidance acts. Elsewhere the two halves are one, and leaning changes nothing.
_ASK_GUIDED = """
    doubled = CastLike (guided, one)
    halves = Add (one, doubled)
    asked = Mul (count, halves)
    twice = Concat <axis = 0> (noisy, noisy)
    noisies = Slice (twice, zero, asked, zero)
    texts = Slice (both_texts, zero, asked, zero)
    $estimate
    with_prompt = Slice (images, zero, count, zero)
    second = Sub (asked, count)
    without = Slice (images, second, asked, zero)
    difference = Sub (with_prompt, without)
    lean = Mul (guidance, difference)
    leant = Add (without, lean)

    magnitudes = Abs (leant)
    flat = Flatten (magnitudes)
    brightest, places = TopK <axis = 1> (flat, above)
    rank = ReduceMin (brightest, one)
    at_least_one = Max (rank, unit)
    limit = Unsqueeze (at_least_one, last_axes)
    lowest = Neg (limit)
    not_above = Min (leant, limit)
    clipped = Max (not_above, lowest)
    thresholded = Div (clipped, limit)
    acts = CastLike (guided, yes)
    image = Where (acts, thresholded, leant)
"""
_PROMPTS = f"int64[batch, {LENGTH}] tokens, int64[negatives, {LENGTH}] negative_tokens, float guidance,"
_BOTH_TEXTS = """
    all_tokens = Concat <axis = 0> (tokens, negative_tokens)
    features = TextEncoder (all_tokens)
    captions = Shape <start = 0, end = 1> (features)
    text = Slice (features, zero, count, zero)
    negatives = Slice (features, count, captions, zero)
    text_shape = Shape (text)
    negative = Expand (negatives, text_shape)
    both_texts = Concat <axis = 0> (text, negative)
"""
_SAMPLER = """
<ir_version: $ir_version, opset_import: ["" : $opset]>
sampler ($prompts float[batch, $channels, $side, $side] noise, float[steps, 7] steps)
    => (float[batch, $channels, $side, $side] pictures)
{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    last_axes = Constant <value_ints = [2, 3]> ()
    channels = Constant <value_ints = [$channels]> ()
    above = Constant <value_ints = [$above]> ()
    yes = Constant <value = bool {1}> ()
    nothing = Constant <value = float {0.0}> ()
    half = Constant <value = float {0.5}> ()
    unit = Constant <value = float {1.0}> ()
    count = Shape <start = 0, end = 1> (noise)
    $both_texts
    rows = Shape <start = 0, end = 1> (steps)
    trips = Squeeze (rows)
    drawn, last_image = Loop (trips, yes, noise, noise) <body = step (
        int64 number, bool go_on, float[batch, $channels, $side, $side] noisy,
        float[batch, $channels, $side, $side] before
    ) => (
        bool next_go_on, float[batch, $channels, $side, $side] next_noisy,
        float[batch, $channels, $side, $side] image
    ) {
        $step
    }>
    halved = Mul (half, drawn)
    shifted = Add (halved, half)
    pictures = Clip (shifted, nothing, unit)
}
"""


def sampler_graph(unet: Graph, text_encoder: Graph | None, network: NetworkConfig) -> Graph:
    """The whole sampler: prompts, noise and the table of the steps → pictures in [0, 1]; any batch and any steps.

    Its weights are those of the two networks, renamed: these are no longer usable.
    """
    import onnx

    size = network.channels * network.resolution**2
    parts: dict[str, Any] = {
        "channels": network.channels, "side": network.resolution, "opset": OPSET, "ir_version": unet.model.ir_version,
        "above": size - math.ceil(THRESHOLD_SHARE * size) + 1}
    if text_encoder is None:
        parts |= {"prompts": "", "both_texts": "", "ask": _ASK, "output": "output = UNet (noisies, times)"}
    else:
        parts |= {"prompts": _PROMPTS, "both_texts": _BOTH_TEXTS, "ask": _ASK_GUIDED,
                  "output": "output = UNet (noisies, times, texts)"}
    text = _SAMPLER
    while "$" in text:                          # parts have parts
        text = Template(text).substitute(parts, step=_STEP, estimate=_ESTIMATE)
    sampler = onnx.parser.parse_model(text)
    loop = next(node for node in sampler.graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    _put_in_place(unet, body, "UNet")
    if text_encoder is not None:
        _put_in_place(text_encoder, sampler.graph, "TextEncoder")
    _document(sampler, {
        "tokens": "what tokenizer.json makes of the prompts",
        "negative_tokens": "the same of what to lead away from: one for all, or one for each; usually of nothing",
        "guidance": "how closely to follow the prompts",
        "noise": "standard normal",
        "steps": "a row for each step, as in sampler.json",
        "pictures": "red, green and blue, in [0, 1]"})
    return Graph(sampler, [*unet.weights, *(text_encoder.weights if text_encoder is not None else ())])


def _put_in_place(part: Graph, graph: "onnx.GraphProto", name: str) -> None:
    """Replace the node `name` of the graph by the nodes of a network, whose weights are renamed to match.

    What the network calls its inputs and outputs becomes what they are called there; all else gets a prefix.
    """
    network, nodes = part.model.graph, list(graph.node)
    place = next(number for number, node in enumerate(nodes) if node.op_type == name)
    new_names = dict(zip((value.name for value in (*network.input, *network.output)),
                         (*nodes[place].input, *nodes[place].output), strict=True))

    def renamed(old: str) -> str:
        return str(new_names.get(old, f"{name}/{old}" if old else ""))

    for node in network.node:
        assert all(attribute.type not in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute)
        node.name = f"{name}/{node.name}"
        node.input[:], node.output[:] = list(map(renamed, node.input)), list(map(renamed, node.output))
    for weight in part.weights:
        weight.name = renamed(weight.name)
    graph.ClearField("node")
    graph.node.extend([*nodes[:place], *network.node, *nodes[place + 1 :]])
