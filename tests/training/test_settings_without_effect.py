"""The log names settings that a trainer, or the other settings, leave without effect."""

import pytest

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLNG, nnUNetTrainerSWR
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


@pytest.mark.parametrize("cls", [nnUNetTrainerSWR, nnUNetTrainerLNG, nnUNetTrainerAT])
def test_the_log_names_what_was_asked_for_alone(make, cls, capsys):
    make(cls).on_train_start()
    assert "has no effect" not in capsys.readouterr().out
    idle = {nnUNetTrainerSWR: "noise_ramp_up", nnUNetTrainerLNG: "gate_init"}.get(cls, "wavelet")
    value = {"noise_ramp_up": 0.2, "gate_init": 0.5, "wavelet": "db2"}[idle]
    make(cls, plans_name="other", **{idle: value}).on_train_start()
    said = capsys.readouterr().out
    assert said.count("has no effect") == 1 and f'"{idle}" has no effect' in said


@pytest.mark.parametrize(
    ("entry", "defaults", "idle"),
    [
        ({"adversarial": {"late_noise": 0.25}}, {"adversarial": ATConfig()}, ["late_noise"]),
        (
            {"adversarial": {"late_noise": 0.25, "loss": "js"}},
            {"method": LNGSWRConfig(), "adversarial": ATConfig()},
            [],
        ),
        # of the attack in validation, and of the one that it falls back to
        ({"adversarial": {"scheme": "free", "loss": "js"}}, {"adversarial": ATConfig()}, []),
        (
            {"adversarial": {"scheme": "pgd", "fallback": False, "overfitting_margin": 0.2}},
            {"adversarial": ATConfig()},
            ["fallback", "overfitting_margin"],
        ),
        (
            {"adversarial": {"fallback": False, "overfitting_margin": 0.2}},
            {"adversarial": ATConfig()},
            [],
        ),
        (
            {"noise_sigma_input": 0.5, "noise_ramp_up": 0.1, "gains": [0.1, 0.1, 0.1]},
            {"method": LNGSWRConfig(noise=False)},
            ["noise_ramp_up", "noise_sigma_input"],
        ),
        (
            {"noise_sigma_input": 0.5, "gains": [0.1, 0.1, 0.1], "reconstruct_input": False},
            {"method": LNGSWRConfig(reconstruction=False)},
            ["gains", "reconstruct_input"],
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
