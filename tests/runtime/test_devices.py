"""The device, its precision, and how many pictures it computes at once, on machines that are only imitated."""

import os
from unittest import mock

import pytest
import tiny
import torch

from diffuse_cli import api
from diffuse_cli.config import Machine, Sampling
from diffuse_cli.errors import UsageError
from diffuse_cli.evaluation import evaluate
from diffuse_cli.runtime import devices
from diffuse_cli.sampling import generate as generation
from diffuse_cli.sampling import png_metadata
from diffuse_cli.training.trainer import Trainer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def _gpus(count):
    return mock.patch.multiple(torch.cuda, is_available=mock.Mock(return_value=count > 0),
                               device_count=mock.Mock(return_value=count))


@pytest.mark.parametrize(("gpus", "visible", "message"), [
    ("1", 0, "--gpus 1 was asked for, but no GPU is visible"), ("all", 0, "no GPU is visible"),
    ("2", 1, "only 1 visible")])
def test_gpus_that_cannot_be_had(gpus, visible, message):
    with _gpus(visible), pytest.raises(UsageError, match=message) as caught:
        devices.choose_device(Machine(gpus=gpus))
    assert caught.value.exit_code == 2
    assert "--gpus" in caught.value.hint


@pytest.mark.parametrize(("gpus", "visible", "count"), [
    (None, 4, 1), ("0", 4, 1), ("1", 4, 1), ("3", 4, 3), ("all", 4, 4), (None, 0, 1)])
def test_there_is_a_process_for_each_gpu_asked_for(gpus, visible, count):
    with _gpus(visible):
        assert devices.count_processes(Machine(gpus=gpus)) == count


def test_every_process_of_a_machine_has_a_gpu_of_its_own():
    with _gpus(4), mock.patch.dict("os.environ", RANK="6", WORLD_SIZE="8", LOCAL_RANK="2"):
        assert devices.choose_device(Machine(gpus="4")) == torch.device("cuda", 2)
        with mock.patch.object(torch, "zeros"):                        # as where there is one
            assert devices.choose_device(Machine(device="cuda")) == torch.device("cuda", 2)
            assert devices.choose_device(Machine(device="cuda:1")) == torch.device("cuda", 1)
    with _gpus(2), mock.patch.dict("os.environ", RANK="6", WORLD_SIZE="8", LOCAL_RANK="2"), \
            pytest.raises(UsageError, match="process 3 of this machine has no GPU: 2 visible"):
        devices.choose_device(Machine())


def test_the_device_is_the_one_asked_for_or_the_best_there_is():
    with _gpus(1), mock.patch.object(torch.backends.mps, "is_available", return_value=False):
        assert devices.choose_device(Machine()).type == "cuda"
        assert devices.choose_device(Machine(gpus="1")).type == "cuda"
        assert devices.choose_device(Machine(gpus="all")).type == "cuda"
        assert devices.choose_device(Machine(gpus="0")).type == "cpu"
        assert devices.choose_device(Machine(device="cpu")).type == "cpu"
    with _gpus(0), mock.patch.object(torch.backends.mps, "is_available", return_value=False):
        assert devices.choose_device(Machine()).type == "cpu"
    with _gpus(0), mock.patch.object(torch.backends.mps, "is_available", return_value=True):
        assert devices.choose_device(Machine()).type == "mps"


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "meta-physics", "", "meta"])
def test_devices_that_are_none(device):
    with pytest.raises(UsageError, match="--device"):
        devices.choose_device(Machine(device=device))


@pytest.mark.parametrize(("asked", "device", "batch_size", "resolution", "expected"), [
    (None, CPU, 32, 64, 32), (None, CPU, 256, 64, 64), (None, CPU, 256, 128, 16), (None, CUDA, 2048, 64, 512),
    (None, CPU, 256, 512, 1), (3, CPU, 32, 64, 3), (99, CPU, 32, 64, 32)])
def test_how_many_pictures_at_once(asked, device, batch_size, resolution, expected):
    assert devices.choose_micro_batch(
        Machine(micro_batch=asked), device, batch_size=batch_size, resolution=resolution) == expected


@pytest.mark.parametrize(("facts", "precision"), [
    ("flags: amx_bf16 avx512_bf16\nGenuineIntel", "bf16"), ("avx512_bf16 GenuineIntel", "fp32"),
    ("avx512_bf16 AuthenticAMD", "bf16"), ("sse2", "fp32")])
def test_the_precision_of_a_cpu(facts, precision):
    with mock.patch.object(devices.Path, "read_text", return_value=facts):
        assert devices.choose_precision(Machine(), CPU) == precision
        assert devices.choose_precision(Machine(precision="fp32"), CPU) == "fp32"
        assert devices.choose_precision(Machine(precision="bf16"), CPU) == "bf16"
    with mock.patch.object(devices.Path, "read_text", side_effect=OSError):
        assert devices.choose_precision(Machine(), CPU) == "fp32"


