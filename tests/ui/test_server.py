"""Whom the page's server answers, what it takes, and what it lets a browser load."""

import base64
import http.client
import json
import re
import shutil
import socket
import time
import urllib.parse
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from diffuse_cli.errors import UsageError
from diffuse_cli.pictures.image_files import encode
from diffuse_cli.reporting import report
from diffuse_cli.storage import registry
from diffuse_cli.ui import server
from diffuse_cli.ui.choices import MAX_PICTURE_BYTES, Models
from diffuse_cli.ui.drawing import Queue
from diffuse_cli.ui.form import MAX_FORM_BYTES
from diffuse_cli.ui.server import FILES, PageServer

PLACE = Path(server.__file__).parent
GETS, POSTS = ("", *FILES, "options", "runs", "run?name=tiny"), ("draw", "fitted?model=tiny", "settings")


# ── Who is answered ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_this_computer_is_listened_to(client):
    assert client.server.socket.getsockname()[0] == "127.0.0.1"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", client.server.address)


@pytest.mark.parametrize(("method", "name"), [*(("GET", name) for name in GETS), *(("POST", name) for name in POSTS)])
def test_nothing_is_answered_without_the_token_to_other_hosts_or_to_other_pages(client, method, name):
    def status(**more: str) -> int:
        return client.ask(method, name, b"", **more)[0]

    token, port = client.server.token, client.server.server_address[1]
    right = status()
    assert right in ((200,) if method == "GET" else (200, 400))
    for path in (f"/{name}", f"/x/{name}", f"/{token[:-1]}/{name}", f"/{token}x/{name}"):
        assert status(path=path) == 404, path
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "", "127.0.0.1@evil"):
        assert status(Host=host) == 403, host
    for host in (f"localhost:{port}", "localhost", "127.0.0.1:1"):     # a tunnel may have another port
        assert status(Host=host) == right
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"):
        assert status(Origin=origin) == 403, origin
    assert status(Origin=f"http://127.0.0.1:{port}") == right
    for site in ("cross-site", "same-site", "none"):
        assert (status(Sec_Fetch_Site=site) == 403) == (method == "POST")


def test_other_methods_and_names_are_refused(client):
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD"):
        assert client.ask(method, "options")[0] == 501
    for name in ("draw", "x", "../server.py", "server.py", "%2e%2e/server.py", "form.py", "__init__.py"):
        assert client.ask("GET", name)[0] == 404, name
    assert client.ask("POST", "options", b"")[0] == 404
    assert client.ask("GET", f"options?{'&'.join('x' * 20)}")[0] == 400
    for name in ("", "x", "../tiny", "tiny/../tiny", "/etc", "."):
        assert client.ask("GET", f"run?name={name}")[0] == 404, name


def test_the_address_for_the_browser_works_once(client):
    path = client.server.address_for_browser.partition(client.host)[2]
    assert client.server.token not in path
    assert client.ask("GET", "", path="/open/")[0] == client.ask("GET", "", path="/open/x")[0] == 404
    answer = client.open("GET", "", path=path)
    assert (answer.status, answer.headers["Location"]) == (303, f"/{client.server.token}/")
    assert client.ask("GET", "", path=path)[0] == 404


def test_a_port_that_is_taken_is_refused_in_one_line(client):
    with pytest.raises(UsageError, match=r"cannot listen on port \d+: address already in use"):
        PageServer(client.server.server_address[1], client.server.models, client.server.drawings)


def test_no_server_is_asked_for_names(client, monkeypatch):
    monkeypatch.setattr(socket, "getfqdn", mock.Mock(side_effect=AssertionError))
    PageServer(0, client.server.models, Queue()).server_close()


# ── How much is taken ───────────────────────────────────────────────────────────────────────────────────────────────


def _raw(client, head: str, body: bytes = b"") -> bytes:
    """The first line of the answer to a request that is sent as it is."""
    with socket.create_connection(client.server.server_address, timeout=60) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline()


@pytest.mark.parametrize(("name", "limit"), [("draw", MAX_FORM_BYTES), ("settings", MAX_PICTURE_BYTES),
                                             ("fitted?model=tiny", MAX_PICTURE_BYTES)])
