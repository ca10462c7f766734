"""Whose turn it is: a batch has pictures of one size, and the number of a step says of which.

It is a function of the step's number and of how many pictures have each size. Nothing is remembered between steps.
"""

from collections.abc import Sequence

import numpy as np


class Turns:
    """Deals steps to groups of pictures in proportion to their sizes, as evenly as whole steps allow.

    Of any N steps from a multiple of N on, where N is the number of all pictures, exactly n belong to a group of n. So
    all pictures are drawn equally often, and the groups' epochs stay within a few batches of one another.

    groups: of positions in the data set, (n,) int64 each; at least one is not empty. Larger groups come first.
    """

    def __init__(self, groups: Sequence[np.ndarray]) -> None:
        self.groups = sorted(filter(len, groups), key=len, reverse=True)
        self.total = sum(map(len, self.groups))

    def at(self, step: int) -> tuple[np.ndarray, int]:
        """The group whose turn a step is, and the number of its earlier turns."""
        earlier, left = step, self.total        # steps and pictures of this group and those after it
        for group in self.groups:
            done, done_then = (-(-count * len(group) // left) for count in (earlier, earlier + 1))     # rounded up
            if done_then > done:
                return group, done
            earlier, left = earlier - done, left - len(group)
        raise AssertionError("the last group takes every step that is left")
