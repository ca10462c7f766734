"""The device, its precision, and how many pictures it computes at once, on machines that are only imitated."""

import os
from unittest import mock

import pytest
import tiny
import torch

from diffuse_cli.config import Machine
from diffuse_cli.errors import UsageError
from diffuse_cli.runtime import devices
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
    with devices.deterministic(False):
        assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with devices.deterministic(True):
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
