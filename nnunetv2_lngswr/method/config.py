"""Settings of LNG-SWR: a frozen dataclass, validated once.

A trainer class holds its defaults; a ``"lngswr"`` entry in a configuration of the plans overrides them::

    "2d": {..., "lngswr": {"noise_sigma_input": 0.5, "gains": "prior", "num_epochs": 100, "seed": 0}}

The entry's keys are the fields of :class:`LNGSWRConfig` (the method) and of :class:`RunSettings` (the run), and
``"adversarial": {...}``, an object with the fields of :class:`ATConfig`. Trainers read what concerns them, so that one
entry serves all arms of a comparison; misspelt keys are refused by all.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from nnunetv2_lngswr.attacks.terms import LOSS_NAMES, Norm
from nnunetv2_lngswr.method.noise import SPECTRA
from nnunetv2_lngswr.method.wavelet import HAAR, check_wavelet, subbands
from nnunetv2_lngswr.utils.epsilon import parse_epsilon

PLANS_KEY = "lngswr"
ADVERSARIAL_KEY = "adversarial"
SCHEMES = ("fgsm_rs", "pgd", "free")
EPSILON_RANGES = ("case", "patch")


@dataclass(frozen=True, kw_only=True)
class LNGSWRConfig:
    """The method. Amplitudes are in standard deviations of a channel; defaults: see docs of each field.

    Raises ValueError, naming the field, the rule and the value, for anything invalid.
    """

    noise: bool = True
    """Inject layer-wise noise while training."""
    noise_sigma_input: float = 1.0
    """Largest amplitude on the image; 0 switches the noise there off."""
    noise_sigma_stages: float = 0.5
    """Largest amplitude after every encoder stage."""
    noise_random_amplitude: bool = True
    """Draw the amplitude per sample from U(0, largest) rather than using the largest."""
    noise_spectrum: str = "multiscale"
    """"white" or "multiscale" (white noise at strides 1, 2, 4, 8, summed)."""

    noise_ramp_up: float = 0.5
    """Share of the epochs over which the amplitudes grow from 0, linearly step by step."""

    reconstruction: bool = True
    """Selective wavelet reconstruction, in training and in inference."""
    reconstruct_input: bool = True
    reconstruct_stages: bool = True
    """After every encoder stage but the bottleneck."""
    reconstruct_from_stage: int = 0
    """The first of these stages; 0 is the one of full resolution, where more than half of the cost is."""
    reconstruct_bottleneck: bool = False
    wavelet: str = HAAR
    """Any orthogonal PyWavelets wavelet."""
    gains: str | tuple[float, ...] = (0.12, 0.12, 0.02)
    """"prior" for the measured Wiener gain, or constants (directional, diagonal) or (directional per transformed axis
    that is high-pass, ..., diagonal). A single low-pass axis set of one axis uses the directional gain."""
    learned: bool = True
    """Learn per channel and band how far the gain is applied (a in [0, 1])."""
    start: float = 1.0
    """a at the start: 1 applies the gains in full, 0 is the identity (warm start)."""
    fusion: str = "mix"
    """Shallow fusion of x and its reconstruction: "mix" (a itself) or "conv" (1x1 convolution of both)."""
    bottleneck_fusion: bool = False
    """Dynamic multi-scale fusion at the bottleneck."""

    prior_sigma: float | None = None
    """Noise amplitude that the prior assumes; None: the injected one (root mean square), or 0.5 where there is none."""
    prior_momentum: float = 0.01

    def __post_init__(self):
        for name in ("noise_sigma_input", "noise_sigma_stages"):
            _require(name, getattr(self, name), lambda v: _is_number(v) and v >= 0, "a number >= 0")
        if self.noise_spectrum not in SPECTRA:
            raise ValueError(
                f"noise_spectrum must be one of {', '.join(SPECTRA)}, got {self.noise_spectrum!r}"
            )
        for field in dataclasses.fields(self):
            if field.type == "bool":
                _require(
                    field.name,
                    getattr(self, field.name),
                    lambda v: isinstance(v, bool),
                    "true or false",
                )
        _require(
            "reconstruct_from_stage",
            self.reconstruct_from_stage,
            lambda v: _is_int(v) and v >= 0,
            "an integer >= 0",
        )
        check_wavelet(self.wavelet)
        if not isinstance(self.gains, str):
            _require(
                "gains",
                self.gains,
                _is_gain_list,
                '"prior" or a list of 2 or more numbers in [0, 1]',
            )
            object.__setattr__(self, "gains", tuple(float(g) for g in self.gains))
        elif self.gains != "prior":
            raise ValueError(
                f'gains must be "prior" or a list of 2 or more numbers in [0, 1], got {self.gains!r}'
            )
        _require(
            "noise_ramp_up",
            self.noise_ramp_up,
            lambda v: _is_number(v) and 0 <= v <= 1,
            "a number in [0, 1]",
        )
        _require("start", self.start, lambda v: _is_number(v) and 0 <= v <= 1, "a number in [0, 1]")
        if self.fusion not in ("mix", "conv"):
            raise ValueError(f'fusion must be "mix" or "conv", got {self.fusion!r}')
        positive_or_none = lambda v: v is None or (_is_number(v) and v > 0)  # noqa: E731
        _require("prior_sigma", self.prior_sigma, positive_or_none, "a number > 0, or null")
        _require(
            "prior_momentum",
            self.prior_momentum,
            lambda v: _is_number(v) and 0 < v <= 1,
            "a number in (0, 1]",
        )

    def band_gains(self, n_axes: int) -> tuple[float, ...] | None:
        """Constant gain per band of `n_axes` transformed axes, in the order of `subbands`; None for the prior's.

        The values of `gains` are (directional, ..., diagonal). As many directional values as axes: the i-th is for
        the band that is high-pass along the i-th axis. Equal directional values serve any number of axes.
        """
        if self.gains == "prior":
            return None
        *directional, diagonal = self.gains
        if len(set(directional)) == 1:
            directional = [directional[0]] * n_axes
        if len(directional) != n_axes:
            raise ValueError(
                f"gains must have one directional value per transformed axis ({n_axes} here) and one diagonal value, "
                f"or equal directional values; got {self.gains}"
            )
        gains = []
        for name in subbands(n_axes):
            high = [axis for axis, letter in enumerate(name) if letter == "H"]
            gains.append(1.0 if not high else directional[high[0]] if len(high) == 1 else diagonal)
        return tuple(gains)


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Budget, seed and start of one training run; None leaves nnU-Net's own value."""

    num_epochs: int | None = None
    num_iterations_per_epoch: int | None = None
    num_val_iterations_per_epoch: int | None = None
    seed: int | None = None
    """Covers initialisation, data order and noise; implies single-process augmentation."""
    warm_start: str | None = None
    """Checkpoint (vanilla or LNG-SWR) whose weights, segmentation heads included, the network starts from."""

    def __post_init__(self):
        for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
            _require(
                name,
                getattr(self, name),
                lambda v: v is None or (_is_int(v) and v >= 1),
                "an integer >= 1",
            )
        _require(
            "seed", self.seed, lambda v: v is None or (_is_int(v) and v >= 0), "an integer >= 0"
        )
        _require("warm_start", self.warm_start, lambda v: v is None or isinstance(v, str), "a path")


