"""A fault on demand: DIFFUSE_FAULT="1 Trainer.step 5 SIGKILL" kills process 1 at the 5th call of `Trainer.step`.

Python itself imports this file in every process that has this directory on its PYTHONPATH. The kinds of
faults are a signal's name, `raise`, and `exit` (with code 0).
"""

import os
import signal
import sys

rank, function, count, kind = os.environ["DIFFUSE_FAULT"].split()
calls = 0


def watch(frame, event, argument):
    global calls
    if event != "call" or frame.f_code.co_qualname != function or "diffuse_cli" not in frame.f_code.co_filename:
        return
    calls += 1
    if calls == int(count):
        if kind == "raise":
            raise RuntimeError("a fault was asked for")
        if kind == "exit":
            os._exit(0)
        os.kill(os.getpid(), getattr(signal, kind))


if os.environ.get("RANK") == rank:
    sys.setprofile(watch)
