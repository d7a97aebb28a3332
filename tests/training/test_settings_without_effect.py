"""The log names settings that a trainer, or the other settings, leave without effect."""

import pytest

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.training.settings import ATConfig, read_settings, without_effect
from tests.training.test_settings import DEFAULTS


@pytest.mark.parametrize("defaults", DEFAULTS)
def test_what_is_none_of_a_trainers_business_is_told(defaults):
    entry = {"noise_guided": 0.1, "num_epochs": 3, "adversarial": {"start": 0.5}}
    configuration = {"lngswr": entry}
    lines = "".join(without_effect(configuration, read_settings(configuration, **defaults)))
    assert ('"noise_guided" has no effect' in lines) == ("method" not in defaults)
    assert ('"adversarial" has no effect' in lines) == ("adversarial" not in defaults)
    assert "num_epochs" not in lines


@pytest.mark.parametrize(
    ("entry", "defaults", "idle"),
    [
        ({"adversarial": {"late_noise": 0.25}}, {"adversarial": ATConfig()}, ["late_noise"]),
        (
            {"adversarial": {"late_noise": 0.25, "loss": "js"}},
            {"method": LNGSWRConfig(), "adversarial": ATConfig()},
            [],
        ),
        (
            {"adversarial": {"scheme": "free", "loss": "js"}},
            {"adversarial": ATConfig()},
            ["loss"],
        ),
        (
            {"noise_spectrum": "white", "noise_random_grid": True},
            {"method": LNGSWRConfig()},
            ["noise_random_grid"],
        ),
        ({"noise_random_grid": True}, {"method": LNGSWRConfig()}, []),
    ],
)
def test_what_other_settings_leave_without_effect_is_told(entry, defaults, idle):
    configuration = {"lngswr": entry}
    lines = without_effect(configuration, read_settings(configuration, **defaults))
    assert len(lines) == len(idle)
    assert all(f'"{key}" has no effect' in line for key, line in zip(idle, lines))
