"""Models as ONNX folders: onnxruntime and the script generate the pictures of the model; nothing else is in it."""

import dataclasses
import importlib.util
import subprocess
import sys
from unittest import mock

import numpy as np
import onnx
import onnx_models
import onnxruntime
import pytest
import torch
from PIL import Image

from diffuse_cli.config import Export, Sampling
from diffuse_cli.diffusion.guidance import within_range
from diffuse_cli.diffusion.samplers import dpmpp_2m
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.errors import UsageError
from diffuse_cli.exporting import onnx_comparison, onnx_folder
from diffuse_cli.exporting.onnx_graphs import Graph
from diffuse_cli.exporting.standalone.sample import Sampler, noise_of, step_table
from diffuse_cli.model_config import PREDICTIONS, SCHEDULES
from diffuse_cli.network.presets import network_config
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.sampling.generate import encode_prompts, generate
from diffuse_cli.sampling.guided import guided_denoiser
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.sampling.steps import guided_steps, sampling_times_of

ONNX = Export(format="onnx")
KINDS = ("conditional", "unconditional")
RUN_WITHOUT_TORCH = """
import runpy, sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("torch", "diffuse_cli", "onnx", "PIL", "safetensors"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclasses.dataclass
class Exported:
    model: object
    folder: object
    output: str                                 # printed while the folder was written


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Both kinds of models, exported once; tests only read them."""
    models = {"conditional": onnx_models.make(),
              "unconditional": onnx_models.make(conditional=False, learned=False, prediction="epsilon",
                                                schedule="cosine")}
    exported = {}
    for kind, model in models.items():
        folder = tmp_path_factory.mktemp(kind)
        with onnx_models.captured_output() as output:
            onnx_folder.write(model, folder, ONNX)
        exported[kind] = Exported(model, folder, output[0])
    return exported


@pytest.fixture(params=KINDS)
def exported(request, everything):
    return everything[request.param]


@pytest.fixture
def conditional(everything):
    return everything["conditional"]


def by_graph(exported, prompt, *, seed=0, count=1, negatives=("",), **sampling):
    """(N, 8, 8, 3) pixels, by one call of onnxruntime."""
    settings, model = Sampling(**sampling), exported.model
    sampler = Sampler(exported.folder)
    table = step_table(sampler.constants, settings.number_of_steps, guided=settings.guidance != 1,
                       sampler=settings.sampler)
    inputs = {"steps": table, "noise": np.stack([noise_of(seed + k, sampler.shape) for k in range(count)])}
    if model.tokenizer is not None:
        tokens, negative_tokens = (
            np.array([encoding.ids for encoding in model.tokenizer.encode_batch(list(texts))])
            for texts in ([prompt] * count, negatives))
        inputs |= {"tokens": tokens, "negative_tokens": negative_tokens,
                   "guidance": np.array(settings.guidance, np.float32)}
    session = onnxruntime.InferenceSession(exported.folder / "sampler.onnx")
    return pixels(session.run(None, inputs)[0])