def test_a_body_has_a_length_within_the_limit(client, name, limit):
    head = f"POST /{client.server.token}/{name} HTTP/1.1\r\nHost: {client.host}"
    for length, status in ((str(limit + 1), 413), ("9" * 40, 413), ("-1", 411), ("1e3", 411), ("٣", 411), ("5", 400)):
        assert f" {status} ".encode() in _raw(client, f"{head}\r\nContent-Length: {length}", b"1234"), length
    assert b" 411 " in _raw(client, f"{head}\r\nTransfer-Encoding: chunked", b"0\r\n\r\n")


def test_so_many_connections_are_held_and_no_more(client, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    with PageServer(0, client.server.models, Queue()) as small, small.answering():
        for _ in range(3):                      # a connection that has ended leaves its place
            silent = [socket.create_connection(small.server_address, timeout=60) for _ in range(2)]
            silent[1].sendall(b"GET / HTTP/1.1\r\n")
            with socket.create_connection(small.server_address, timeout=60) as third:
                assert third.recv(1) == b""
            for connection in silent:
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1000):
                    pass
                connection.close()
            while small._free._value < 2:
                time.sleep(0.01)


def test_senseless_requests_are_refused(client):
    for head in ("", "\0", "GET", "GET http://[ HTTP/1.1\r\nHost: localhost", "X" * 70_000,
                 f"GET /{client.server.token}/options HTTP/9.9", "GET / HTTP/1.1\r\n" + "A: b\r\n" * 200):
        assert b" 200 " not in _raw(client, head), head[:40]
    assert client.ask("GET", "options")[0] == 200


PICTURE = base64.b64encode(encode(np.zeros((8, 8, 3), np.uint8))).decode()


@pytest.mark.parametrize(("form", "reason"), [
    ({"model": "other"}, "there is no model 'other'"), ({"model": "/etc/passwd"}, "there is no model"),
    ({"model": "hf://a/b"}, "there is no model"), ({"model": 1}, "--model should be a text"),
    ({"count": 0}, "the number of pictures must be"), ({"count": 65}, "the number of pictures must be"),
    ({"count": 1.5}, "--count should be a whole number"), ({"seed": "-1"}, "the seed must be a whole number"),
    ({"seed": 1}, "--seed should be a text"), ({"seed": str(2**63)}, "--seed must be"),
    ({"seed": "١"}, "the seed must be a whole number"), ({"prompt": "x" * 4097}, "the length of the prompt must be"),
    ({"negative": "x" * 4097}, "the length of --negative"),
    ({"prompt": "a\0b"}, "the prompt holds a character"), ({"prompt": "\ud800"}, "the prompt holds a character"),
    ({"sampler": "dpm"}, "--sampler"), ({"steps": 1001}, "--steps must be"), ({"steps": "3"}, "--steps should be"),
    ({"guidance": -1}, "--guidance must be"), ({"guidance_interval": [1]}, "the guidance interval is two numbers"),
    ({"guidance_interval": [2, 1]}, "--guidance-interval"), ({"batch_size": 5000}, "--batch-size must be"),
    ({"precision": "fp8"}, "--precision"), ({"out": "x"}, "it has unknown entries: out"),
    ({"init": "?"}, "the picture to start from cannot be read"), ({"init": "AAAA"}, "the picture cannot be used"),
    ({"init": "é"}, "the picture to start from cannot be read"),
    ({"init": PICTURE, "mask": "AAAA"}, "the picture cannot be used"), ({"mask": PICTURE}, "a mask needs a picture"),
    ({"init": PICTURE, "strength": 1.5}, "--strength must be"),
    ({"init": PICTURE, "init_name": "x" * 201}, "the length of the name of the picture")])
