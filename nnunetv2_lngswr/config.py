"""Settings of LNG-SWR: a frozen dataclass, validated once.

A trainer class holds its defaults; a ``"lngswr"`` entry in a configuration of the plans overrides them::

    "2d": {..., "lngswr": {"noise_sigma_input": 0.5, "gains": "prior", "num_epochs": 100, "seed": 0}}

The entry's keys are the fields of :class:`LNGSWRConfig` (the method) and of :class:`RunSettings` (the run).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from nnunetv2_lngswr.noise import SPECTRA
from nnunetv2_lngswr.wavelet import HAAR, check_wavelet, subbands

PLANS_KEY = "lngswr"


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

    reconstruction: bool = True
    """Selective wavelet reconstruction, in training and in inference."""
    reconstruct_input: bool = True
    reconstruct_stages: bool = True
    """After every encoder stage but the bottleneck."""
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
            raise ValueError(f"noise_spectrum must be one of {', '.join(SPECTRA)}, got {self.noise_spectrum!r}")
        for field in dataclasses.fields(self):
            if field.type == "bool":
                _require(field.name, getattr(self, field.name), lambda v: isinstance(v, bool), "true or false")
        check_wavelet(self.wavelet)
        if not isinstance(self.gains, str):
            _require("gains", self.gains, _is_gain_list, '"prior" or a list of 2 or more numbers in [0, 1]')
            object.__setattr__(self, "gains", tuple(float(g) for g in self.gains))
        elif self.gains != "prior":
            raise ValueError(f'gains must be "prior" or a list of 2 or more numbers in [0, 1], got {self.gains!r}')
        _require("start", self.start, lambda v: _is_number(v) and 0 <= v <= 1, "a number in [0, 1]")
        if self.fusion not in ("mix", "conv"):
            raise ValueError(f'fusion must be "mix" or "conv", got {self.fusion!r}')
        positive_or_none = lambda v: v is None or (_is_number(v) and v > 0)  # noqa: E731
        _require("prior_sigma", self.prior_sigma, positive_or_none, "a number > 0, or null")
        _require("prior_momentum", self.prior_momentum, lambda v: _is_number(v) and 0 < v <= 1, "a number in (0, 1]")

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
            _require(name, getattr(self, name), lambda v: v is None or (_is_int(v) and v >= 1), "an integer >= 1")
        _require("seed", self.seed, lambda v: v is None or (_is_int(v) and v >= 0), "an integer >= 0")
        _require("warm_start", self.warm_start, lambda v: v is None or isinstance(v, str), "a path")


def read_plans_entry(configuration: Mapping, defaults: LNGSWRConfig | None = None) -> tuple[LNGSWRConfig, RunSettings]:
    """Settings of one (inheritance-resolved) configuration of the plans.

    Raises ValueError that names the key in the plans, for unknown keys with the nearest known ones.
    """
    entry = configuration.get(PLANS_KEY, {})
    if not isinstance(entry, Mapping):
        raise ValueError(f'plans: "{PLANS_KEY}" must be an object with settings, got {entry!r}')
    method = {f.name for f in dataclasses.fields(LNGSWRConfig)}
    run = {f.name for f in dataclasses.fields(RunSettings)}
    for key in entry:
        if key not in method | run:
            near = difflib.get_close_matches(key, sorted(method | run), n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(sorted(method | run))}"
            raise ValueError(f'plans: unknown key "{key}" in "{PLANS_KEY}"; {hint}')
    try:
        config = dataclasses.replace(defaults or LNGSWRConfig(), **{k: v for k, v in entry.items() if k in method})
        settings = RunSettings(**{k: v for k, v in entry.items() if k in run})
    except ValueError as error:
        raise ValueError(f'plans: "{PLANS_KEY}": {error}') from None
    return config, settings


def _require(name, value, rule, text):
    if not rule(value):
        raise ValueError(f"{name} must be {text}, got {value!r}")


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return _is_int(value) or isinstance(value, float)


def _is_gain_list(value) -> bool:
    return isinstance(value, (list, tuple)) and len(value) >= 2 and all(_is_number(g) and 0 <= g <= 1 for g in value)
