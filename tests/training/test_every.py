"""Intervals between saves."""

from diffuse_cli.training.every import Every


def test_saving_is_rarer_when_it_is_dear():
    due = Every("5m", "--save-every", steps=1000, step=0)
    due.limit_cost(1)
    assert due.every == 300
    due.limit_cost(30)
    assert due.every == 1500
    due = Every("100", "--save-every", steps=1000, step=0)
    due.limit_cost(30)
    assert due.every == 100