def test_a_form_is_judged_like_a_command_line(client, monkeypatch, form, reason):
    monkeypatch.setattr(client.server.drawings, "add", mock.Mock(side_effect=AssertionError))
    status, line = client.ask("POST", "draw", json.dumps({"model": "tiny", **form}).encode())
    assert (status, line.decode()[:len(reason)]) == (400, reason)


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{", b"\xff", b'{"model": "tiny", "model": "tiny"}', b"[" * 9999, b"NaN"])
def test_a_form_that_is_no_form_is_refused(client, body):
    assert client.ask("POST", "draw", body)[0] == 400


# ── What the page is and loads ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", FILES)
def test_the_page_names_nothing_that_is_elsewhere(client, name):
    answer = client.open("GET", name)
    text = answer.read().decode()
    assert (answer.status, answer.headers["Content-Type"]) == (200, FILES[name])
    assert text == (PLACE / name).read_text(encoding="utf-8")
    assert not re.search(r"//[a-z0-9-]+\.|https?:|url\(|@import|\bon[a-z]+=\"|style=\"", text)
    named = re.findall(r'(?:src|href)="([^"]*)"|from "\./([^"]*)"', text)
    assert {one or other for one, other in named} <= {*FILES, "data:,"}


@pytest.mark.parametrize(("method", "name", "path"), [
    ("GET", "", None), ("GET", "options", None), ("GET", "x", None), ("GET", "", "/"), ("POST", "draw", None)])
def test_every_answer_lets_the_browser_load_from_here_alone(client, method, name, path):
    answer = client.open(method, name, b"", path=path)
    policy = {directive.split()[0]: directive.split()[1:]
              for directive in answer.headers["Content-Security-Policy"].split(";")}
    for directive in ("default-src", "form-action", "base-uri"):
        assert policy[directive] == ["'none'"]
    assert {source for sources in policy.values() for source in sources} == {"'none'", "'self'", "data:", "blob:"}
    for directive in ("script-src", "style-src", "connect-src", "frame-src", "frame-ancestors"):
        assert policy[directive] == ["'self'"]
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_files_of_the_page_are_all_that_lie_beside_its_server():
    assert set(FILES) == {path.name for path in PLACE.iterdir() if path.suffix not in (".py", "")}


def test_the_models_are_those_of_the_list(client, command, home):
    shutil.copytree(home / "models" / "tiny", home / "models" / "another")
    (home / "models" / "damaged").mkdir()
    (home / "models" / "damaged" / "model.safetensors").write_bytes(b"x")
    offered = client.get_json("options")
    _, out, _ = command("models", "ls", "--json")
    found = {one["name"]: one for one in offered["models"]}
    listed = {json.loads(line)["name"] for line in out.splitlines()}
    assert set(found) == listed - {registry.UPSCALER}                  # which draws no pictures by itself
    assert (offered["chosen"], offered["samplers"]["ddpm"]) == ("tiny", 100)
    assert [found["tiny"][name] for name in ("width", "height", "captions", "student")] == [8, 8, True, None]
    assert set(found["tiny"]["words"]) == {"a", "red", "green", "blue", "square"}
    assert found["demo-fast"]["student"] == {"steps": 4, "guidance": 3.0}


def test_a_model_that_is_named_by_its_path_is_offered_by_that_name(trained):
    path = trained[0] / "model.safetensors"
    models = Models.starting_with(str(path))
    assert models.offered()["models"][0]["name"] == models.offered()["chosen"] == str(path)
    assert models.find(str(path)) == path


def test_a_training_is_watched_through_its_report(client, home):
    (run,) = client.get_json("runs")
    status, page = client.ask("GET", "run?name=tiny")
    assert (status, run["name"], page) == (200, "tiny", report.build(registry.model_directory("tiny")))
    with (home / "models" / "tiny" / "events.jsonl").open("a") as log:
        log.write("{}\n")
    assert client.get_json("runs")[0]["version"] != run["version"]
    policy = client.open("GET", "run?name=tiny").headers["Content-Security-Policy"]
    assert policy == "frame-ancestors 'self'"
    assert b"default-src 'none'; img-src data:;" in page               # which the browser obeys as well


@pytest.mark.parametrize("name", ["<img src=x>", "a  b", "a\nb", "\udcff", ".hidden", "Upper", "x" * 200])
def test_only_directories_with_a_name_of_a_model_are_trainings(client, home, name):
    shutil.copytree(home / "models" / "tiny", home / "models" / name)
    assert [run["name"] for run in client.get_json("runs")] == ["tiny"]
    assert client.ask("GET", f"run?{urllib.parse.urlencode({'name': name}, errors='replace')}")[0] == 404


def test_an_error_of_the_server_ends_the_program(client):
    with mock.patch.object(server.choices, "runs", side_effect=ZeroDivisionError), \
            mock.patch.object(client.server.drawings, "fail") as failed, pytest.raises(http.client.RemoteDisconnected):
        client.ask("GET", "runs")
    assert isinstance(failed.call_args[0][0], ZeroDivisionError)
