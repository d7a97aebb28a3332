"""attach(network, config): puts LNG-SWR into a U-Net; the only place that touches a backbone.

The parts live in one added submodule, ``encoder.lngswr``, and act through forward hooks: on the encoder's input (the
image) and on the output of each encoder stage. So every key of the backbone's state dict stays what it was.

Per branch, in this order: measure the prior (train mode), add the noise (train mode), reconstruct, fuse.
Wavelet axes are those along which the branch's output is pooled next: strides[s + 1] for stage s, strides[1] for the
image, the last stage's own strides for the bottleneck.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.fusion import DynamicMultiScaleFusion
from nnunetv2_lngswr.method.noise import LayerwiseNoise
from nnunetv2_lngswr.method.prior import FrequencyPrior
from nnunetv2_lngswr.method.reconstruction import SelectiveWaveletReconstruction
from nnunetv2_lngswr.method.wavelet import subbands

NAME = "lngswr"
PRIOR_SIGMA_WITHOUT_NOISE = 0.5


class Branch(nn.Module):
    """Noise, prior and reconstruction of one feature map (N, channels, *spatial)."""

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
    ):
        super().__init__()
        self.noise = None
        if config.noise and sigma > 0:
            self.noise = LayerwiseNoise(
                sigma,
                spectrum=config.noise_spectrum,
                random_amplitude=config.noise_random_amplitude,
            )
        self.prior = self.reconstruction = self.convolution = self.fusion = None
        reconstruct = reconstruct and bool(axes)
        if axes and (reconstruct or self.noise is not None):
            injected = (
                self.noise.nominal_sigma if self.noise is not None else PRIOR_SIGMA_WITHOUT_NOISE
            )
            self.prior = FrequencyPrior(
                channels,
                axes,
                sigma=injected if config.prior_sigma is None else config.prior_sigma,
                spectrum=config.noise_spectrum,
                wavelet=config.wavelet,
                momentum=config.prior_momentum,
            )
        if reconstruct:
            self.reconstruction = SelectiveWaveletReconstruction(
                channels,
                axes,
                wavelet=config.wavelet,
                fixed_gains=config.band_gains(len(axes)),
                start=1.0 if config.fusion == "conv" else config.start,
                learned=config.learned and config.fusion == "mix",
            )
            if config.fusion == "conv":
                self.convolution = _fusing_convolution(channels, spatial_rank, config.start)
        if fuse:
            self.fusion = DynamicMultiScaleFusion(channels, spatial_rank)

    def forward(self, x: Tensor, *, in_place: bool = False) -> Tensor:
        """`in_place`: x may be overwritten."""
        if self.training:
            sd = None if self.prior is None else self.prior.observe(x)
            if self.noise is not None:
                clean, x = x, self.noise(x, sd)
                in_place = (
                    x is not clean and not self.noise._forward_hooks
                )  # nobody else has seen it
        if self.reconstruction is not None:
            fixed = self.reconstruction.fixed_gains is not None
            in_place = in_place and self.convolution is None
            y = self.reconstruction(x, None if fixed else self.prior.gain(), in_place=in_place)
            x = y if self.convolution is None else self.convolution(torch.cat((x, y), dim=1))
        if self.fusion is not None:
            x = self.fusion(x)
        return x

    @torch.no_grad()
    def become_identity(self) -> None:
        """Set what is learned so that, in eval mode, the branch passes x through."""
        if self.convolution is not None:
            self.convolution.weight.copy_(_mixing_weight(self.convolution, 0.0))
        elif self.reconstruction is not None:
            self.reconstruction.theta.zero_()
        if self.fusion is not None:
            self.fusion.gamma.zero_()

    # bound methods, so that a deep copy of the network runs its own branches
    def before_encoder(self, encoder: nn.Module, args: tuple) -> tuple:
        return (self(args[0]), *args[1:])

    def after_stage(self, stage: nn.Module, args: tuple, output: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self(output)  # what a graph keeps of the stage stays as it is
        # nobody else has seen the output of a stage, unless hooks look at it, or the stage passed its input on
        watched = self._forward_hooks or self._forward_pre_hooks or len(stage._forward_hooks) > 1
        return self(output, in_place=not watched and output.data_ptr() != args[0].data_ptr())


class LNGSWR(nn.Module):
    """All branches of one encoder: ``image`` and ``stages``, where the last one is the bottleneck."""

    def __init__(
        self,
        features: Sequence[int],
        strides: Sequence[Sequence[int]],
        image_channels: int,
        config: LNGSWRConfig,
    ):
        super().__init__()
        self.config = config
        rank = len(strides[0])
        axes = [tuple(a for a, stride in enumerate(s) if stride > 1) for s in strides]
        self.image = Branch(
            image_channels,
            axes[min(1, len(axes) - 1)],
            rank,
            config,
            sigma=config.noise_sigma_input,
            reconstruct=config.reconstruction and config.reconstruct_input,
        )
        last = len(features) - 1
        self.stages = nn.ModuleList(
            Branch(
                channels,
                axes[min(s + 1, last)],
                rank,
                config,
                sigma=config.noise_sigma_stages,
                reconstruct=config.reconstruction
                and (
                    config.reconstruct_bottleneck
                    if s == last
                    else config.reconstruct_stages and s >= config.reconstruct_from_stage
                ),
                fuse=config.bottleneck_fusion and s == last,
            )
            for s, channels in enumerate(features)
        )

    def branches(self) -> Iterator[tuple[str, Branch]]:
        """(name, branch) from the image to the bottleneck."""
        yield "input", self.image
        for s, branch in enumerate(self.stages):
            yield f"stage {s}", branch

    def seed_noise(self, *keys: int) -> None:
        """Restart all noise from `keys`, say (seed, epoch, rank)."""
        for layer, (_, branch) in enumerate(self.branches()):
            if branch.noise is not None:
                branch.noise.seed(*keys, layer)

    def set_noise_strength(self, strength: float) -> None:
        """Scale the amplitudes of all noise by `strength` in [0, 1]."""
        for _, branch in self.branches():
            if branch.noise is not None:
                branch.noise.strength.fill_(strength)

    def commit_priors(self) -> None:
        """To be called once per training step, on every rank: joins the ranks' statistics, updates the priors."""
        priors = [branch.prior for _, branch in self.branches() if branch.prior is not None]
        if priors and dist.is_available() and dist.is_initialized():
            sums = torch.cat([prior.pending for prior in priors])  # one message for all branches
            dist.all_reduce(sums)
            for prior, part in zip(priors, sums.split([prior.pending.numel() for prior in priors])):
                prior.pending.copy_(part)
        for prior in priors:
            prior.commit()

    def clamp_gates_(self) -> None:
        """To be called after each optimiser step: keeps the learned parts inside their intervals."""
        for _, branch in self.branches():
            if branch.reconstruction is not None:
                branch.reconstruction.clamp_gates_()

    def gates(self) -> list[nn.Parameter]:
        """The learned parts that weight decay must not pull on."""
        learned = (
            b.reconstruction.theta for _, b in self.branches() if b.reconstruction is not None
        )
        gammas = (b.fusion.gamma for _, b in self.branches() if b.fusion is not None)
        return [p for p in (*learned, *gammas) if isinstance(p, nn.Parameter)]

    @torch.no_grad()
    def state(self) -> dict[str, dict]:
        """Per branch: its bands, and the prior gain and the applied gain of each band, averaged over the channels."""
        result = {}
        for name, branch in self.branches():
            if branch.prior is None:
                continue
            prior = branch.prior.gain()
            entry = {
                "bands": list(subbands(len(branch.prior.axes))),
                "prior": prior.mean(0).tolist(),
            }
            if branch.reconstruction is not None:
                entry["gain"] = branch.reconstruction.gains(prior).mean(0).tolist()
            result[name] = entry
        return result


