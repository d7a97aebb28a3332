"""The `lngswr` entry of the plans: what is refused, what overrides what, old names, no torch."""

import dataclasses
import json
import subprocess
import sys
import warnings

import pytest

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.training.settings import (
    ATConfig,
    RunSettings,
    check_entry,
    current_entry,
    read_settings,
    warn_of_old_keys,
)
from nnunetv2_lngswr.utils.errors import UserError

DEFAULTS = (
    {},
    {"method": LNGSWRConfig()},
    {"adversarial": ATConfig()},
    {"method": LNGSWRConfig(), "adversarial": ATConfig()},
)
"""Of vanilla trainers, and of those of LNG-SWR, of adversarial training, of both."""


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("noise_sigma_input", -0.1, "noise_sigma_input must be a number >= 0, got -0.1"),
        ("gate_init", 1.5, r"gate_init must be a number in \[0, 1\], got 1.5"),
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
@pytest.mark.parametrize("defaults", DEFAULTS)
def test_bad_values_are_refused_by_every_trainer(defaults, field, value, message):
    with pytest.raises(UserError, match=message) as caught:
        read_settings({"lngswr": {field: value}}, **defaults)
    assert str(caught.value).startswith('plans: "lngswr": ')


@pytest.mark.parametrize("defaults", DEFAULTS)
def test_a_stride_that_the_patch_does_not_hold_is_refused_by_every_trainer(defaults):
    plans = {"patch_size": [20, 48], "lngswr": {"noise_max_stride": 64}}
    with pytest.raises(
        UserError,
        match='^plans: "lngswr": noise_max_stride must be at most 32, the largest power of two '
        "along the patch of 20 x 48 voxels, got 64$",
    ):
        read_settings(plans, **defaults)
    plans["lngswr"]["noise_max_stride"] = 32
    read_settings(plans, **defaults)


@pytest.mark.parametrize("defaults", DEFAULTS)
def test_gains_for_other_axes_are_refused_by_every_trainer(defaults):
    network = {"arch_kwargs": {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}}
    plans = {"architecture": network, "lngswr": {"gains": [0.1, 0.2, 0.3, 0.05]}}
    with pytest.raises(
        UserError,
        match=r'^plans: "lngswr": gains must have one directional value per transformed axis '
        r"\(2 here\)",
    ):
        read_settings(plans, **defaults)
    # a feature map that is not reconstructed needs none
    without = {"reconstruct_input": False, "reconstruct_from_stage": 1}
    read_settings({**plans, "lngswr": {**plans["lngswr"], **without}}, **defaults)
    for gains in ([0.1, 0.1, 0.05], [0.1, 0.05], "prior"):
        read_settings({**plans, "lngswr": {"gains": gains}}, **defaults)


@pytest.mark.parametrize("strides", [[1, 2, 2], [[1, 1], [2, 2]]])
def test_strides_are_read_as_the_network_takes_them(strides):
    plans = {
        "patch_size": [16, 16],
        "architecture": {"arch_kwargs": {"strides": strides}},
        "lngswr": {"gains": [0.1, 0.2, 0.05]},
    }
    read_settings(plans)
    plans["lngswr"]["gains"].append(0.05)
    with pytest.raises(UserError, match=r"\(2 here\)"):
        read_settings(plans)


@pytest.mark.parametrize("architecture", [None, {}, {"arch_kwargs": {"strides": [["a"], 2]}}])
def test_a_network_that_cannot_be_read_is_not_the_settings_fault(architecture):
    gains = {"gains": [0.1, 0.2, 0.3, 0.4, 0.5]}
    read_settings({"patch_size": 8, "architecture": architecture, "lngswr": gains})


def test_unknown_keys_are_named_with_the_nearest():
    with pytest.raises(UserError, match='unknown key "wavlet" in "lngswr"; did you mean wavelet'):
        read_settings({"lngswr": {"wavlet": "haar"}})
    with pytest.raises(UserError, match="known keys: .*noise_spectrum"):
        read_settings({"lngswr": {"zzz": 1}})
    with pytest.raises(UserError, match="must be an object"):
        read_settings({"lngswr": ["noise"]})


def test_entry_overrides_defaults_and_leaves_the_rest():
    defaults = LNGSWRConfig(noise_sigma_input=0.3, wavelet="db2")
    settings = read_settings({"lngswr": {"wavelet": "haar", "num_epochs": 2}}, method=defaults)
    assert settings.method == dataclasses.replace(defaults, wavelet="haar")
    assert settings.run == RunSettings(num_epochs=2) and settings.adversarial is None
    settings = read_settings({}, method=defaults)
    assert settings.method == defaults and settings.run == RunSettings()


NO_SETTINGS = (
    *(float("nan"), float("inf"), -float("inf"), 1e39, 10**400, -1),
    *({}, [], [float("nan")] * 2, [["a"]], b"haar", object(), "", ()),
)
"""Values that no field takes, whatever its type."""
FIELDS = [(c, f) for c in (LNGSWRConfig, RunSettings, ATConfig) for f in dataclasses.fields(c)]


