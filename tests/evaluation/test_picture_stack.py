"""Laws of the small pictures: they hold what is labelled, are bounded, and give values back."""

import numpy as np
import pytest

from evaluation import picture_stack
from evaluation.picture_stack import Cut, PictureStack


def disc(shape, at, radius, value=1):
    _, y, x = np.indices(shape)
    return np.where(np.hypot(y - at[0], x - at[1]) < radius, value, 0)


def stack_of(image, reference, before=None):
    before = reference if before is None else before
    cut = Cut.around(reference, before)
    return PictureStack(image, reference, before, cut=cut, extent=float(np.ptp(image)) or 1.0)


def consider(stack, delta, after, *, dice=0.5, key=("linf", "1/255")):
    stack.consider(key, lambda: delta, lambda: after, dice=dice, attack=f"a{dice}")


@pytest.mark.parametrize(
    "shape", [(1, 20, 24), (1, 1, 1), (1, 700, 90), (1, 2000, 1500), (60, 300, 310), (3, 5, 4000)]
)
def test_a_cut_is_small_and_holds_what_is_labelled(shape):
    labels = disc(shape, (shape[1] * 0.8, shape[2] * 0.3), 0.1 * min(shape[1:]) + 1)
    cut = Cut.around(labels)
    found = cut.of(labels)
    side = picture_stack.SIDE if found.shape[0] == 1 else picture_stack.SIDE_OF_SEVERAL
    assert found.shape[0] <= picture_stack.SLICES and max(found.shape[1:]) <= side
    assert cut.rows.step == cut.columns.step
    for axis, part in ((1, cut.rows), (2, cut.columns)):
        there = np.flatnonzero(labels.any(tuple({0, 1, 2} - {axis})))
        assert part.start <= there[0] and there[-1] < part.stop, (axis, part)
        assert part.stop - part.start >= shape[axis] / 2


def test_slices_are_spread_over_what_is_labelled_and_hold_the_largest():
    labels = np.zeros((50, 8, 8), int)
    for z in range(10, 31):
        labels[z, : 1 + (z == 17) * 5 + z % 2] = 1
    slices = Cut.around(labels).slices
    assert slices[0] == 10 and slices[-1] == 30 and 17 in slices and len(slices) == 5
    assert Cut.around(np.zeros((7, 8, 8), int)).slices == (3,)


def test_planes_are_what_was_given():
    rng = np.random.default_rng(0)
    image, labels = rng.normal(size=(1, 30, 40)), disc((1, 30, 40), (15, 20), 6, value=300)
    stack = stack_of(image, labels)
    delta, after = rng.normal(size=image.shape), disc((1, 30, 40), (9, 9), 3, value=7)
    consider(stack, delta, after)
    planes, shown = stack.arrays(), stack.describe()
    assert planes.dtype == np.uint8 and planes.shape == (5, 1, 30, 40)
    assert shown["values"] == [0, 7, 300] and shown["slices"] == [0]
    values = np.array(shown["values"])
    assert np.array_equal(values[planes[1]], labels) and np.array_equal(values[planes[4]], after)
    scale = shown["attacks"][0]["full_colour"] * np.ptp(image)
    assert scale == pytest.approx(np.percentile(np.abs(delta), 99.5))
    found = (planes[3].astype(float) - picture_stack.LEVELS) / picture_stack.LEVELS * scale
    inside = np.abs(delta) < scale
    assert np.abs(found - delta)[inside].max() <= scale / picture_stack.LEVELS / 2 + 1e-9
    # the attacked image is the grey value plus these
    grey = planes[0].astype(float)
    low, high = np.percentile(image, (0.5, 99.5))
    between = (image > low) & (image < high)
    assert np.abs(grey - (image - low) / (high - low) * 255)[between].max() <= 0.51
    assert shown["attacks"][0]["grey_values"] == pytest.approx(255 * scale / (high - low), rel=1e-4)


def test_the_strongest_attack_of_a_budget_is_kept_and_weaker_ones_cost_nothing():
    image = np.random.default_rng(0).normal(size=(1, 9, 9))
    stack = stack_of(image, disc(image.shape, (4, 4), 2))

    def refuse():
        raise AssertionError("a weaker attack was looked at")

    assert stack.arrays() is None
    consider(stack, image, image > 0, dice=float("nan"))
    consider(stack, image, image > 1, dice=0.4)
    stack.consider(("linf", "1/255"), refuse, refuse, dice=0.4, attack="later")
    stack.consider(("linf", "1/255"), refuse, refuse, dice=float("nan"), attack="nothing there")
    consider(stack, image, image > 2, dice=0.9, key=("linf", "2/255"))
    assert [a["attack"] for a in stack.describe()["attacks"]] == ["a0.4", "a0.9"]
    assert len(stack.arrays()) == 3 + 2 * 2


def test_a_flat_image_and_no_perturbation_are_shown():
    image = np.full((1, 6, 6), 3.0)
    stack = stack_of(image, np.zeros(image.shape, int))
    consider(stack, np.zeros(image.shape), np.zeros(image.shape, int))
    assert (stack.arrays()[3] == picture_stack.LEVELS).all()
