"""Which feature maps are reconstructed, and along which axes: as `attach` does it."""

import pytest

from nnunetv2_lngswr.method.axes import check_gains, wavelet_axes
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import LNGSWR

STRIDES = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 1, 2]]


def test_axes_are_those_that_are_pooled_next():
    plane = (1, 2)
    assert wavelet_axes(STRIDES) == [plane, plane, plane, (0, 1, 2), (2,), (2,)]
    assert wavelet_axes([[1, 2]]) == [(1,), (1,)]


@pytest.mark.parametrize("gains", ["prior", (0.2, 0.2, 0.1), (0.3, 0.2, 0.1), (0.4, 0.3, 0.2, 0.1)])
@pytest.mark.parametrize(
    "where",
    [
        {},
        {"reconstruct_input": False},
        {"reconstruct_input": False, "reconstruct_from_stage": 2},
        {"reconstruct_input": False, "reconstruct_from_stage": 3, "reconstruct_bottleneck": True},
        {"reconstruct_input": False, "reconstruct_stages": False},
        {"reconstruction": False},
    ],
)
@pytest.mark.parametrize("stages", [1, 2, 4, 5])
def test_gains_are_refused_where_the_network_would_refuse_them(gains, where, stages):
    config = LNGSWRConfig(gains=gains, **where)
    strides = STRIDES[:stages]
    found = []
    for check in (
        lambda: check_gains(config, strides),
        lambda: LNGSWR([2] * stages, strides, 1, config),
    ):
        try:
            check()
            found.append("")
        except ValueError as error:
            found.append(str(error))
    assert found[0] == found[1]