def attach(
    network: nn.Module,
    config: LNGSWRConfig,
    *,
    strides: Sequence[Sequence[int]] | None = None,
    features: Sequence[int] | None = None,
) -> nn.Module:
    """Add LNG-SWR to `network`, in place, and return it.

    Parameters
    ----------
    network: anything with an ``encoder.stages`` whose stages return one tensor (N, C, *spatial), such as nnU-Net's
        PlainConvUNet and ResidualEncoderUNet.
    strides, features: per stage; read from ``encoder.strides`` and ``encoder.output_channels`` when not given.

    Raises
    ------
    ValueError: the network has no such encoder, or LNG-SWR already.
    """
    encoder = getattr(network, "encoder", None)
    stages = getattr(encoder, "stages", None)
    if not isinstance(stages, (nn.Sequential, nn.ModuleList)) or len(stages) == 0:
        raise ValueError(
            f"attach needs a network with an 'encoder' that holds its 'stages' in an nn.Sequential or nn.ModuleList; "
            f"{type(network).__name__} has "
            + (
                "no 'encoder'"
                if encoder is None
                else f"an encoder without it: {type(encoder).__name__}"
            )
        )
    if hasattr(encoder, NAME):
        raise ValueError(f"this {type(network).__name__} has LNG-SWR attached already")
    strides = getattr(encoder, "strides", None) if strides is None else strides
    features = getattr(encoder, "output_channels", None) if features is None else features
    for name, value in (("strides", strides), ("features", features)):
        if value is None or len(value) != len(stages):
            raise ValueError(
                f"attach needs {name}, one entry for each of the {len(stages)} stages, got {value}"
            )
    first = next((m for m in encoder.modules() if isinstance(m, _ConvNd)), None)
    if first is None:
        raise ValueError(
            "attach needs a convolution in the encoder to tell the image's channels; found none"
        )
    rank = len(first.kernel_size)
    strides = [(s,) * rank if isinstance(s, int) else tuple(s) for s in strides]

    lngswr = LNGSWR(features, strides, first.in_channels, config)
    encoder.add_module(NAME, lngswr)
    encoder.register_forward_pre_hook(lngswr.image.before_encoder)
    for stage, branch in zip(stages, lngswr.stages):
        stage.register_forward_hook(branch.after_stage)
    _keep_statistics_per_rank(network)
    return network