def pixels(pictures):
    return np.rint(pictures * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def by_model(exported, prompt, *, seed=0, count=1, negative="", **sampling):
    request = SampleRequest(prompt=prompt, negative=negative, count=count, seed=seed, sampling=Sampling(**sampling))
    return np.stack([sample.pixels for sample in generate(exported.model, [request])])


def assert_same_pictures(theirs, ours):
    assert theirs.shape == ours.shape
    assert abs(theirs.astype(int) - ours.astype(int)).max() <= 1
    assert (theirs != ours).mean() < 0.01                               # those on the edge between two roundings


# ── Same pictures ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_comparisons_hold_with_room_to_spare(exported):
    comparisons = onnx_comparison.compare(exported.model, exported.folder, ONNX)
    assert len(comparisons) == (15 if exported.model.tokenizer is not None else 10)
    for comparison in comparisons:
        assert comparison.holds, comparison
        assert comparison.max_abs <= 3e-5, comparison


def test_comparisons_fail_if_any_part_differs(conditional, tmp_path):
    """One layer of each network is changed a little, and the schedule is another."""
    other = onnx_models.make(schedule="cosine")
    with torch.no_grad():
        other.network.unet.conv_in.weight *= 1.01
        other.network.text_encoder.shared.weight[5:] *= 1.01
    comparisons = onnx_comparison.compare(other, conditional.folder, ONNX)
    failed = {comparison.what.split(":")[0] for comparison in comparisons if not comparison.holds}
    assert failed == {"text encoder", "U-Net", "sample.py", "sampler.onnx"}


@pytest.mark.parametrize(("count", "sampling"), [
    (7, {"steps": 3}), (1, {"steps": 11, "guidance": 6.0}), (3, {"sampler": "ddim", "steps": 4}),
    (2, {"steps": 1}), (2, {"steps": 2}), (2, {"guidance": 1.0})])
def test_one_call_generates_the_pictures_of_the_model(exported, count, sampling):
    assert_same_pictures(by_graph(exported, "a red car", seed=3, count=count, **sampling),
                         by_model(exported, "a red car", seed=3, count=count, **sampling))


def test_one_call_may_start_in_the_middle(exported):
    """As for a picture with some noise. From there, an untrained model's pictures are more than black and white."""
    config, skipped = exported.model.config, 7
    schedule = make_schedule(config.schedule, 8)
    sampler, prompts, noisy = Sampler(exported.folder), ["a red car", "a blue fish"], torch.randn(2, 3, 8, 8) / 3
    table = step_table(sampler.constants, 20)[skipped:]
    table[0, 4] = 0                                                     # no memory of what was skipped
    inputs = {"steps": table, "noise": noisy.numpy()}
    if config.conditional:
        tokens = encode(exported.model.tokenizer, [*prompts, ""]).numpy()
        inputs |= {"tokens": tokens[:2], "negative_tokens": tokens[2:], "guidance": np.array(3, np.float32)}
    theirs = onnxruntime.InferenceSession(exported.folder / "sampler.onnx").run(None, inputs)[0]
    text, null = encode_prompts(exported.model, prompts)
    denoise = guided_denoiser(exported.model.network, config, schedule, text=text, negative=null, sampling=Sampling())
    times = sampling_times_of(config, Sampling())[skipped:]
    *_, last = dpmpp_2m(within_range(denoise), noisy, times, schedule)
    ours = (last.noisy / 2 + 0.5).clamp(0, 1).numpy()
    assert np.abs(theirs - ours).max() < 1e-4
    assert ((ours > 0) & (ours < 1)).mean() > 0.3


def test_negatives_are_one_for_all_or_one_for_each(conditional):
    ours = by_model(conditional, "a red car", count=2, negative="a blue fish")
    assert_same_pictures(by_graph(conditional, "a red car", count=2, negatives=["a blue fish"]), ours)
    mixed = by_graph(conditional, "a red car", count=2, negatives=["", "a blue fish"])
    assert_same_pictures(mixed[1:], ours[1:])
    assert_same_pictures(mixed[:1], by_model(conditional, "a red car"))


def test_the_pictures_of_these_models_depend_on_prompts_and_guidance(conditional):
    """Otherwise the tests above would pass even if prompts and guidance were lost in the export."""
    default = by_model(conditional, "a red car").astype(int)
    assert guided_steps(conditional.model.config, Sampling()) > 3
    for other in (by_model(conditional, "two green birds"), by_model(conditional, "a red car", guidance=1.0),
                  by_model(conditional, "a red car", negative="two green birds")):
        assert abs(default - other).max() > 3


# ── The script ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run_script(folder, *arguments):
    return subprocess.run([sys.executable, "-I", "-c", RUN_WITHOUT_TORCH, folder / "sample.py", *map(str, arguments)],
                          capture_output=True, text=True, timeout=120)


def test_the_script_generates_the_same_pictures_without_torch(exported, tmp_path):
    done = run_script(exported.folder, "a red car", "-n", 9, "-s", 7, "-o", tmp_path / "out")      # more than at once
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "" if exported.model.config.conditional else "this model was trained without captions and ignores prompts\n")
    paths = done.stdout.splitlines()
    assert [path.rpartition("/")[2] for path in paths] == [f"a-red-car-{seed}.png" for seed in range(7, 16)]
    pictures = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert_same_pictures(pictures, by_model(exported, "a red car", seed=7, count=9))


def test_waiting_threads_of_the_script_take_no_cpu_time(conditional):
    (options,) = {sampler.get_session_options().get_session_config_entry("session.intra_op.allow_spinning")
                  for sampler in (Sampler(conditional.folder).unet, Sampler(conditional.folder).text_encoder)}
    assert options == "0"


def test_the_script_takes_settings_and_replaces_no_file(conditional, tmp_path):
    (tmp_path / "a-red-car-0.png").write_text("kept")
    done = run_script(conditional.folder, "a red car", "-o", tmp_path, "--steps", 5, "--guidance", 5,
                      "--negative", "a blue fish", "--sampler", "ddim")
    assert done.stdout == f"{tmp_path}/a-red-car-0-2.png\n", done.stderr
    assert (tmp_path / "a-red-car-0.png").read_text() == "kept"
    ours = by_model(conditional, "a red car", negative="a blue fish", steps=5, guidance=5.0, sampler="ddim")
    assert_same_pictures(np.asarray(Image.open(tmp_path / "a-red-car-0-2.png"))[None], ours)


@pytest.mark.parametrize(("arguments", "reason"), [
    (("-n", 0), "--num must be at least 1"), (("--steps", 0), "--steps must"), (("--steps", 1001), "--steps must"),
    (("-s", 2**63), "seeds below"), (("-s", 2**63 - 5, "-n", 8), "seeds below"), (("-s", -1), "seeds"),
    (("--guidance", "nan"), "--guidance must be from 0 to 100"), (("--guidance", -1), "--guidance must be"),
    (("--guidance", "inf"), "--guidance must be")])
