"""Features of the user's choice: an ONNX file computes what it should, and can do nothing else."""

import contextlib
import re
import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from diffuse_cli.errors import ModelError
from diffuse_cli.evaluation.features_file import load_features

FLOAT = TensorProto.FLOAT
PIXELS = np.random.default_rng(0).integers(0, 256, (70, 8, 8, 3), np.uint8)


def graph(*nodes, rank: int = 2, **changes) -> onnx.GraphProto:
    """A graph from "images" to "features"."""
    inputs = [helper.make_tensor_value_info("images", FLOAT, ["n", 3, "h", "w"])]
    outputs = [helper.make_tensor_value_info("features", FLOAT, [None] * rank)]
    return helper.make_graph(nodes, "features", **{"inputs": inputs, "outputs": outputs, **changes})


def saved(path, content, **options):
    options = {"opset_imports": [helper.make_opsetid("", 18)], "ir_version": 9, **options}
    path.write_bytes(helper.make_model(content, **options).SerializeToString())
    return path


def node(kind: str, *inputs: str, out: str = "features", **attributes) -> onnx.NodeProto:
    return helper.make_node(kind, [*inputs], [out], **attributes)


def maximum() -> list[onnx.NodeProto]:
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    return [node("Constant", out="axes", value=axes), node("ReduceMax", "images", "axes", keepdims=0)]


def refused(path, reason: str) -> str:
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(ModelError, match=reason) as refusal:
        load_features(path)
    assert "\n" not in str(refusal.value)
    assert (path.read_bytes() if path.is_file() else b"") == before
    return str(refusal.value)


def test_a_file_of_the_user_is_called_with_pixels_from_0_to_255(tmp_path):
    found = load_features(saved(tmp_path / "colours.onnx", graph(*maximum())))
    assert found.name == "colours.onnx"
    np.testing.assert_allclose(found(PIXELS), PIXELS.max((1, 2)), rtol=1e-4, atol=1e-3)


def test_torchscript_is_converted_as_the_page_shows(tmp_path, monkeypatch):
    """The code of docs/cli.md, on an extractor that is called like published ones."""
    class Published(torch.nn.Module):
        def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
            return images.amax((2, 3)) if return_features else images.mean((1, 2, 3))

    monkeypatch.chdir(tmp_path)
    torch.jit.script(Published()).save("extractor.pt")
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S) if "torch.jit.load" in block]
    (tmp_path / "convert.py").write_text(code)
    runpy.run_path("convert.py")
    found = load_features(tmp_path / "extractor.onnx")
    np.testing.assert_allclose(found(PIXELS), PIXELS.max((1, 2)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("nodes", "rank", "reason"), [
    ([node("Identity", "images")], 4, "does not answer with finite features"),
    ([*maximum()[:1], node("ReduceMax", "images", "axes", keepdims=0, out="m"), node("Log", "m", out="l"),
      node("Sub", "l", "l", out="z"), node("Div", "z", "z")], 2, "does not answer with finite features"),
    ([node("Constant", out="shape", value=helper.make_tensor("s", TensorProto.INT64, [2], [-1, 7])),
      node("Reshape", "images", "shape")], 2, "does not take pictures"),
])
def test_outputs_that_are_no_features_are_refused(tmp_path, nodes, rank, reason):
    found = load_features(saved(tmp_path / "odd.onnx", graph(*nodes, rank=rank)))
    with pytest.raises(ModelError, match=reason) as refusal:
        found(PIXELS[:3])
    assert "\n" not in str(refusal.value)


def test_files_that_are_no_onnx_are_refused(tmp_path):
    torch.jit.script(torch.nn.Identity()).save(str(tmp_path / "script.pt"))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "pickle.pt")
    (tmp_path / "text.onnx").write_text("nothing")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name, reason in (("script.pt", "whose code diffuse does not run"), ("pickle.pt", "file of PyTorch"),
                         ("text.onnx", "not an ONNX file"), ("empty.onnx", "one input and one output"),
                         ("missing.onnx", "no such file"), (".", "directory|not a regular file")):
        refused(tmp_path / name, reason)
    assert "Convert it to ONNX" in refused(tmp_path / "script.pt", "TorchScript")


def external(name: str, location: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


@pytest.mark.parametrize("location", ["/etc/hostname", "../secret", "beside.bin"])
def test_weights_in_other_files_are_refused_wherever_they_are(tmp_path, location):
    tensor = external("weight", location)
    branch = helper.make_graph([node("Constant", out="b", value=tensor)], "branch", [],
                               [helper.make_tensor_value_info("b", FLOAT, [1])])
    condition = node("Constant", out="yes", value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    for number, content in enumerate((
            graph(*maximum(), initializer=[tensor]),
            graph(node("Constant", out="x", value=tensor), *maximum()),
            graph(condition, node("If", "yes", out="x", then_branch=branch, else_branch=branch), *maximum()))):
        refused(saved(tmp_path / f"{number}.onnx", content), "weights in other files")
    inner = helper.make_function("own", "f", ["x"], ["y"], [node("Constant", out="y", value=tensor)],
                                 [helper.make_opsetid("", 18)])
    refused(saved(tmp_path / "function.onnx", graph(*maximum()), functions=[inner]), "weights in other files")


def test_operators_that_are_not_of_the_standard_are_refused(tmp_path):
    for domain in ("com.microsoft", "own"):
        odd = graph(helper.make_node("EPContext", ["images"], ["x"], domain=domain), *maximum())
        refused(saved(tmp_path / "odd.onnx", odd, opset_imports=[
            helper.make_opsetid("", 18), helper.make_opsetid(domain, 1)]), "'EPContext' is not one of the standard's")


def test_loops_are_refused_also_inside_branches(tmp_path):
    body = helper.make_graph([node("Identity", "c", out="d")], "body", [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, [])])
    loop = helper.make_node("Loop", ["", "yes"], [], body=body)
    condition = node("Constant", out="yes", value=helper.make_tensor("c", TensorProto.BOOL, [], [True]))
    refused(saved(tmp_path / "loop.onnx", graph(condition, loop, *maximum())), "a loop")
    branch = helper.make_graph([loop], "branch", [], [])
    choice = helper.make_node("If", ["yes"], [], then_branch=branch, else_branch=branch)
    refused(saved(tmp_path / "inner.onnx", graph(condition, choice, *maximum())), "a loop")


def test_a_file_of_onnxruntimes_own_format_is_not_read(tmp_path):
    """It begins like any model, but the library would recognise it by four bytes and never look at what was judged."""
    model = saved(tmp_path / "model.onnx", graph(*maximum())).read_bytes()
    (tmp_path / "own.ort").write_bytes(model[:4] + b"ORTM" + model[8:])
    refused(tmp_path / "own.ort", "not an ONNX file|cannot load|one input")


def test_what_onnxruntime_says_stays_off_the_terminal(tmp_path, capfd):
    refused(saved(tmp_path / "bad.onnx", graph(node("NoSuchOperator", "images"))), "cannot load")
    assert capfd.readouterr() == ("", "")


def test_random_bytes_and_flipped_bits_raise_nothing_else(tmp_path):
    model = bytearray(saved(tmp_path / "model.onnx", graph(*maximum())).read_bytes())
    rng = np.random.default_rng(0)
    for number in range(60):
        mutated = bytearray(model)
        for _ in range(rng.integers(1, 4)):
            mutated[rng.integers(len(mutated))] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(mutated)
        with contextlib.suppress(ModelError):
            load_features(path)(PIXELS[:2])
