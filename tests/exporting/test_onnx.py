"""Models as ONNX graphs: what onnxruntime and the script draw is what the model draws, and nothing else comes along."""

import dataclasses
import importlib.util
import json
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

from diffuse_cli.config import PREDICTIONS, SCHEDULES, Export, ModelConfig, Sampling
from diffuse_cli.diffusion.guidance import within_range
from diffuse_cli.diffusion.samplers import DETERMINISTIC, Denoised, dpmpp_2m, sampling_times
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.errors import UsageError
from diffuse_cli.exporting import onnx_comparison, onnx_folder
from diffuse_cli.exporting.onnx_folder import constants
from diffuse_cli.exporting.onnx_graphs import Graph
from diffuse_cli.exporting.standalone.sample import Sampler, noise_of, step_table
from diffuse_cli.network.presets import network_config
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling.generate import encode_prompts, generate, guided_denoiser
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.sampling.steps import guided_steps, sampling_times_of

ONNX = Export(format="onnx")
KINDS = ("conditional", "unconditional")
WITHOUT = """
import runpy, sys
class Nothing:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("torch", "diffuse_cli", "onnx", "PIL", "safetensors"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclasses.dataclass
class Exported:
    model: object
    folder: object
    said: str


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Both kinds of models, exported once; tests only read them."""
    models = {"conditional": onnx_models.make(),
              "unconditional": onnx_models.make(conditional=False, learned=False, prediction="epsilon",
                                                schedule="cosine")}
    found = {}
    for kind, model in models.items():
        folder = tmp_path_factory.mktemp(kind)
        with onnx_models.overheard() as said:
            onnx_folder.write(model, folder, ONNX)
        found[kind] = Exported(model, folder, said[0])
    return found


@pytest.fixture(params=KINDS)
def exported(request, everything):
    return everything[request.param]


@pytest.fixture
def conditional(everything):
    return everything["conditional"]


def by_graph(exported, prompt, *, seed=0, count=1, negatives=("",), **sampling):
    """(N, 8, 8, 3) pixels, by one call of onnxruntime."""
    how, model = Sampling(**sampling), exported.model
    sampler = Sampler(exported.folder)
    table = step_table(sampler.constants, how.number_of_steps, guided=how.guidance != 1, sampler=how.sampler)
    inputs = {"steps": table, "noise": np.stack([noise_of(seed + k, sampler.shape) for k in range(count)])}
    if model.tokenizer is not None:
        ids = [[one.ids for one in model.tokenizer.encode_batch(texts)] for texts in ([prompt] * count, negatives)]
        inputs |= {"tokens": np.array(ids[0]), "negative_tokens": np.array(ids[1]),
                   "guidance": np.array(how.guidance, np.float32)}
    session = onnxruntime.InferenceSession(exported.folder / "sampler.onnx")
    return pixels(session.run(None, inputs)[0])


def pixels(pictures):
    return np.rint(pictures * 255).astype(np.uint8).transpose(0, 2, 3, 1)


def by_model(exported, prompt, *, seed=0, count=1, negative="", **sampling):
    wanted = SampleRequest(prompt=prompt, negative=negative, count=count, seed=seed, sampling=Sampling(**sampling))
    return np.stack([one.pixels for one in generate(exported.model, [wanted])])


def assert_same_pictures(theirs, ours):
    assert theirs.shape == ours.shape
    assert abs(theirs.astype(int) - ours.astype(int)).max() <= 1
    assert (theirs != ours).mean() < 0.01                               # what lay on the edge of two roundings


# ── Equal ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_comparisons_hold_with_room_to_spare(exported):
    comparisons = onnx_comparison.compare(exported.model, exported.folder, ONNX)
    assert len(comparisons) == (15 if exported.model.tokenizer is not None else 10)
    for found in comparisons:
        assert found.holds, found
        assert found.max_abs <= 3e-5, found


def test_comparisons_fail_when_any_part_is_another(conditional, tmp_path):
    """The model with one layer of each network changed a little, and another schedule, against the exported one."""
    other = onnx_models.make(schedule="cosine")
    with torch.no_grad():
        other.network.unet.conv_in.weight *= 1.01
        other.network.text_encoder.shared.weight[5:] *= 1.01
    compared = onnx_comparison.compare(other, conditional.folder, ONNX)
    failed = {found.what.split(":")[0] for found in compared if not found.holds}
    assert failed == {"text encoder", "U-Net", "sample.py", "sampler.onnx"}


@pytest.mark.parametrize(("count", "sampling"), [
    (7, {"steps": 3}), (1, {"steps": 11, "guidance": 6.0}), (3, {"sampler": "ddim", "steps": 4}),
    (2, {"steps": 1}), (2, {"steps": 2}), (2, {"guidance": 1.0})])
def test_one_call_draws_the_pictures_of_the_model(exported, count, sampling):
    assert_same_pictures(by_graph(exported, "a red car", seed=3, count=count, **sampling),
                         by_model(exported, "a red car", seed=3, count=count, **sampling))


