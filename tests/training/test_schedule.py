"""The ramp, and the steps of attacks that settings leave open."""

import pytest

from nnunetv2_lngswr.training.schedule import ramp, relative_step_size


def test_ramp_is_linear_then_one():
    assert [ramp(step, 4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1] and ramp(0, 0) == 1


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_steps_of_pgd_cross_the_ball_whatever_their_number(steps):
    assert steps * relative_step_size("pgd", steps) == pytest.approx(2.5)
    assert (relative_step_size("fgsm_rs", 1), relative_step_size("free", 0)) == (1.25, 1.0)
