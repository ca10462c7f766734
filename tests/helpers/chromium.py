"""A headless Chromium that a test drives over a pipe, by the DevTools protocol. Not a test itself."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """One open page. `requests` lists the addresses that it asked for, `messages` its errors and warnings."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._number, self._waiting = to, back, 0, b""
        self._session: str | None = None
        self.requests: list[str] = []
        self.messages: list[str] = []
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            piece = os.read(self._back, 1 << 20)
            assert piece, "the browser has ended"
            self._waiting += piece
        message, _, self._waiting = self._waiting.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        match event.get("method"), event.get("params"):
            case "Network.requestWillBeSent", {"request": {"url": address}}:
                self.requests.append(address)
            case "Log.entryAdded", {"entry": entry}:
                self.messages.append(entry["text"])
            case "Runtime.exceptionThrown", {"exceptionDetails": details}:
                self.messages.append(json.dumps(details))

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open an address in a window of a size, as a phone where it is narrow."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                     mobile=width < 500)
        self.command("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.command("Page.navigate", url="about:blank")
        self.command("Page.navigate", url=address)
        self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; it may be a promise."""
        result = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait_for(self, condition: str, *, seconds: float = 240) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"{condition}; the page says: {self.run('document.body.innerText')}"
            time.sleep(0.1)

    def press(self, key: str, text: str = "") -> None:
        """Press and release a key, such as Tab, or Enter with the text "\\r"."""
        for kind in ("keyDown", "keyUp"):
            codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37}
            self.command("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "",
                         windowsVirtualKeyCode=codes.get(key, 0))

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        data = self.command("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))


@contextlib.contextmanager
def page() -> Iterator[Page]:
    """Start a browser with a profile of its own, and end it with all its processes."""
    assert PROGRAM is not None
    read_commands, to = os.pipe()
    back, write_answers = os.pipe()

    def connect() -> None:
        """The browser reads commands from descriptor 3 and writes answers to descriptor 4."""
        copies = os.dup(read_commands), os.dup(write_answers)
        os.dup2(copies[0], 3)
        os.dup2(copies[1], 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             f"--user-data-dir={profile}", "--no-first-run", "--disable-background-networking"],
            preexec_fn=connect, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(read_commands)
        os.close(write_answers)
        try:
            opened = Page(to, back)
            yield opened
            with contextlib.suppress(Exception):
                opened._session = None
                opened.command("Browser.close")
        finally:
            os.close(to)
            os.close(back)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
