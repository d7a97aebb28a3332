"""Selective wavelet reconstruction: keep the low band, weigh the others, transform back (Lu et al., arXiv 2511.16162).

    y = iDWT(gain_b DWT_b(x)),   gain_low = 1,   gain_b = 1 - a_b (1 - g_b)

x is (N, C, *spatial). g_b is the frequency prior's Wiener gain, or a constant per kind of band; a_b in [0, 1] is
learned per channel and band: 0 leaves x as it is, 1 applies g_b in full. Since the transform is linear, the mix of x
and y with weight a is the same as the transform with these gains: the shallow fusion costs nothing extra.

a = SCALE * theta, clamped to [0, 1] with a straight-through gradient, which lives at both ends, unlike a sigmoid's;
:meth:`SelectiveWaveletReconstruction.project` puts theta back into its interval after an optimiser step. SCALE makes
a step in a SCALE**2 times the learning rate times the gradient; without it a did not move under nnU-Net's SGD.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunetv2_lngswr.method.wavelet import HAAR, apply_gains, check_wavelet, subbands

SCALE = 16.0  # a power of two: SCALE * (1 / SCALE) is exactly 1


class SelectiveWaveletReconstruction(nn.Module):
    """Learned, prior-guided gains on the high bands of one feature map.

    Parameters
    ----------
    channels: C of the feature map.
    axes: spatial axes to transform, 0 being the first after (N, C); axes of length 1 are left alone.
    wavelet: an orthogonal PyWavelets wavelet.
    fixed_gains: constant g_b, one per band in the order of `wavelet.subbands`, or None for the prior's gain.
    start: a at the start, 1 for training from scratch, 0 for the identity (warm start).
    learned: whether a is trained.

    Raises
    ------
    ValueError: unknown wavelet, `start` outside [0, 1], or a wrong number of gains.
    """

    def __init__(
        self,
        channels: int,
        axes: Sequence[int],
        *,
        wavelet: str = HAAR,
        fixed_gains: Sequence[float] | None = None,
        start: float = 1.0,
        learned: bool = True,
    ):
        super().__init__()
        if not 0.0 <= start <= 1.0:
            raise ValueError(f"start must lie in [0, 1], got {start}")
        self.axes, self.wavelet = tuple(axes), check_wavelet(wavelet)
        self.bands = subbands(len(self.axes))
        # a gain lies between g_b and 1
        self._least_gain = 0.0 if fixed_gains is None else min(1.0, *fixed_gains)
        if fixed_gains is not None:
            if len(fixed_gains) != len(self.bands):
                raise ValueError(
                    f"fixed_gains must have one value per band {self.bands}, got {tuple(fixed_gains)}"
                )
            fixed_gains = torch.tensor(fixed_gains, dtype=torch.float32)
        self.register_buffer("fixed_gains", fixed_gains, persistent=False)
        theta = torch.full((channels, len(self.bands) - 1), start / SCALE)
        if learned:
            self.theta = nn.Parameter(theta)
        else:
            self.register_buffer("theta", theta)

    def forward(
        self, x: Tensor, prior_gain: Tensor | None = None, *, in_place: bool = False
    ) -> Tensor:
        """x (N, C, *spatial) -> y of the same shape; `prior_gain` (C, B), needed unless the gains are fixed; `in_place`: x may be overwritten."""
        axes = tuple(a for a in self.axes if x.shape[2 + a] > 1)
        gains = self.gains(prior_gain)
        if axes != self.axes:  # an axis of length 1 has no high band
            lone = [i for i, a in enumerate(self.axes) if a not in axes]
            gains = gains[
                :, [b for b, name in enumerate(self.bands) if all(name[i] == "L" for i in lone)]
            ]
        return apply_gains(
            x, gains, axes, self.wavelet, least_gain=self._least_gain, in_place=in_place
        )

    def gains(self, prior_gain: Tensor | None = None) -> Tensor:
        """gain_b per channel and band, (C, B) in [0, 1], first column (the low band) 1."""
        g = prior_gain if self.fixed_gains is None else self.fixed_gains
        if g is None:
            raise ValueError("prior_gain is needed: this module has no fixed gains")
        a = self.theta * SCALE
        a = (
            a + (a.clamp(0.0, 1.0) - a).detach()
        )  # the gradient passes; clamp's own at its ends is 1 in torch 2.13, 0 in 2.15
        high = 1.0 - a * (1.0 - g[..., 1:])
        return torch.cat((torch.ones_like(high[:, :1]), high), dim=1)

    @torch.no_grad()
    def clamp_gates_(self) -> None:
        """Put theta back into [0, 1 / SCALE]: to be called after each optimiser step."""
        self.theta.clamp_(0.0, 1.0 / SCALE)

    def extra_repr(self) -> str:
        kind = (
            "prior"
            if self.fixed_gains is None
            else [round(g, 4) for g in self.fixed_gains.tolist()]
        )
        return f"axes={self.axes}, wavelet={self.wavelet!r}, g={kind}, learned={isinstance(self.theta, nn.Parameter)}"
