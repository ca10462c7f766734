"""Steps of many tensors at once, against their formulas, in whichever order the tensors lie in memory."""

import pytest
import torch

from diffuse_cli.training import descent

SHAPES = [(5,), (3, 4), (4, 3, 3, 3), (8, 4, 1, 1)]
LAYOUTS = {
    "as the target": lambda tensor, target: torch.empty_like(target).copy_(tensor),
    "in another order": lambda tensor, target: tensor.movedim(0, -1).contiguous().movedim(-1, 0),
    "other strides of size 1": lambda tensor, target: tensor.as_strided(
        tensor.shape, [stride if size > 1 else stride + 7 for stride, size in zip(
            target.stride(), tensor.shape, strict=True)])}


def pairs(layout):
    """Targets, channels last where they are kernels, and others of the same shapes laid otherwise."""
    generator = torch.Generator().manual_seed(0)
    targets = [torch.randn(shape, generator=generator) for shape in SHAPES]
    targets = [one.to(memory_format=torch.channels_last) if one.ndim == 4 else one for one in targets]
    others = [torch.empty_like(one).copy_(torch.randn(one.shape, generator=generator)) for one in targets]
    return targets, [LAYOUTS[layout](other, target) for other, target in zip(others, targets, strict=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("skip", [None, 0.0])
def test_steps_follow_their_formulas(layout, skip):
    targets, others = pairs(layout)
    skip = None if skip is None else torch.tensor(skip)
    before = [one.clone() for one in targets]
    descent.descend(targets, others, lr=0.1, decay=0.5, skip=skip)
    for found, start, step in zip(targets, before, others, strict=True):
        torch.testing.assert_close(found, start * (1 - 0.1 * 0.5) - 0.1 * step)
    before = [one.clone() for one in targets]
    descent.approach(targets, others, 0.3, skip)
    for found, start, other in zip(targets, before, others, strict=True):
        torch.testing.assert_close(found, torch.lerp(start, other, 0.3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_skipped_step_changes_no_bit_whatever_its_values(layout):
    targets, others = pairs(layout)
    others[1].fill_(float("nan"))
    others[2].fill_(float("inf"))
    before = [one.clone() for one in targets]
    descent.descend(targets, others, lr=0.1, decay=0.5, skip=torch.tensor(1.0))
    descent.approach(targets, others, 0.3, torch.tensor(1.0))
    assert all(map(torch.equal, targets, before))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_others_get_the_strides_of_their_targets_without_a_copy_where_nothing_moves(layout):
    targets, others = pairs(layout)
    for target, other, laid in zip(targets, others, descent.laid_as(targets, others), strict=True):
        assert laid.stride() == target.stride()
        assert torch.equal(laid, other)
        moved = laid.data_ptr() != other.data_ptr()
        assert not moved or layout == "in another order"
