"""The function that nnU-Net deploys and its exact gradient: preprocessed case -> windows -> (mirrors, folds) -> logits of the whole case.

    z(x) = sum_t w_t f(x_t) / sum_t w_t,    f = mean over folds and mirrored copies

is linear in the logits of the windows, so the gradient of any loss L(z) needs the memory of one window batch only:

    1. forward all windows without a graph, sum up to z;
    2. g = dL/dz on the whole case;
    3. per window batch and fold: forward with a graph, backward with the cotangent w_t g_t / sum w, add into dL/dx.

A case whose windows and mirrored copies fit into one window batch needs no second pass, which saves a third of the time. Tiling, weights and
padding are nnU-Net's: its compute_gaussian in float16 (the values that it deploys), its steps, zero padding to the patch; only the sums run in
the precision of x instead of float16. Features (of SSAH) are always computed in the precision of x.

Shapes: x (B, C, *spatial), z (B, K, *spatial). The patch may have one axis fewer than `spatial` (2D configurations: windows
within each slice of the first axis). B cases of one shape share window batches.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)
from torch import nn

from nnunetv2_lngswr.attacks.losses import LogitLoss, per_case
from nnunetv2_lngswr.attacks.models import bottleneck, frozen, scaled_gradient
from nnunetv2_lngswr.utils.errors import UserError


class SlidingWindow:
    """nnU-Net's sliding-window function as a DifferentiableModel and FeatureModel.

    `networks`: one per fold; they stay where they are and come back in the mode they had. `patch_size`: nnU-Net's, 2 or 3 entries.
    `mirror_axes`: axes of the patch to mirror (nnU-Net's allowed_mirroring_axes), None for none. `window_batch_size`: windows, mirrored copies
    included, per network call: the one knob for memory against speed. `autocast`: type of mixed precision, None for that of x (nnU-Net predicts
    with torch.float16 on CUDA); gradients then carry its rounding, losses are computed in the type of x. Work happens on `device`; x may live elsewhere and results come back on x's device and in x's dtype.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        patch_size: Sequence[int],
        tile_step_size: float = 0.5,
        mirror_axes: Sequence[int] | None = None,
        window_batch_size: int = 1,
        autocast: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not networks:
            raise UserError("networks must hold at least one network, got none")
        if not 0 < tile_step_size <= 1:
            raise UserError(f"tile_step_size must be in (0, 1], got {tile_step_size}")
        if window_batch_size < 1:
            raise UserError(f"window_batch_size must be >= 1, got {window_batch_size}")
        if mirror_axes is not None and any(not 0 <= a < len(patch_size) for a in mirror_axes):
            raise UserError(
                f"mirror_axes must be axes of the patch {tuple(patch_size)}, got {tuple(mirror_axes)}"
            )
        self.networks = list(networks)
        self.patch_size = tuple(int(i) for i in patch_size)
        self.tile_step_size = tile_step_size
        self.mirror_axes = tuple(mirror_axes or ())
        self.window_batch_size = window_batch_size
        self.device = torch.device(device) if device is not None else _device_of(self.networks[0])
        self.autocast = autocast
        # __wrapped__: nnU-Net caches this tensor, and one made under its inference_mode cannot enter a graph
        with torch.inference_mode(False):
            self._gaussian = compute_gaussian.__wrapped__(
                self.patch_size,
                sigma_scale=1.0 / 8,
                value_scaling_factor=10,
                device=torch.device("cpu"),
            ).to(self.device)
        # flips of a (n, C, *patch) window: none, then nnU-Net's order of combinations
        self._flips = [
            tuple(a + 2 for a in c)
            for size in range(len(self.mirror_axes) + 1)
            for c in itertools.combinations(self.mirror_axes, size)
        ]

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, K, *spatial), no graph."""
        with frozen(self.networks):
            tiling = self._tile(x)
            return self._sum_of_windows(tiling)[tiling.crop].to(x.device)

    def value_and_gradient(
        self, x: torch.Tensor, loss: LogitLoss
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(loss (B,), gradient of its sum (B, C, *spatial), z (B, K, *spatial)); `loss` maps z to (B,) or to a scalar."""
        with frozen(self.networks):
            tiling = self._tile(x)
            calls = list(self._calls(tiling))
            if len(calls) == 1:
                return self._in_one_pass(tiling, *calls[0], x, loss)
            padded_z = self._sum_of_windows(tiling)
            z = padded_z[tiling.crop].to(x.device)
            value, cotangent = _loss_and_cotangent(loss, z)
            per_logit = self._per_window_logit(tiling, cotangent)
            gradient = torch.zeros_like(tiling.x)
            for network, batch in calls:
                leaf = _stack([tiling.x[w].flip(f) for w, f in batch]).requires_grad_()
                with torch.enable_grad(), self._precision():
                    out = network(leaf)
                self._backpropagate(out, leaf, batch, per_logit, gradient)
            return value, gradient[tiling.crop].to(x.device), z

    # --- windows as features, for ssah ---

    def window_count(self, x: torch.Tensor) -> int:
        return len(self._tile(x).windows)

    def window_cases(self, x: torch.Tensor) -> torch.Tensor:
        """(windows,) the case of each window, in the order of the window indices."""
        return torch.tensor([w[0] for w in self._tile(x).windows], device=x.device)

    def crop_windows(self, volume: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """(B, A, *spatial) -> (n, A, *patch), padding filled with 0."""
        tiling = self._tile(volume)
        return _stack([tiling.x[tiling.windows[i]] for i in windows.tolist()]).to(volume.device)

    def features(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(window indices (n,), bottleneck features (n, F, *low)) of the first fold, unmirrored, no graph."""
        tiling = self._tile(x)
        for indices in self._index_batches(tiling):
            with frozen(self.networks[:1]), torch.no_grad():
                features = bottleneck(
                    self.networks[0], _stack([tiling.x[tiling.windows[i]] for i in indices])
                )
            yield torch.tensor(indices, device=x.device), features.to(x)

    def feature_value_and_gradient(
        self, x: torch.Tensor, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of `loss(window indices (n,), features (n, F, *low)) -> (n,)` over each case's windows, (B,), and the gradient of their sum
        with respect to x; each window batch is backpropagated alone. First fold, unmirrored."""
        with frozen(self.networks[:1]):
            tiling = self._tile(x)
            gradient = torch.zeros_like(tiling.x)
            value = x.new_zeros(len(x))
            for indices in self._index_batches(tiling):
                batch = [tiling.windows[i] for i in indices]
                leaf = _stack([tiling.x[w] for w in batch]).requires_grad_()
                with torch.enable_grad():
                    losses = loss(
                        torch.tensor(indices, device=x.device),
                        bottleneck(self.networks[0], leaf).to(x),
                    )
                    share = losses / tiling.windows_per_case
                    (back,) = torch.autograd.grad(share.sum(), leaf)
                for w, b, s in zip(batch, back, share.detach()):
                    gradient[w] += b
                    value[w[0]] += s
            return value, gradient[tiling.crop].to(x.device)

    # --- internals ---

    def _tile(self, x: torch.Tensor) -> _Tiling:
        spatial, patch = x.ndim - 2, len(self.patch_size)
        if spatial not in (patch, patch + 1):
            raise UserError(
                f"x must be (B, C, *spatial) with {patch} or {patch + 1} spatial axes for patch {self.patch_size}, got shape {tuple(x.shape)}"
            )
        padded, crop = pad_nd_image(
            x.detach().to(self.device), self.patch_size, "constant", {"value": 0}, True, None
        )
        starts = compute_steps_for_sliding_window(
            tuple(padded.shape[-patch:]), self.patch_size, self.tile_step_size
        )
        leading = [range(n) for n in padded.shape[2 : padded.ndim - patch]]
        positions = [
            tuple(slice(s, s + p) for s, p in zip(at, self.patch_size))
            for at in itertools.product(*starts)
        ]
        within = [
            (slice(None), *axes, *position)
            for axes in itertools.product(*leading)
            for position in positions
        ]
        weight_sum = torch.zeros(padded.shape[-patch:], dtype=x.dtype, device=self.device)
        for position in positions:
            weight_sum[position] += self._gaussian.to(x.dtype)
        return _Tiling(
            x=padded,
            crop=(slice(None), slice(None), *crop[2:]),
            windows=[(case, *w) for case in range(len(x)) for w in within],
            windows_per_case=len(within),
            weight_sum=weight_sum,
        )

    def _index_batches(self, tiling: _Tiling) -> Iterator[list[int]]:
        order = range(len(tiling.windows))
        for start in range(0, len(order), self.window_batch_size):
            yield list(order[start : start + self.window_batch_size])

    def _calls(
        self, tiling: _Tiling
    ) -> Iterator[tuple[nn.Module, list[tuple[tuple, tuple[int, ...]]]]]:
        """Every network call of the cases: the fold's network and its batch of (window, axes of it to flip)."""
        # axes of a single window, which has no batch axis
        flips = [tuple(a - 1 for a in flip) for flip in self._flips]
        pairs = list(itertools.product(tiling.windows, flips))
        for network in self.networks:
            for start in range(0, len(pairs), self.window_batch_size):
                yield network, pairs[start : start + self.window_batch_size]

    def _precision(self):
        return (
            nullcontext()
            if self.autocast is None
            else torch.autocast(self.device.type, dtype=self.autocast)
        )

    @torch.no_grad()
    def _sum_of_windows(self, tiling: _Tiling) -> torch.Tensor:
        total = None
        for network, batch in self._calls(tiling):
            with self._precision():
                out = network(_stack([tiling.x[w].flip(f) for w, f in batch]))
            total = self._add_windows(tiling, total, out, batch)
        return self._divided(tiling, total)

    def _add_windows(
        self, tiling: _Tiling, total: torch.Tensor | None, out: torch.Tensor, batch
    ) -> torch.Tensor:
        out = out.to(tiling.x.dtype)
        if total is None:
            total = out.new_zeros(len(tiling.x), out.shape[1], *tiling.x.shape[2:])
        for (w, f), o in zip(batch, out):
            total[w] += o.flip(f) * self._gaussian
        return total

    def _divided(self, tiling: _Tiling, total: torch.Tensor) -> torch.Tensor:
        return total.div_(tiling.weight_sum * (len(self.networks) * len(self._flips)))

    def _per_window_logit(self, tiling: _Tiling, cotangent: torch.Tensor) -> torch.Tensor:
        """dL/dz on the padded cases, divided as the sum of the windows is."""
        padded = torch.zeros(
            len(tiling.x),
            cotangent.shape[1],
            *tiling.x.shape[2:],
            dtype=tiling.x.dtype,
            device=self.device,
        )
        padded[tiling.crop] = cotangent.to(self.device)
        return self._divided(tiling, padded)

    def _backpropagate(
        self,
        out: torch.Tensor,
        leaf: torch.Tensor,
        batch,
        per_logit: torch.Tensor,
        gradient: torch.Tensor,
    ) -> None:
        """Adds dL/dx of one network call into `gradient`."""
        cotangent = _stack([(per_logit[w] * self._gaussian).flip(f) for w, f in batch])
        for (w, f), b in zip(batch, self._gradient(out, leaf, cotangent)):
            gradient[w] += b.flip(f)

    def _gradient(
        self, out: torch.Tensor, leaf: torch.Tensor, cotangent: torch.Tensor
    ) -> torch.Tensor:
        """d<cotangent, out>/d leaf."""
        if self.autocast is None:
            return torch.autograd.grad(out, leaf, cotangent.to(out))[0]
        return scaled_gradient(out, leaf, cotangent)

    def _in_one_pass(
        self, tiling: _Tiling, network: nn.Module, batch, x: torch.Tensor, loss: LogitLoss
    ):
        leaf = _stack([tiling.x[w].flip(f) for w, f in batch]).requires_grad_()
        with torch.enable_grad(), self._precision():
            out = network(leaf)
        if tiling.windows_per_case == len(self._flips) == 1:
            # the weights cancel, and the result is that of a plain batch to the last bit; a 2D case of one slice only needs its axis back
            shape = (len(x), -1, *tiling.x.shape[2:])
            z = out.detach().to(x.dtype).reshape(shape)[tiling.crop].to(x.device)
            value, cotangent = _loss_and_cotangent(loss, z)
            padded = torch.zeros_like(out, dtype=x.dtype).reshape(shape)
            padded[tiling.crop] = cotangent.to(padded)
            back = self._gradient(out, leaf, padded.reshape(out.shape))
            return value, back.reshape(tiling.x.shape)[tiling.crop].to(x.device), z
        z = self._divided(tiling, self._add_windows(tiling, None, out.detach(), batch))[
            tiling.crop
        ].to(x.device)
        value, cotangent = _loss_and_cotangent(loss, z)
        gradient = torch.zeros_like(tiling.x)
        self._backpropagate(out, leaf, batch, self._per_window_logit(tiling, cotangent), gradient)
        return value, gradient[tiling.crop].to(x.device), z


@dataclass(frozen=True)
class _Tiling:
    """`x`: padded cases on the device; `crop`: slices that undo the padding; `windows`: index tuples into (B, A, *padded); `weight_sum`: sum of
    the Gaussians, (*patch axes of the padded case)."""

    x: torch.Tensor
    crop: tuple
    windows: list[tuple]
    windows_per_case: int
    weight_sum: torch.Tensor


def _loss_and_cotangent(loss: LogitLoss, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        value = per_case(loss(leaf))
        (cotangent,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), cotangent


def _stack(windows: list[torch.Tensor]) -> torch.Tensor:
    # unlike a slice, the stack is contiguous and its own memory, as nnU-Net feeds it
    return torch.stack(windows)


def _device_of(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
