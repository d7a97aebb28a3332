"""attach(network, config): puts LNG-SWR into a U-Net; the only place that touches a backbone.

The parts live in one added submodule, ``encoder.lngswr``, and act through forward hooks: on the
encoder's input (the image) and on the output of each encoder stage. So every key of the backbone's
state dict stays what it was.

What is done to one feature map is in `branch`. Wavelet axes are those along which the feature map
is pooled next: strides[s + 1] for stage s, strides[1] for the image, the last stage's own strides
for the bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_lngswr.method.axes import reconstructs, wavelet_axes
from nnunetv2_lngswr.method.bands import subbands
from nnunetv2_lngswr.method.branch import Branch
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.guidance import Guidance
from nnunetv2_lngswr.method.scales import Scales, check_max_stride, scales_up_to

T = TypeVar("T")

NAME = "lngswr"
"""Of the submodule of the encoder, and so a part of the keys of the state dict."""


def attach(
    network: nn.Module,
    config: LNGSWRConfig,
    *,
    strides: Sequence[int | Sequence[int]] | None = None,
    features: Sequence[int] | None = None,
    patch_size: Sequence[int] | None = None,
) -> nn.Module:
    """Add LNG-SWR to `network`, in place, and return it.

    Parameters
    ----------
    network
        Anything with an ``encoder.stages`` whose stages return one tensor (N, C, *spatial), such as
        nnU-Net's PlainConvUNet and ResidualEncoderUNet, or a U-Net of your own.
    config
        The settings of the method.
    strides, features
        Per stage, what it pools by (a number or one per axis) and its channels; read from
        ``encoder.strides`` and ``encoder.output_channels`` when not given.
    patch_size
        Voxels per axis of what the network is trained on; needed with ``noise_max_stride``.

    Raises
    ------
    ValueError
        The network has no such encoder, or LNG-SWR already; ``noise_max_stride`` without a patch,
        or larger than it.
    """
    encoder, stages = _encoder_of(network)
    strides = getattr(encoder, "strides", None) if strides is None else strides
    features = getattr(encoder, "output_channels", None) if features is None else features
    strides = _one_for_each_stage("strides", strides, len(stages))
    features = _one_for_each_stage("features", features, len(stages))
    first = next((m for m in encoder.modules() if isinstance(m, _ConvNd)), None)
    if first is None:
        raise ValueError(
            "attach needs a convolution in the encoder to tell the image's channels; found none"
        )
    rank = len(first.kernel_size)
    per_axis = [(s,) * rank if isinstance(s, int) else tuple(s) for s in strides]

    lngswr = LNGSWR(features, per_axis, first.in_channels, config, patch_size=patch_size)
    encoder.add_module(NAME, lngswr.to(first.weight.device))
    encoder.register_forward_pre_hook(lngswr.image.before_encoder)
    _, *branches = (branch for _, branch in lngswr.branches())
    for stage, branch in zip(stages, branches):
        stage.register_forward_hook(branch.after_stage)
    _keep_buffers_per_rank(network)
    return network


def find_lngswr(network: nn.Module) -> LNGSWR | None:
    """The LNG-SWR parts of a network, be it wrapped by torch.compile or DDP; None: it has none."""
    return next((m for m in network.modules() if isinstance(m, LNGSWR)), None)


def is_backbone_key(key: str) -> bool:
    """Whether a key of the state dict belongs to the backbone rather than to LNG-SWR."""
    return NAME not in key.split(".")


class LNGSWR(nn.Module):
    """All branches of one encoder: `image` and `stages`, where the last one is the bottleneck.

    Parameters
    ----------
    features
        Channels of each stage's output.
    strides
        Of each stage, one number per spatial axis.
    image_channels
        Of the encoder's input.
    config
        The settings of the method.
    patch_size
        Voxels per axis; needed with ``noise_max_stride``.
    """

    def __init__(
        self,
        features: Sequence[int],
        strides: Sequence[Sequence[int]],
        image_channels: int,
        config: LNGSWRConfig,
        *,
        patch_size: Sequence[int] | None = None,
    ):
        super().__init__()
        self.config = config
        on_image, *on_stages = _noise_scales(config.noise_max_stride, strides, patch_size)
        rank = len(strides[0])
        of_image, *of_stages = wavelet_axes(strides)
        self.image = Branch(
            image_channels,
            of_image,
            rank,
            config,
            sigma=config.noise_sigma_input,
            reconstruct=config.reconstruction and config.reconstruct_input,
            scales=on_image,
            of_image=True,
        )
        last = len(features) - 1
        self.stages = nn.ModuleList(
            Branch(
                channels,
                of_stages[s],
                rank,
                config,
                sigma=config.noise_sigma_stages,
                reconstruct=reconstructs(config, s, last),
                fuse=config.bottleneck_fusion and s == last,
                scales=on_stages[s],
            )
            for s, channels in enumerate(features)
        )

    def branches(self) -> Iterator[tuple[str, Branch]]:
        """(name, branch) from the image to the bottleneck."""
        yield "input", self.image
        for s, branch in enumerate(self.stages):
            assert isinstance(branch, Branch)
            yield f"stage {s}", branch

    def seed_noise(self, seed_of_layer: Callable[[int], int]) -> None:
        """Restart all noise.

        Parameters
        ----------
        seed_of_layer
            Gives the seed, 63 bits, of layer 0 (the image), 1 (stage 0), ...; other seeds for other
            ranks and epochs give other noise.
        """
        for layer, (_, branch) in enumerate(self.branches()):
            if branch.noise is not None:
                branch.noise.seed(seed_of_layer(layer))

    def set_noise_strength(self, strength: float) -> None:
        """Scale the amplitudes of all noise, guided or not, by `strength` in [0, 1]."""
        for _, branch in self.branches():
            for part in (branch.noise, branch.guidance):
                if part is not None:
                    part.strength.fill_(strength)

    def guidance(self) -> list[Guidance]:
        """What guides the noise, from the image to the bottleneck; empty: it is random alone."""
        found = [branch.guidance for _, branch in self.branches()]
        return [guidance for guidance in found if guidance is not None]

    def commit_priors(self) -> None:
        """Join the ranks' statistics and update the priors: once per step, on every rank."""
        priors = [branch.prior for _, branch in self.branches() if branch.prior is not None]
        if priors and dist.is_available() and dist.is_initialized():
            sums = torch.cat([prior.pending for prior in priors])  # one message for all branches
            dist.all_reduce(sums)
            for prior, part in zip(priors, sums.split([prior.pending.numel() for prior in priors])):
                prior.pending.copy_(part)
        for prior in priors:
            prior.commit()

    def clamp_gates_(self) -> None:
        """Put all gates back into [0, 1]: to be called after each optimiser step."""
        for _, branch in self.branches():
            if branch.reconstruction is not None:
                branch.reconstruction.clamp_gates_()

    def gate_parameters(self) -> list[nn.Parameter]:
        """The learned gates, and gamma of the fusion: what weight decay must not pull on."""
        branches = [branch for _, branch in self.branches()]
        thetas = [b.reconstruction.theta for b in branches if b.reconstruction is not None]
        gammas = [b.fusion.gamma for b in branches if b.fusion is not None]
        return [p for p in (*thetas, *gammas) if isinstance(p, nn.Parameter)]

    @torch.no_grad()
    def state(self) -> dict[str, dict]:
        """{branch: {"bands": names, "prior": gain of each band, "gain": the applied one}}.

        Gains are averaged over the channels. A branch without reconstruction has no "gain", nor one
        whose convolution mixes what was reconstructed with what was not.
        """
        result = {}
        for name, branch in self.branches():
            if branch.prior is None:
                continue
            prior = branch.prior.gain()
            entry = {
                "bands": list(subbands(len(branch.prior.axes))),
                "prior": prior.mean(0).tolist(),
            }
            if branch.reconstruction is not None and branch.convolution is None:
                entry["gain"] = branch.reconstruction.gains(prior).mean(0).tolist()
            result[name] = entry
        return result


