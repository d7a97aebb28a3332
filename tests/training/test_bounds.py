"""The bounds of attacks in training: those of the case, widened to the patch."""

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.attacks import ThreatModel
from nnunetv2_lngswr.training.adversarial_batch import craft
from nnunetv2_lngswr.training.bounds import CaseRanges, patch_bounds
from nnunetv2_lngswr.utils.errors import UserError
from tests.model_folders import make_network
from tests.training.crafting import SPACE


class Dataset:
    """As nnU-Net's: counts the cases it reads."""

    def __init__(self, **cases):
        self.identifiers, self.cases, self.reads = sorted(cases), cases, []

    def load_case(self, key):
        self.reads.append(key)
        return self.cases[key], None, None, {}


def test_ranges_are_those_of_the_whole_case_and_read_once():
    case = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    train, val = Dataset(a=case, b=2 * case), Dataset(c=3 * case)
    ranges = CaseRanges(train, val)
    ranges.check_type()
    train.reads.clear()
    for _ in range(2):
        low, high = ranges(np.array(["b", "c", "b"]))
    assert train.reads == ["b"] and val.reads == ["c"]
    assert torch.equal(
        low, torch.tensor([f * case.min((1, 2, 3)) for f in (2, 3, 2)])
    ) and high.shape == (3, 2)


def test_integer_cases_are_refused_by_name():
    with pytest.raises(ValueError, match="the preprocessed case a holds int16"):
        CaseRanges(Dataset(a=np.zeros((1, 1, 4, 4), np.int16))).check_type()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_cases_that_are_not_finite_are_refused_by_name(value):
    case = np.zeros((2, 1, 4, 4), np.float32)
    case[1, 0, 2, 2] = value
    with pytest.raises(UserError, match="the preprocessed case b holds NaN or infinite values"):
        CaseRanges(Dataset(a=np.zeros((2, 1, 4, 4), np.float32), b=case))(["a", "b"])


def test_bounds_are_the_cases_widened_to_the_patch():
    x = torch.tensor([[0.0, 5.0], [-3.0, 1.0]]).view(2, 1, 2, 1)  # patches [0, 5] and [-3, 1]
    case = torch.tensor([[-1.0], [-2.0]]), torch.tensor([[2.0], [4.0]])
    bounds = patch_bounds(x, case, 1)
    assert bounds.minimum.tolist() == [[-1], [-3]] and bounds.maximum.tolist() == [[5], [4]]
    assert patch_bounds(x, None, 1).minimum.tolist() == [[0], [-3]]


def test_the_previous_stage_of_a_cascade_is_not_attacked(rng):
    x = torch.rand(2, 3, 8, 8, generator=rng)
    case = torch.full((2, 1), -1.0), torch.full((2, 1), 2.0)
    ball = ThreatModel(norm="linf", epsilon=0.1).ball(patch_bounds(x, case, 1))
    network = make_network(2, inputs=3)
    attacked = craft(
        network,
        x,
        SPACE.target(torch.ones(2, 8, 8)),
        ball,
        steps=1,
        relative_step_size=1.25,
        generator=rng,
    )
    assert torch.equal(attacked[:, 1:], x[:, 1:]) and (
        attacked[:, 0] - x[:, 0]
    ).abs().amax() == pytest.approx(0.3, rel=1e-5)