def test_the_script_refuses_what_diffuse_sample_refuses(conditional, tmp_path, arguments, reason):
    done = run_script(conditional.folder, "a red car", "-o", tmp_path / "out", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


# ── Contents of the folder ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_folder_has_the_files_that_the_model_needs_and_no_more(exported):
    names = {"unet.onnx", "sampler.onnx", "sampler.json", "sample.py", "README.md"}
    texts = {"text_encoder.onnx", "tokenizer.json"}
    conditional = exported.model.tokenizer is not None
    assert {path.name for path in exported.folder.iterdir()} == (names | texts if conditional else names)


def test_writing_prints_nothing(exported):
    assert exported.output == ""


def test_files_are_hardly_larger_than_the_weights(exported):
    network = exported.model.network
    weights = {"unet.onnx": network.unet, "text_encoder.onnx": network.text_encoder, "sampler.onnx": network}
    for path in exported.folder.glob("*.onnx"):
        size = sum(4 * weight.numel() for weight in weights[path.name].parameters())
        assert path.stat().st_size < 1.1 * size + 150_000
        assert b"torch" not in path.read_bytes().replace(b"pytorch", b"")           # stack traces, names of classes


def test_graphs_are_valid_and_describe_inputs_and_outputs(exported):
    expected = {"unet.onnx": {"noisy": "batch", "time": "batch", "output": "batch"},
                "sampler.onnx": {"noise": "batch", "steps": "steps", "pictures": "batch"}}
    if exported.model.tokenizer is not None:
        expected["unet.onnx"] |= {"text": "batch"}
        expected["sampler.onnx"] |= {"tokens": "batch", "negative_tokens": "negatives", "guidance": ""}
        expected["text_encoder.onnx"] = {"tokens": "batch", "text": "batch"}
    for name, values in expected.items():
        graph = onnx.load(exported.folder / name)
        onnx.checker.check_model(graph, full_check=name != "sampler.onnx")
        assert [opset.version for opset in graph.opset_import if opset.domain == ""] == [18]
        described = [*graph.graph.input, *graph.graph.output]
        assert all(value.doc_string for value in described)
        assert {value.name: value.type.tensor_type.shape.dim[0].dim_param if value.type.tensor_type.shape.dim else ""
                for value in described} == values


@pytest.mark.parametrize("sizes", [[], [1], [100, 0, 128], [20_000, 3], [3_000_000]])
def test_the_pieces_of_a_file_make_the_whole_model(sizes):
    weights = [onnx.TensorProto(name=f"w{k}", raw_data=bytes([k]) * size) for k, size in enumerate(sizes)]
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 18]> g (float x) => (float y) {y = Abs (x)}')
    written = onnx.ModelProto.FromString(b"".join(Graph(model, weights).pieces()))
    assert not model.graph.initializer
    model.graph.initializer.extend(weights)
    assert written == model


def test_a_missing_extra_is_named_with_the_command_before_anything_is_written(tmp_path):
    find_spec = importlib.util.find_spec
    with mock.patch("importlib.util.find_spec", lambda name: None if name == "onnxscript" else find_spec(name)):
        for act in (onnx_folder.write, onnx_comparison.compare):
            with pytest.raises(UsageError, match=r"pip install 'diffuse-cli\[onnx\]'"):
                act(onnx_models.make(conditional=False), tmp_path, ONNX)
    assert list(tmp_path.iterdir()) == []


# ── Slow tests ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_and_schedule(prediction, schedule, tmp_path):
    number = PREDICTIONS.index(prediction) + SCHEDULES.index(schedule)
    model = onnx_models.make(prediction=prediction, schedule=schedule, conditional=number % 3 > 0,
                             learned=number % 2 > 0)
    onnx_folder.write(model, tmp_path, ONNX)
    for comparison in onnx_comparison.compare(model, tmp_path, ONNX):
        assert comparison.holds, comparison


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("preset", "resolution", "conditional"), [
    ("nano", 16, True), ("nano", 32, True), ("micro", 32, False), ("nano", 64, True), ("nano", 128, True)])
def test_presets(preset, resolution, conditional, tmp_path):
    network = network_config(preset, resolution, learned_variance=True,
                             vocabulary=len(onnx_models.vocabulary()) if conditional else None)
    model = onnx_models.make(conditional=conditional, network=network)
    onnx_folder.write(model, tmp_path, ONNX)
    for comparison in onnx_comparison.compare(model, tmp_path, ONNX):
        assert comparison.holds, comparison


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_script_in_an_environment_of_its_own(conditional, tmp_path):
    """Only the libraries that its first lines name are installed there."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "environment"], check=True)
    python = tmp_path / "environment/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "onnxruntime", "tokenizers"], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode
    done = subprocess.run([python, conditional.folder / "sample.py", "a red car", "-s", "7", "-o", tmp_path],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    picture = np.asarray(Image.open(done.stdout.strip()))[None]
    assert_same_pictures(picture, by_model(conditional, "a red car", seed=7))
