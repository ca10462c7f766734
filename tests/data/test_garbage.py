"""The garbage collector is paused inside, and afterwards as it was before."""

import gc

import pytest

from diffuse_cli.data import garbage


@pytest.mark.parametrize("before", [True, False])
def test_the_collector_is_afterwards_as_it_was(before):
    was_enabled = gc.isenabled()
    try:
        (gc.enable if before else gc.disable)()
        with garbage.paused():
            assert not gc.isenabled()
        assert gc.isenabled() == before
    finally:
        (gc.enable if was_enabled else gc.disable)()