@dataclass(frozen=True, kw_only=True)
class ATConfig:
    """Adversarial training (Madry et al. 2018): what the samples of a batch are replaced by.

    Raises ValueError, naming the field, the rule and the value, for anything invalid.
    """

    scheme: str = "fgsm_rs"
    """"fgsm_rs": one step from a random start (Wong et al. 2020); "pgd": `steps` of them (Madry et al. 2018); "free": each
    batch is trained on `replays` times, and the gradient of one step moves the perturbation of the next (Shafahi et al.
    2019). The number of optimiser steps is the same for all."""
    norm: str = "linf"
    """"linf" or "l2" (`epsilon` is then the root mean square per voxel)."""
    epsilon: float | str = 4 / 255
    """Fraction of the intensity range, a number or a fraction such as "4/255", below 0.5: half of the range makes one
    uniform grey of any image."""
    epsilon_range: str = "case"
    """Whose range: "case", the preprocessed case's [min, max] per channel, widened to the augmented patch; or "patch"."""
    steps: int | None = None
    """Of "pgd" only; None: 3."""
    replays: int | None = None
    """Of "free" only; None: 4."""
    step_size: float | None = None
    """In units of epsilon; None: 1.25 ("fgsm_rs"), 2.5 / steps ("pgd"), 1 ("free")."""
    loss: str = "ce"
    """What "fgsm_rs" and "pgd" ascend, a name of attacks.losses; "free" ascends the training loss."""
    ramp_up: float = 0.1
    """Share of the epochs over which epsilon grows from 0, linearly step by step."""
    clean_share: float = 0.0
    """Share of the samples that stay as they are; exact over the steps of an epoch, whatever the batch size."""
    consistency: float = 0.0
    """Weight of KL(clean prediction || attacked prediction) in place of the loss of attacked samples (TRADES, Zhang et al.
    2019, equation 5, whose 1 / lambda this is; the attack remains that of `loss`); 0: off. Not with "free"."""
    val_batches: int = 2
    """Validation batches of each epoch that are attacked too, for the robust curve."""
    val_steps: int = 5
    """Steps of PGD there, at the full epsilon."""
    robust_weight: float = 0.5
    """Of the robust pseudo Dice in the criterion of checkpoint_best; the clean one has the rest."""
    fallback: bool = True
    """Go on with PGD-2 once catastrophic overfitting is detected (see `adversarial.overfits`), which is looked for in the single-step
    schemes, in the epochs after the ramp."""
    overfitting_margin: float = 0.1
    """Pseudo Dice by which PGD must have fallen below its best to call it that."""

    def __post_init__(self):
        for name, known in (
            ("scheme", SCHEMES),
            ("norm", [n.value for n in Norm]),
            ("epsilon_range", EPSILON_RANGES),
            ("loss", LOSS_NAMES),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        rule = 'epsilon must be a fraction of the intensity range in [0, 0.5), a number or a text such as "4/255"'
        try:
            epsilon = parse_epsilon(self.epsilon) if isinstance(self.epsilon, str) else self.epsilon
        except ValueError:
            epsilon = None
        if not _is_number(epsilon) or not 0 <= epsilon < 0.5:
            raise ValueError(f"{rule}, got {self.epsilon!r}")
        object.__setattr__(self, "epsilon", float(epsilon))
        for name, scheme in (("steps", "pgd"), ("replays", "free")):
            value = getattr(self, name)
            _require(
                name,
                value,
                lambda v: v is None or (_is_int(v) and v >= 1),
                "an integer >= 1, or null",
            )
            if value is not None and self.scheme != scheme:
                raise ValueError(
                    f'{name} belongs to scheme "{scheme}", got {value!r} with scheme "{self.scheme}"'
                )
        _require(
            "step_size",
            self.step_size,
            lambda v: v is None or (_is_number(v) and 0 < v < float("inf")),
            "a number > 0, or null",
        )
        for name in ("ramp_up", "clean_share", "robust_weight", "overfitting_margin"):
            _require(
                name,
                getattr(self, name),
                lambda v: _is_number(v) and 0 <= v <= 1,
                "a number in [0, 1]",
            )
        _require(
            "consistency",
            self.consistency,
            lambda v: _is_number(v) and 0 <= v < float("inf"),
            "a number >= 0",
        )
        if self.consistency and self.scheme == "free":
            raise ValueError(
                'consistency needs a clean pass, which scheme "free" does not make; use "fgsm_rs" or "pgd"'
            )
        for name in ("val_batches", "val_steps"):
            _require(name, getattr(self, name), lambda v: _is_int(v) and v >= 1, "an integer >= 1")
        _require("fallback", self.fallback, lambda v: isinstance(v, bool), "true or false")

    @property
    def attack_steps(self) -> int:
        """Gradients per attacked batch; 0 for "free", whose gradients are those of the training."""
        return {"fgsm_rs": 1, "pgd": self.steps or 3, "free": 0}[self.scheme]

    @property
    def relative_step_size(self) -> float:
        """Size of a step in units of epsilon."""
        if self.step_size is not None:
            return float(self.step_size)
        return {
            "fgsm_rs": 1.25,
            "pgd": 2.5 / self.attack_steps if self.attack_steps else None,
            "free": 1.0,
        }[self.scheme]


def read_plans_entry(
    configuration: Mapping, defaults: LNGSWRConfig | None = None
) -> tuple[LNGSWRConfig, RunSettings]:
    """Settings of one (inheritance-resolved) configuration of the plans.

    Raises ValueError that names the key in the plans, for unknown keys with the nearest known ones.
    """
    entry = _checked_entry(configuration)
    method, run = _fields(LNGSWRConfig), _fields(RunSettings)
    try:
        config = dataclasses.replace(
            defaults or LNGSWRConfig(), **{k: v for k, v in entry.items() if k in method}
        )
        settings = RunSettings(**{k: v for k, v in entry.items() if k in run})
    except ValueError as error:
        raise ValueError(f'plans: "{PLANS_KEY}": {error}') from None
    return config, settings


def read_adversarial(configuration: Mapping, defaults: ATConfig | None = None) -> ATConfig:
    """The "adversarial" settings of one configuration of the plans. Raises as `read_plans_entry`."""
    given = _checked_entry(configuration).get(ADVERSARIAL_KEY, {})
    try:
        return dataclasses.replace(defaults or ATConfig(), **given)
    except ValueError as error:
        raise ValueError(f'plans: "{PLANS_KEY}": "{ADVERSARIAL_KEY}": {error}') from None


def _checked_entry(configuration: Mapping) -> Mapping:
    entry = configuration.get(PLANS_KEY, {})
    _check_keys(
        entry, f'"{PLANS_KEY}"', _fields(LNGSWRConfig) | _fields(RunSettings) | {ADVERSARIAL_KEY}
    )
    _check_keys(
        entry.get(ADVERSARIAL_KEY, {}), f'"{PLANS_KEY}": "{ADVERSARIAL_KEY}"', _fields(ATConfig)
    )
    return entry


def _check_keys(entry: Mapping, where: str, known: set[str]) -> None:
    if not isinstance(entry, Mapping):
        raise ValueError(f"plans: {where} must be an object with settings, got {entry!r}")
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=3)
            hint = (
                f"did you mean {' or '.join(near)}?"
                if near
                else f"known keys: {', '.join(sorted(known))}"
            )
            raise ValueError(f'plans: unknown key "{key}" in {where}; {hint}')


def _fields(cls: type) -> set[str]:
    return {f.name for f in dataclasses.fields(cls)}


def _require(name, value, rule, text):
    if not rule(value):
        raise ValueError(f"{name} must be {text}, got {value!r}")


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return _is_int(value) or isinstance(value, float)


def _is_gain_list(value) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) >= 2
        and all(_is_number(g) and 0 <= g <= 1 for g in value)
    )
