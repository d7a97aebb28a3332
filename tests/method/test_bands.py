"""Names of wavelets."""

import pytest

from nnunetv2_lngswr.method.bands import check_wavelet


@pytest.mark.parametrize(
    "name, fault", [("har", "orthogonal PyWavelets wavelet"), ("bior2.2", "must be orthogonal")]
)
def test_other_wavelets_are_refused(name, fault):
    with pytest.raises(ValueError, match=f"{fault}.*{name}"):
        check_wavelet(name)
