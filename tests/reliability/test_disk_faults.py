"""Every disk call of a training fails once in every way. No saved state is ever lost."""

from unittest import mock

import pytest
import small_run
from disk_faults import KINDS, Died, applies, breaches, calls_of_a_training

from diffuse_cli.training import saving


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_outlives_a_fault_at_every_call(home, tmp_path, counted, kind):
    folder = small_run.draw_pictures(tmp_path)
    list(small_run.train(folder))
    expected = small_run.results(home)
    small_run.forget(home)
    calls = calls_of_a_training(home, folder)
    assert small_run.results(home) == expected
    positions = [number for number, call in enumerate(calls, 1) if applies(kind, call)]
    broken = [f"{number}, {calls[number - 1].name} {calls[number - 1].path.relative_to(home)}: {breach}"
              for number in positions for breach in breaches(home, folder, kind, number, expected)]
    counted("A failing disk loses no saved step", f"{kind}, at every call of a training", len(positions))
    assert not broken, "\n".join(broken)


def test_a_training_that_died_before_delivering_its_model_delivers_it_when_started_again(home, tmp_path):
    folder = small_run.draw_pictures(tmp_path)
    list(small_run.train(folder))
    expected = small_run.results(home)
    small_run.forget(home)
    with mock.patch.object(saving, "deliver", side_effect=Died), pytest.raises(Died):
        list(small_run.train(folder))
    assert list(small_run.train(folder))[-1].complete
    assert small_run.results(home) == expected
