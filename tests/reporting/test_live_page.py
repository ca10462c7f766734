"""The page of a run while it trains: up to date, cheap, and never a danger to the training."""

import re
from pathlib import Path
from unittest import mock

import tiny
from PIL import Image
from web_page import Page

from diffuse_cli import events
from diffuse_cli.files import durable
from diffuse_cli.reporting import live_page, report, results_picture
from diffuse_cli.storage import registry
from diffuse_cli.training import monitor


def _tensors(directory: Path) -> dict[str, bytes]:
    """The contents of all models and training states of a run."""
    return {path.name: path.read_bytes() for path in directory.glob("*.safetensors")}


def test_a_training_writes_its_report_which_changes_no_bit_of_the_models(trained, squares, decoded, home):
    written = []
    write = durable.write

    def noting(path, data, **options):
        write(path, data, **options)
        if path.name == registry.REPORT_FILE:
            written.append(data.decode())

    with mock.patch.object(live_page, "FIRST_COST", 0), mock.patch.object(live_page, "MAX_COST", 1e9), \
            mock.patch.object(monitor, "REPORT_SECONDS", 0), mock.patch.object(durable, "write", noting):
        tiny.train(squares, drawn=True)
    directory = tiny.run_directory(home)
    assert [re.search(r"step (\d+) of 8|Finished", html)[0] for html in written] == [
        "step 4 of 8", "step 5 of 8", "step 7 of 8", "Finished"]
    assert all(Page(html) and "<path" in html for html in written)
    assert (directory / registry.REPORT_FILE).read_bytes() == report.build(directory)
    assert (directory / registry.RESULTS_FILE).read_bytes() == results_picture.build(directory)
    with Image.open(directory / registry.RESULTS_FILE) as picture:
        assert picture.height > picture.width / 2                      # more than one row of charts
    assert _tensors(directory) == _tensors(trained[0])


def test_reports_take_a_small_share_of_the_time():
    now, drawn = 0.0, []
    news = events.Saved(step=1, path="", bytes=0, seconds=0.0)
    stepped = events.Stepped(step=1, steps=9, train_objective=0, noise_mse=0, variance_loss=None, gradient_norm=0, lr=0,
                             images_per_second=0, seconds=0, remaining=0, skipped=0, memory=0)

    def draw(_):
        nonlocal now
        drawn.append(now)
        now += 3.0
        return b""

    def clock():
        return now

    with mock.patch.object(live_page.time, "monotonic", clock), mock.patch.object(report, "build", draw), \
            mock.patch.object(durable, "write"):
        page = live_page.LivePage(Path())
        for _ in range(2000):
            now += 1.0
            assert not page.is_due(news)
            if page.is_due(stepped):
                assert list(page.write()) == []
    assert 2 <= len(drawn) <= 7
    assert 3.0 * len(drawn) <= 0.01 * now + 3.0


def test_a_report_that_cannot_be_written_gives_one_warning_and_ends_no_training(trained, squares, decoded, home):
    with mock.patch.object(live_page, "MAX_COST", 1e9), mock.patch.object(monitor, "REPORT_SECONDS", 0), \
            mock.patch.object(report, "build", side_effect=ZeroDivisionError("no ink")):
        stream = tiny.train(squares)
    told = [event.message for event in tiny.of_kind(events.Noticed, stream) if event.level == "warning"]
    assert told == ["the report could not be written: no ink"]
    assert stream[-1].complete
    assert not (tiny.run_directory(home) / registry.REPORT_FILE).exists()
    assert _tensors(tiny.run_directory(home)) == _tensors(trained[0])
