"""What attacks need of a model: logits, gradients at the input, and bottleneck features.

The protocols are implemented by `BatchModel`, a plain network (adversarial training), and by
`evaluation.model.sliding_window.SlidingWindow`, what nnU-Net deploys. Everything carries a batch
axis: x is (B, C, *spatial), logits are (B, K, *spatial), losses are (B,), one value per case, and
the gradient is that of their sum, so each case is attacked on its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import torch
from torch import nn

from nnunetv2_lngswr.attacks.losses import LogitLoss, per_case
from nnunetv2_lngswr.utils.errors import UserError

# a window of zeros multiplies a gradient by up to 1/sqrt(eps) = 316 at each instance norm; in finer
# steps than these the digits do not become more
_LARGER_SCALES = (2.0**4, 2.0**8, 2.0**12, 2.0**16)

FeatureLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(window indices (n,), bottleneck features (n, F, *low)) -> (n,)"""


class DifferentiableModel(Protocol):
    """What every attack needs."""

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, K, *spatial), without a graph."""
        ...

    def value_and_gradient(
        self, x: torch.Tensor, loss: LogitLoss
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(loss (B,), its gradient at x (B, C, *spatial), logits (B, K, *spatial)), detached."""
        ...


class FeatureModel(DifferentiableModel, Protocol):
    """What `ssah` needs besides: the encoder's bottleneck, window by window.

    A plain batch is one window per case.
    """

    def window_count(self, x: torch.Tensor) -> int:
        """Windows in x over all its cases."""
        ...

    def window_cases(self, x: torch.Tensor) -> torch.Tensor:
        """(windows,) index of the case that each window belongs to."""
        ...

    def crop_windows(self, volume: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """The windows' part of a volume (B, A, *spatial): (n, A, *patch), padding filled with 0."""
        ...

    def features(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(window indices (n,), bottleneck features (n, F, *low)) without a graph."""
        ...

    def feature_value_and_gradient(
        self, x: torch.Tensor, loss: FeatureLoss
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(mean of the loss over each case's windows (B,), gradient of the sum of the means)."""
        ...


class BatchModel:
    """A plain network on batches that fit its input: x (B, C, *spatial) -> logits (B, K, *spatial).

    The network is evaluated in eval mode with frozen parameters; mode, requires_grad and deep
    supervision come back as they were.

    Parameters
    ----------
    network
        Any module; feature attacks need its `.encoder`.
    autocast
        The type of mixed precision, None for that of x. Losses are computed, and gradients
        returned, in that of x.
    """

    def __init__(self, network: nn.Module, *, autocast: torch.dtype | None = None) -> None:
        self.network, self.autocast = network, autocast

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        with frozen([self.network]), torch.no_grad():
            return self._forward(x)

    def value_and_gradient(
        self, x: torch.Tensor, loss: LogitLoss
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with frozen([self.network]), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            z = self._forward(leaf)
            value = per_case(loss(z))
            if self.autocast is None:
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            else:
                (cotangent,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
                gradient = scaled_gradient(z, leaf, cotangent)
        return value.detach(), gradient, z.detach()

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.autocast is None:
            return self.network(x)
        with torch.autocast(x.device.type, dtype=self.autocast):
            return self.network(x).to(x.dtype)

    def window_count(self, x: torch.Tensor) -> int:
        return len(x)

    def window_cases(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(len(x), device=x.device)

    def crop_windows(self, volume: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        return volume[windows.to(volume.device)]

    def features(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        with frozen([self.network]), torch.no_grad():
            yield self.window_cases(x), bottleneck(self.network, x)

    def feature_value_and_gradient(
        self, x: torch.Tensor, loss: FeatureLoss
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with frozen([self.network]), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            value = loss(self.window_cases(x), bottleneck(self.network, leaf))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient


def loss_and_cotangent(loss: LogitLoss, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss of logits (B, K, *spatial), (B,), and the gradient of its sum at them, detached."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        value = per_case(loss(leaf))
        (cotangent,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), cotangent


def scaled_gradient(out: torch.Tensor, leaf: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """d<cotangent, out>/d leaf through a graph in fp16.

    Taken at a scale at which the largest cotangent of each row of the batch is 1, since those of a
    mean over voxels lose their digits there, or vanish. What overflows is taken again at smaller
    scales, and is returned as it is where it overflows at all of them. Rows are independent, as in
    eval mode.
    """
    largest = cotangent.abs().amax(dim=tuple(range(1, cotangent.ndim)), keepdim=True)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)

    def taken_at(scale: torch.Tensor) -> torch.Tensor:
        scaled = (cotangent / scale).to(out)
        return torch.autograd.grad(out, leaf, scaled, retain_graph=True)[0] * scale

    gradient = taken_at(scale)
    for larger in _LARGER_SCALES:
        finite = gradient.isfinite()
        if finite.all():
            break
        gradient = torch.where(finite, gradient, taken_at(scale * larger))
    return gradient


@contextmanager
def frozen(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Within it, networks are in eval mode, without gradients of parameters or deep supervision.

    All of it is restored afterwards, and the global random state with it. Works inside
    torch.inference_mode, which is left for the duration.
    """
    networks = list(networks)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        devices = {p.device for n in networks for p in n.parameters() if p.device.type == "cuda"}
        stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        for network in networks:
            stack.enter_context(_frozen(network))
        yield


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    modes = [(m, m.training) for m in network.modules()]
    trainable = [(p, p.requires_grad) for p in network.parameters()]
    decoder = getattr(network, "decoder", None)
    supervised = getattr(decoder, "deep_supervision", False)
    try:
        network.eval()
        for p, _ in trainable:
            p.requires_grad_(False)
        if decoder is not None and supervised:
            decoder.deep_supervision = False
        yield
    finally:
        for m, mode in modes:
            m.training = mode
        for p, flag in trainable:
            p.requires_grad_(flag)
        if decoder is not None and supervised:
            decoder.deep_supervision = supervised


def bottleneck(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Lowest-resolution output of `network.encoder`, (B, F, *low).

    Raises
    ------
    UserError
        The network has no encoder.
    """
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise UserError(
            "feature attacks need a network with an .encoder (nnU-Net's U-Nets have one), "
            f"got {type(network).__name__}"
        )
    skips = encoder(x)
    return skips if isinstance(skips, torch.Tensor) else skips[-1]
