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
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from nnunetv2_lngswr.method.axes import check_gains
from nnunetv2_lngswr.method.checks import is_int, require, require_count
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.scales import check_max_stride
from nnunetv2_lngswr.training.adversarial_settings import ATConfig, check_guidance, check_shares
from nnunetv2_lngswr.training.schedule import first_attacked_epoch
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import did_you_mean

T = TypeVar("T", LNGSWRConfig, "RunSettings", "ATConfig")

PLANS_KEY = "lngswr"
ADVERSARIAL_KEY = "adversarial"
OLD_KEYS = {"learned": "learn_gates", "start": "gate_init"}
"""Keys of plans of earlier versions, and what they are called now."""
MOST_ITERATIONS = 10_000_000
"""Of a training: epochs, and batches of an epoch."""


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
        Of the plans; its "lngswr" entry is read, and held against patch, batch and network where
        it has these.
    method, adversarial
        The trainer's defaults; None: what the entry says of it is checked, and is none of this
        trainer's business.
    epochs
        Of the training, where the entry does not say; None: not known.

    Raises
    ------
    UserError
        An unknown key, with the nearest known ones, a value that its field does not allow, an
        adversarial training that would start in the last epoch or later, batches that cannot roll,
        guided noise with "free", noise of larger blocks than the patch, or gains for other axes
        than the network pools; the text names the key in the plans.
    """
    entry = current_entry(configuration)
    where = f'plans: "{PLANS_KEY}"'
    # checked even where the trainer has no LNG-SWR, and below, where it does not attack
    overridden = _replaced(method or LNGSWRConfig(), entry, where)
    with _told_as_the_users(where):
        if "patch_size" in configuration:
            check_max_stride(overridden.noise_max_stride, configuration["patch_size"])
        strides = _strides(configuration)
        if strides:
            check_gains(overridden, strides)
    if method is not None:
        method = overridden
    given = entry.get(ADVERSARIAL_KEY, {})
    attacking = _replaced(adversarial or ATConfig(), given, f'{where}: "{ADVERSARIAL_KEY}"')
    if adversarial is not None:
        adversarial = attacking
    run = _replaced(RunSettings(), entry, where)
    epochs = run.num_epochs or epochs
    if adversarial is not None:
        with _told_as_the_users(f'{where}: "{ADVERSARIAL_KEY}"'):
            if epochs is not None:
                first_attacked_epoch(epochs, adversarial.start)
            if "batch_size" in configuration:
                check_shares(configuration["batch_size"], adversarial)
    if method is not None:
        with _told_as_the_users(where):
            check_guidance(method, adversarial, configuration.get("batch_size"))
    return TrainerSettings(method=method, run=run, adversarial=adversarial)


def check_entry(entry: Mapping[str, Any], *, batch_size: int | None = None) -> None:
    """Refuse a "lngswr" entry that any trainer would refuse, and say which of its keys are old.

    Parameters
    ----------
    entry
        Of the plans.
    batch_size
        Of the configuration it is for; None: not known.

    Raises
    ------
    UserError
        As `read_settings`.
    """
    configuration: dict[str, Any] = {PLANS_KEY: entry}
    if batch_size is not None:
        configuration["batch_size"] = batch_size
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


def refuse_stray_start(configuration: Mapping[str, Any]) -> None:
    """Refuse a "start" beside "adversarial" instead of in it.

    Of a trainer that attacks it could be either: the old name of "gate_init", which it is read as,
    or the start of the last phase, which would then begin at once.

    Raises
    ------
    UserError
        There is one.
    """
    entry = configuration.get(PLANS_KEY, {})
    if "start" in entry:
        value = entry["start"]
        raise UserError(
            f'plans: "{PLANS_KEY}": "start" is the old name of "gate_init": write that, or, for a '
            f'late adversarial training, "{ADVERSARIAL_KEY}": {{"start": {value}}}; got '
            f'"start": {value}'
        )


def refuse_no_warm_start(path: str) -> None:
    """UserError where no file is there to start from."""
    if not os.path.isfile(path):
        raise UserError(
            f'plans: "{PLANS_KEY}": "warm_start": no file {os.path.abspath(path)}; give a '
            "checkpoint (relative paths begin where the command runs)"
        )


def changed_settings(there: TrainerSettings, here: TrainerSettings) -> str:
    """Which settings of one trainer differ, and how; empty where none does."""
    changed = []
    for group in dataclasses.fields(TrainerSettings):
        old, new = (getattr(settings, group.name) for settings in (there, here))
        prefix = f'"{ADVERSARIAL_KEY}": ' if group.name == "adversarial" else ""
        for field in dataclasses.fields(new) if old != new else ():
            values = [getattr(settings, field.name) for settings in (old, new)]
            if values[0] != values[1]:
                changed.append(f'{prefix}"{field.name}" {values[0]!r} there, {values[1]!r} here')
    return "; ".join(changed)


def without_effect(configuration: Mapping[str, Any], settings: TrainerSettings) -> list[str]:
    """What of the "lngswr" entry is none of this trainer's business, for its log."""
    entry, method, attack = current_entry(configuration), settings.method, settings.adversarial
    given = entry.get(ADVERSARIAL_KEY) or {}
    keys: list[str] = []
    if method is None:
        keys += sorted(_fields(LNGSWRConfig) & entry.keys())
    else:
        keys += sorted(_idle_of_method(method) & entry.keys())
    if attack is None:
        keys += [ADVERSARIAL_KEY] if given else []
    else:
        idle = {
            "late_noise": method is None or not method.noise,
            # catastrophic overfitting is that of single-step attacks
            "fallback": attack.attack_steps > 1,
            "overfitting_margin": attack.attack_steps > 1,
        }
        keys += [f'{ADVERSARIAL_KEY}": "{key}' for key in idle if idle[key] and key in given]
    return [
        f'plans: "{PLANS_KEY}": "{key}" has no effect with this trainer and the other settings'
        for key in keys
    ]


