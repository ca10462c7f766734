"""The one command for a GPU that is lent for minutes: its plan, deadlines and units, and its rehearsal on a CPU."""

import importlib
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import gpu_acceptance
from benchmarks.gpu import Settings, facts, kernels, memory, parity, resume
from benchmarks.harness.harness import ROOT
from diffuse_cli.config import SAMPLERS

SCRIPT = ROOT / "benchmarks" / "gpu_acceptance.py"


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Settings of a rehearsal, inside of this process."""
    settings = Settings(tmp_path / "out", "cpu", True)
    settings.home.mkdir(mode=0o700, parents=True)
    monkeypatch.setenv("DIFFUSE_HOME", str(settings.home))
    with settings.scaled_down():
        yield settings


def lines(settings):
    return [json.loads(line) for line in settings.results.read_text().splitlines()]


def test_all_parts_fit_into_eight_minutes():
    assert sum(gpu_acceptance.PARTS.values()) <= gpu_acceptance.SECONDS < 480
    assert next(iter(gpu_acceptance.PARTS)) == "facts"


def test_every_part_has_units_for_a_gpu_and_for_a_rehearsal(tmp_path):
    for part in set(gpu_acceptance.PARTS) - {"pictures"}:               # whose units load a model first
        units = importlib.import_module(f"benchmarks.gpu.{part}").units
        for device, tiny in (("cuda", False), ("cpu", True)):
            names = [name for name, _ in units(Settings(tmp_path, device, tiny))]
            assert names
            assert len(names) == len(set(names)), part


def test_a_rehearsal_samples_with_one_sampler_and_a_gpu_with_all(tmp_path, monkeypatch):
    from benchmarks.gpu import pictures

    monkeypatch.setattr(pictures.api, "load", lambda name, device: type("Loaded", (), {"model": device}))
    asked = [name for name, _ in pictures.units(Settings(tmp_path, "cuda", False))]
    assert set(SAMPLERS) < set(asked)
    assert len(pictures.units(Settings(tmp_path, "cpu", True))) == 2


@pytest.mark.parametrize("part", ["facts", "parity", "memory", "kernels"])
def test_the_units_of_a_rehearsal_pass(tiny, part):
    assert gpu_acceptance.run_units(tiny, part), lines(tiny)
    assert all("result" in line for line in lines(tiny))


def test_other_weights_are_no_parity(tiny, monkeypatch):
    step, calls = parity.step, []

    def other(trainer, weights):
        calls.append(trainer)
        return step(trainer, {name: one * (1 + 1e-3 * (len(calls) == 2)) for name, one in weights.items()})

    monkeypatch.setattr(parity, "step", other)
    assert not parity.compare(tiny, "fp32", parity.TOLERANCE)["passed"]


def test_a_memory_that_is_never_full_does_not_pass(tiny, monkeypatch):
    monkeypatch.setattr(memory, "limited", lambda settings, made, fraction, fitting: memory.contextlib.nullcontext())
    assert not memory.halved(tiny)["passed"]
    assert not memory.nothing_fits(tiny)["passed"]


def test_weights_that_differ_are_seen():
    one = {"a": torch.zeros(3), "b": torch.ones(2)}
    assert resume.distance(one, one) == 0
    assert resume.distance(one, {**one, "b": torch.tensor([1.0, 1.25])}) == 0.25


def test_idle_time_is_what_no_kernel_covers():
    """Kernels of 2 and 3 µs that overlap by 1, a copy after a pause of 4."""
    found = kernels.summarise([("b", 1, 4), ("a", 0, 2), ("Memcpy HtoD", 8, 10)])
    assert found["idle share"] == pytest.approx(0.4)
    assert found["copies"]["count"] == 1
    assert found["kernels"] == 3
    assert [one["name"] for one in found["slowest"]] == ["b", "a", "Memcpy HtoD"]


def test_an_error_ends_only_its_unit(tiny, monkeypatch):
    def fail():
        raise ValueError("no such device")

    monkeypatch.setattr(facts, "units", lambda settings: [
        ("bad", fail), ("worse", lambda: {"passed": False}), ("good", lambda: {"passed": True})])
    assert not gpu_acceptance.run_units(tiny, "facts")
    bad, worse, good = lines(tiny)
    assert "no such device" in bad["error"]
    assert (worse["result"], good["result"]) == ({"passed": False}, {"passed": True})


def test_a_part_that_hangs_is_ended_with_what_it_started_and_the_next_one_runs(tmp_path, monkeypatch):
    """The part starts a process that outlives it unless the whole group is ended."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, subprocess, sys, time\n"
        "if sys.argv[-1] == 'parity':\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"    pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(child.pid))\n"
        "    time.sleep(60)\n"
        "sys.exit(3 if sys.argv[-1] == 'kernels' else 0)\n")
    monkeypatch.setattr(gpu_acceptance, "__file__", str(script))
    monkeypatch.setattr(gpu_acceptance, "PARTS", {"facts": 60, "parity": 2, "kernels": 60, "memory": 60})
    settings = Settings(tmp_path, "cpu", False)
    assert not gpu_acceptance.run_all(settings, list(gpu_acceptance.PARTS), [], 100)
    hung, ended = lines(settings)
    assert (hung["part"], ended["part"]) == ("parity", "kernels")
    assert "deadline" in hung["error"]
    assert "ended with 3" in ended["error"]
    child = int((tmp_path / "child").read_text())
    until = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}/stat") and _state(child) not in "ZX" and time.monotonic() < until:
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child}/stat") or _state(child) in "ZX"


def _state(process):
    try:
        return open(f"/proc/{process}/stat").read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def test_without_time_a_part_is_not_begun(tmp_path):
    settings = Settings(tmp_path, "cpu", False)
    assert not gpu_acceptance.run_all(settings, ["facts", "parity"], [], gpu_acceptance.LEAST - 1)
    assert [line["error"] for line in lines(settings)] == ["not begun: no time was left"] * 2


def test_wheels_are_imported_without_installation(tmp_path, monkeypatch):
    import zipfile

    with zipfile.ZipFile(tmp_path / "carried-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_by_wheel.py", "NUMBER = 7")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    gpu_acceptance.unpack(tmp_path, tmp_path / "packages")
    gpu_acceptance.use_wheels(tmp_path / "packages")
    assert importlib.import_module("carried_by_wheel").NUMBER == 7
    assert os.environ["PYTHONPATH"] == f"elsewhere{os.pathsep}{tmp_path / 'packages'}"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_rehearsal_on_a_cpu_passes_within_four_minutes(tmp_path):
    begun = time.monotonic()
    process = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--device", "cpu", "--tiny", "--seconds", "240"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert time.monotonic() - begun < 240
    assert {json.loads(line)["part"] for line in (tmp_path / "results.jsonl").read_text().splitlines()} == set(
        gpu_acceptance.PARTS)
