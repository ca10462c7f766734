"""The command line, as a user types it."""

import json
import subprocess
import sys
import time
from typing import Any


def start(*arguments: object) -> "subprocess.Popen[str]":
    """Begin a command, whose output can be read line by line."""
    return subprocess.Popen([sys.executable, "-m", "diffuse_cli", *map(str, arguments)], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*arguments: object) -> tuple[dict[str, Any], str]:
    """→ the command, its exit code, seconds and last words, ready for JSON; and its whole output"""
    begun = time.perf_counter()
    process = start(*arguments)
    output, errors = process.communicate()
    return {"command": " ".join(map(str, arguments)), "exit code": process.returncode,
            "seconds": round(time.perf_counter() - begun, 2), "said": errors[-600:]}, output


def events(output: str) -> list[dict[str, Any]]:
    """The lines of JSON in an output."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]
