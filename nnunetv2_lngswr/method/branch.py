"""What LNG-SWR does to one feature map: the image, or what an encoder stage gives.

In this order: measure the prior, add the noise, guide it (all in train mode), reconstruct, fuse.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.fusion import DynamicMultiScaleFusion
from nnunetv2_lngswr.method.guidance import Guidance
from nnunetv2_lngswr.method.noise import LayerwiseNoise, channel_sd
from nnunetv2_lngswr.method.prior import FrequencyPrior
from nnunetv2_lngswr.method.reconstruction import SelectiveWaveletReconstruction
from nnunetv2_lngswr.method.scales import Scales

PRIOR_SIGMA_WITHOUT_NOISE = 0.5
"""Standard deviations of a channel."""


class Branch(nn.Module):
    """Noise, prior and reconstruction of one feature map (N, channels, *spatial).

    Parameters
    ----------
    channels
        C of the feature map.
    axes
        Spatial axes to transform, 0 being the first; none: no prior and no reconstruction.
    spatial_rank
        2 or 3.
    config
        The settings of the method.
    sigma
        Largest amplitude of the noise, in standard deviations of a channel.
    reconstruct
        Whether to reconstruct.
    fuse
        Whether to add the dynamic multi-scale fusion.
    scales
        Of the noise, as `scales.py` gives them; None: the noise's own.
    of_image
        Whether it gets the image.
    """

    def __init__(
        self,
        channels: int,
        axes: tuple[int, ...],
        spatial_rank: int,
        config: LNGSWRConfig,
        *,
        sigma: float,
        reconstruct: bool,
        fuse: bool = False,
        scales: Scales | None = None,
        of_image: bool = False,
    ):
        super().__init__()
        self.noise = self.prior = self.reconstruction = self.convolution = self.fusion = None
        self.guidance = None
        grid = {"scales": scales, "random_grid": config.noise_random_grid}
        injected_sigma = PRIOR_SIGMA_WITHOUT_NOISE
        if config.noise and sigma > 0:
            self.noise = LayerwiseNoise(
                sigma,
                spectrum=config.noise_spectrum,
                random_amplitude=config.noise_random_amplitude,
                **grid,
            )
            injected_sigma = self.noise.nominal_sigma
            if config.noise_guided:
                self.guidance = Guidance(config.noise_guided)
        if axes and (reconstruct or self.noise is not None):
            self.prior = FrequencyPrior(
                channels,
                axes,
                sigma=injected_sigma if config.prior_sigma is None else config.prior_sigma,
                spectrum=config.noise_spectrum,
                wavelet=config.wavelet,
                momentum=config.prior_momentum,
                of_image=of_image,
                **grid,
            )
        if axes and reconstruct:
            by_convolution = config.fusion == "conv"
            self.reconstruction = SelectiveWaveletReconstruction(
                channels,
                axes,
                wavelet=config.wavelet,
                fixed_gains=config.band_gains(len(axes)),
                gate_init=1.0 if by_convolution else config.gate_init,
                learn_gates=config.learn_gates and not by_convolution,
            )
            if by_convolution:
                self.convolution = _fusing_convolution(channels, spatial_rank, config.gate_init)
        if fuse:
            with torch.random.fork_rng(devices=[]):  # a seed's training data stay the same
                self.fusion = DynamicMultiScaleFusion(channels, spatial_rank)

    def forward(self, x: Tensor, *, in_place: bool = False) -> Tensor:
        """x (N, C, *spatial) -> the same shape. `in_place`: x may be overwritten."""
        if self.training:
            sd = None if self.prior is None else self.prior.observe(x)
            if self.guidance is not None and sd is None:
                sd = channel_sd(x)
            if self.noise is not None:
                clean, x = x, self.noise(x, sd)
                # nobody else has seen it
                in_place = x is not clean and not self.noise._forward_hooks
            if self.guidance is not None:
                assert sd is not None
                x = self.guidance(x, sd)
        if self.reconstruction is not None:
            in_place = in_place and self.convolution is None
            y = self.reconstruction(x, self._prior_gain(), in_place=in_place)
            x = y if self.convolution is None else self.convolution(torch.cat((x, y), dim=1))
        if self.fusion is not None:
            x = self.fusion(x)
        return x

    def _prior_gain(self) -> Tensor | None:
        """What the reconstruction needs of the prior: nothing where its gains are constants."""
        assert self.reconstruction is not None and self.prior is not None
        return self.prior.gain() if self.reconstruction.fixed_gains is None else None

    @property
    def leaves_identity(self) -> bool:
        """Whether training takes the reconstruction away from the identity; true without one."""
        if self.reconstruction is None or self.convolution is not None:
            return True
        return isinstance(self.reconstruction.theta, nn.Parameter)

    @torch.no_grad()
    def become_identity(self) -> None:
        """Set what is learned such that, in eval mode, the branch passes x through."""
        if self.convolution is not None:
            self.convolution.weight.copy_(_mixing_weight(self.convolution, 0.0))
        elif self.reconstruction is not None:
            self.reconstruction.theta.zero_()
        if self.fusion is not None:
            self.fusion.gamma.zero_()

    # bound methods, so that a deep copy of the network runs its own branches
    def before_encoder(self, encoder: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Forward pre-hook of the encoder, for the image's branch."""
        return (self(args[0]), *args[1:])

    def after_stage(self, stage: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Forward hook of a stage, for its branch."""
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self(output)  # what a graph keeps of the stage stays as it is
        # nobody else has seen the output of a stage, unless hooks look at it, or it is a part of
        # something that others may have: of the stage's input, or of a larger tensor
        watched = self._forward_hooks or self._forward_pre_hooks or len(stage._forward_hooks) > 1
        return self(output, in_place=not watched and _is_its_own(output, args))


def _is_its_own(output: Tensor, inputs: tuple[Any, ...]) -> bool:
    """Whether the output fills its memory alone, and shares none with the inputs.

    Storages are compared: a view that begins elsewhere has another `data_ptr`.
    """
    storage = output.untyped_storage()
    if storage.nbytes() != output.numel() * output.element_size():
        return False
    given = [x.untyped_storage().data_ptr() for x in inputs if isinstance(x, Tensor)]
    return storage.data_ptr() not in given


def _fusing_convolution(channels: int, rank: int, gate: float) -> nn.Conv2d | nn.Conv3d:
    """1x1 convolution of [x, y] that starts as (1 - gate) x + gate y."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
    # its random initialisation is overwritten: do not disturb the seed
    with torch.random.fork_rng(devices=[]):
        convolution = kind(2 * channels, channels, 1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(_mixing_weight(convolution, gate))
    return convolution


def _mixing_weight(convolution: nn.Conv2d | nn.Conv3d, gate: float) -> Tensor:
    eye = torch.eye(convolution.out_channels)
    return torch.cat(((1 - gate) * eye, gate * eye), dim=1).view_as(convolution.weight)