def _encoder_of(network: nn.Module) -> tuple[nn.Module, nn.Sequential | nn.ModuleList]:
    """The encoder and its stages, without LNG-SWR yet; else ValueError."""
    kind = type(network).__name__
    encoder = getattr(network, "encoder", None)
    stages = getattr(encoder, "stages", None)
    if encoder is None or not isinstance(stages, (nn.Sequential, nn.ModuleList)) or not len(stages):
        found = "no 'encoder'"
        if encoder is not None:
            found = f"an encoder without it: {type(encoder).__name__}"
        raise ValueError(
            "attach needs a network with an 'encoder' that holds its 'stages' in an nn.Sequential "
            f"or nn.ModuleList; {kind} has {found}"
        )
    if hasattr(encoder, NAME):
        raise ValueError(f"this {kind} has LNG-SWR attached already")
    return encoder, stages


def _one_for_each_stage(name: str, values: Sequence[T] | None, stages: int) -> Sequence[T]:
    if values is None or len(values) != stages:
        raise ValueError(
            f"attach needs {name}, one entry for each of the {stages} stages, got {values}"
        )
    return values


def _noise_scales(
    max_stride: int | None, strides: Sequence[Sequence[int]], patch_size: Sequence[int] | None
) -> list[Scales | None]:
    """Scales of the noise on the image and after every stage; None where nothing limits them."""
    if max_stride is None:
        return [None] * (1 + len(strides))
    if patch_size is None:
        raise ValueError(f"noise_max_stride needs a patch_size, got {max_stride} without one")
    check_max_stride(max_stride, patch_size)
    ratio, extent = [1] * len(patch_size), list(patch_size)
    scales: list[Scales | None] = [scales_up_to(max_stride, ratio, extent)]
    for stride in strides:
        ratio = [r * s for r, s in zip(ratio, stride)]
        extent = [-(-length // s) for length, s in zip(extent, stride)]
        scales.append(scales_up_to(max_stride, ratio, extent))
    return scales


def _keep_buffers_per_rank(network: nn.Module) -> None:
    """DDP copies rank 0's buffers before a forward, for which ranks wait: one that has no case to
    validate never comes. Ours are constants, or of sums over all ranks; what a rank has observed
    since the last commit is its own."""
    names = [
        name for name, _ in network.named_buffers(remove_duplicate=False) if NAME in name.split(".")
    ]
    # DDP looks names up below its own module, which may be torch.compile's wrapper
    names += [f"_orig_mod.{name}" for name in names]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, names)