def test_one_call_may_start_in_the_middle(exported):
    """As from a picture with some noise; there, an untrained model's pictures are more than black and white."""
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
    denoise = guided_denoiser(exported.model.network, config, schedule, text=text, null=null, sampling=Sampling())
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


def test_these_models_mind_what_they_are_told(conditional):
    """Otherwise the tests above would hold whatever was exported of prompts and guidance."""
    usual = by_model(conditional, "a red car").astype(int)
    assert guided_steps(conditional.model.config, Sampling()) > 3
    for other in (by_model(conditional, "two green birds"), by_model(conditional, "a red car", guidance=1.0),
                  by_model(conditional, "a red car", negative="two green birds")):
        assert abs(usual - other).max() > 3


# ── The script ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run_script(folder, *arguments):
    return subprocess.run([sys.executable, "-I", "-c", WITHOUT, folder / "sample.py", *map(str, arguments)],
                          capture_output=True, text=True, timeout=120)


def test_the_script_draws_the_same_pictures_without_torch(exported, tmp_path):
    done = run_script(exported.folder, "a red car", "-n", 2, "-s", 7, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    paths = done.stdout.splitlines()
    assert [path.rpartition("/")[2] for path in paths] == ["a-red-car-7.png", "a-red-car-8.png"]
    drawn = np.stack([np.asarray(Image.open(path)) for path in paths])
    assert_same_pictures(drawn, by_model(exported, "a red car", seed=7, count=2))


def test_the_script_takes_settings_and_replaces_no_file(conditional, tmp_path):
    (tmp_path / "a-red-car-0.png").write_text("kept")
    done = run_script(conditional.folder, "a red car", "-o", tmp_path, "--steps", 5, "--guidance", 5,
                      "--negative", "a blue fish", "--sampler", "ddim")
    assert done.stdout == f"{tmp_path}/a-red-car-0-2.png\n", done.stderr
    assert (tmp_path / "a-red-car-0.png").read_text() == "kept"
    ours = by_model(conditional, "a red car", negative="a blue fish", steps=5, guidance=5.0, sampler="ddim")
    assert_same_pictures(np.asarray(Image.open(tmp_path / "a-red-car-0-2.png"))[None], ours)
    assert run_script(conditional.folder, "a red car", "-n", 0).returncode == 2


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 5), (3, 32, 32)])
@pytest.mark.parametrize("seed", [0, 7, 2**62])
def test_the_script_knows_the_noise_of_a_seed(shape, seed):
    ours = randomness.normal(torch.tensor([randomness.key(seed, "sample", -1)]), shape)[0].numpy()
    theirs = noise_of(seed, shape)
    assert theirs.dtype == np.float32
    assert np.abs(theirs - ours).max() < 1e-6                           # the same bits, rounded by other libraries


@pytest.mark.parametrize("resolution", [8, 64])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_of_steps_are_those_of_the_schedule(schedule, resolution):
    """Times and levels against the functions that samplers use; a noisy picture of a constant one stays one of it."""
    network = network_config("nano", resolution, vocabulary=None, learned_variance=True)
    for prediction in PREDICTIONS:
        model = mock.Mock(config=ModelConfig(network=network, schedule=schedule, prediction=prediction))
        known = json.loads(json.dumps(constants(model)))
        for steps in (1, 2, 3, 20, 37, 250):
            table = step_table(known, steps).astype(float)
            t = torch.tensor(sampling_times_of(model.config, Sampling(steps=steps))[:-1], dtype=torch.float64)
            alpha, sigma = (x.numpy() for x in make_schedule(schedule, resolution).alpha_sigma(t))
            time, from_noisy, from_output, _, _, keep, gain = table.T
            assert np.allclose(time, 1000 * t.numpy() - 1, atol=3e-4)
            assert np.allclose(keep * alpha + gain, [*alpha[1:], 1], rtol=1e-5)
            assert np.allclose(keep * sigma, [*sigma[1:], 0], rtol=1e-5)
            output = {"v": alpha * 2 - sigma, "epsilon": np.full(steps, 2), "x0": np.ones(steps)}[prediction]
            image = from_noisy * (alpha + sigma * 2) + from_output * output             # the picture 1 with noise 2
            assert np.allclose(image * alpha, alpha, atol=1e-6)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddim"])
