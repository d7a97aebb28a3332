"""Semantic similarity attack on high frequencies (SSAH, Luo et al., CVPR 2022), adapted from classification to segmentation.

Published: x in [0, 1], w = arctanh(2x - 1), Adam on w, no epsilon ball. With f the L2-normalised pooled bottleneck features,

    s_p = <f(x'), f(x)>,   s_n = <f(x'), f(x_n)>,   w_p = [s_p - m]_+,   w_n = [1 + m - s_n]_+  (both detached),   m = 0.2,
    L = alpha [w_p s_p - w_n s_n]_+  +  lambda SmoothL1_sum(LL(x'), LL(x)),   alpha = 1, lambda = 0.1,

LL: the reconstruction from the Haar low-frequency band alone, which is the mean over blocks of 2 voxels per axis (LLL in 3D).

Here: each channel's [min, max] of the case maps to [0, 1], and w = arctanh((2x - 1)(1 - 1e-6)) keeps it finite. f is taken per sliding window, pooled
globally and over the foreground (the label at bottleneck resolution); windows without any use global pooling only; the mean of both losses. The
negative of a window is the least similar other clean window; with one window in all, s_p alone is minimised (with s_n = s_p the
gradient dies at s = 0.7). With detached weights the value of L does not say how far its descent came (raising s_n past 0.6 raises L), so
iterates are ranked by the function whose gradient it is, 1/2 [s_p - m]_+^2 + 1/2 [1 + m - s_n]_+^2, gated like L where L is 0. L_lf is on the whole case and lambda is scaled by 224 * 224 * 3 / numel. The size of the perturbation is an
outcome; `project=True` clips the returned iterate into the epsilon ball and is a variant of its own (`ssah_project`).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from nnunetv2_lngswr.attacks.base import (
    AttackResult,
    BestIterate,
    FeatureModel,
    check_steps,
    clip,
    like_cases,
    like_channels,
    project_onto_ball,
)
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.threat_model import Ball

PUBLISHED_NUMEL = 224 * 224 * 3
SADDLE_JITTER = 0.02  # standard deviation in w, about 0.01 of the range


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
    """`axes`: how many trailing spatial axes the Haar bands cover (default: those longer than 1); a 2D configuration passes 2. `ball` gives
    [min, max] and, with `project_into_ball`, epsilon. `generator` is drawn from only where there is one window in all: the first step is then random.

    The returned iterate has the lowest total (feature loss as ranked plus weighted low-frequency distance); `loss_history` is minus that, so
    that higher is worse for the model. `extras`: 'low_frequency_distance' (SmoothL1 sum in [0, 1] units) and 'feature_loss' of the
    returned iterate, 'start_loss', (B,) each, and 'windows'.
    """
    check_steps(steps)
    name = "ssah_project" if project_into_ball else "ssah"
    minimum, extent = (
        like_channels(v, x)
        for v in (ball.bounds.minimum, ball.bounds.maximum - ball.bounds.minimum)
    )
    movable = like_channels(ball.bounds.attackable & (ball.bounds.maximum > ball.bounds.minimum), x)
    safe_extent = torch.where(extent > 0, extent, torch.ones_like(extent))
    axes = sum(n > 1 for n in x.shape[2:]) if axes is None else axes
    shrink = 1 - 1e-6
    w = torch.atanh((2 * (x - minimum) / safe_extent - 1).clamp(-1, 1) * shrink)
    weight = low_frequency_weight * PUBLISHED_NUMEL / x[0].numel()
    clean_low = low_frequencies((x - minimum) / safe_extent, axes)
    semantics = _Semantics(model, x, target, margin)
    optimizer = torch.optim.Adam([w], lr=learning_rate)
    search = BestIterate(x, target, ball)
    best_total = torch.full((len(x),), float("inf"), dtype=torch.float64)
    best, figures, history = x, {}, []
    for step in range(steps + 1):
        tanh = torch.tanh(w)
        unit = ((tanh / shrink) + 1) / 2
        # arctanh and tanh round; the start is the clean case itself
        candidate = (
            x if step == 0 else torch.where(movable, clip(minimum + extent * unit, ball.bounds), x)
        )
        feature_loss, gradient = model.feature_value_and_gradient(candidate, semantics)
        search.gradients += 1
        with torch.enable_grad():
            leaf = candidate.detach().requires_grad_()
            distance = (
                F.smooth_l1_loss(
                    low_frequencies((leaf - minimum) / safe_extent, axes),
                    clean_low,
                    reduction="none",
                )
                .flatten(1)
                .sum(1)
            )
            (low_gradient,) = torch.autograd.grad(distance.sum(), leaf)
        distance = distance.detach()
        total = (alpha * feature_loss + weight * distance).cpu().double()
        better = total < best_total
        history.append(total)
        chosen = like_cases(better, x)
        best = torch.where(chosen, candidate, best)
        best_total = torch.where(better, total, best_total)
        for key, value in (("low_frequency_distance", distance), ("feature_loss", feature_loss)):
            value = value.cpu().double()
            figures[key] = torch.where(better, value, figures[key]) if key in figures else value
        if step == 0 and semantics.count == 1:
            # s_p = 1 is a maximum: its gradient vanishes at the clean case, so the first step is random, and in the high
            # frequencies, which L_lf leaves free
            jitter = torch.randn(w.shape, generator=generator, dtype=w.dtype).to(w.device)
            w = torch.where(
                movable, w + SADDLE_JITTER * (jitter - low_frequencies(jitter, axes)), w
            )
            optimizer = torch.optim.Adam([w], lr=learning_rate)
        elif step < steps:
            slope = extent / (2 * shrink) * (1 - tanh.square())  # dx'/dw
            w.grad = torch.where(
                movable, (alpha * gradient + weight * low_gradient) * slope, torch.zeros_like(w)
            )
            optimizer.step()
    if project_into_ball:
        best = project_onto_ball(best, x, ball)
        figures["low_frequency_distance"] = _distance(best, x, minimum, safe_extent, axes)
    search.evaluate(model, best, lambda z: cross_entropy(z, target))
    search.history = [-total for total in history]
    search.best_value = -best_total
    settings = {
        "steps": steps,
        "learning_rate": learning_rate,
        "alpha": alpha,
        "low_frequency_weight": low_frequency_weight,
    }
    settings |= {"margin": margin, "project": project_into_ball, "axes": axes}
    if not project_into_ball:
        settings["epsilon"] = None
    return search.result(
        name,
        settings=settings,
        extras={**figures, "start_loss": history[0], "windows": semantics.count},
    )


def low_frequencies(x: torch.Tensor, axes: int) -> torch.Tensor:
    """Haar reconstruction of x, (B, C, *spatial), from the low-low band over the last `axes` axes: means over blocks of 2. An odd axis
    is continued by its last voxel."""
    for axis in range(x.ndim - axes, x.ndim):
        n = x.shape[axis]
        if n == 1:
            continue
        even = torch.cat([x, x.narrow(axis, n - 1, 1)], axis) if n % 2 else x
        blocks = even.unflatten(axis, (-1, 2)).mean(axis + 1)
        x = blocks.repeat_interleave(2, axis).narrow(axis, 0, n)
    return x


class _Semantics:
    """The feature loss of each window: called with (window indices (n,), features (n, F, *low)) -> (n,)."""

    def __init__(
        self, model: FeatureModel, x: torch.Tensor, target: SegmentationTarget, margin: float
    ) -> None:
        self.model, self.margin = model, margin
        self.foreground = target.foreground.to(x)
        self.count = model.window_count(x)
        self.clean = None  # (windows, 2, F): pooled globally and over the foreground
        for windows, features in model.features(x):
            pooled, _ = self._pool(windows, features)
            if self.clean is None:
                self.clean = pooled.new_zeros(self.count, *pooled.shape[1:])
            self.clean[windows] = pooled
        similarity = torch.einsum("npf,mpf->pnm", self.clean, self.clean)
        # a window is no negative of itself
        similarity = similarity.masked_fill(
            torch.eye(self.count, dtype=torch.bool, device=x.device), float("inf")
        )
        self.negative = similarity.argmin(2).T  # (windows, 2)

    def __call__(self, windows: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        pooled, has_foreground = self._pool(windows, features)
        s_p = (pooled * self.clean[windows]).sum(2)
        push = (s_p - self.margin).clamp_min(0)
        loss, hinge = push.square() / 2, push * s_p
        if self.count > 1:
            negative = torch.stack([self.clean[self.negative[windows, p], p] for p in range(2)], 1)
            s_n = (pooled * negative).sum(2)
            pull = (1 + self.margin - s_n).clamp_min(0)
            loss, hinge = loss + pull.square() / 2, hinge - pull * s_n
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


def _distance(
    a: torch.Tensor, b: torch.Tensor, minimum: torch.Tensor, extent: torch.Tensor, axes: int
) -> torch.Tensor:
    low_a, low_b = (low_frequencies((v - minimum) / extent, axes) for v in (a, b))
    return F.smooth_l1_loss(low_a, low_b, reduction="none").flatten(1).sum(1).cpu().double()
