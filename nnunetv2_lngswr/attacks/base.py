"""The machinery that every attack shares: the model protocol, projection, steps, the best iterate and the result.

Everything carries a batch axis: x is (B, C, *spatial), logits are (B, K, *spatial), losses are (B,), one value per case, and the gradient
is that of their sum, so each case is attacked on its own. The model is anything that implements `DifferentiableModel`:
`BatchModel` for a plain network (adversarial training), `evaluation.model.sliding_window.SlidingWindow` for what nnU-Net deploys.
Projection lives here and nowhere else: onto the ball of the threat model, then into [min, max] of the clean channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from nnunetv2_lngswr.attacks.losses import SegmentationTarget, foreground_dice
from nnunetv2_lngswr.attacks.threat_model import Ball, Bounds, Norm
from nnunetv2_lngswr.utils.errors import UserError

LogitLoss = Callable[[torch.Tensor], torch.Tensor]  # logits (B, K, *spatial) -> (B,)


class DifferentiableModel(Protocol):
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, K, *spatial), without a graph."""

    def value_and_gradient(
        self, x: torch.Tensor, loss: LogitLoss
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(loss (B,), its gradient with respect to x (B, C, *spatial), logits (B, K, *spatial)), all detached."""


class FeatureModel(DifferentiableModel, Protocol):
    """What `ssah` needs besides: the encoder's bottleneck, window by window (a plain batch is one window per case)."""

    def window_count(self, x: torch.Tensor) -> int:
        """Windows in x over all its cases."""

    def window_cases(self, x: torch.Tensor) -> torch.Tensor:
        """(windows,) index of the case that each window belongs to."""

    def crop_windows(self, volume: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """The windows' part of a volume (B, A, *spatial): (n, A, *patch), padding filled with 0."""

    def features(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(window indices (n,), bottleneck features (n, F, *low)) without a graph."""

    def feature_value_and_gradient(
        self, x: torch.Tensor, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`loss(windows (n,), features (n, F, *low)) -> (n,)`; (mean over each case's windows (B,), gradient of their sum)."""


class BatchModel:
    """A plain network on batches that fit its input: x (B, C, *spatial) -> logits (B, K, *spatial). The network is evaluated in eval mode
    with frozen parameters; mode, requires_grad and deep supervision come back as they were. `autocast`: the type of mixed precision,
    None for that of x; losses are computed, and gradients returned, in that of x."""

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

    def feature_value_and_gradient(self, x, loss):
        with frozen([self.network]), torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            value = loss(self.window_cases(x), bottleneck(self.network, leaf))
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient


def scaled_gradient(out: torch.Tensor, leaf: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    """d<cotangent, out>/d leaf through a graph in fp16: at a scale at which the largest cotangent is 1, since those of a mean over voxels lose
    their digits there, or vanish. What overflows all the same says nothing, and is 0."""
    largest = cotangent.abs().amax()
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    (gradient,) = torch.autograd.grad(out, leaf, (cotangent / scale).to(out))
    return torch.nan_to_num(gradient * scale, nan=0.0, posinf=0.0, neginf=0.0)


@contextmanager
def frozen(networks):
    """Networks in eval mode, parameters without gradients, deep supervision off; all restored afterwards, and the global random state
    with them. Works inside torch.inference_mode, which is left for the duration."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        devices = {p.device for n in networks for p in n.parameters() if p.device.type == "cuda"}
        stack.enter_context(torch.random.fork_rng(devices=list(devices)))
        for network in networks:
            stack.enter_context(_frozen(network))
        yield


@contextmanager
def _frozen(network: nn.Module):
    modes = [(m, m.training) for m in network.modules()]
    trainable = [(p, p.requires_grad) for p in network.parameters()]
    decoder = getattr(network, "decoder", None)
    supervised = getattr(decoder, "deep_supervision", None)
    try:
        network.eval()
        for p, _ in trainable:
            p.requires_grad_(False)
        if supervised:
            decoder.deep_supervision = False
        yield
    finally:
        for m, mode in modes:
            m.training = mode
        for p, flag in trainable:
            p.requires_grad_(flag)
        if supervised:
            decoder.deep_supervision = supervised


def bottleneck(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Lowest-resolution output of `network.encoder`, (B, F, *low). ValueError for a network without an encoder."""
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise UserError(
            f"feature attacks need a network with an .encoder (nnU-Net's U-Nets have one), got {type(network).__name__}"
        )
    skips = encoder(x)
    return skips if isinstance(skips, torch.Tensor) else skips[-1]


# --- the ball -----------------------------------------------------------------------------------------------------------------------


def project_onto_ball(candidate: torch.Tensor, x: torch.Tensor, ball: Ball) -> torch.Tensor:
    """The point of the ball around x nearest to `candidate` in units of epsilon, then clipped into [min, max]. Clipping only shortens the
    perturbation, since x lies inside, so the result is in both."""
    scale = like_channels(ball.scale, x)
    delta = candidate - x
    if ball.norm is Norm.LINF:
        limit = ball.epsilon * scale
        delta = torch.minimum(torch.maximum(delta, -limit), limit)
    else:
        # channels with scale 0 do not move; dividing by 1 there keeps the arithmetic finite
        delta = torch.where(scale > 0, delta, torch.zeros_like(delta))
        rms = _rms(delta / torch.where(scale > 0, scale, torch.ones_like(scale)), ball)
        delta = delta * like_cases(
            torch.clamp(ball.epsilon / rms.clamp_min(torch.finfo(x.dtype).tiny), max=1), x
        )
    return clip(x + delta, ball.bounds)


def clip(x: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """x clipped into [min, max] per case and channel."""
    return torch.minimum(
        torch.maximum(x, like_channels(bounds.minimum, x)), like_channels(bounds.maximum, x)
    )


def step_direction(gradient: torch.Tensor, ball: Ball) -> torch.Tensor:
    """Steepest ascent in the ball's geometry with length 1 in units of epsilon: sign for Linf, the gradient scaled to RMS 1 for L2; in
    preprocessed units, so `x + size * step_direction(...)` moves by `size` epsilon units."""
    scale = like_channels(ball.scale, gradient)
    if ball.norm is Norm.LINF:
        return gradient.sign() * scale
    scaled = gradient * scale  # the gradient with respect to u = delta / scale
    # divide by the maximum first: squares of small gradients underflow in float32
    largest = scaled.abs().flatten(1).amax(1)
    scaled = scaled / like_cases(
        torch.where(largest > 0, largest, torch.ones_like(largest)), scaled
    )
    rms = _rms(scaled, ball)
    return scaled / like_cases(torch.where(rms > 0, rms, torch.ones_like(rms)), scaled) * scale


def random_start(x: torch.Tensor, ball: Ball, generator: torch.Generator) -> torch.Tensor:
    """Linf: uniform in the ball; L2: random direction, radius uniform in [0, epsilon]; then clipped. Drawn where the generator is: on the
    CPU, one seed gives one start on any device; on x's device, nothing is copied."""
    scale = like_channels(ball.scale, x)
    draw = {"generator": generator, "dtype": x.dtype, "device": generator.device}
    if ball.norm is Norm.LINF:
        u = torch.rand(x.shape, **draw).to(x.device) * 2 - 1
        return project_onto_ball(x + ball.epsilon * scale * u, x, ball)
    direction = random_direction(x, ball, generator)
    radius = torch.rand(len(x), **draw).to(x.device)
    return project_onto_ball(x + ball.epsilon * like_cases(radius, x) * direction, x, ball)


def random_direction(x: torch.Tensor, ball: Ball, generator: torch.Generator) -> torch.Tensor:
    """Length 1 in units of epsilon: a random sign per voxel in Linf, a Gaussian direction in L2, isotropic in units of epsilon."""
    direction = torch.randn(
        x.shape, generator=generator, dtype=x.dtype, device=generator.device
    ).to(x.device)
    # step_direction takes a gradient, which it multiplies by the scale
    return step_direction(direction / _nonzero(like_channels(ball.scale, x)), ball)


def perturbation_norms(
    perturbed: torch.Tensor, x: torch.Tensor, bounds: Bounds
) -> dict[str, torch.Tensor]:
    """Linf, RMS and absolute L2 of the perturbation per case, (B,) each, in every unit: keys '<linf|rms|l2>_<range|normalized|original>'.
    RMS is over the channels that can move. Units of the file are nan where the normalisation is not affine."""
    delta = (perturbed - x).cpu().double()  # MPS has no float64
    extent = (bounds.maximum - bounds.minimum).cpu().double()
    free = bounds.attackable.cpu() & (extent > 0)
    count = free.sum(1).double() * delta[0, 0].numel()
    scales = {
        "range": extent,
        "normalized": torch.ones_like(extent),
        "original": torch.full_like(extent, float("nan"))
        if bounds.file_scale is None
        else bounds.file_scale.cpu().double(),
    }
    norms = {}
    for unit, scale in scales.items():
        u = torch.where(
            like_channels(free, delta),
            delta / like_channels(_nonzero(scale), delta),
            torch.zeros_like(delta),
        ).flatten(1)
        l2 = u.square().sum(1).sqrt()
        norms[f"linf_{unit}"] = u.abs().amax(1)
        norms[f"rms_{unit}"] = l2 / count.clamp_min(1).sqrt()
        norms[f"l2_{unit}"] = l2
    return norms


def like_channels(per_channel: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B, C) -> (B, C, 1, ...) like x."""
    return per_channel.reshape(*per_channel.shape, *[1] * (x.ndim - 2)).to(x.device)


def like_cases(per_case_values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(B,) -> (B, 1, 1, ...) like x."""
    return per_case_values.reshape(-1, *[1] * (x.ndim - 1)).to(x.device)


def _nonzero(scale: torch.Tensor) -> torch.Tensor:
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _rms(u: torch.Tensor, ball: Ball) -> torch.Tensor:
    """Root mean square over the channels that can move, (B,)."""
    count = (ball.scale > 0).sum(1).to(u) * u[0, 0].numel()
    return u.flatten(1).square().sum(1).div(count.clamp_min(1)).sqrt()


def per_case(value: torch.Tensor) -> torch.Tensor:
    """A loss as (B,); a scalar is one case."""
    return value.reshape(1) if value.ndim == 0 else value


# --- the result ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack found.

    `perturbed`: (B, C, *spatial), the best iterate of each case. `loss`: (B,), its judged loss. `loss_history`: (evaluations, B), the judged
    loss of every candidate in order, over all restarts. `dice`: (B,), foreground Dice of `perturbed` on the preprocessed grid (a
    diagnostic; reported Dice comes from the exported segmentation). `norms`: as `perturbation_norms`. `forwards`, `gradients`:
    evaluations of the model without and with a gradient. `settings`: options as used, for the report. `extras`: per-attack
    figures, such as the low-frequency distance of ssah.
    """

    attack: str
    perturbed: torch.Tensor
    loss: torch.Tensor
    loss_history: torch.Tensor
    dice: torch.Tensor
    norms: Mapping[str, torch.Tensor]
    forwards: int
    gradients: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)

    @property
    def queries(self) -> int:
        return self.forwards + self.gradients

    @property
    def best_loss_history(self) -> torch.Tensor:
        """(evaluations, B), the best loss so far: never falls."""
        return self.loss_history.cummax(0).values


class BestIterate:
    """Best iterate per case: attacks `offer` candidates with their judged loss (higher is worse for the model) and `result` closes."""

    def __init__(self, x: torch.Tensor, target: SegmentationTarget, ball: Ball) -> None:
        self.x, self.target, self.ball = x, target, ball
        self.history: list[torch.Tensor] = []
        self.forwards = self.gradients = 0

    def evaluate(
        self, model: DifferentiableModel, x: torch.Tensor, judge: LogitLoss
    ) -> torch.Tensor:
        """Judge x with a forward pass only and offer it; (B,) loss."""
        z = model.logits(x)
        self.forwards += 1
        value = per_case(judge(z))
        self.offer(x, value, z)
        return value

    def gradient(
        self,
        model: DifferentiableModel,
        x: torch.Tensor,
        loss: LogitLoss,
        judge: LogitLoss | None = None,
        *,
        eligible: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss (B,), gradient) at x; x is offered under `judge` (default: the loss) unless it is not `eligible`."""
        value, gradient, z = model.value_and_gradient(x, loss)
        self.gradients += 1
        if eligible:
            with torch.no_grad():
                self.offer(x, value if judge is None else per_case(judge(z)), z)
        return value, gradient

    def offer(self, x: torch.Tensor, value: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Keep x where its value is the best so far; (B,) bool of the cases that improved."""
        value = value.detach().cpu().double()  # MPS has no float64
        dice = foreground_dice(z, self.target)
        if not self.history:
            self.best, self.best_value, self.best_dice = x.clone(), value.clone(), dice
            better = torch.ones_like(value, dtype=torch.bool)
        else:
            better = value > self.best_value
            self.best = torch.where(like_cases(better, x), x, self.best)
            self.best_value = torch.where(better, value, self.best_value)
            self.best_dice = torch.where(better, dice, self.best_dice)
        self.history.append(value)
        return better

    @property
    def solved(self) -> bool:
        """Whether nothing of any case is segmented right in its best iterate: no further step lowers its Dice."""
        return bool(self.history) and bool((self.best_dice == 0).all())

    def result(
        self, attack: str, *, settings: Mapping[str, Any], extras: Mapping[str, Any] | None = None
    ) -> AttackResult:
        return AttackResult(
            attack=attack,
            perturbed=self.best,
            loss=self.best_value,
            loss_history=torch.stack(self.history),
            dice=self.best_dice,
            norms=perturbation_norms(self.best, self.x, self.ball.bounds),
            forwards=self.forwards,
            gradients=self.gradients,
            settings={"norm": self.ball.norm.value, "epsilon": self.ball.epsilon, **settings},
            extras=extras or {},
        )


def check_steps(steps: int, restarts: int = 1) -> None:
    if steps < 1:
        raise UserError(f"steps must be >= 1, got {steps}")
    if restarts < 1:
        raise UserError(f"restarts must be >= 1, got {restarts}")