@pytest.mark.parametrize("conditional", [True, False])
def test_tables_of_steps_lead_where_the_samplers_lead(conditional, sampler):
    """With the best denoiser for pixels of variance 1/4, twice as sure of itself where guidance acts."""
    network = network_config("nano", 32, vocabulary=300 if conditional else None, learned_variance=True)
    config = ModelConfig(network=network, schedule="interpolated", prediction="v")
    known, schedule = constants(mock.Mock(config=config)), make_schedule("interpolated", 32)
    low, high = Sampling().interval_at(32) if conditional else (0, 0)

    def best(noisy, alpha, sigma):
        guided = low < sigma / alpha <= high
        return noisy * alpha / 4 / (alpha**2 / 4 + sigma**2) * (2 if guided else 1), guided

    def denoise(noisy, t):
        image, guided = best(noisy, *(x.item() for x in schedule.alpha_sigma(torch.tensor(t).double())))
        return Denoised(image, guided=guided)

    noise = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    *_, last = DETERMINISTIC[sampler](denoise, noise, sampling_times(schedule, 20, 32), schedule)
    noisy, before = noise.numpy(), 0
    for time, _, _, guided, memory, keep, gain in step_table(known, 20, sampler=sampler).astype(float):
        at_t = schedule.alpha_sigma(torch.tensor((time + 1) / 1000))
        image, acts = best(noisy, *(x.item() for x in at_t))
        assert acts == guided
        noisy, before = keep * noisy + gain * (image + memory * (image - before)), image
    assert np.allclose(noisy, last.noisy.numpy(), atol=1e-4)


# ── What is in the folder ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_folder_has_what_the_model_needs_and_no_more(exported):
    names = {"unet.onnx", "sampler.onnx", "sampler.json", "sample.py", "README.md"}
    texts = {"text_encoder.onnx", "tokenizer.json"}
    conditional = exported.model.tokenizer is not None
    assert {path.name for path in exported.folder.iterdir()} == (names | texts if conditional else names)


def test_nothing_is_said_meanwhile(exported):
    assert exported.said == ""


def test_files_are_hardly_larger_than_the_weights(exported):
    network = exported.model.network
    weights = {"unet.onnx": network.unet, "text_encoder.onnx": network.text_encoder, "sampler.onnx": network}
    for path in exported.folder.glob("*.onnx"):
        size = sum(4 * weight.numel() for weight in weights[path.name].parameters())
        assert path.stat().st_size < 1.1 * size + 150_000
        assert b"torch" not in path.read_bytes().replace(b"pytorch", b"")           # stack traces, names of classes


def test_graphs_are_valid_and_say_what_they_take(exported):
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
        found = [*graph.graph.input, *graph.graph.output]
        assert all(value.doc_string for value in found)
        assert {value.name: value.type.tensor_type.shape.dim[0].dim_param if value.type.tensor_type.shape.dim else ""
                for value in found} == values


@pytest.mark.parametrize("sizes", [[], [1], [100, 0, 128], [20_000, 3], [3_000_000]])
def test_a_file_in_pieces_is_the_file(sizes):
    weights = [onnx.TensorProto(name=f"w{k}", raw_data=bytes([k]) * size) for k, size in enumerate(sizes)]
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 18]> g (float x) => (float y) {y = Abs (x)}')
    written = onnx.ModelProto.FromString(b"".join(Graph(model, weights).pieces()))
    assert not model.graph.initializer
    model.graph.initializer.extend(weights)
    assert written == model


def test_a_missing_extra_is_named_with_the_command_before_anything_is_written(tmp_path):
    found = importlib.util.find_spec
    with mock.patch("importlib.util.find_spec", lambda name: None if name == "onnxscript" else found(name)):
        for act in (onnx_folder.write, onnx_comparison.compare):
            with pytest.raises(UsageError, match='pip install "diffuse-cli\\[onnx\\]"'):
                act(onnx_models.make(conditional=False), tmp_path, ONNX)
    assert list(tmp_path.iterdir()) == []


# ── The long way ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_prediction_and_schedule(prediction, schedule, tmp_path):
    number = PREDICTIONS.index(prediction) + SCHEDULES.index(schedule)
    model = onnx_models.make(prediction=prediction, schedule=schedule, conditional=number % 3 > 0,
                             learned=number % 2 > 0)
    onnx_folder.write(model, tmp_path, ONNX)
    for found in onnx_comparison.compare(model, tmp_path, ONNX):
        assert found.holds, found


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("preset", "resolution", "conditional"), [
    ("nano", 16, True), ("nano", 32, True), ("micro", 32, False), ("nano", 64, True), ("nano", 128, True)])
def test_presets(preset, resolution, conditional, tmp_path):
    network = network_config(preset, resolution, learned_variance=True,
                             vocabulary=len(onnx_models.vocabulary()) if conditional else None)
    model = onnx_models.make(conditional=conditional, network=network)
    onnx_folder.write(model, tmp_path, ONNX)
    for found in onnx_comparison.compare(model, tmp_path, ONNX):
        assert found.holds, found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_script_in_an_environment_of_its_own(conditional, tmp_path):
    """Nothing is installed there but what its first lines ask for."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "there"], check=True)
    python = tmp_path / "there/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "onnxruntime", "tokenizers"], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode
    done = subprocess.run([python, conditional.folder / "sample.py", "a red car", "-s", "7", "-o", tmp_path],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    drawn = np.asarray(Image.open(done.stdout.strip()))[None]
    assert_same_pictures(drawn, by_model(conditional, "a red car", seed=7))
