"""`diffuse ui` as people start and end it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
import webbrowser
from unittest import mock

import pytest

from diffuse_cli.ui import drawing


@pytest.fixture
def model(trained, home):
    shutil.copytree(trained[0], home / "models" / "tiny")
    return "tiny"


@pytest.fixture
def opened(monkeypatch):
    """Ctrl-C comes at once. → the browser that is opened"""
    browser = mock.Mock()
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    monkeypatch.setattr(drawing.Queue, "work", mock.Mock(side_effect=KeyboardInterrupt))
    return browser


def test_it_prints_the_address_and_ctrl_c_ends_it_quietly(command, model, opened):
    threads = set(threading.enumerate())
    code, out, err = command("ui", model, "--no-browser")
    assert code == 130
    assert not set(threading.enumerate()) - threads
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/\n", out)
    assert err == "the page is for this computer alone; Ctrl-C ends it\n"
    assert not opened.open.called
    code, out, _ = command("ui", "--no-browser", "--json")
    assert json.loads(out)["url"].startswith("http://127.0.0.1:")


def test_the_browser_gets_an_address_that_works_once(command, model, opened):
    called = threading.Event()
    opened.open.side_effect = lambda address: called.set()
    _, out, _ = command("ui", model)
    assert called.wait(60)
    (address,) = opened.open.call_args[0]
    assert "/open/" in address
    assert out.strip().split("/")[3] not in address


def test_a_browser_that_draws_into_the_terminal_is_not_started(command, model, opened, monkeypatch):
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("no-such-browser"))
    assert command("ui", model)[0] == 130
    monkeypatch.setattr(webbrowser, "get", mock.Mock(side_effect=webbrowser.Error))
    assert command("ui", model)[0] == 130


@pytest.mark.parametrize(("arguments", "code", "line"), [
    (("--port", "0"), 2, "--port must be between 1 and 65,535"), (("--port", "x"), 2, "this is not a whole number"),
    (("no-such-model",), 4, "there is no model 'no-such-model'"), (("--port", "1"), 2, "cannot listen on port 1")])
def test_what_cannot_be_served_is_one_line(command, model, opened, arguments, code, line):
    if arguments == ("--port", "1") and os.geteuid() == 0:
        pytest.skip("the superuser may listen on every port")
    found, out, err = command("ui", "--no-browser", *arguments)
    assert (found, out) == (code, "")
    assert line in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_real_ctrl_c(model):
    process = subprocess.Popen([sys.executable, "-P", "-m", "diffuse_cli", "ui", model, "--no-browser"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    with urllib.request.urlopen(address) as answer:
        assert b"<title>diffuse</title>" in answer.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (-signal.SIGINT, "")
    assert err == "the page is for this computer alone; Ctrl-C ends it\n"
