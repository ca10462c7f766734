"""Serves the page to one browser on this computer, and refuses everybody else.

Only 127.0.0.1 is listened on. Every address holds a random token; the name of the host must be this computer's, or a
page elsewhere could reach it by a name that it lets point here; and a request that another page makes is refused. No
answer lets the browser load anything from elsewhere.
"""

import base64
import contextlib
import hmac
import json
import queue
import secrets
import socketserver
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

import numpy as np

from ..errors import DiffuseError, UsageError, system_reason
from ..pictures import image_files
from ..reporting import report
from ..storage import home_directory
from ..storage.model_info import read_model_info
from . import choices, given_pictures
from .choices import MAX_PICTURE_BYTES, Models
from .drawing import Drawing, Queue
from .form import MAX_FORM_BYTES, Form

HOST = "127.0.0.1"
HOST_NAMES = (HOST, "localhost")                # with any port, because a tunnel may have another
SECONDS = 30                                    # that a connection may be silent, or leave an answer unread
MAX_CONNECTIONS = 64                            # at once; each has a thread, and a page needs few
_PATIENCE = 0.05                                # seconds after which it is noticed that the server shall end
_ALIVE = 1.0                                    # seconds after which a drawing that waits is told to wait on
# The files of the page → their types.
FILES = {"page.html": "text/html; charset=utf-8", "page.css": "text/css; charset=utf-8",
         **dict.fromkeys(("page.js", "form.js", "gallery.js", "start_picture.js", "training.js"),
                         "text/javascript; charset=utf-8")}
_POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
           "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'")
_POLICY_OF_REPORTS = "frame-ancestors 'self'"   # the rest of its policy stands in the page of a run itself
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin"}


