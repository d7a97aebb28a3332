"""Settings of adversarial training, one docstring each. Imports no torch.

How they are read from nnU-Net's plans: `settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnunetv2_lngswr.attacks.terms import LOSS_NAMES, Norm
from nnunetv2_lngswr.method.checks import (
    is_bool,
    is_number,
    is_share,
    require,
    require_count,
    require_size,
)
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.training.schedule import relative_step_size
from nnunetv2_lngswr.utils.epsilon import parse_epsilon
from nnunetv2_lngswr.utils.errors import UserError

MOST_STEPS = 10_000
"""Of an attack on a batch."""
SCHEMES = ("fgsm_rs", "pgd", "free", "n_fgsm")
N_FGSM_NOISE = 2.0
"""Of "n_fgsm", in units of epsilon, as published."""
EPSILON_RANGES = ("case", "patch")
GUIDED_STEPS = 2
"""That a sample stays where the noise is guided."""


@dataclass(frozen=True, kw_only=True)
class ATConfig:
    """Adversarial training (Madry et al. 2018): what the samples of a batch are replaced by.

    Raises
    ------
    ValueError
        Anything invalid; the text names the field, the rule and the value.
    """

    scheme: str = "fgsm_rs"
    """"fgsm_rs": one step from a random start (Wong et al. 2020); "pgd": `steps` of them (Madry et
    al. 2018); "free": each batch is trained on `replays` times, and the gradient of one step moves
    the perturbation of the next (Shafahi et al. 2019); "n_fgsm", experimental: one step from noise
    of twice epsilon, and no projection, so that samples move by up to three times epsilon (de Jorge
    et al. 2022). The number of optimiser steps is the same for all."""
    norm: str = "linf"
    """"linf" or "l2" (`epsilon` is then the root mean square per voxel)."""
    epsilon: float | str = 4 / 255
    """Fraction of the intensity range, a number or a fraction such as "4/255", below 0.5: half of
    the range makes one uniform grey of any image."""
    epsilon_range: str = "case"
    """Whose range: "case", the preprocessed case's [min, max] per channel, widened to the augmented
    patch; or "patch"."""
    steps: int | None = None
    """Of "pgd" only; None: 3."""
    replays: int | None = None
    """Of "free" only; None: 4."""
    rolling: bool = False
    """Of "free" only: each sample stays `replays` steps and keeps its perturbation, and a share
    1 / replays of the batch is new at every step; else whole batches stay, and the perturbation
    goes on to the next one. `replays` divides the batch size (that of each rank)."""
    step_size: float | None = None
    """In units of epsilon; None: 1.25 ("fgsm_rs"), 2.5 / steps ("pgd"), 1 ("free", "n_fgsm")."""
    loss: str = "ce"
    """What the attack ascends, of attacks.losses; "free" ascends the training loss."""
    start: float = 0.0
    """Share of the epochs that are trained without attack. Those that begin later are the last
    phase: plain training of as many epochs as come before, then adversarial training."""
    restart_lr: float = 1.0
    """The learning rate at the start of the last phase, in units of its initial value."""
    restart_ramp_up: float = 0.0
    """Share of the last phase's epochs over which the learning rate grows to that, linearly epoch
    by epoch."""
    late_noise: float = 1.0
    """Factor of the amplitudes of LNG-SWR's noise in the last phase."""
    weight_average: float = 0.0
    """Experimental. In the last phase validate, save and deploy a moving average of the weights,
    which keeps this share of itself at a step (1: the mean of all steps); 0: off."""
    ramp_up: float = 0.1
    """Share of the last phase's epochs over which epsilon grows from 0, linearly step by step."""
    clean_share: float = 0.0
    """Share of the samples that stay as they are; exact over the steps of an epoch, whatever the
    batch size, but where samples roll, whose first batch is whole."""
    consistency: float = 0.0
    """Weight of KL(clean prediction || attacked prediction) in place of the loss of attacked
    samples (TRADES, Zhang et al. 2019, equation 5, whose 1 / lambda this is; the attack remains
    that of `loss`); 0: off. Not with "free"."""
    val_batches: int = 2
    """Validation batches of each epoch that are attacked too, for the robust curve."""
    val_steps: int = 5
    """Steps of the strong attack there, `apgd_dice`, at the full epsilon."""
    robust_weight: float = 0.5
    """Of the robust pseudo Dice in the criterion of checkpoint_best; the clean one has the rest."""
    fallback: bool = True
    """Go on with PGD-2 once catastrophic overfitting is detected (see `robust_curve.overfits`),
    which is looked for in the single-step schemes, in the epochs after the ramp."""
    overfitting_margin: float = 0.1
    """Pseudo Dice by which the strong attack's must have fallen below its best to call it that."""

    def __post_init__(self) -> None:
        for name, known in (
            ("scheme", SCHEMES),
            ("norm", tuple(n.value for n in Norm)),
            ("epsilon_range", EPSILON_RANGES),
            ("loss", LOSS_NAMES),
        ):
            require(name, getattr(self, name), known.__contains__, f"one of {', '.join(known)}")
        object.__setattr__(self, "epsilon", _epsilon(self.epsilon))
        for name, scheme in (("steps", "pgd"), ("replays", "free")):
            value = getattr(self, name)
            text = "an integer >= 1, or null"
            require_count(name, value, text, most=MOST_STEPS, optional=True)
            if value is not None and self.scheme != scheme:
                raise ValueError(
                    f'{name} belongs to scheme "{scheme}", got {value!r} with scheme '
                    f'"{self.scheme}"'
                )
        require("rolling", self.rolling, is_bool, "true or false")
        if self.rolling:
            self._check_rolling()
        require_size("step_size", self.step_size, positive=True, optional=True)
        require("start", self.start, lambda v: is_share(v) and v < 1, "a number in [0, 1)")
        require_size("restart_lr", self.restart_lr, positive=True)
        for name in (
            "restart_ramp_up",
            "late_noise",
            "weight_average",
            "ramp_up",
            "clean_share",
            "robust_weight",
            "overfitting_margin",
        ):
            require(name, getattr(self, name), is_share, "a number in [0, 1]")
        require_size("consistency", self.consistency)
        if self.consistency and self.scheme == "free":
            raise ValueError(
                'consistency needs a clean pass, which scheme "free" does not make; use "fgsm_rs" '
                'or "pgd"'
            )
        for name in ("val_batches", "val_steps"):
            require_count(name, getattr(self, name), "an integer >= 1", most=MOST_STEPS)
        require("fallback", self.fallback, is_bool, "true or false")

    def _check_rolling(self) -> None:
        if self.scheme != "free":
            raise ValueError(
                f'rolling belongs to scheme "free", got True with scheme "{self.scheme}"'
            )
        if self.replays == 1:
            raise ValueError(
                "rolling needs replays of 2 or more, got 1: a sample that stays one step is never "
                "attacked"
            )

    @property
    def epsilon_fraction(self) -> float:
        """`epsilon` as a number."""
        assert isinstance(self.epsilon, float)  # __post_init__ made it one
        return self.epsilon

    @property
    def free_steps(self) -> int:
        """Steps that "free" trains on a batch, or where it is rolling on a sample."""
        return self.replays or 4

    @property
    def attack_steps(self) -> int:
        """Gradients per attacked batch; 0 for "free", whose gradients are the training's."""
        return {"fgsm_rs": 1, "pgd": self.steps or 3, "free": 0, "n_fgsm": 1}[self.scheme]

    @property
    def unprojected_noise(self) -> float | None:
        """Size of the noise that an attack starts from and keeps, in units of epsilon; None: it
        starts inside the ball and stays there."""
        return N_FGSM_NOISE if self.scheme == "n_fgsm" else None

    @property
    def relative_step_size(self) -> float:
        """Size of a step in units of epsilon."""
        if self.step_size is not None:
            return float(self.step_size)
        return relative_step_size(self.scheme, self.attack_steps)