def find_lngswr(network: nn.Module) -> LNGSWR | None:
    """The LNG-SWR parts of a network, be it wrapped by torch.compile or DDP; None if there are none."""
    return next((m for m in network.modules() if isinstance(m, LNGSWR)), None)


def is_backbone_key(key: str) -> bool:
    """Whether a key of the state dict belongs to the backbone rather than to LNG-SWR."""
    return NAME not in key.split(".")


def _fusing_convolution(channels: int, rank: int, start: float) -> nn.Module:
    """1x1 convolution of [x, y] that starts as (1 - start) x + start y."""
    with torch.random.fork_rng(
        devices=[]
    ):  # its random initialisation is overwritten: do not disturb the seed
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank](2 * channels, channels, 1, bias=False)
    with torch.no_grad():
        convolution.weight.copy_(_mixing_weight(convolution, start))
    return convolution


def _mixing_weight(convolution: nn.Module, start: float) -> Tensor:
    eye = torch.eye(convolution.out_channels)
    return torch.cat(((1 - start) * eye, start * eye), dim=1).view_as(convolution.weight)


def _keep_statistics_per_rank(network: nn.Module) -> None:
    """DDP copies rank 0's buffers before each forward; what a rank has observed since the last commit is its own."""
    names = [
        name
        for name, _ in network.named_buffers(remove_duplicate=False)
        if name.endswith("prior.pending")
    ]
    # DDP looks names up below its own module, which may be torch.compile's wrapper
    names += [f"_orig_mod.{name}" for name in names]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, names)
