"""Settings of the method: a frozen dataclass, validated once. Imports no torch.

How they are read from nnU-Net's plans: `nnunetv2_lngswr.training.settings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnunetv2_lngswr.method.bands import HAAR, SPECTRA, check_wavelet, subbands
from nnunetv2_lngswr.method.checks import (
    is_bool,
    is_int,
    is_number,
    is_share,
    require,
    require_count,
    require_size,
)

FUSIONS = ("mix", "conv")
_SWITCHES = (
    "noise",
    "noise_random_amplitude",
    "noise_random_grid",
    "reconstruction",
    "reconstruct_input",
    "reconstruct_stages",
    "reconstruct_bottleneck",
    "learn_gates",
    "bottleneck_fusion",
)


@dataclass(frozen=True, kw_only=True)
class LNGSWRConfig:
    """The method. Amplitudes are in standard deviations of a channel.

    Raises
    ------
    ValueError
        Anything invalid; the text names the field, the rule and the value.
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
    """"white" or "multiscale" (white noise at strides 1, 2, 4, 8, ..., summed)."""
    noise_max_stride: int | None = None
    """Largest stride of the multiscale noise, a power of two, in voxels of the network's input: a
    feature map has the strides that remain at its resolution, and none longer than itself. None: 1,
    2, 4 and 8 voxels of each feature map."""
    noise_random_grid: bool = False
    """Draw at every step and for every sample where the blocks of the multiscale noise begin."""
    noise_ramp_up: float = 0.5
    """Share of the epochs over which the amplitudes grow from 0, linearly step by step."""
    noise_guided: float = 0.0
    """Size of a step along the gradient of a sample's last training step, added to the noise at
    every layer that has any, in standard deviations of a channel; samples then stay two steps, and
    half of a batch is new at each. 0: none."""

    reconstruction: bool = True
    """Selective wavelet reconstruction, in training and in inference."""
    reconstruct_input: bool = True
    """Reconstruct the image."""
    reconstruct_stages: bool = True
    """Reconstruct after every encoder stage but the bottleneck."""
    reconstruct_from_stage: int = 0
    """The first of these stages; 0 is the one of full resolution, where more than half of the cost
    is."""
    reconstruct_bottleneck: bool = False
    """Reconstruct after the last encoder stage."""
    wavelet: str = HAAR
    """Any orthogonal PyWavelets wavelet."""
    gains: str | tuple[float, ...] = (0.12, 0.12, 0.02)
    """"prior" for the measured Wiener gain, or constants: (directional, ..., diagonal), with one
    directional value for each transformed axis, or equal ones for any number of axes. The i-th is
    for the band that is high-pass along the i-th axis alone. Directional values above 1, up to 2,
    are experimental: they enhance directional structures."""
    learn_gates: bool = True
    """Learn per channel and band how far the gain is applied (a gate in [0, 1]). The convolution of
    `fusion` "conv" is learned in any case."""
    gate_init: float = 1.0
    """Gates at the start: 1 applies the gains in full, 0 is the identity (warm start)."""
    fusion: str = "mix"
    """Shallow fusion of x and its reconstruction: "mix" (the gate itself) or "conv" (1x1
    convolution of both)."""
    bottleneck_fusion: bool = False
    """Dynamic multi-scale fusion at the bottleneck."""

    prior_sigma: float | None = None
    """Noise amplitude that the prior assumes; None: the injected one (root mean square), or 0.5
    where there is none."""
    prior_momentum: float = 0.01
    """Weight of the newest step in the prior's running mean."""

    def __post_init__(self) -> None:
        for name in _SWITCHES:
            require(name, getattr(self, name), is_bool, "true or false")
        for name in ("noise_ramp_up", "noise_guided", "gate_init"):
            require(name, getattr(self, name), is_share, "a number in [0, 1]")
        for name in ("noise_sigma_input", "noise_sigma_stages"):
            require_size(name, getattr(self, name))
        require("noise_spectrum", self.noise_spectrum, SPECTRA.__contains__, _one_of(SPECTRA))
        largest = self.noise_max_stride
        require("noise_max_stride", largest, _is_stride, "a power of two (1, 2, 4, ...), or null")
        stage = self.reconstruct_from_stage
        require_count("reconstruct_from_stage", stage, "an integer >= 0", least=0, most=100)
        check_wavelet(self.wavelet)
        gains = (
            '"prior" or a list of 2 or more numbers, directional ones in [0, 2] and a last, '
            "diagonal one in [0, 1]"
        )
        require("gains", self.gains, _are_gains, gains)
        if not isinstance(self.gains, str):
            object.__setattr__(self, "gains", tuple(float(g) for g in self.gains))
        require("fusion", self.fusion, FUSIONS.__contains__, '"mix" or "conv"')
        require_size("prior_sigma", self.prior_sigma, positive=True, optional=True)
        require(
            "prior_momentum",
            self.prior_momentum,
            lambda v: is_share(v) and v > 0,
            "a number in (0, 1]",
        )

    @property
    def guides(self) -> bool:
        """Whether any noise is guided."""
        has_noise = self.noise and bool(self.noise_sigma_input or self.noise_sigma_stages)
        return has_noise and self.noise_guided > 0

    def band_gains(self, n_axes: int) -> tuple[float, ...] | None:
        """Constant gain per band of `n_axes` transformed axes, in the order of `subbands`.

        Returns
        -------
        tuple or None
            2**n_axes gains, the first (low band) 1; None where the gains are the prior's.

        Raises
        ------
        ValueError
            The number of directional values does not fit the number of axes.
        """
        if isinstance(self.gains, str):
            return None
        *directional, diagonal = self.gains
        if len(set(directional)) == 1:
            directional = [directional[0]] * n_axes
        if len(directional) != n_axes:
            raise ValueError(
                f"gains must have one directional value per transformed axis ({n_axes} here) and "
                f"one diagonal value, or equal directional values; got {self.gains}"
            )
        return tuple(_band_gain(name, directional, diagonal) for name in subbands(n_axes))


def _band_gain(band: str, directional: list[float], diagonal: float) -> float:
    high = [axis for axis, letter in enumerate(band) if letter == "H"]
    if not high:
        return 1.0
    return directional[high[0]] if len(high) == 1 else diagonal


def _is_stride(value: Any) -> bool:
    return value is None or (is_int(value) and value > 0 and value.bit_count() == 1)


def _one_of(names: tuple[str, ...]) -> str:
    return f"one of {', '.join(names)}"


def _are_gains(value: Any) -> bool:
    if isinstance(value, str):
        return value == "prior"
    if not isinstance(value, (list, tuple)) or len(value) < 2:
        return False
    *directional, diagonal = value
    return is_share(diagonal) and all(is_number(g) and 0 <= g <= 2 for g in directional)
