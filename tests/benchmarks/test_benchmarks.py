"""Arithmetic, tables and workers of the benchmarks, on invented measurements; only a slow test needs the peers."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks import contenders
from benchmarks.harness import figures, harness, peers, render, tables
from benchmarks.measurements import training

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def side(costs, *, pictures=8, peak=2**20):
    """The results of a side. costs: CPU seconds of each repetition, of one unit; wall seconds are three times as many.
    """
    return {"facts": {"pictures": pictures, "parameters": 1_500_000, "gflop": 2.0, "steps": 20, "guided_steps": 10},
            "repetitions": [{"cpu": cost, "wall": 3 * cost, "count": 1} for cost in costs], "peak": peak,
            "versions": {"torch": "2.13.0"}}


def report(**sides):
    return {"benchmark": "training", "date": "2026-01-01", "quick": False, "repetitions": 3, "seeds": [0],
            "baseline": "theirs", "processes": "one thread each", "load_before": [0.1], "load_after": [0.2],
            "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 8.0, "bf16_units": ["avx512_bf16"]},
            "cases": [{"title": "a case", "sides": sides}]}


def test_a_slow_round_does_not_change_a_ratio():
    quiet = figures.ratios([10.0, 10.0, 10.0], [5.0, 5.0, 5.0])
    disturbed = figures.ratios([10.0, 2.0, 10.0], [5.0, 1.0, 5.0])                 # both five times slower for a while
    assert quiet == disturbed == figures.Spread(2.0, 2.0, 2.0)


def test_a_spread_has_the_median_and_both_extremes():
    assert figures.spread([3.0, 1.0, 9.0]) == figures.Spread(3.0, 1.0, 9.0)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_an_exact_power_is_recovered(power):
    sizes = [10.0, 100.0, 1000.0]
    fitted, residual = figures.exponent(sizes, [7.0 * size**power for size in sizes])
    assert fitted == pytest.approx(power)
    assert residual == pytest.approx(0, abs=1e-9)


def test_costs_that_follow_no_power_leave_a_residual():
    assert figures.exponent([1.0, 10.0, 100.0], [1.0, 10.0, 1.0])[1] > 0.5


@pytest.mark.parametrize(("value", "text"), [(0.012345, "0.0123"), (1.5, "1.50"), (12345.6, "12,346"), (0.0, "0")])
def test_numbers_have_three_significant_digits(value, text):
    assert figures.format_number(value) == text


def test_a_table_holds_rates_ratios_and_memory():
    lines = training.render(report(ours=side([1.0, 2.0, 4.0], peak=3 * 2**20), theirs=side([2.0, 4.0, 8.0])))
    ours = next(line for line in lines if line.startswith("| ours"))
    assert "4.00 (2.00 – 8.00)" in ours                                            # 8 pictures in 2 s
    assert "**2.00** (2.00 – 2.00)" in ours
    assert ours.endswith("| 3 |")
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_without_peers_there_is_a_table_without_ratios():
    assert "| – |" in "".join(training.render(report(ours=side([1.0]))))


@pytest.mark.parametrize(("load", "mentioned"), [(0.3, False), (6.0, True)])
def test_other_work_on_the_machine_is_mentioned(load, mentioned):
    line = tables.circumstances({**report(ours=side([1.0])), "load_after": [load]})
    assert ("Other work ran beside" in line) == mentioned
    assert "torch 2.13.0" in line


def test_the_page_is_rendered_from_the_results(tmp_path):
    """Nobody edited docs/benchmarks.md by hand, and it is up to date with the results."""
    (tmp_path / "pictures").mkdir()
    page = BENCHMARKS.parent / "docs" / "benchmarks.md"
    assert render.page(BENCHMARKS / "results", tmp_path) == page.read_text(encoding="utf-8")


def test_every_result_says_where_it_comes_from():
    for path in (BENCHMARKS / "results").glob("*.json"):
        kept = json.loads(path.read_text())
        assert kept["date"]
        assert kept["machine"]["cpu"]
        assert len(kept["load_before"]) == 3
        assert all(one["versions"] and one["repetitions"] for case in kept["cases"] for one in case["sides"].values())


def test_a_worker_works_and_reports_its_cost(tmp_path):
    """In a process of its own it decodes a folder twice. It imports no peer, and here not even torch."""
    settings = harness.Settings(peers=None, core=None, repetitions=2)
    for number in range(3):
        Image.new("RGB", (16, 16), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    options = {"folder": str(tmp_path), "resolution": 8}
    results = harness.interleave({"ours": harness.Side("feeding_sides:ours_first_time", options),
                                  "peer": harness.Side("none:none", peer=True)}, settings, count=1)
    assert list(results) == ["ours"]                                               # without peers, ours alone
    assert [one["count"] for one in results["ours"]["repetitions"]] == [1, 1]
    assert all(one["cpu"] > 0 for one in results["ours"]["repetitions"])
    assert results["ours"]["facts"]["pictures"] == 3
    assert results["ours"]["peak"] > 10 * 2**20
    assert "torch" in results["ours"]["versions"]


@pytest.mark.parametrize("count", [1, None])
def test_a_side_that_dies_at_work_is_left_out(tmp_path, count):
    settings = harness.Settings(peers=None, core=None, repetitions=1, seconds=0.1)
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name / "a.png")
    (tmp_path / "bad" / "a.png").write_text("no picture")
    sides = {name: harness.Side("feeding_sides:ours_first_time", {"folder": str(tmp_path / name), "resolution": 8})
             for name in ("bad", "good")}
    results = harness.interleave(sides, settings, count=count)
    assert list(results) == ["good"]
    assert len(results["good"]["repetitions"]) == 1


@pytest.mark.parametrize("last", ["count", "end"])
def test_a_side_that_is_killed_between_two_requests_is_left_out(tmp_path, monkeypatch, last):
    """The system may kill it when memory is short: before it works, or before it reports its peak memory."""
    ask = harness.Worker.ask

    def killed(worker, **request):
        if last in request:
            worker.process.kill()
            worker.process.wait()
        return ask(worker, **request)

    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    monkeypatch.setattr(harness.Worker, "ask", killed)
    settings = harness.Settings(peers=None, core=None, repetitions=1)
    side = harness.Side("feeding_sides:ours_first_time", {"folder": str(tmp_path), "resolution": 8})
    assert harness.interleave({"ours": side}, settings, count=1) == {}


def test_a_contender_that_does_not_exist_is_left_out():
    settings = harness.Settings(peers=None, core=None, repetitions=1)
    assert harness.interleave({"none": harness.Side("nothing:nothing")}, settings, count=1) == {}


def test_attention_is_counted_whichever_kernel_computes_it():
    """Two products of 2·n²·d operations forward, and twice as many backward."""
    heads, positions, width = 2, 16, 8
    x = torch.zeros(1, heads, positions, width)
    gflop = contenders.training_gflop(lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x))
    assert gflop * 1e9 == pytest.approx(3 * 2 * heads * 2 * positions**2 * width)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_peers_train_the_same_network():
    """Makes the peers' environment unless it exists, which takes minutes and the network."""
    settings = harness.Settings(peers=peers.make(), core=None, repetitions=1)
    results = harness.interleave(training.sides("nano", 16, 4, False), settings, count=1)
    assert set(results) == set(training.sides("nano", 16, 4, False))
    ours, theirs = results["diffuse-cli"]["facts"], results["diffusers example"]["facts"]
    assert theirs["parameters"] == pytest.approx(ours["parameters"], rel=0.01)     # theirs has no variance channels
    assert theirs["gflop"] == pytest.approx(ours["gflop"], rel=0.1)