def _epsilon(given: Any) -> float:
    epsilon = given
    if isinstance(given, str):
        try:
            epsilon = parse_epsilon(given)
        except UserError:
            epsilon = float("nan")  # refused below, with the rule that holds here
    if is_number(epsilon) and 0 <= epsilon < 0.5:
        return float(epsilon)
    raise ValueError(
        "epsilon must be a fraction of the intensity range in [0, 0.5), a number or a text such as "
        f'"4/255", got {given!r}'
    )


def check_shares(batch_size: int, at: ATConfig) -> None:
    """Refuse a batch that rolling free training cannot take in equal shares.

    Parameters
    ----------
    batch_size
        Of one rank.
    at
        Where it is not rolling, any batch does.

    Raises
    ------
    ValueError
        `replays` is larger than the batch, or does not divide it.
    """
    if not at.rolling or batch_size % at.free_steps == 0:
        return
    fitting = [str(m) for m in range(2, batch_size + 1) if batch_size % m == 0]
    advice = f"take one of {', '.join(fitting)}" if fitting else "do without rolling"
    raise ValueError(
        f"replays must divide the batch where rolling is true, got {at.free_steps} and a batch of "
        f"{batch_size}: {advice}, or change the batch size"
    )


def guides(method: LNGSWRConfig | None, at: ATConfig | None) -> bool:
    """Whether any epoch of a training has guided noise: those that attack have none."""
    return method is not None and method.guides and (at is None or at.start > 0)


def check_guidance(method: LNGSWRConfig, at: ATConfig | None, batch_size: int | None) -> None:
    """Refuse guided noise where samples cannot stay two steps.

    Parameters
    ----------
    method, at
        Of the trainer; None: it does not attack.
    batch_size
        Of one rank; None: not known.

    Raises
    ------
    ValueError
        A batch of one sample, or scheme "free".
    """
    if not guides(method, at):
        return
    size = method.noise_guided
    if at is not None and at.scheme == "free":
        raise ValueError(
            'scheme "free" lets samples stay, and so does noise_guided, each in its own way: '
            f'choose one, got "free" and {size}'
        )
    if batch_size is not None and batch_size < GUIDED_STEPS:
        raise ValueError(
            f"noise_guided needs a batch of which a part is new at every step, got {size} and a "
            f"batch of {batch_size}: change the batch size, or set 0"
        )
