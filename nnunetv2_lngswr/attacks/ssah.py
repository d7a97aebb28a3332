"""Semantic similarity attack on high frequencies (SSAH, Luo et al., CVPR 2022), for segmentation.

Published, for classification: x in [0, 1], w = arctanh(2x - 1), Adam on w, no epsilon ball. With f
the L2-normalised pooled bottleneck features,

    s_p = <f(x'), f(x)>,       w_p = [s_p - m]_+      (detached),
    s_n = <f(x'), f(x_n)>,     w_n = [1 + m - s_n]_+  (detached),      m = 0.2,
    L = alpha [w_p s_p - w_n s_n]_+ + lambda SmoothL1_sum(LL(x'), LL(x)),   alpha = 1, lambda = 0.1,

LL: the reconstruction from the Haar low-frequency band alone, which is the mean over blocks of 2
voxels per axis (LLL in 3D).

Here:

- Each channel's [min, max] of the case maps to [0, 1]; w = arctanh((2x - 1)(1 - 1e-6)) stays
  finite.
- f is taken per sliding window, pooled globally and over the foreground (the label at bottleneck
  resolution); windows without any use global pooling only; the mean of both losses.
- The negative of a window is the least similar other clean window; with one window in all, s_p
  alone is minimised (with s_n = s_p the gradient dies at s = 0.7).
- With detached weights the value of L does not say how far its descent came (raising s_n past 0.6
  raises L), so iterates are ranked by the function whose gradient it is,
  1/2 [s_p - m]_+^2 + 1/2 [1 + m - s_n]_+^2, gated like L where L is 0.
- L_lf is on the whole case, and lambda is scaled by 224 * 224 * 3 / numel.
- The size of the perturbation is an outcome; `project_into_ball=True` clips the returned iterate
  into the epsilon ball and is a variant of its own (`ssah_project`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional as F

from nnunetv2_lngswr.attacks.best_iterate import (
    AttackResult,
    BestIterate,
    check_steps,
    finite_or_zero,
)
from nnunetv2_lngswr.attacks.geometry import clip, like_cases, like_channels, project_onto_ball
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.models import FeatureModel
from nnunetv2_lngswr.attacks.threat_model import Ball, Bounds

PUBLISHED_NUMEL = 224 * 224 * 3
SADDLE_JITTER = 0.02
"""Standard deviation in w of the first step with one window in all; about 0.01 of the range."""


def ssah(
    model: FeatureModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    steps: int = 150,
    learning_rate: float = 1e-3,
    alpha: float = 1.0,
    low_frequency_weight: float = 0.1,
    margin: float = 0.2,
    project_into_ball: bool = False,
    axes: int | None = None,
) -> AttackResult:
    """SSAH on the bottleneck features of every window.

    Parameters
    ----------
    model, x, target
        As in `registry.run_attack`; the model's network has an `.encoder`.
    ball
        Its bounds are kept to; its epsilon only with `project_into_ball`.
    generator
        Drawn from only where there is one window in all: the first step is then random.
    steps, learning_rate
        Of Adam on w.
    alpha, low_frequency_weight, margin
        alpha, lambda and m above.
    project_into_ball
        Clip the returned iterate into the ball.
    axes
        So many trailing spatial axes the Haar bands cover, None: those longer than 1. A 2D
        configuration passes 2.

    Returns
    -------
    AttackResult
        `perturbed`: the iterate of lowest total (feature loss as ranked plus weighted low-frequency
        distance). `loss_history`: minus the total, so that higher is worse for the model. `extras`:
        'low_frequency_distance' (SmoothL1 sum in [0, 1] units) and 'feature_loss' of the returned
        iterate, 'start_loss', (B,) each, and 'windows'.
    """
    check_steps(steps)
    settings = _Settings(
        steps=steps,
        learning_rate=learning_rate,
        alpha=alpha,
        low_frequency_weight=low_frequency_weight,
        margin=margin,
        project=project_into_ball,
        axes=sum(n > 1 for n in x.shape[2:]) if axes is None else axes,
    )
    best = BestIterate(x, target, ball)
    lowest = _descend(model, best, settings, generator)
    best.evaluate(model, lowest.point, cross_entropy)
    best.history = [-total for total in lowest.history]
    best.best_value = -lowest.total
    extras = {**lowest.extras(), "windows": model.window_count(x)}
    return best.result(settings.name, settings=settings.record(), extras=extras)


def low_frequencies(x: torch.Tensor, axes: int) -> torch.Tensor:
    """Haar reconstruction from the low-low band alone: means over blocks of 2 voxels per axis.

    Parameters
    ----------
    x
        (B, C, *spatial).
    axes
        So many of the last axes are transformed. An odd one is continued by its last voxel.

    Returns
    -------
    torch.Tensor
        Of the shape of x.
    """
    for axis in range(x.ndim - axes, x.ndim):
        n = x.shape[axis]
        if n == 1:
            continue
        even = torch.cat([x, x.narrow(axis, n - 1, 1)], axis) if n % 2 else x
        blocks = even.unflatten(axis, (-1, 2)).mean(axis + 1)
        x = blocks.repeat_interleave(2, axis).narrow(axis, 0, n)
    return x


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """As the report shows them, in this order."""

    steps: int
    learning_rate: float
    alpha: float
    low_frequency_weight: float
    margin: float
    project: bool
    axes: int

    @property
    def name(self) -> str:
        return "ssah_project" if self.project else "ssah"

    def record(self) -> dict[str, Any]:
        return asdict(self) if self.project else {**asdict(self), "epsilon": None}


def _descend(
    model: FeatureModel, best: BestIterate, settings: _Settings, generator: torch.Generator
) -> _Lowest:
    """The iterate of lowest total over Adam's steps on w, projected where the settings say so."""
    x = best.x
    space = _TanhSpace(x, best.ball.bounds, settings.axes)
    semantics = _Semantics(model, x, best.target, settings.margin)
    weight = settings.low_frequency_weight * PUBLISHED_NUMEL / x[0].numel()
    alpha, lowest, w = settings.alpha, _Lowest(x), space.w(x)
    optimizer = torch.optim.Adam([w], lr=settings.learning_rate)
    for step in range(settings.steps + 1):
        # arctanh and tanh round; the start is the clean case itself
        candidate = x if step == 0 else space.case(w)
        feature_loss, feature_gradient = model.feature_value_and_gradient(candidate, semantics)
        best.gradients += 1
        best.count_non_finite(feature_loss, feature_gradient)
        feature_gradient = finite_or_zero(feature_gradient)
        distance, low_gradient = space.low_distance_and_gradient(candidate)
        lowest.offer(candidate, alpha * feature_loss + weight * distance, feature_loss, distance)
        if step == 0 and semantics.count == 1:
            w.copy_(space.off_the_saddle(w, generator))
        elif step < settings.steps:
            w.grad = space.pulled_back(alpha * feature_gradient + weight * low_gradient, w)
            optimizer.step()
    if settings.project:
        lowest.point = project_onto_ball(lowest.point, x, best.ball)
        lowest.low_frequency_distance = _figure(space.low_distance(lowest.point))
    return lowest


