"""Steps are dealt to sizes in proportion to their pictures, by the number of the step alone."""

import itertools

import numpy as np
import pytest

from diffuse_cli.training.turns import Turns

COUNTS = [(7,), (5, 3), (40, 40), (11, 5, 2, 1), (1, 100), (0, 6, 4), (3, 3, 3, 3)]


def groups(counts):
    ends = np.cumsum((0, *counts))
    return [np.arange(start, end) for start, end in itertools.pairwise(ends)]


@pytest.mark.parametrize("counts", COUNTS)
def test_turns_are_counted_without_a_gap(counts):
    """Seen from outside: who had a turn, and how often before."""
    turns, had = Turns(groups(counts)), {}
    for step in range(3 * sum(counts)):
        group, earlier = turns.at(step)
        assert earlier == had.get(group[0], 0)
        had[group[0]] = earlier + 1


@pytest.mark.parametrize("counts", COUNTS)
def test_as_many_steps_as_there_are_pictures_draw_all_equally_often(counts):
    turns, total = Turns(groups(counts)), sum(counts)
    for start in (0, total, 17 * total):
        whose = [len(turns.at(step)[0]) for step in range(start, start + total)]
        assert sorted(whose) == sorted(count for count in counts for _ in range(count))


@pytest.mark.parametrize("counts", COUNTS)
def test_no_group_is_ever_far_behind_its_share(counts):
    turns, total = Turns(groups(counts)), sum(counts)
    had = dict.fromkeys(range(total), 0)
    for step in range(2 * total):
        had[turns.at(step)[0][0]] += 1
        for group in groups(counts):
            if len(group):
                assert abs(had[group[0]] - (step + 1) * len(group) / total) <= len(counts)


def test_one_group_has_every_turn():
    assert all(Turns(groups((9,))).at(step)[1] == step for step in (0, 1, 10**12))