def _idle_of_method(method: LNGSWRConfig) -> set[str]:
    """The keys of parts that are off; what the prior is measured with stays."""
    idle: set[str] = set()
    if not method.noise:
        idle |= {"noise_sigma_input", "noise_sigma_stages", "noise_random_amplitude"}
        idle |= {"noise_ramp_up", "noise_guided"}
    if not method.reconstruction:
        idle |= {key for key in _fields(LNGSWRConfig) if key.startswith("reconstruct_")}
        idle |= {"gains", "learn_gates", "gate_init", "fusion"}
    if method.noise_spectrum == "white":
        idle |= {"noise_max_stride", "noise_random_grid"}
    return idle


def _strides(configuration: Mapping[str, Any]) -> list[Sequence[int]]:
    """Of the encoder's stages, a number for each axis; none where the plans do not tell, which is
    the network's to refuse."""
    found: Any = configuration
    for key in ("architecture", "arch_kwargs", "strides"):
        found = found.get(key) if isinstance(found, Mapping) else None
    patch = configuration.get("patch_size")
    axes = len(patch) if isinstance(patch, (list, tuple)) else 0
    strides = found if isinstance(found, (list, tuple)) else []
    per_axis: list[Any] = [[s] * axes if is_int(s) else s for s in strides]
    fits = all(isinstance(s, (list, tuple)) and all(map(is_int, s)) for s in per_axis)
    return per_axis if fits else []


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
            hint = _place_of(key, where) or did_you_mean(key, sorted(known), what="keys")
            raise UserError(f'plans: unknown key "{key}" in {where}; {hint}')


def _place_of(key: str, where: str) -> str | None:
    """Where a key belongs that is known elsewhere in the entry."""
    inside = ADVERSARIAL_KEY in where
    if not inside and key in _fields(ATConfig):
        return f'it belongs into "{ADVERSARIAL_KEY}", as "{ADVERSARIAL_KEY}": {{"{key}": ...}}'
    if inside and key in _fields(LNGSWRConfig) | _fields(RunSettings):
        return f'it belongs beside "{ADVERSARIAL_KEY}", not into it'
    return None


def _is_none_or_path(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value != "")


def _fields(cls: type) -> set[str]:
    return {f.name for f in dataclasses.fields(cls)}
