"""Scales of the multiscale noise per feature map."""

import pytest

from nnunetv2_lngswr.method.scales import check_max_stride, scales_up_to


def test_the_input_has_all_strides_and_a_stage_those_that_remain():
    assert scales_up_to(8, (1, 1), (64, 64)) == ((1, 1), (2, 2), (4, 4), (8, 8))
    assert scales_up_to(32, (4, 4), (16, 16)) == ((1, 1), (2, 2), (4, 4), (8, 8))
    assert scales_up_to(32, (16, 16), (4, 4)) == ((1, 1), (2, 2))


@pytest.mark.parametrize("ratio", [8, 16, 64])
def test_where_no_stride_remains_the_noise_is_white(ratio):
    assert scales_up_to(8, (ratio, ratio), (4, 4)) == ((1, 1),)
    assert scales_up_to(1, (1, 1), (4, 4)) == ((1, 1),)


def test_axes_that_are_pooled_less_have_longer_blocks():
    """Blocks are cubes on the input: 8 x 8 x 8 voxels there are 8 x 2 x 2 here."""
    assert scales_up_to(8, (1, 4, 4), (16, 16, 16)) == (
        (1, 1, 1),
        (2, 1, 1),
        (4, 1, 1),
        (8, 2, 2),
    )


def test_no_block_is_longer_than_its_axis():
    assert scales_up_to(32, (1, 1), (13, 64))[-1] == (8, 32)
    assert scales_up_to(32, (1, 1, 1), (1, 5, 16)) == (
        (1, 1, 1),
        (1, 2, 2),
        (1, 4, 4),
        (1, 4, 8),
        (1, 4, 16),
    )
    assert scales_up_to(32, (1, 1), (1, 1)) == ((1, 1),)


@pytest.mark.parametrize("ratio", [(1, 1), (3, 2), (9, 6), (5, 1)])
@pytest.mark.parametrize("extent", [(40, 40), (7, 100), (1, 3)])
def test_an_axis_keeps_its_stride_or_doubles_it(ratio, extent):
    """Also in networks that pool by other numbers than 2."""
    scales = scales_up_to(64, ratio, extent)
    assert scales[0] == (1, 1)
    for fine, coarse in zip(scales, scales[1:]):
        assert fine != coarse
        assert all(c in (f, 2 * f) for f, c in zip(fine, coarse))


def test_a_stride_that_no_axis_of_the_patch_holds_is_refused():
    check_max_stride(None, (4, 4))
    check_max_stride(64, (5, 64, 1))
    with pytest.raises(
        ValueError,
        match="noise_max_stride must be at most 32, the largest power of two along the patch of "
        "16 x 40 voxels, got 64",
    ):
        check_max_stride(64, (16, 40))
