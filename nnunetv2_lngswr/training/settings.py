"""Settings of one training: the class's defaults, and what the plans say. Imports no torch.

A trainer class holds its defaults; a ``"lngswr"`` entry in a configuration of the plans overrides
them::

    "2d": {..., "lngswr": {"noise_sigma_input": 0.5, "gains": "prior", "num_epochs": 100}}

The entry's keys are the fields of `LNGSWRConfig` (the method) and of `RunSettings` (the run), and
``"adversarial": {...}``, an object with the fields of `ATConfig`. Trainers read what concerns them,
so that one entry serves all arms of a comparison; misspelt keys are refused by all.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

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
from nnunetv2_lngswr.method.scales import check_max_stride
from nnunetv2_lngswr.training.schedule import first_attacked_epoch, relative_step_size
from nnunetv2_lngswr.utils.epsilon import parse_epsilon
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import did_you_mean

T = TypeVar("T", LNGSWRConfig, "RunSettings", "ATConfig")

PLANS_KEY = "lngswr"
ADVERSARIAL_KEY = "adversarial"
OLD_KEYS = {"learned": "learn_gates", "start": "gate_init"}
"""Keys of plans of earlier versions, and what they are called now."""
MOST_ITERATIONS, MOST_STEPS = 10_000_000, 10_000
"""Of a training (epochs, and batches of an epoch) and of an attack on a batch."""
SCHEMES = ("fgsm_rs", "pgd", "free")
EPSILON_RANGES = ("case", "patch")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Budget, seed and start of one training run; None leaves nnU-Net's own value.

    Raises
    ------
    ValueError
        Anything invalid; the text names the field, the rule and the value.
    """

    num_epochs: int | None = None
    """Epochs of the training."""
    num_iterations_per_epoch: int | None = None
    """Training batches per epoch."""
    num_val_iterations_per_epoch: int | None = None
    """Validation batches per epoch."""
    seed: int | None = None
    """Covers initialisation, data order and noise; implies single-process augmentation."""
    warm_start: str | None = None
    """Checkpoint (vanilla or LNG-SWR) whose weights, segmentation heads included, the network
    starts from; {fold} in it stands for the fold."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
            value = getattr(self, name)
            require_count(name, value, "an integer >= 1", most=MOST_ITERATIONS, optional=True)
        require_count("seed", self.seed, "an integer >= 0", least=0, most=2**128 - 1, optional=True)
        require("warm_start", self.warm_start, _is_none_or_path, "a path")


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
    the perturbation of the next (Shafahi et al. 2019). The number of optimiser steps is the same
    for all."""
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
    step_size: float | None = None
    """In units of epsilon; None: 1.25 ("fgsm_rs"), 2.5 / steps ("pgd"), 1 ("free")."""
    loss: str = "ce"
    """What "fgsm_rs" and "pgd" ascend, of attacks.losses; "free" ascends the training loss."""
    start: float = 0.0
    """Share of the epochs that are trained without attack. Those that begin later are the last
    phase: plain training of as many epochs as come before, then adversarial training."""
    restart_lr: float = 1.0
    """The learning rate at the start of the last phase, in units of its initial value."""
    late_noise: float = 1.0
    """Factor of the amplitudes of LNG-SWR's noise in the last phase."""
    ramp_up: float = 0.1
    """Share of the last phase's epochs over which epsilon grows from 0, linearly step by step."""
    clean_share: float = 0.0
    """Share of the samples that stay as they are; exact over the steps of an epoch, whatever the
    batch size."""
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
        require_size("step_size", self.step_size, positive=True, optional=True)
        require("start", self.start, lambda v: is_share(v) and v < 1, "a number in [0, 1)")
        require_size("restart_lr", self.restart_lr, positive=True)
        for name in (
            "late_noise",
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

    @property
    def epsilon_fraction(self) -> float:
        """`epsilon` as a number."""
        assert isinstance(self.epsilon, float)  # __post_init__ made it one
        return self.epsilon

    @property
    def attack_steps(self) -> int:
        """Gradients per attacked batch; 0 for "free", whose gradients are the training's."""
        return {"fgsm_rs": 1, "pgd": self.steps or 3, "free": 0}[self.scheme]

    @property
    def relative_step_size(self) -> float:
        """Size of a step in units of epsilon."""
        if self.step_size is not None:
            return float(self.step_size)
        return relative_step_size(self.scheme, self.attack_steps)


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """All settings of one training, as they were read once; None: the trainer has none of it."""

    method: LNGSWRConfig | None
    """LNG-SWR."""
    run: RunSettings
    """Budget, seed and start."""
    adversarial: ATConfig | None
    """Adversarial training."""


def read_settings(
    configuration: Mapping[str, Any],
    *,
    method: LNGSWRConfig | None = None,
    adversarial: ATConfig | None = None,
    epochs: int | None = None,
) -> TrainerSettings:
    """Settings of one (inheritance-resolved) configuration of the plans.

    Parameters
    ----------
    configuration
        Of the plans; its "lngswr" entry is read.
    method, adversarial
        The trainer's defaults; None: what the entry says of it is checked, and is none of this
        trainer's business.
    epochs
        Of the training, where the entry does not say; None: not known.

    Raises
    ------
    UserError
        An unknown key, with the nearest known ones, a value that its field does not allow, or an
        adversarial training that would start in the last epoch or later; the text names the key in
        the plans.
    """
    entry = current_entry(configuration)
    where = f'plans: "{PLANS_KEY}"'
    # checked even where the trainer has no LNG-SWR
    overridden = _replaced(method or LNGSWRConfig(), entry, where)
    if "patch_size" in configuration:
        try:
            check_max_stride(overridden.noise_max_stride, configuration["patch_size"])
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None
    if method is not None:
        method = overridden
    if adversarial is not None:
        given = entry.get(ADVERSARIAL_KEY, {})
        adversarial = _replaced(adversarial, given, f'{where}: "{ADVERSARIAL_KEY}"')
    run = _replaced(RunSettings(), entry, where)
    epochs = run.num_epochs or epochs
    if adversarial is not None and epochs is not None:
        with _told_as_the_users(f'{where}: "{ADVERSARIAL_KEY}"'):
            first_attacked_epoch(epochs, adversarial.start)
    return TrainerSettings(method=method, run=run, adversarial=adversarial)


def check_entry(entry: Mapping[str, Any]) -> None:
    """Refuse a "lngswr" entry that any trainer would refuse, and say which of its keys are old.

    Raises
    ------
    UserError
        As `read_settings`.
    """
    configuration = {PLANS_KEY: entry}
    read_settings(configuration, method=LNGSWRConfig(), adversarial=ATConfig())
    warn_of_old_keys(configuration)


def current_entry(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The "lngswr" entry of a configuration, its keys checked, under the names of this version.

    Raises
    ------
    UserError
        An unknown key, or a key under its old and its new name.
    """
    entry: Mapping[str, Any] = configuration.get(PLANS_KEY, {})
    known = _fields(LNGSWRConfig) | _fields(RunSettings) | {ADVERSARIAL_KEY}
    _check_keys(entry, f'"{PLANS_KEY}"', known, aliases=OLD_KEYS)
    _check_keys(
        entry.get(ADVERSARIAL_KEY, {}), f'"{PLANS_KEY}": "{ADVERSARIAL_KEY}"', _fields(ATConfig)
    )
    for old, new in OLD_KEYS.items():
        if old in entry and new in entry:
            raise UserError(
                f'plans: "{PLANS_KEY}": "{old}" is the old name of "{new}": give one of them, '
                f"got {entry[old]!r} and {entry[new]!r}"
            )
    return {OLD_KEYS.get(key, key): value for key, value in entry.items()}


def warn_of_old_keys(configuration: Mapping[str, Any]) -> None:
    """Say, once for each process, which keys of the "lngswr" entry have a new name."""
    for old, new in OLD_KEYS.items():
        if old in configuration.get(PLANS_KEY, {}):
            warnings.warn(
                f'plans: "{PLANS_KEY}": "{old}" is called "{new}" now; the old name still works',
                FutureWarning,
                stacklevel=1,  # one place for all callers, so that Python shows it once
            )


def _replaced(defaults: T, entry: Mapping[str, Any], where: str) -> T:
    """`defaults` with its fields of the entry; what these refuse is told as the user's mistake."""
    own = _fields(type(defaults))
    with _told_as_the_users(where):
        return dataclasses.replace(defaults, **{k: v for k, v in entry.items() if k in own})


@contextmanager
def _told_as_the_users(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def _check_keys(
    entry: Mapping[str, Any], where: str, known: set[str], aliases: Mapping[str, str] | None = None
) -> None:
    if not isinstance(entry, Mapping):
        raise UserError(f"plans: {where} must be an object with settings, got {entry!r}")
    for key in entry:
        if key not in known and key not in (aliases or {}):
            hint = did_you_mean(key, sorted(known), what="keys")
            raise UserError(f'plans: unknown key "{key}" in {where}; {hint}')


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


def _is_none_or_path(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value != "")


def _fields(cls: type) -> set[str]:
    return {f.name for f in dataclasses.fields(cls)}
