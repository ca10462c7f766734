"""A small server that speaks as much of the Hugging Face Hub's protocol as uploads and downloads of models need."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from unittest import mock

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """The repositories of the server: name → file → bytes. `requests`: the method and path of every request."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.requests: list[str] = []
        self.cards: list[str] = []              # the metadata that were judged
        self.private: set[str] = set()          # names of repositories
        self.refusal = ""                       # what is wrong with every card
        self.told_sizes: dict[str, int] = {}    # sizes that differ from those of the files

    def info(self, name: str) -> dict:
        files = self.repositories[name]
        return {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": name in self.private, "tags": [],
                "downloads": 0, "likes": 0,
                "siblings": [{"rfilename": file, "size": self.told_sizes.get(file, len(data))}
                             for file, data in files.items()]}

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) for a request."""
        self.requests.append(f"{method} {path}")
        path = path.partition("?")[0]
        if path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}" if told.get("organization") else told["name"]
            private = told.get("private") or told.get("visibility") == "private"       # before version 2, and since
            if private and name not in self.repositories:
                self.private.add(name)
            self.repositories.setdefault(name, {})
            return self._json({"url": f"https://huggingface.co/{name}", "name": name, "id": name})
        if path == "/api/validate-yaml":
            self.cards.append(json.loads(body)["content"])
            if self.refusal:
                return self._json({"errors": [{"message": self.refusal}], "warnings": []}, status=400)
            return self._json({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
            return self._of_repository(match[1], match[2] or "", body)
        if (match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.*)", path)) and match[1] in self.repositories:
            data = self.repositories[match[1]].get(match[2])
            if data is not None:
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
                return 200, headers, data
        return self._json({"error": "not found"}, status=404)

    def _of_repository(self, name: str, rest: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if name not in self.repositories:
            return self._json({"error": "Repository not found"}, status=404, code="RepoNotFound")
        if rest.startswith("/preupload"):
            return self._json({"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                                         for file in json.loads(body)["files"]]})
        if rest.startswith("/commit"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.repositories[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self._json({"success": True, "commitOid": COMMIT, "commitUrl": f"https://huggingface.co/{name}/commit/{COMMIT}",
                               "hookOutput": ""})
        if rest.startswith("/tree"):
            return self._json([{"type": "file", "path": file["rfilename"], "size": file["size"], "oid": "0" * 40}
                               for file in self.info(name)["siblings"]])
        return self._json(self.info(name))

    def _json(self, content: dict | list, *, status: int = 200, code: str = "") -> tuple[int, dict[str, str], bytes]:
        return status, {"Content-Type": "application/json", "X-Error-Code": code}, json.dumps(content).encode()


@contextlib.contextmanager
def fake_hub(cache: str) -> Iterator[FakeHub]:
    """Make the library talk to a new server, with a token, and keep its downloads in the folder `cache`."""
    import huggingface_hub
    from huggingface_hub import constants

    hub = FakeHub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            status, headers, body = hub.answer(self.command, self.path, self.rfile.read(length))
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                if value:
                    self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_HEAD = _do

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with mock.patch.object(constants, "ENDPOINT", address), mock.patch.object(constants, "HF_HUB_CACHE", cache), \
                mock.patch.object(constants, "HF_HUB_DISABLE_XET", True), \
                mock.patch.object(constants, "HF_HUB_OFFLINE", False), \
                mock.patch.object(constants, "HUGGINGFACE_CO_URL_TEMPLATE",
                                  address + "/{repo_id}/resolve/{revision}/{filename}"), \
                mock.patch.dict("os.environ", HF_TOKEN="hf_" + "a" * 20), \
                mock.patch.object(huggingface_hub, "get_token", return_value="hf_" + "a" * 20):
            yield hub
    finally:
        server.shutdown()
        server.server_close()
