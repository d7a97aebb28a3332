"""The ramp, when an attack starts, and the steps of attacks that settings leave open."""

import pytest

from nnunetv2_lngswr.training.schedule import first_attacked_epoch, ramp, relative_step_size


def test_ramp_is_linear_then_one():
    assert [ramp(step, 4) for step in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1] and ramp(0, 0) == 1


@pytest.mark.parametrize(
    "epochs, start, first",
    [
        (1000, 0, 0),
        (1, 0.0, 0),
        (1000, 0.8, 800),
        (10, 0.01, 1),
        (5, 0.5, 3),
        (2, 0.5, 1),
        *((100, share / 100, share) for share in range(100)),
    ],
)
def test_what_begins_at_the_start_or_later_is_attacked(epochs, start, first):
    assert first_attacked_epoch(epochs, start) == first


@pytest.mark.parametrize("epochs, start", [(1, 0.01), (4, 0.8), (1000, 0.9995), (10, 0.91)])
def test_less_than_an_epoch_is_no_phase(epochs, start):
    said = f"start must leave at least one whole epoch to the attack, got {start} of {epochs} "
    with pytest.raises(ValueError, match=said):
        first_attacked_epoch(epochs, start)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_steps_of_pgd_cross_the_ball_whatever_their_number(steps):
    assert steps * relative_step_size("pgd", steps) == pytest.approx(2.5)
    assert (relative_step_size("fgsm_rs", 1), relative_step_size("free", 0)) == (1.25, 1.0)