@pytest.mark.parametrize("cls, field", FIELDS, ids=[f"{c.__name__}.{f.name}" for c, f in FIELDS])
def test_every_field_is_checked_by_its_value(cls, field):
    for value in NO_SETTINGS:
        with pytest.raises(ValueError, match=f"^{field.name} must be "):
            cls(**{field.name: value})
    # what JSON has for true is no number, and 1 is not true
    other = 1 if isinstance(field.default, bool) else True
    with pytest.raises(ValueError, match=f"^{field.name} must be "):
        cls(**{field.name: other})


def test_what_is_infinite_is_said_to_be():
    entry = json.loads('{"noise_sigma_input": Infinity, "adversarial": {"consistency": Infinity}}')
    with pytest.raises(
        UserError, match="noise_sigma_input must be a number >= 0, and finite, got inf"
    ):
        read_settings({"lngswr": entry})
    del entry["noise_sigma_input"]
    with pytest.raises(UserError, match="consistency must be a number >= 0, and finite, got inf"):
        check_entry(entry)


def test_a_training_without_end_is_refused():
    for key in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
        with pytest.raises(UserError, match=f"{key} must be at most 10000000, got 1000000000000"):
            read_settings({"lngswr": {key: 10**22}})
    with pytest.raises(UserError, match="val_steps must be at most 10000"):
        check_entry({"adversarial": {"val_steps": 10**22}})


# --- old names


OLD = {"learned": False, "start": 0.0, "seed": 3}
NEW = {"learn_gates": False, "gate_init": 0.0, "seed": 3}


def test_old_names_mean_what_the_new_ones_mean():
    old, new = ({"lngswr": entry} for entry in (OLD, NEW))
    assert read_settings(old, method=LNGSWRConfig()) == read_settings(new, method=LNGSWRConfig())
    assert current_entry(old) == NEW and OLD == {"learned": False, "start": 0.0, "seed": 3}


def test_old_names_are_said_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            warn_of_old_keys({"lngswr": OLD})
            check_entry(OLD)
        check_entry(NEW)
    said = [str(w.message) for w in caught]
    assert len(said) == 2
    assert '"learned" is called "learn_gates" now' in said[0]
    assert '"start" is called "gate_init" now' in said[1]


def test_a_setting_under_both_names_is_refused():
    with pytest.raises(UserError, match='"start" is the old name of "gate_init": give one of them'):
        read_settings({"lngswr": {"start": 0.5, "gate_init": 0.5}})


