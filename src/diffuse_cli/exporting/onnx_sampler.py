"""Builds the whole sampler as one ONNX graph: prompts, noise and a table of steps → pictures.

The graph is written in ONNX's own text format, with a placeholder node for each of the two networks. The traced graphs
of the networks replace these nodes, so nothing is traced twice, and the weights are shared.
"""

import math
from string import Template
from typing import TYPE_CHECKING, Any

from ..diffusion.guidance import THRESHOLD_SHARE
from ..model_config import ModelConfig
from ..network.tokenizer import LENGTH
from .onnx_graphs import OPSET, Graph, document

if TYPE_CHECKING:
    import onnx

UNBOUNDED = 1e9                                 # larger than any estimate; those of distilled models are not clipped

# A row of `steps` has the columns of `step_table` in standalone/sample.py, and the arithmetic is that of its
# `Sampler.generate`. UNet and TextEncoder are the placeholders for the traced graphs. The names in these texts, without
# those that begin with $, become names in the exported file.

_STEP = """
    row = Gather <axis = 0> (steps, number)
    time, from_noisy, from_output, guided, memory, keep, gain = Split <axis = 0, num_outputs = 7> (row)
    $predict
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
_PREDICT_UNGUIDED = """
    asked = Identity (count)
    noisies = Identity (noisy)
    $estimate
    image = Clip (images, lowest_value, highest_value)
"""
# The batch is doubled only where guidance acts. Elsewhere both halves are the same slice, and guidance changes nothing.
_PREDICT_GUIDED = """
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
    direction = Sub (with_prompt, without)
    push = Mul (guidance, direction)
    pushed = Add (without, push)

    magnitudes = Abs (pushed)
    flat = Flatten (magnitudes)
    largest, places = TopK <axis = 1> (flat, above)
    quantile = ReduceMin (largest, one)
    limits = Max (quantile, unit)
    limit_of_all = Unsqueeze (limits, last_axes)
    limit = Where (is_alpha, unit, limit_of_all)
    lowest = Neg (limit)
    not_above = Min (pushed, limit)
    clipped = Max (not_above, lowest)
    thresholded = Div (clipped, limit)
    acts = CastLike (guided, yes)
    within = Clip (pushed, lowest_value, highest_value)
    image = Where (acts, thresholded, within)
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
sampler ($prompts float[batch, $channels, $height, $width] noise, float[steps, 7] steps)
    => (float[batch, $channels, $height, $width] pictures)
{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    last_axes = Constant <value_ints = [2, 3]> ()
    channels = Constant <value_ints = [$channels]> ()
    is_alpha = Constant <value = bool[1, $channels, 1, 1] {$is_alpha}> ()
    above = Constant <value_ints = [$above]> ()
    yes = Constant <value = bool {1}> ()
    nothing = Constant <value = float {0.0}> ()
    half = Constant <value = float {0.5}> ()
    unit = Constant <value = float {1.0}> ()
    highest_value = Constant <value = float {$range}> ()
    lowest_value = Neg (highest_value)
    count = Shape <start = 0, end = 1> (noise)
    $both_texts
    rows = Shape <start = 0, end = 1> (steps)
    trips = Squeeze (rows)
    drawn, last_image = Loop (trips, yes, noise, noise) <body = step (
        int64 number, bool go_on, float[batch, $channels, $height, $width] noisy,
        float[batch, $channels, $height, $width] before
    ) => (
        bool next_go_on, float[batch, $channels, $height, $width] next_noisy,
        float[batch, $channels, $height, $width] image
    ) {
        $step
    }>
    halved = Mul (half, drawn)
    shifted = Add (halved, half)
    pictures = Clip (shifted, nothing, unit)
}
"""


def sampler_graph(unet: Graph, text_encoder: Graph | None, config: ModelConfig) -> Graph:
    """Build the sampler: prompts, noise and the table of steps → pictures in [0, 1], for any batch size and any steps.

    It takes the weights of the two networks and renames them, so the two graphs must not be used afterwards.
    """
    import onnx

    channels, height, width = config.network.shape
    size = channels * height * width
    values: dict[str, Any] = {
        "channels": channels, "is_alpha": ", ".join("0" * (channels - 1) + str(int(config.network.has_alpha))),
        "height": height, "width": width, "opset": OPSET, "ir_version": unet.model.ir_version,
        "range": 1.0 if config.student is None else UNBOUNDED, "above": size - math.ceil(THRESHOLD_SHARE * size) + 1}
    if text_encoder is None:
        values |= {"prompts": "", "both_texts": "", "predict": _PREDICT_UNGUIDED,
                   "output": "output = UNet (noisies, times)"}
    else:
        values |= {"prompts": _PROMPTS, "both_texts": _BOTH_TEXTS, "predict": _PREDICT_GUIDED,
                   "output": "output = UNet (noisies, times, texts)"}
    text = _SAMPLER
    while "$" in text:                          # substituted texts contain names to substitute
        text = Template(text).substitute(values, step=_STEP, estimate=_ESTIMATE)
    sampler = onnx.parser.parse_model(text)
    loop = next(node for node in sampler.graph.node if node.op_type == "Loop")
    body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
    _replace_node(unet, body, "UNet")
    if text_encoder is not None:
        _replace_node(text_encoder, sampler.graph, "TextEncoder")
    document(sampler, {
        "tokens": "what tokenizer.json makes of the prompts",
        "negative_tokens": "the same of what to lead away from: one for all, or one for each; usually of nothing",
        "guidance": "how closely to follow the prompts",
        "noise": "standard normal",
        "steps": "a row for each step, as in sampler.json",
        "pictures": "red, green and blue, in [0, 1]"})
    return Graph(sampler, [*unet.weights, *(text_encoder.weights if text_encoder is not None else ())])


def _replace_node(part: Graph, graph: "onnx.GraphProto", name: str) -> None:
    """Replace the placeholder node `name` of the graph by the nodes of a network, and rename its weights to match.

    Inputs and outputs of the network get the names that they have at the placeholder; all other names get a prefix.
    """
    network, nodes = part.model.graph, list(graph.node)
    index = next(number for number, node in enumerate(nodes) if node.op_type == name)
    new_names = dict(zip((value.name for value in (*network.input, *network.output)),
                         (*nodes[index].input, *nodes[index].output), strict=True))

    def renamed(old: str) -> str:
        return str(new_names.get(old, f"{name}/{old}" if old else ""))

    for node in network.node:
        assert all(attribute.type not in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute)
        node.name = f"{name}/{node.name}"
        node.input[:], node.output[:] = list(map(renamed, node.input)), list(map(renamed, node.output))
    for weight in part.weights:
        weight.name = renamed(weight.name)
    graph.ClearField("node")
    graph.node.extend([*nodes[:index], *network.node, *nodes[index + 1 :]])
