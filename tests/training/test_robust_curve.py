"""Numbers of the robust curve: the detector, the moving average."""

import pytest

from nnunetv2_lngswr.training.robust_curve import moving_average, overfits


@pytest.mark.parametrize(
    "fgsm, pgd, expected",
    [
        ([0.5, 0.6, 0.9], [0.4, 0.5, 0.1], True),  # the classic picture
        ([0.5, 0.6, 0.6], [0.4, 0.5, 0.39], True),
        ([0.5, 0.6, 0.9], [0.4, 0.5, 0.45], False),  # within the margin
        ([0.5, 0.6, 0.2], [0.4, 0.5, 0.1], False),  # both fall: another trouble, or harder batches
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.6], False),
        ([0.9], [0.1], False),
        ([], [], False),
        ([0.5, 0.9], [float("nan"), 0.1], False),
        ([0.5, 0.9], [0.5, float("nan")], False),
        ([0.5, float("nan"), 0.6], [0.4, float("nan"), 0.1], True),
    ],
)
def test_overfitting_is_pgd_falling_while_fgsm_does_not(fgsm, pgd, expected):
    assert overfits(fgsm, pgd, 0.1) is expected


def test_moving_average_is_nnunets_and_passes_over_what_says_nothing():
    nan = float("nan")
    assert moving_average([], 0.5) == 0.5 and moving_average([0.4, nan], 0.5) == 0.5
    assert moving_average([0.4], nan) == 0.4
    assert moving_average([0.1, 0.4], 0.5) == pytest.approx(0.9 * 0.4 + 0.1 * 0.5)