# ── Equal bits ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_torch_is_deterministic_while_that_is_asked_for_and_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert not torch.are_deterministic_algorithms_enabled()
    with devices.arithmetic(CPU):
        assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with devices.arithmetic(CPU, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"       # without it, torch refuses cuBLAS
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_deterministic_training_uses_only_such_kernels_and_changes_no_bit_on_a_cpu(trained, squares, home):
    seen, step = [], Trainer.step

    def told(self):
        seen.append(torch.are_deterministic_algorithms_enabled())
        return step(self)

    with mock.patch.object(Trainer, "step", told), mock.patch.dict(os.environ):
        tiny.train(squares, deterministic=True)
    assert set(seen) == {True}
    assert not torch.are_deterministic_algorithms_enabled()
    assert (tiny.run_directory(home) / "model.safetensors").read_bytes() \
        == (trained[0] / "model.safetensors").read_bytes()


# ── Arithmetic and precision on a GPU ───────────────────────────────────────────────────────────────────────────────


def _flags():
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark


@pytest.mark.parametrize(("device", "options", "expected"), [
    (CUDA, {}, ("highest", False, False)), (CUDA, {"search": True}, ("highest", False, True)),
    (CUDA, {"search": True, "deterministic": True}, ("highest", False, False)), (CPU, {"search": True}, None)])
def test_float32_is_float32_on_a_gpu_and_as_before_afterwards(device, options, expected, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("high")
    before = _flags()
    try:
        with devices.arithmetic(device, **options):
            assert _flags() == (expected or before)
        assert _flags() == before == ("high", True, False)
        with pytest.raises(KeyError), devices.arithmetic(device, **options):
            raise KeyError
        assert _flags() == before
    finally:
        torch.set_float32_matmul_precision("highest")


def test_the_plan_says_which_arithmetic_was_chosen():
    assert devices.describe_arithmetic(CPU, deterministic=True) == ""
    assert devices.describe_arithmetic(CUDA, deterministic=False) == "no TF32, cuDNN searches for fast convolutions"
    assert "fixed order" in devices.describe_arithmetic(CUDA, deterministic=True)


def test_pictures_are_drawn_in_bf16_only_on_a_gpu_that_has_it():
    with mock.patch.object(devices, "_cpu_is_faster_with_bf16", return_value=True):
        assert devices.choose_sampling_precision(CPU) == "fp32"
    assert devices.choose_sampling_precision(torch.device("mps")) == "fp32"
    for supported, precision in ((True, "bf16"), (False, "fp32")):
        with mock.patch.object(torch.cuda, "is_bf16_supported", return_value=supported):
            assert devices.choose_sampling_precision(CUDA) == precision


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The choice of a GPU, while everything is computed here."""
    monkeypatch.setattr(devices, "choose_sampling_precision", lambda device: "bf16")


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(("options", "precision"), [((), "bf16"), (("--precision", "fp32"), "fp32")])
def test_a_picture_says_in_which_precision_it_was_drawn_and_is_drawn_so_again(
        trained, command, tmp_path, options, precision):
    code, *_ = command("sample", "a red square", "-m", trained[0] / "model.safetensors", "--steps", 2, "-o",
                       tmp_path / "one.png", *options)
    assert code == 0
    assert _precision(tmp_path / "one.png") == precision
    with mock.patch.object(devices, "choose_sampling_precision", return_value="fp32"):         # on another machine
        code, *_ = command("sample", "--from", tmp_path / "one.png", "-m", trained[0] / "model.safetensors", "-o",
                           tmp_path / "again.png")
    assert code == 0
    assert _precision(tmp_path / "again.png") == precision


def _precision(path):
    return png_metadata.read_settings(path).precision


@pytest.mark.usefixtures("as_on_a_gpu")
def test_python_and_evaluations_choose_the_same_precision(trained, command, monkeypatch):
    model = api.load(trained[0] / "model.safetensors")
    seen = []
    monkeypatch.setattr(generation, "generate", lambda model, requests, **others: iter(
        seen.append(requests[0].sampling.precision) or ()))
    model.sample("a red square", steps=2)
    model.sample("a red square", steps=2, precision="fp32")
    model.sample("a red square", sampling=Sampling(steps=2))
    assert seen == ["bf16", "fp32", "fp32"]

    def measured(*args, precision, **others):
        seen.append(precision)
        raise UsageError("seen")

    monkeypatch.setattr(evaluate, "evaluate", measured)
    monkeypatch.setenv("DIFFUSE_HOME", str(trained[0].parent.parent))
    for options in ((), ("--precision", "fp32")):
        assert command("evaluate", "tiny", "-n", 0, *options)[0] == 2
    assert seen[3:] == ["bf16", "fp32"]


def test_pictures_and_measurements_choose_the_arithmetic_of_the_models_device(trained, monkeypatch):
    seen, arithmetic = [], devices.arithmetic
    monkeypatch.setattr(devices, "arithmetic", lambda device, **options: seen.append(device) or arithmetic(device))
    api.load(trained[0] / "model.safetensors").sample("a red square", steps=2)
    assert seen == [CPU]
