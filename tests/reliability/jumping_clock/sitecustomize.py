"""A clock that jumps by days, backwards and forwards, at every look at it. The monotonic clock goes on as it does."""

import itertools
import time

jumps = itertools.cycle((0, -400_000_000, 90_000, -86_400, 1_000_000_000))
now = time.time
time.time = lambda: now() + next(jumps)
time.time_ns = lambda: int(time.time() * 1e9)
