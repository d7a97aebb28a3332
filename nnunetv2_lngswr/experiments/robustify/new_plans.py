"""The plans of the new training: the model's own under a new name, with a "lngswr" entry."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.experiments.plans import drop_next_stage
from nnunetv2_lngswr.experiments.robustify.given_model import GivenModel
from nnunetv2_lngswr.experiments.robustify.options import BUDGET, TRAINERS, WARM_START, Options
from nnunetv2_lngswr.training.settings import ADVERSARIAL_KEY, PLANS_KEY, ATConfig
from nnunetv2_lngswr.utils.errors import UserError

FOLD = "{fold}"
"""In the path of a warm start: what the trainer puts the number of its fold for."""
# the last phase alone: it begins with the first epoch, its learning rate with the initial one
LAST_PHASE = {"start": 0.0, "restart_lr": 1.0, "late_noise": 1.0}
LEAST_EPOCHS = 5
"""nnU-Net's learning rate decays from epoch to epoch: over fewer it would hardly."""
VAL_BATCHES = "val_batches"
CURVE_SHARE = 0.1
"""Of an epoch's gradients of batches: what its robust curve may add to those of its training; one
batch it has in any case."""
# FGSM's gradient and those at the starts of Auto-PGD's three stages (`attacks.apgd`)
_BESIDE_STEPS = 4
_AMPLITUDES = ("noise_sigma_input", "noise_sigma_stages")
# those of plain training are too strong on top of attacks: the new trainer has its own
_NOT_KEPT = (*_AMPLITUDES, "noise_ramp_up", "noise_guided")


def choose_trainer(model: GivenModel, options: Options) -> str:
    """Return the name of the trainer of the new training.

    Raises
    ------
    UserError
        The model has parts that the one asked for has not.
    """
    trainer = options.trainer or TRAINERS[model.has_lngswr]
    if model.has_lngswr and trainer != TRAINERS[True]:
        raise UserError(
            f"{model.folder} has the parts of LNG-SWR ({model.trainer}), which {trainer} lacks: "
            f"take {TRAINERS[True]} (-tr)"
        )
    return trainer


def new_budget(model: GivenModel, share: float) -> dict[str, int]:
    """Return a share of the model's budget: fewer epochs, and never fewer than LEAST_EPOCHS.

    Where the share is less, epochs are shorter instead, of at least one iteration.
    """
    epochs, *iterations = BUDGET
    count = round(share * model.budget[epochs])
    if count >= LEAST_EPOCHS:
        return {**model.budget, epochs: count}
    part = share * model.budget[epochs] / LEAST_EPOCHS
    shorter = {key: max(1, round(part * model.budget[key])) for key in iterations}
    return {epochs: LEAST_EPOCHS, **shorter}


def short_curve(iterations: int, adversarial: Mapping[str, Any]) -> dict[str, int]:
    """Return the setting of fewer attacked validation batches where an epoch is short; or none.

    The trainers' default suits epochs of hundreds of iterations: in a short one it would cost as
    much as the training itself.

    Parameters
    ----------
    iterations
        Of an epoch.
    adversarial
        What is set of the adversarial training.
    """
    at = ATConfig(**adversarial)
    trained = iterations * (1 + at.attack_steps)
    fitting = max(1, int(CURVE_SHARE * trained / (at.val_steps + _BESIDE_STEPS)))
    return {VAL_BATCHES: fitting} if fitting < ATConfig.val_batches else {}


def make_plans(
    model: GivenModel, starts: Path, options: Options, *, shorten_curve: bool = True
) -> dict[str, Any]:
    """Return the plans of the new training.

    Parameters
    ----------
    model
        Whose plans are copied; its own settings of LNG-SWR stay, but for the strength of the noise,
        of which stays what the network is made by.
    starts
        Folder of the checkpoints to start from, one per fold (`start_file`).
    options
        Share of the budget and settings.
    shorten_curve
        Set `short_curve`, unless the settings say how many.
    """
    budget, amplitudes = new_budget(model, options.share), _kept_amplitudes(model)
    given = options.settings or {}
    milder = {} if set(_AMPLITUDES) & set(given) else _late_noise(amplitudes)
    adversarial = {**LAST_PHASE, **milder, **options.adversarial}
    if shorten_curve:
        adversarial = {**short_curve(budget[BUDGET[1]], adversarial), **adversarial}
    dropped = (*_NOT_KEPT, *BUDGET, WARM_START, ADVERSARIAL_KEY)
    entry = {
        **{key: value for key, value in model.entry.items() if key not in dropped},
        **amplitudes,
        **budget,
        WARM_START: str(start_file(starts, FOLD)),
        **given,
        ADVERSARIAL_KEY: adversarial,
    }
    plans = json.loads(json.dumps(model.plans))
    plans["configurations"][model.configuration][PLANS_KEY] = entry
    drop_next_stage(plans["configurations"], model.configuration)
    # no two trainings may share a name: nnU-Net's results folder is called by it
    digest = hashlib.sha256(json.dumps(plans, sort_keys=True).encode()).hexdigest()
    plans["plans_name"] = f"{model.plans['plans_name']}_robust_{digest[:8]}"
    return plans


def _kept_amplitudes(model: GivenModel) -> dict[str, float]:
    """Those of the model's noise without which its network would be another one.

    Where an amplitude is 0 there is no prior of the noise; where the gains are the prior's, they
    are by what it assumes of the noise, in prediction too.
    """
    method = model.method
    if method is None:
        return {}
    assumed = method.noise and method.gains == "prior" and method.prior_sigma is None
    found = {name: getattr(method, name) for name in _AMPLITUDES}
    return {name: sigma for name, sigma in found.items() if assumed or sigma == 0}


def _late_noise(amplitudes: Mapping[str, float]) -> dict[str, float]:
    """The setting by which amplitudes that are kept inject no more than the new trainer's own."""
    own = getattr(trainers, TRAINERS[True]).method
    factors = [getattr(own, name) / sigma for name, sigma in amplitudes.items() if sigma > 0]
    return {"late_noise": min(1.0, *factors)} if factors else {}


def start_file(starts: Path, fold: int | str) -> Path:
    """Return where the checkpoint lies that a fold starts from."""
    return starts / f"fold_{fold}.pth"


def entry_of(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """Return the "lngswr" entry that `make_plans` wrote."""
    return plans["configurations"][configuration][PLANS_KEY]
