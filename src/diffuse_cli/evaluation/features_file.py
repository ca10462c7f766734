"""The features of the user's choice: an ONNX file, which can compute on pictures and do nothing else.

The file may come from anywhere. It is read as a whole, judged, and only then given to onnxruntime, as bytes: so no name
in it is opened. What could reach outside is refused: weights in other files, operators that are not of the standard,
and loops, which may have no end.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import installing
from ..errors import ModelError, UsageError, system_reason
from ..files.input_files import read_input
from .features import Features

if TYPE_CHECKING:
    import onnx

MAX_BYTES = 2**30                               # maximum size of a file; the largest published extractors have half
DOMAINS = ("", "ai.onnx")                       # of the standard's operators
LOOPS = ("Loop", "Scan", "SequenceMap")
CONVERT = "Convert it to ONNX as docs/cli.md shows"


def load_features(path: Path) -> Features:
    """The features from an ONNX file: a graph from (N, 3, H, W) float32 in [0, 255] to (N, D).

    The extractors of published metrics take such pictures, and resize and normalise them. The graph is computed on the
    CPU. Raises ModelError if the file cannot be used, or later if the graph refuses a picture or answers anything else,
    and UsageError if a library is missing.
    """
    try:
        data = read_input(path, limit=MAX_BYTES)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {system_reason(error)}",
                         hint="Give an ONNX file to --features, or leave it out") from error
    if data.startswith((b"PK\x03\x04", b"\x80")):
        raise ModelError(f"{path} is a file of PyTorch, TorchScript perhaps, whose code diffuse does not run",
                         hint=CONVERT)
    session = _session(_judged(path, data), path)
    (wanted,), (answer,) = session.get_inputs(), session.get_outputs()

    def function(images: Tensor) -> Tensor:
        try:
            (features,) = session.run([answer.name], {wanted.name: ((images + 1) * 127.5).numpy()})
        except Exception as error:
            raise ModelError(f"{path} does not take pictures {tuple(images.shape)}",
                             hint="It must accept float32 (N, 3, H, W) in [0, 255]") from error
        if not (isinstance(features, np.ndarray) and features.ndim == 2 and len(features) == len(images)
                and features.dtype.kind == "f" and np.isfinite(features).all()):
            raise ModelError(f"{path} does not answer with finite features (N, D)")
        return torch.from_numpy(features)

    return Features(path.name, torch.device("cpu"), function)


def _judged(path: Path, data: bytes) -> bytes:
    """The bytes of the ONNX model, without anything else. Raises ModelError."""
    try:
        import onnx
    except ImportError as error:
        raise _missing() from error
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:                  # whatever the parser raises
        raise ModelError(f"{path} is not an ONNX file", hint="Give an ONNX file to --features, or leave it out"
                         ) from error
    if defect := next(_defects(model), None):
        raise ModelError(f"{path} cannot be used: {defect}", hint=CONVERT)
    return bytes(model.SerializeToString())


def _defects(model: "onnx.ModelProto") -> Iterator[str]:
    import onnx

    for message in _messages(model):
        if isinstance(message, onnx.TensorProto):
            if message.data_location != onnx.TensorProto.DEFAULT or message.external_data:
                yield "it keeps weights in other files"
        elif isinstance(message, onnx.NodeProto):
            if message.domain not in DOMAINS:
                yield f"its operator {message.op_type[:40]!r} is not one of the standard's"
            if message.op_type in LOOPS:
                yield "it has a loop, which may never end"
    if (len(model.graph.input), len(model.graph.output)) != (1, 1):
        yield "it does not have one input and one output"


def _messages(message: Any) -> Iterator[Any]:
    """A message and all that are in it, at any depth."""
    yield message
    for _, value in message.ListFields():
        if hasattr(value, "ListFields"):
            yield from _messages(value)
        elif not isinstance(value, bytes | str | int | float):          # a repeated field
            for part in value:
                if hasattr(part, "ListFields"):
                    yield from _messages(part)


def _session(data: bytes, path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing() from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4              # it would print to stderr itself
    options.add_session_config_entry("session.load_model_format", "ONNX")      # its own format is not judged
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:                  # the library has errors of many kinds
        raise ModelError(f"onnxruntime cannot load {path}", hint=CONVERT) from error


def _missing() -> UsageError:
    return UsageError("--features needs libraries that are not installed",
                      hint=f"Install them: {installing.extra('onnx')}")
