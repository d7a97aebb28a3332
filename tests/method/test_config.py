"""Settings: validation, and the `lngswr` entry of the plans."""

import dataclasses

import pytest

from nnunetv2_lngswr.method.config import LNGSWRConfig, RunSettings, read_plans_entry


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("noise_sigma_input", -0.1, "noise_sigma_input must be a number >= 0, got -0.1"),
        ("noise_sigma_stages", "much", "noise_sigma_stages must be a number >= 0, got 'much'"),
        ("noise_sigma_input", float("nan"), "noise_sigma_input must be a number >= 0, got nan"),
        ("noise_spectrum", "pink", "noise_spectrum must be one of white, multiscale, got 'pink'"),
        ("noise", 1, "noise must be true or false, got 1"),
        ("wavelet", "har", "wavelet must be the name of an orthogonal PyWavelets wavelet"),
        ("gains", "wiener", 'gains must be "prior" or a list'),
        ("gains", [0.1], "gains must be"),
        ("gains", [0.1, 1.5], "gains must be"),
        ("start", 1.5, r"start must be a number in \[0, 1\], got 1.5"),
        ("fusion", "sum", 'fusion must be "mix" or "conv"'),
        ("prior_sigma", 0, "prior_sigma must be a number > 0, or null, got 0"),
        ("noise_ramp_up", 1.5, "noise_ramp_up must be a number in"),
        ("reconstruct_from_stage", -1, "reconstruct_from_stage must be an integer >= 0"),
        ("reconstruct_from_stage", True, "reconstruct_from_stage must be an integer >= 0"),
        ("prior_momentum", 0.0, "prior_momentum must be"),
        ("num_epochs", 0, "num_epochs must be an integer >= 1, got 0"),
        (
            "num_iterations_per_epoch",
            2.5,
            "num_iterations_per_epoch must be an integer >= 1, got 2.5",
        ),
        ("seed", -1, "seed must be an integer >= 0, got -1"),
        ("seed", True, "seed must be an integer >= 0, got True"),
        ("warm_start", 3, "warm_start must be a path, got 3"),
    ],
)
def test_bad_values_are_refused_with_name_rule_and_value(field, value, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_plans_entry({"lngswr": {field: value}})
    assert str(caught.value).startswith('plans: "lngswr": ')


def test_unknown_keys_are_named_with_the_nearest():
    with pytest.raises(ValueError, match='unknown key "wavlet" in "lngswr"; did you mean wavelet'):
        read_plans_entry({"lngswr": {"wavlet": "haar"}})
    with pytest.raises(ValueError, match="known keys: .*noise_spectrum"):
        read_plans_entry({"lngswr": {"zzz": 1}})
    with pytest.raises(ValueError, match="must be an object"):
        read_plans_entry({"lngswr": ["noise"]})


def test_entry_overrides_defaults_and_leaves_the_rest():
    defaults = LNGSWRConfig(noise_sigma_input=0.3, wavelet="db2")
    config, run = read_plans_entry({"lngswr": {"wavelet": "haar", "num_epochs": 2}}, defaults)
    assert config == dataclasses.replace(defaults, wavelet="haar") and run == RunSettings(
        num_epochs=2
    )
    assert read_plans_entry({}, defaults) == (defaults, RunSettings())


def test_band_gains_follow_the_order_of_the_bands():
    assert LNGSWRConfig(gains=(0.1, 0.2, 0.3)).band_gains(2) == (
        1.0,
        0.2,
        0.1,
        0.3,
    )  # LL, LH (axis 1), HL (axis 0), HH
    assert LNGSWRConfig(gains=(0.1, 0.3)).band_gains(1) == (1.0, 0.1)
    by_number_of_high_passes = LNGSWRConfig().band_gains(3)
    assert by_number_of_high_passes == (1.0, 0.12, 0.12, 0.02, 0.12, 0.02, 0.02, 0.02)
    assert LNGSWRConfig(gains="prior").band_gains(2) is None
    with pytest.raises(ValueError, match="one directional value per transformed axis .3 here"):
        LNGSWRConfig(gains=(0.1, 0.2, 0.3)).band_gains(3)
