"""The frequency-bias prior: what the layer-wise noise does to each sub-band of a stage.

Per channel and band, E is the running mean of the energy per coefficient of the stage's input
before the stage's own noise, and N = sigma^2 sd^2 e_b the energy of the noise there, in closed form
(`noise.noise_band_energy` gives e_b). The prior gain is Wiener's E / (E + N): near 1 where the
signal outweighs the noise, near 0 where noise rules. Before the first update it is 1.

Statistics are gathered by `FrequencyPrior.observe` in the forward pass of a training, from a
quarter of large feature maps, and enter the running mean at `FrequencyPrior.commit`, once per
training step, after the ranks of a distributed run have summed ``pending``
(`network.LNGSWR.commit_priors`): the mean is that of the joined batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nnunetv2_lngswr.method.bands import HAAR, subbands
from nnunetv2_lngswr.method.noise import channel_sd, noise_band_energy
from nnunetv2_lngswr.method.scales import Scales
from nnunetv2_lngswr.method.wavelet import band_energy, transformable_axes

ENOUGH = 2**14
"""Values per channel from which on a quarter of them is looked at."""
_CANCELS = 1e-4
"""Variance over mean square, below which a difference of fp32 sums is rounding."""


class FrequencyPrior(nn.Module):
    """Running band energies of one stage and the Wiener gain they imply.

    The buffers ``energy`` (C, B), ``variance`` (C,) and ``steps`` travel in the checkpoint.

    Parameters
    ----------
    channels
        C of the stage's feature map (N, C, *spatial).
    axes
        Spatial axes that are transformed.
    sigma
        Nominal amplitude of the noise, in standard deviations of the channel.
    spectrum, wavelet
        Of the noise and of the transform.
    momentum
        Weight of the newest step in the running mean (the first steps average evenly).
    scales, random_grid
        Of the noise, along all spatial axes (see `noise.LayerwiseNoise`).
    of_image
        Whether x are intensities. Raw ones may lie so far from 0 that their variance is lost in the
        mean square: it is taken in two passes there, which features do not need.
    """

    unit_energy: Tensor
    energy: Tensor
    variance: Tensor
    steps: Tensor
    pending: Tensor

    def __init__(
        self,
        channels: int,
        axes: tuple[int, ...],
        *,
        sigma: float,
        spectrum: str,
        wavelet: str,
        momentum: float = 0.01,
        scales: Scales | None = None,
        random_grid: bool = False,
        of_image: bool = False,
    ):
        super().__init__()
        self.of_image = of_image
        self.axes, self.wavelet, self.sigma, self.momentum = axes, wavelet, float(sigma), momentum
        n_bands = len(subbands(len(axes)))
        if scales is not None:
            scales = tuple(tuple(scale[axis] for axis in axes) for scale in scales)
        unit_energy = noise_band_energy(
            spectrum, wavelet, len(axes), scales=scales, random_grid=random_grid
        )
        unit_energy = torch.tensor(unit_energy, dtype=torch.float32)
        self.register_buffer("unit_energy", unit_energy, persistent=False)  # (B,)
        self.register_buffer("energy", torch.zeros(channels, n_bands))
        self.register_buffer("variance", torch.zeros(channels))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        # sums over the samples seen since the last commit: band energies, channel means, mean
        # squares, of an image the variances, and the number of samples
        per_channel = n_bands + 2 + of_image
        self.register_buffer("pending", torch.zeros(channels * per_channel + 1), persistent=False)

    @torch.no_grad()
    def observe(self, x: Tensor) -> Tensor:
        """Gather the statistics of x.

        The transform is orthonormal: the mean of the band energies is the mean square, the low band
        holds the mean. With Haar, of more than `ENOUGH` values per channel every fourth pair of
        rows along the first axis is looked at: looking at all cost a third of the noise.

        Parameters
        ----------
        x
            (N, C, *spatial).

        Returns
        -------
        (C,): the channels' standard deviation, a by-product
        """
        # the taps of longer wavelets would lie across the seams
        x = _thinned(x.detach()) if self.wavelet == HAAR else x.detach()
        axes = transformable_axes(x.shape, self.axes)
        energy = band_energy(x, axes, self.wavelet)
        mean_square = energy.mean(1)
        mean = x.mean((0, *range(2, x.ndim)), dtype=energy.dtype)
        if axes != self.axes:
            # an axis of length 1 has no high band: its energy is all in the low one
            energy = self._spread(energy, axes)
        moments = [mean, mean_square]
        if self.of_image:
            moments.append(channel_sd(x).square())
        n = x.shape[0]
        self.pending += n * torch.cat((energy.flatten(), *moments, mean.new_ones(1)))
        return _variance(*moments).sqrt()

    @torch.no_grad()
    def commit(self) -> None:
        """Move what was observed since the last call into the running means.

        Changes nothing if nothing was observed, or something that is not finite, as where fp16
        overflows and the gradient scaler skips the step. Never waits for the device.
        """
        finite = self.pending.isfinite().all()
        n = torch.where(finite, self.pending[-1], 0.0)
        channels = len(self.variance)
        means = torch.where(finite, self.pending[:-1], 0.0) / n.clamp_min(1)
        energy, *moments = means.split((self.energy.numel(), *[channels] * (2 + self.of_image)))
        variance = _variance(*moments)
        weight = (1.0 / (self.steps + 1)).clamp_min(self.momentum) * (n > 0)
        self.energy.lerp_(energy.view_as(self.energy), weight)
        self.variance.lerp_(variance, weight)
        self.steps += n > 0
        self.pending.zero_()

    @torch.no_grad()
    def gain(self) -> Tensor:
        """Wiener gain E / (E + N), (C, B) in [0, 1].

        1 before the first update and where there is no noise.
        """
        noise = self.sigma**2 * self.variance.unsqueeze(1) * self.unit_energy
        total = self.energy + noise
        return torch.where(
            (self.steps > 0) & (total > 0), self.energy / total.clamp_min(1e-30), 1.0
        )

    def _spread(self, energy: Tensor, axes: tuple[int, ...]) -> Tensor:
        """Energies of the bands along `axes` as those along all axes."""
        full = energy.new_zeros(energy.shape[0], self.energy.shape[1])
        names = subbands(len(self.axes))
        for column, name in enumerate(subbands(len(axes))):
            letters = dict(zip(axes, name))
            band = names.index("".join(letters.get(a, "L") for a in self.axes))
            full[:, band] = energy[:, column]
        return full

    def extra_repr(self) -> str:
        return (
            f"axes={self.axes}, sigma={self.sigma:.3g}, wavelet={self.wavelet!r}, "
            f"momentum={self.momentum}"
        )


def _variance(mean: Tensor, mean_square: Tensor, two_pass: Tensor | None = None) -> Tensor:
    """That of the joined batch; where it cancels the mean of its parts', if that is given."""
    variance = (mean_square - mean.square()).clamp_min(0)
    if two_pass is None:
        return variance
    return torch.where(variance < _CANCELS * mean_square, two_pass, variance)


def _thinned(x: Tensor) -> Tensor:
    """Every fourth pair of rows along the first spatial axis, where x (N, C, *spatial) holds
    enough; Haar's blocks stay whole."""
    if x[:, 0].numel() <= ENOUGH or x.shape[2] < 16:
        return x
    whole = x.shape[2] // 8 * 8
    return x.narrow(2, 0, whole).unflatten(2, (-1, 4, 2))[:, :, :, 1].flatten(2, 3)
