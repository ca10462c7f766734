"""The garbage collector paused while many objects are made that all stay.

Python looks through all objects again and again while their number grows. With 100,000 pictures that doubled the time
to find them. None of these objects are in circles, so nothing is lost by waiting.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """No collection inside the block; a decorator as well. Never hold it while a generator waits for its caller."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