class PageServer(ThreadingHTTPServer):
    """Listens on a port of this computer; 0 is a free one. Raises UsageError if the port cannot be had."""

    allow_reuse_address = sys.platform != "win32"                      # there, two programs would share the port
    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int, models: Models, drawings: Queue) -> None:
        self.models, self.drawings = models, drawings
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self.token, self.ticket = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise UsageError(f"cannot listen on port {port}: {system_reason(error)}",
                             hint="Leave --port out to take a free one") from error

    def server_bind(self) -> None:
        """Without the search for this computer's name, which may ask a server elsewhere."""
        socketserver.TCPServer.server_bind(self)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While the block runs, a thread of its own answers: one left behind would spin on the closed socket."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": _PATIENCE}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a thread is free for another connection. If none is, the connection is closed."""
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer on a connection, whose thread is free afterwards."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.server_address[1]}/{self.token}/"

    @property
    def address_for_browser(self) -> str:
        """An address that leads to the page once: other users can see the arguments of a browser that is started."""
        return f"http://{HOST}:{self.server_address[1]}/open/{self.ticket}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser may leave at any time. Any other error ends the program, as it would end other commands."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            self.drawings.fail(error)


class _Refused(Exception):
    """A request is answered with a status and one line."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = SECONDS
    server_version, sys_version = "diffuse", ""
    error_content_type, error_message_format = "text/plain", "%(message)s"

    def do_GET(self) -> None:
        """Answer a request for a part of the page."""
        self._answer({"": self._page, "options": self._options, "runs": self._runs, "run": self._run})

    def do_POST(self) -> None:
        """Answer a request to do something."""
        self._answer({"draw": self._draw, "fitted": self._fitted, "settings": self._settings})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is logged: addresses hold the token."""

    def _answer(self, routes: dict[str, Callable[[dict[str, str]], None]]) -> None:
        """Call the function of the path's last part, with the values of its query."""
        try:
            self._check_origin()
            token, name, query = _parsed(self.path)
            if token == "open" and self.server.ticket and _same(name, self.server.ticket):
                self.server.ticket = ""
                self._send(303, "text/plain", b"", Location=f"/{self.server.token}/")
                return
            if not _same(token, self.server.token):
                raise _Refused(404, "There is nothing here. Use the address that diffuse ui printed.")
            if name in FILES and self.command == "GET":
                self._send(200, FILES[name], _file(name))
                return
            if name not in routes:
                raise _Refused(404, "There is nothing here.")
            routes[name](query)
        except _Refused as refused:
            self._send(refused.status, "text/plain; charset=utf-8", refused.line.encode())
        except DiffuseError as error:
            self._send(400, "text/plain; charset=utf-8", str(error).encode(errors="replace"))

    # ── Who may ask, and how much ───────────────────────────────────────────────────────────────────────────────────

    def _check_origin(self) -> None:
        """Raise _Refused for a host that is not this computer's, and for a request that another page makes."""
        host = self.headers.get("Host", "")
        if host.rpartition(":")[0] not in HOST_NAMES and host not in HOST_NAMES:
            raise _Refused(403, "This page answers on this computer only.")
        if self.headers.get("Origin", f"http://{host}") != f"http://{host}" or (
                self.command == "POST" and self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin"):
            raise _Refused(403, "Another page may not ask for this.")

    def _body(self, limit: int) -> bytes:
        """The body of the request. Raises _Refused if it does not say its length, or if that is over `limit` bytes."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            raise _Refused(411, "The request does not say how long it is.")
        if len(length) > 12 or int(length) > limit:
            raise _Refused(413, f"That is too large: at most {limit // 2**20} MB are taken.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _Refused(400, "The request is not whole.")
        return body

    # ── Answers ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _send(self, status: int, kind: str, body: bytes, *, policy: str = _POLICY, **headers: str) -> None:
        self._send_head(status, kind, policy=policy, **{"Content-Length": str(len(body))}, **headers)
        self.wfile.write(body)

    def _send_head(self, status: int, kind: str, *, policy: str = _POLICY, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Security-Policy": policy, **_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_json(self, value: Any) -> None:
        self._send(200, "application/json", json.dumps(value).encode())

    def _page(self, query: dict[str, str]) -> None:
        self._send(200, FILES["page.html"], _file("page.html"))

    def _options(self, query: dict[str, str]) -> None:
        self._send_json(self.server.models.offered())

    def _runs(self, query: dict[str, str]) -> None:
        self._send_json(choices.runs())

    def _run(self, query: dict[str, str]) -> None:
        """The page of a run, as `report.html` would be if it were written now."""
        name = query.get("name", "")
        if name not in (run["name"] for run in choices.runs()):
            raise _Refused(404, "There is no such training.")
        page = report.build(home_directory.models_directory() / name)
        self._send(200, FILES["page.html"], page, policy=_POLICY_OF_REPORTS)

    def _fitted(self, query: dict[str, str]) -> None:
        """A picture, or with `mask` a mask, as the model sees it."""
        model = read_model_info(self.server.models.find(query.get("model", "")))
        picture = self._body(MAX_PICTURE_BYTES)
        self._send(200, "image/png", given_pictures.fitted(picture, model, is_mask="mask" in query))

    def _settings(self, query: dict[str, str]) -> None:
        self._send_json(given_pictures.recorded_settings(self._body(MAX_PICTURE_BYTES), self.server.models))

    def _draw(self, query: dict[str, str]) -> None:
        """Draw, and send a line of JSON for everything that happens. If the browser leaves, the drawing is cancelled.
        """
        form = Form.read(self._body(MAX_FORM_BYTES))
        path = self.server.models.find(form.model)
        info = read_model_info(path)
        drawing = Drawing(path, info.config, form.request(info), form.upscaler(path, info.config))
        self.server.drawings.add(drawing)
        try:
            self._send_head(200, "application/x-ndjson")
            self._send_line({"command": form.command(drawing.request, info.config), "seed": str(drawing.request.seed)})
            message: dict[str, Any] = {}
            while "end" not in message:
                try:
                    message = drawing.messages.get(timeout=_ALIVE)
                except queue.Empty:
                    message = {"alive": True}                          # writing is how it is noticed that nobody reads
                self._send_line(message)
        finally:
            drawing.cancelled.set()

    def _send_line(self, message: dict[str, Any]) -> None:
        if isinstance(estimates := message.get("estimates"), np.ndarray):
            message = {**message, "estimates": [_base64(image_files.encode(picture)) for picture in estimates]}
        elif "picture" in message:
            message = {**message, "picture": _base64(message["picture"])}
        self.wfile.write(json.dumps(message).encode() + b"\n")


def _parsed(path: str) -> tuple[str, str, dict[str, str]]:
    """The token, the name and the query of an address. Raises _Refused if it makes no sense."""
    try:
        parts = urllib.parse.urlsplit(path)
        token, _, name = parts.path.removeprefix("/").partition("/")
        return token, name, dict(urllib.parse.parse_qsl(parts.query, max_num_fields=8))
    except ValueError as error:
        raise _Refused(400, "The address makes no sense.") from error


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _same(given: str, secret: str) -> bool:
    """Whether a text is the secret; the time that it takes tells nothing about it."""
    return hmac.compare_digest(given.encode(errors="replace"), secret.encode())


def _file(name: str) -> bytes:
    return (resources.files(__package__) / name).read_text(encoding="utf-8").encode()
