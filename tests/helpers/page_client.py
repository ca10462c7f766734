"""The page of `diffuse ui` served in this process, and a client in the place of its browser."""

import base64
import contextlib
import http.client
import json
import threading
from dataclasses import dataclass
from typing import Any

from diffuse_cli.ui.choices import Models
from diffuse_cli.ui.drawing import Queue
from diffuse_cli.ui.server import PageServer


class Stop(BaseException):
    """Ends the thread that draws."""


@dataclass
class Client:
    """A browser as the server sees one."""

    server: PageServer

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_address[1]}"

    def open(self, method: str, name: str, body: bytes | None = None, *, path: str | None = None, **headers: str
             ) -> http.client.HTTPResponse:
        """The answer to a request, of which the body is not read yet. path: instead of that of the page."""
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.request(method, path or f"/{self.server.token}/{name}", body,
                           {key.replace("_", "-"): value for key, value in headers.items()})
        return connection.getresponse()

    def ask(self, method: str, name: str, body: bytes | None = None, **more: str) -> tuple[int, bytes]:
        """(status, body) of the answer."""
        answer = self.open(method, name, body, **more)
        return answer.status, answer.read()

    def get_json(self, name: str) -> Any:
        status, body = self.ask("GET", name)
        assert status == 200, body
        return json.loads(body)

    def draw(self, **form: Any) -> list[dict[str, Any]]:
        """All messages about a drawing."""
        status, body = self.ask("POST", "draw", json.dumps({"model": "tiny", **form}).encode())
        assert status == 200, body
        return [json.loads(line) for line in body.splitlines()]


def pictures_in(messages: list[dict[str, Any]]) -> list[bytes]:
    """The files of the pictures that were drawn."""
    return [base64.b64decode(message["picture"]) for message in messages if "picture" in message]


@contextlib.contextmanager
def served(model: str | None):
    """A client of a server that draws, as `diffuse ui` starts it."""
    models, drawings = Models.starting_with(model), Queue()

    def work() -> None:
        with contextlib.suppress(Stop):
            drawings.work(models.path)

    with PageServer(0, models, drawings) as server, server.answering():
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        yield Client(server)
        drawings.fail(Stop())
        worker.join(timeout=60)
