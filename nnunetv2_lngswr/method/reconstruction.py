"""Selective wavelet reconstruction (arXiv 2511.16162): keep the low band, weigh the others.

    y = iDWT(gain_b DWT_b(x)),   gain_low = 1,   gain_b = 1 - gate_b (1 - g_b)

x is (N, C, *spatial). g_b is the frequency prior's Wiener gain, or a constant per kind of band;
gate_b in [0, 1] is learned per channel and band: 0 leaves x as it is, 1 applies g_b in full. Since
the transform is linear, the mix of x and y with weight gate_b is the same as the transform with
these gains: the shallow fusion costs nothing extra.

gate = SCALE * theta, clamped to [0, 1] with a straight-through gradient, which lives at both ends,
unlike a sigmoid's; `SelectiveWaveletReconstruction.clamp_gates_` puts theta back into its interval
after an optimiser step. SCALE makes a step in the gate SCALE**2 times the learning rate times the
gradient; without it gates did not move under nnU-Net's SGD.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunetv2_lngswr.method.bands import HAAR, check_wavelet, subbands
from nnunetv2_lngswr.method.wavelet import apply_gains, transformable_axes

SCALE = 16.0  # a power of two: SCALE * (1 / SCALE) is exactly 1


class SelectiveWaveletReconstruction(nn.Module):
    """Learned, prior-guided gains on the high bands of one feature map.

    Parameters
    ----------
    channels
        C of the feature map.
    axes
        Spatial axes to transform, 0 being the first after (N, C); axes of length 1 are left alone.
    wavelet
        An orthogonal PyWavelets wavelet.
    fixed_gains
        Constant g_b, one per band in the order of `bands.subbands`, or None for the prior's gain.
    gate_init
        Gates at the start, 1 for training from scratch, 0 for the identity (warm start).
    learn_gates
        Whether the gates are trained.

    Raises
    ------
    ValueError
        Unknown wavelet, `gate_init` outside [0, 1], or a wrong number of gains.
    """

    fixed_gains: Tensor | None
    theta: Tensor

    def __init__(
        self,
        channels: int,
        axes: Sequence[int],
        *,
        wavelet: str = HAAR,
        fixed_gains: Sequence[float] | None = None,
        gate_init: float = 1.0,
        learn_gates: bool = True,
    ):
        super().__init__()
        if not 0.0 <= gate_init <= 1.0:
            raise ValueError(f"gate_init must lie in [0, 1], got {gate_init}")
        self.axes, self.wavelet = tuple(axes), check_wavelet(wavelet)
        self.bands = subbands(len(self.axes))
        if fixed_gains is not None and len(fixed_gains) != len(self.bands):
            raise ValueError(
                f"fixed_gains must have one value per band {self.bands}, got {tuple(fixed_gains)}"
            )
        # a gain lies between g_b and 1
        self._least_gain = 0.0 if fixed_gains is None else min(1.0, *fixed_gains)
        constants = None if fixed_gains is None else torch.tensor(fixed_gains, dtype=torch.float32)
        self.register_buffer("fixed_gains", constants, persistent=False)
        # "theta" is a key of the state dict, which is a file format: checkpoints keep the name
        theta = torch.full((channels, len(self.bands) - 1), gate_init / SCALE)
        if learn_gates:
            self.theta = nn.Parameter(theta)
        else:
            self.register_buffer("theta", theta)

    def forward(
        self, x: Tensor, prior_gain: Tensor | None = None, *, in_place: bool = False
    ) -> Tensor:
        """Reconstruct x.

        Parameters
        ----------
        x
            (N, C, *spatial).
        prior_gain
            (C, B), needed unless the gains are fixed.
        in_place
            x may be overwritten.

        Returns
        -------
        (N, C, *spatial)
        """
        axes = transformable_axes(x.shape, self.axes)
        gains = self.gains(prior_gain)
        if axes != self.axes:  # an axis of length 1 has no high band
            lone = [i for i, a in enumerate(self.axes) if a not in axes]
            present = [b for b, name in enumerate(self.bands) if all(name[i] == "L" for i in lone)]
            gains = gains[:, present]
        return apply_gains(
            x, gains, axes, self.wavelet, least_gain=self._least_gain, in_place=in_place
        )

    def gate(self) -> Tensor:
        """How far the gain is applied, per channel and high band: (C, B - 1) in [0, 1]."""
        gate = self.theta * SCALE
        # the gradient passes; clamp's own at its ends is 1 in torch 2.13, 0 in 2.15
        return gate + (gate.clamp(0.0, 1.0) - gate).detach()

    def gains(self, prior_gain: Tensor | None = None) -> Tensor:
        """gain_b per channel and band, (C, B) between 1 and g_b, first column (the low band) 1."""
        g = prior_gain if self.fixed_gains is None else self.fixed_gains
        if g is None:
            raise ValueError("prior_gain is needed: this module has no fixed gains")
        high = 1.0 - self.gate() * (1.0 - g[..., 1:])
        return torch.cat((torch.ones_like(high[:, :1]), high), dim=1)

    @torch.no_grad()
    def clamp_gates_(self) -> None:
        """Put the gates back into [0, 1]: to be called after each optimiser step."""
        self.theta.clamp_(0.0, 1.0 / SCALE)

    def extra_repr(self) -> str:
        kind = "prior"
        if self.fixed_gains is not None:
            kind = [round(g, 4) for g in self.fixed_gains.tolist()]
        learned = isinstance(self.theta, nn.Parameter)
        return f"axes={self.axes}, wavelet={self.wavelet!r}, g={kind}, learn_gates={learned}"