# --- adversarial settings


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"epsilon": -0.1},
            r"epsilon must be a fraction of the intensity range in \[0, 0.5\).*got -0.1",
        ),
        ({"epsilon": 8}, "epsilon must be a fraction.*got 8"),
        ({"epsilon": "8/0"}, "epsilon must be a fraction.*got '8/0'"),
        ({"epsilon": float("nan")}, "epsilon must be a fraction"),
        ({"epsilon": None}, "epsilon must be a fraction"),
        ({"epsilon": True}, "epsilon must be a fraction"),
        ({"scheme": "fgsm"}, "scheme must be one of fgsm_rs, pgd, free, n_fgsm, got 'fgsm'"),
        ({"norm": "l1"}, "norm must be one of linf, l2, got 'l1'"),
        ({"norm": ["l2"]}, "norm must be one of"),
        ({"loss": "dice"}, "loss must be one of ce, "),
        ({"epsilon_range": "image"}, "epsilon_range must be one of case, patch"),
        ({"clean_share": 1.5}, r"clean_share must be a number in \[0, 1\], got 1.5"),
        ({"clean_share": -0.1}, "clean_share must be"),
        ({"start": 1}, r"start must be a number in \[0, 1\), got 1"),
        ({"restart_lr": 0}, "restart_lr must be a number > 0, got 0"),
        ({"late_noise": 1.1}, r"late_noise must be a number in \[0, 1\], got 1.1"),
        ({"ramp_up": 10}, r"ramp_up must be a number in \[0, 1\], got 10"),
        ({"robust_weight": "half"}, "robust_weight must be"),
        ({"steps": 7}, 'steps belongs to scheme "pgd", got 7 with scheme "fgsm_rs"'),
        ({"scheme": "pgd", "steps": 0}, "steps must be an integer >= 1, or null, got 0"),
        ({"scheme": "pgd", "replays": 2}, 'replays belongs to scheme "free"'),
        ({"rolling": True}, 'rolling belongs to scheme "free", got True with scheme "fgsm_rs"'),
        (
            {"scheme": "free", "rolling": True, "replays": 1},
            "rolling needs replays of 2 or more, got 1: a sample that stays one step is never att",
        ),
        ({"step_size": 0}, "step_size must be a number > 0"),
        ({"step_size": float("inf")}, "step_size must be a number > 0"),
        ({"consistency": -1}, "consistency must be a number >= 0, got -1"),
        ({"scheme": "free", "consistency": 6}, 'scheme "free" does not make'),
        ({"val_batches": 0}, "val_batches must be an integer >= 1"),
        ({"fallback": "no"}, "fallback must be true or false"),
    ],
)
def test_bad_adversarial_settings_are_refused_with_name_rule_and_value(settings, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_settings({"lngswr": {"adversarial": settings}}, adversarial=ATConfig())
    assert str(caught.value).startswith('plans: "lngswr": "adversarial": ')


def test_a_last_phase_of_no_whole_epoch_is_refused_by_those_whom_it_concerns():
    late = {"adversarial": {"start": 0.8}}
    with pytest.raises(UserError, match='plans: "lngswr": "adversarial": start must leave at le'):
        read_settings({"lngswr": {**late, "num_epochs": 4}}, adversarial=ATConfig())
    with pytest.raises(UserError, match="got 0.8 of 3 in all; train for more epochs, or start ear"):
        read_settings({"lngswr": late}, adversarial=ATConfig(), epochs=3)
    with pytest.raises(UserError, match="got 0.9 of 5"):
        read_settings({"lngswr": {"num_epochs": 5}}, adversarial=ATConfig(start=0.9), epochs=10)
    for fine in ({"epochs": 5}, {}, {"epochs": None}):
        read_settings({"lngswr": late}, adversarial=ATConfig(), **fine)
    read_settings({"lngswr": {**late, "num_epochs": 1}}, method=LNGSWRConfig())


@pytest.mark.parametrize(
    "batch_size, replays, advice",
    [
        (12, 5, "take one of 2, 3, 4, 6, 12, or change the batch size"),
        (2, None, "got 4 and a batch of 2: take one of 2, or change"),
        (4, 8, "got 8 and a batch of 4: take one of 2, 4"),
        (1, 4, "do without rolling, or change the batch size"),
    ],
)
def test_a_batch_that_cannot_roll_is_refused_with_what_can(batch_size, replays, advice):
    def read(given, **defaults):
        entry = {"lngswr": {"adversarial": given}, "batch_size": batch_size}
        read_settings(entry, **defaults)

    rolling = {"scheme": "free", "replays": replays, "rolling": True}
    with pytest.raises(UserError, match=f'"adversarial": replays must divide the batch.*{advice}'):
        read(rolling, adversarial=ATConfig())
    with pytest.raises(UserError, match="replays must divide"):
        check_entry({"adversarial": rolling}, batch_size=batch_size)
    read(rolling, method=LNGSWRConfig())  # does not concern it
    read({**rolling, "rolling": False}, adversarial=ATConfig())
    for fitting in {m for m in range(2, batch_size + 1) if batch_size % m == 0}:
        read({**rolling, "replays": fitting}, adversarial=ATConfig())


@pytest.mark.parametrize("defaults", DEFAULTS)
def test_unknown_adversarial_keys_are_named_with_the_nearest_by_every_trainer(defaults):
    def read(configuration):
        return read_settings(configuration, **defaults)

    with pytest.raises(
        ValueError, match='unknown key "epsilom" in "lngswr": "adversarial"; did you mean epsilon'
    ):
        read({"lngswr": {"adversarial": {"epsilom": 0.1}}})
    with pytest.raises(
        ValueError, match='unknown key "adversrial" in "lngswr"; did you mean adversarial'
    ):
        read({"lngswr": {"adversrial": {}}})
    with pytest.raises(ValueError, match='"adversarial" must be an object'):
        read({"lngswr": {"adversarial": "pgd"}})


def test_a_key_at_the_wrong_level_is_told_its_own():
    with pytest.raises(
        UserError, match='it belongs into "adversarial", as "adversarial": {"epsilon"'
    ):
        read_settings({"lngswr": {"epsilon": "8/255"}})
    for key in ("noise_guided", "num_epochs"):
        with pytest.raises(UserError, match='it belongs beside "adversarial", not into it'):
            read_settings({"lngswr": {"adversarial": {key: 1}}})


def test_adversarial_settings_override_defaults_and_fill_in_the_schemes_own():
    settings = read_settings(
        {"lngswr": {"adversarial": {"epsilon": "8/255"}}}, adversarial=ATConfig(norm="l2")
    )
    assert settings.adversarial == ATConfig(norm="l2", epsilon=8 / 255)
    sizes = [
        (c.attack_steps, c.relative_step_size)
        for c in (
            *(ATConfig(), ATConfig(scheme="pgd", steps=5)),
            *(ATConfig(scheme="free"), ATConfig(scheme="n_fgsm")),
        )
    ]
    assert sizes == [(1, 1.25), (5, 0.5), (0, 1.0), (1, 1.0)]
    assert (
        ATConfig(scheme="pgd").attack_steps == 3 and ATConfig(step_size=2).relative_step_size == 2
    )


# --- no torch


def test_settings_are_read_without_torch():
    code = """
import sys
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.training.settings import ATConfig, check_entry, read_settings
entry = {"gains": "prior", "num_epochs": 2, "adversarial": {"epsilon": "8/255"}}
check_entry(entry)
read_settings({"lngswr": entry}, method=LNGSWRConfig(noise=False), adversarial=ATConfig())
heavy = {"torch", "numpy", "pywt", "nnunetv2", "scipy"} & set(sys.modules)
assert not heavy, heavy
LNGSWRConfig(wavelet="db2")
assert "torch" not in sys.modules and "nnunetv2" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