class _TanhSpace:
    """The case as [0, 1] per channel and as w, and its low frequencies there."""

    shrink = 1 - 1e-6

    def __init__(self, x: torch.Tensor, bounds: Bounds, axes: int) -> None:
        self.x, self.bounds, self.axes = x, bounds, axes
        self.minimum = like_channels(bounds.minimum, x)
        self.extent = like_channels(bounds.extent, x)
        self.safe_extent = torch.where(self.extent > 0, self.extent, torch.ones_like(self.extent))
        self.movable = like_channels(bounds.attackable & (bounds.extent > 0), x)
        self.clean_low = self._low(x)

    def w(self, x: torch.Tensor) -> torch.Tensor:
        """arctanh((2x - 1)(1 - 1e-6)) of x in [0, 1]."""
        unit = 2 * (x - self.minimum) / self.safe_extent - 1
        return torch.atanh(unit.clamp(-1, 1) * self.shrink)

    def case(self, w: torch.Tensor) -> torch.Tensor:
        """x' of w, inside the bounds; the clean one in channels that cannot move."""
        unit = (torch.tanh(w) / self.shrink + 1) / 2
        return torch.where(
            self.movable, clip(self.minimum + self.extent * unit, self.bounds), self.x
        )

    def pulled_back(self, gradient: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        """A gradient with respect to x' as one with respect to w."""
        slope = self.extent / (2 * self.shrink) * (1 - torch.tanh(w).square())  # dx'/dw
        return torch.where(self.movable, gradient * slope, torch.zeros_like(w))

    def off_the_saddle(self, w: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """A random step from the clean case, in the high frequencies, which L_lf leaves free.

        s_p = 1 is a maximum, so its gradient vanishes at the clean case.
        """
        jitter = torch.randn(
            w.shape, generator=generator, dtype=w.dtype, device=generator.device
        ).to(w.device)
        moved = w + SADDLE_JITTER * (jitter - low_frequencies(jitter, self.axes))
        return torch.where(self.movable, moved, w)

    def low_distance(self, x: torch.Tensor) -> torch.Tensor:
        """SmoothL1 sum between the low frequencies of x and of the clean case, (B,)."""
        distance = F.smooth_l1_loss(self._low(x), self.clean_low, reduction="none")
        return distance.flatten(1).sum(1)

    def low_distance_and_gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            distance = self.low_distance(leaf)
            (gradient,) = torch.autograd.grad(distance.sum(), leaf)
        return distance.detach(), gradient

    def _low(self, x: torch.Tensor) -> torch.Tensor:
        return low_frequencies((x - self.minimum) / self.safe_extent, self.axes)


class _Lowest:
    """The iterate of lowest total of each case, with its figures, (B,) float64."""

    def __init__(self, x: torch.Tensor) -> None:
        self.point = x
        self.total = torch.full((len(x),), float("inf"), dtype=torch.float64)
        self.feature_loss = self.low_frequency_distance = torch.full_like(self.total, float("nan"))
        self.history: list[torch.Tensor] = []

    def offer(
        self,
        point: torch.Tensor,
        total: torch.Tensor,
        feature_loss: torch.Tensor,
        distance: torch.Tensor,
    ) -> None:
        total = _figure(total)
        better = total < self.total
        self.point = torch.where(like_cases(better, point), point, self.point)
        self.total = torch.where(better, total, self.total)
        self.feature_loss = torch.where(better, _figure(feature_loss), self.feature_loss)
        self.low_frequency_distance = torch.where(
            better, _figure(distance), self.low_frequency_distance
        )
        self.history.append(total)

    def extras(self) -> dict[str, torch.Tensor]:
        return {
            "low_frequency_distance": self.low_frequency_distance,
            "feature_loss": self.feature_loss,
            "start_loss": self.history[0],
        }


def _figure(values: torch.Tensor) -> torch.Tensor:
    return values.cpu().double()  # MPS has no float64


class _Semantics:
    """The feature loss of each window: (indices (n,), features (n, F, *low)) -> (n,)."""

    def __init__(
        self, model: FeatureModel, x: torch.Tensor, target: SegmentationTarget, margin: float
    ) -> None:
        self.model, self.margin = model, margin
        self.foreground = target.foreground.to(x)
        self.count = model.window_count(x)
        pooled = [(windows, self._pool(windows, f)[0]) for windows, f in model.features(x)]
        # (windows, 2, F): pooled globally and over the foreground
        self.clean = pooled[0][1].new_zeros(self.count, *pooled[0][1].shape[1:])
        for windows, vectors in pooled:
            self.clean[windows] = vectors
        similarity = torch.einsum("npf,mpf->pnm", self.clean, self.clean)
        # a window is no negative of itself
        itself = torch.eye(self.count, dtype=torch.bool, device=x.device)
        self.negative = similarity.masked_fill(itself, float("inf")).argmin(2).T  # (windows, 2)

    def __call__(self, windows: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        pooled, has_foreground = self._pool(windows, features)
        s_p = (pooled * self.clean[windows]).sum(2)
        w_p = (s_p - self.margin).clamp_min(0)
        loss, hinge = w_p.square() / 2, w_p * s_p
        if self.count > 1:
            negative = torch.stack([self.clean[self.negative[windows, p], p] for p in range(2)], 1)
            s_n = (pooled * negative).sum(2)
            w_n = (1 + self.margin - s_n).clamp_min(0)
            loss, hinge = loss + w_n.square() / 2, hinge - w_n * s_n
        # where the published hinge is closed, the loss keeps its value but has no gradient
        loss = torch.where(hinge > 0, loss, loss.detach())
        return torch.where(has_foreground, loss.mean(1), loss[:, 0])

    def _pool(
        self, windows: torch.Tensor, features: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """((n, 2, F) unit vectors, (n,) whether the window holds foreground)."""
        mask = self.model.crop_windows(self.foreground, windows)
        pool = F.adaptive_max_pool2d if mask.ndim == 4 else F.adaptive_max_pool3d
        mask = pool(mask, features.shape[2:])
        size = mask.flatten(1).sum(1)
        spatial = tuple(range(2, features.ndim))
        whole = features.mean(spatial)
        inside = (features * mask).sum(spatial) / size.clamp_min(1)[:, None]
        # a zero vector would be every window's least similar one, without a gradient
        inside = torch.where(size[:, None] > 0, inside, whole)
        return torch.stack([F.normalize(whole, dim=1), F.normalize(inside, dim=1)], 1), size > 0
