"""The Dice that attacks choose by is that of the segmentation that nnU-Net exports."""

import math

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_lngswr.attacks import LabelSpace
from nnunetv2_lngswr.attacks.hard_dice import foreground_dice


def test_foreground_dice():
    space = LabelSpace.softmax(3, ignore_label=3)
    y = torch.tensor([[0, 1, 1, 2, 3, 0]])
    predicted = torch.tensor([[0, 1, 0, 2, 1, 0]])
    z = torch.nn.functional.one_hot(predicted, 3).movedim(-1, 1).float()
    # label 1: 2 * 1 / (2 + 1), the ignored voxel left out; label 2: 1
    assert math.isclose(float(foreground_dice(z, space.target(y))), (2 / 3 + 1) / 2)
    nothing = space.target(torch.zeros_like(y))
    assert torch.isnan(foreground_dice(torch.zeros_like(z), nothing)).all()


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 1, 2]])
def test_dice_of_regions_is_of_the_label_map_that_nnunet_exports(order):
    """Whatever the heads contradict each other in."""
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "last": [3], "ignore": 4}
    manager = LabelManager(labels, order)
    space = LabelSpace.from_label_manager(manager)
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn((3, 3, 6, 7), generator=g), torch.randint(0, 5, (3, 6, 7), generator=g)
    found = foreground_dice(z, space.target(y))
    for logits, truth, dice in zip(z, y, found):
        exported = manager.convert_logits_to_segmentation(logits)
        masks = [
            [torch.isin(m, torch.tensor(region)) & (truth != 4) for m in (exported, truth)]
            for region in manager.foreground_regions
        ]
        expected = [2 * int((p & t).sum()) / int(p.sum() + t.sum()) for p, t in masks]
        assert float(dice) == pytest.approx(sum(expected) / 3)
