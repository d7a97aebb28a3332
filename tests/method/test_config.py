"""Settings of the method: validation, gains per band."""

import dataclasses

import pytest

from nnunetv2_lngswr.method.config import LNGSWRConfig


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("noise_sigma_input", -0.1, "noise_sigma_input must be a number >= 0, got -0.1"),
        ("noise_sigma_stages", "much", "noise_sigma_stages must be a number >= 0, got 'much'"),
        ("noise_sigma_input", float("nan"), "noise_sigma_input must be a number >= 0, got nan"),
        ("noise_spectrum", "pink", "noise_spectrum must be one of white, multiscale, got 'pink'"),
        ("noise_max_stride", 12, r"noise_max_stride must be a power of two .*, or null, got 12"),
        ("noise_max_stride", 0, "noise_max_stride must be a power of two .* got 0"),
        ("noise_max_stride", -8, "noise_max_stride must be a power of two .* got -8"),
        ("noise_max_stride", 8.0, "noise_max_stride must be a power of two .* got 8.0"),
        ("noise_max_stride", True, "noise_max_stride must be a power of two .* got True"),
        ("noise", 1, "noise must be true or false, got 1"),
        ("wavelet", "har", "wavelet must be the name of an orthogonal PyWavelets wavelet"),
        ("gains", "wiener", 'gains must be "prior" or a list'),
        ("gains", [0.1], "gains must be"),
        ("gains", [0.1, 1.5], "gains must be"),
        ("gains", [2.1, 2.1, 0.5], r"gains must be .*, directional ones in \[0, 2\] and a last"),
        ("gains", [1.5, True, 0.5], "gains must be"),
        ("gate_init", 1.5, r"gate_init must be a number in \[0, 1\], got 1.5"),
        ("fusion", "sum", 'fusion must be "mix" or "conv"'),
        ("prior_sigma", 0, "prior_sigma must be a number > 0, or null, got 0"),
        ("noise_ramp_up", 1.5, "noise_ramp_up must be a number in"),
        ("reconstruct_from_stage", -1, "reconstruct_from_stage must be an integer >= 0"),
        ("reconstruct_from_stage", True, "reconstruct_from_stage must be an integer >= 0"),
        ("prior_momentum", 0.0, "prior_momentum must be"),
    ],
)
def test_bad_values_are_refused_with_name_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message):
        LNGSWRConfig(**{field: value})


def test_every_switch_is_true_or_false():
    switches = [f.name for f in dataclasses.fields(LNGSWRConfig) if isinstance(f.default, bool)]
    assert len(switches) == 9
    for name in switches:
        with pytest.raises(ValueError, match=f"{name} must be true or false, got 1"):
            LNGSWRConfig(**{name: 1})


def test_band_gains_follow_the_order_of_the_bands():
    assert LNGSWRConfig(gains=(0.1, 0.2, 0.3)).band_gains(2) == (
        1.0,
        0.2,
        0.1,
        0.3,
    )  # LL, LH (axis 1), HL (axis 0), HH
    assert LNGSWRConfig(gains=(0.1, 0.3)).band_gains(1) == (1.0, 0.1)
    assert LNGSWRConfig(gains=(1.5, 2, 0.3)).band_gains(2) == (1.0, 2.0, 1.5, 0.3)
    by_number_of_high_passes = LNGSWRConfig().band_gains(3)
    assert by_number_of_high_passes == (1.0, 0.12, 0.12, 0.02, 0.12, 0.02, 0.02, 0.02)
    assert LNGSWRConfig(gains="prior").band_gains(2) is None
    with pytest.raises(ValueError, match="one directional value per transformed axis .3 here"):
        LNGSWRConfig(gains=(0.1, 0.2, 0.3)).band_gains(3)
