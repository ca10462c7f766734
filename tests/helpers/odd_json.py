"""JSON values with entries that nobody expects in them: renamed, of another type or size. Not a test itself."""

import copy
import random
from collections.abc import Iterator
from typing import Any

ODD = (None, True, 0, -1, 0.5, 2**62, 2**64 - 1, -(2**63), 1e308, 5e-324, "", "x", "9" * 300, "\x1b[2J", "a\0b", "-x",
       "../../x", "/dev/zero", "<script>", [], [[]], ["a"], [None] * 3, {}, {"a": 1}, {"value": {"value": 1}})


def changed(value: Any, rng: random.Random) -> Any:
    """A copy of a list or dictionary in which one to four entries are gone, renamed or odd."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            return value
        container, key = rng.choice(places)
        action = rng.random()
        if action < 0.25:
            del container[key]
        elif action < 0.35 and isinstance(container, dict):
            container[rng.choice(("evil", "a" * 300, "\x1b"))] = container.pop(key)
        else:
            container[key] = copy.deepcopy(rng.choice(ODD))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with each of its keys or positions."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(entries):
        yield value, key
        yield from _places(inner)
