"""How far things have grown at a step of a training, and how long a step of an attack is."""

from __future__ import annotations

import math

from nnunetv2_lngswr.attacks.terms import PGD_PATH


def ramp(step: float, ramp_steps: float) -> float:
    """Factor of the noise's strength, or of epsilon: linear from 0 to 1, then 1.

    Parameters
    ----------
    step
        Of the training; the noise counts those begun, epsilon those done.
    ramp_steps
        Over which it grows; 0: no ramp, 1 from the start.
    """
    return 1.0 if step >= ramp_steps else step / ramp_steps


def first_attacked_epoch(epochs: int, start: float) -> int:
    """The first epoch that begins at `start` of a training or later, counted from 0.

    Parameters
    ----------
    epochs
        Of the training.
    start
        Share of it, in [0, 1).

    Raises
    ------
    ValueError
        No epoch does.
    """
    first = math.ceil(round(start * epochs, 6))  # 0.55 * 100 is a little above 55
    if first >= epochs:
        raise ValueError(
            f"start must leave at least one whole epoch to the attack, got {start!r} of {epochs} "
            "in all; train for more epochs, or start earlier (0: with the first step)"
        )
    return first


def relative_step_size(scheme: str, steps: int) -> float:
    """What a step of an attack measures where nothing else is said, in units of epsilon.

    Parameters
    ----------
    scheme
        "fgsm_rs" (Wong et al. 2020), "pgd" (Madry et al. 2018), "free" (Shafahi et al. 2019) or
        "n_fgsm" (de Jorge et al. 2022).
    steps
        Of "pgd".
    """
    if scheme == "pgd":
        return PGD_PATH / steps
    return {"fgsm_rs": 1.25, "free": 1.0, "n_fgsm": 1.0}[scheme]
