"""Names of wavelets."""

import numpy as np
import pytest
import pywt

from nnunetv2_lngswr.method.bands import check_wavelet


def accepted() -> list[str]:
    names = []
    for name in pywt.wavelist(kind="discrete"):
        try:
            names.append(check_wavelet(name))
        except ValueError:
            continue
    return names


@pytest.mark.parametrize(
    "name, fault",
    [
        ("har", "orthogonal PyWavelets wavelet"),
        ("bior2.2", "must be orthogonal"),
        ("dmey", "must be orthogonal"),
    ],
)
def test_other_wavelets_are_refused(name, fault):
    with pytest.raises(ValueError, match=f"{fault}.*{name}"):
        check_wavelet(name)


def test_the_filters_of_every_wavelet_that_is_accepted_are_orthonormal():
    """To their shifts by two and to each other, so that gains of 1 give an image back."""
    names = accepted()
    assert len(names) > 50
    for name in names:
        low, high = (np.asarray(taps) for taps in pywt.Wavelet(name).filter_bank[:2])
        for shift in range(0, len(low), 2):
            kept = len(low) - shift
            for one, other in ((low, low), (high, high), (low, high)):
                one_at_0 = float(one is other and shift == 0)
                assert one[shift:] @ other[:kept] == pytest.approx(one_at_0, abs=1e-6), name
