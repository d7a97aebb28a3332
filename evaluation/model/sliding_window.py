"""The function that nnU-Net deploys and its exact gradient: case -> windows -> its logits.

    z(x) = sum_t w_t f(x_t) / sum_t w_t,    f = mean over folds and mirrored copies

is linear in the logits of the windows, so the gradient of any loss L(z) needs the memory of one
window batch only:

    1. forward all windows without a graph, sum up to z;
    2. g = dL/dz on the whole case;
    3. per window batch and fold: forward with a graph, backward with the cotangent w_t g_t / sum w,
       add into dL/dx.

The first network calls keep their graphs from step 1, as many as `graph_bytes` holds, and only the
others are forwarded twice: a small case costs one forward and one backward, a large one almost two
forwards and one backward, and memory is bounded whatever the number of windows.

Tiling, weights and padding are nnU-Net's (tiling.py); only the sums run in the precision of x
instead of float16. Features (of SSAH) are always computed in the precision of x.

Shapes: x (B, C, *spatial), z (B, K, *spatial). The patch may have one axis fewer than `spatial` (2D
configurations). B cases of one shape share window batches.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from evaluation.model.graph_memory import GRAPH_BYTES, Graph, bytes_of_graph
from evaluation.model.tiling import Batch, Tiling, flips_of, gaussian_weights, mirrored, tile
from nnunetv2_lngswr.attacks.losses import LogitLoss
from nnunetv2_lngswr.attacks.models import bottleneck, frozen, loss_and_cotangent, scaled_gradient
from nnunetv2_lngswr.utils.errors import UserError

Call = tuple[nn.Module, Batch]
"""A network call: the fold's network and its batch of mirrored windows."""
SHARED_BYTES = 2**29
"""What the graph of a shared call may take; not `graph_bytes`, which so changes no batch."""


class SlidingWindow:
    """nnU-Net's sliding-window function as a DifferentiableModel and FeatureModel.

    Work happens on `device`; x may live elsewhere: results come back on x's device and in x's
    dtype.

    Parameters
    ----------
    networks
        One per fold; they stay where they are and come back in the mode they had.
    patch_size
        nnU-Net's, two or three axes, voxels.
    tile_step_size
        As a fraction of the patch, in (0, 1].
    mirror_axes
        Axes of the patch to mirror (nnU-Net's allowed_mirroring_axes); None for none.
    window_batch_size
        Windows, mirrored copies included, per network call.
    graph_bytes
        What the graphs of network calls may take together until the loss is known, as
        `bytes_of_graph` measures one window; 0 keeps none. A case of one call always keeps its own.
    autocast
        Type of mixed precision, None for that of x (nnU-Net predicts with torch.float16 on CUDA).
        Gradients then carry its rounding; losses are computed in the type of x.
    device
        Default: that of the first network.

    Raises
    ------
    UserError
        No network, or a value outside its range.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        patch_size: Sequence[int],
        tile_step_size: float = 0.5,
        mirror_axes: Sequence[int] | None = None,
        window_batch_size: int = 1,
        graph_bytes: int = GRAPH_BYTES,
        autocast: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if not networks:
            raise UserError("networks must hold at least one network, got none")
        if not 0 < tile_step_size <= 1:
            raise UserError(f"tile_step_size must be in (0, 1], got {tile_step_size}")
        if window_batch_size < 1:
            raise UserError(f"window_batch_size must be >= 1, got {window_batch_size}")
        if graph_bytes < 0:
            raise UserError(f"graph_bytes must be >= 0, got {graph_bytes}")
        if mirror_axes is not None and any(not 0 <= a < len(patch_size) for a in mirror_axes):
            raise UserError(
                f"mirror_axes must be axes of the patch {tuple(patch_size)}, "
                f"got {tuple(mirror_axes)}"
            )
        self.networks = list(networks)
        self.patch_size = tuple(int(i) for i in patch_size)
        self.tile_step_size = tile_step_size
        self.mirror_axes = tuple(mirror_axes or ())
        self.window_batch_size = window_batch_size
        self.graph_bytes = graph_bytes
        self._bytes_of_window: dict[torch.dtype, int] = {}
        self.device = torch.device(device) if device is not None else _device_of(self.networks[0])
        self.autocast = autocast
        self._gaussian = gaussian_weights(self.patch_size, self.device)
        self._flips = flips_of(self.mirror_axes)

    def cases_per_call(self, x: torch.Tensor) -> int:
        """How many cases of the shape of x (1, C, *spatial) fit into one network call, or 1."""
        with frozen(self.networks):
            tiling = self._tile(x)
            windows = tiling.windows_per_case * len(self._flips)
            fitting = self.window_batch_size // windows
            if fitting > 1:
                fitting = min(fitting, SHARED_BYTES // self._bytes_of(tiling) // windows)
        return max(1, fitting)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, *spatial) -> (B, K, *spatial), no graph."""
        with frozen(self.networks):
            tiling = self._tile(x)
            return self._sum_of_windows(tiling)[tiling.crop].to(x.device)

    def value_and_gradient(
        self, x: torch.Tensor, loss: LogitLoss
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, gradient and logits, all detached.

        Parameters
        ----------
        x
            (B, C, *spatial).
        loss
            Maps z to (B,) or to a scalar.

        Returns
        -------
        tuple
            Loss (B,), the gradient of its sum (B, C, *spatial), z (B, K, *spatial).
        """
        with frozen(self.networks):
            tiling = self._tile(x)
            calls = list(self._calls(tiling))
            if len(calls) == tiling.windows_per_case == len(self._flips) == 1:
                return self._of_a_plain_batch(tiling, *calls[0], x, loss)
            kept = self._kept_graphs(tiling, calls)
            graphs, padded_z = self._first_pass(tiling, calls, kept)
            z = padded_z[tiling.crop].to(x.device)
            value, cotangent = loss_and_cotangent(loss, z)
            per_logit = self._per_window_logit(tiling, cotangent)
            gradient = torch.zeros_like(tiling.x)
            for network, batch in calls:
                graph = graphs.popleft() if graphs else self._graph(tiling, network, batch)
                self._backpropagate(graph, batch, per_logit, gradient)
            return value, gradient[tiling.crop].to(x.device), z

    # --- windows as features, for ssah ---

    def window_count(self, x: torch.Tensor) -> int:
        """Windows in x over all its cases."""
        return len(self._tile(x).windows)

    def window_cases(self, x: torch.Tensor) -> torch.Tensor:
        """(windows,): the case of each window, in the order of the window indices."""
        return torch.tensor([w[0] for w in self._tile(x).windows], device=x.device)

    def crop_windows(self, volume: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        """(B, A, *spatial) -> (n, A, *patch), padding filled with 0."""
        tiling = self._tile(volume)
        return torch.stack([tiling.x[tiling.windows[i]] for i in windows.tolist()]).to(
            volume.device
        )

    def features(self, x: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(window indices (n,), bottleneck features (n, F, *low)) of the first fold, unmirrored."""
        tiling = self._tile(x)
        for indices in self._index_batches(tiling):
            with frozen(self.networks[:1]), torch.no_grad():
                features = bottleneck(
                    self.networks[0], torch.stack([tiling.x[tiling.windows[i]] for i in indices])
                )
            yield torch.tensor(indices, device=x.device), features.to(x)

    def feature_value_and_gradient(
        self, x: torch.Tensor, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean of a loss over each case's windows, and the gradient of their sum.

        Each window batch is backpropagated alone. First fold, unmirrored.

        Parameters
        ----------
        x
            (B, C, *spatial).
        loss
            (window indices (n,), features (n, F, *low)) -> (n,).

        Returns
        -------
        tuple
            (B,) and (B, C, *spatial).
        """
        with frozen(self.networks[:1]):
            tiling = self._tile(x)
            gradient = torch.zeros_like(tiling.x)
            value = x.new_zeros(len(x))
            for indices in self._index_batches(tiling):
                batch = [tiling.windows[i] for i in indices]
                leaf = torch.stack([tiling.x[w] for w in batch]).requires_grad_()
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

    def _tile(self, x: torch.Tensor) -> Tiling:
        return tile(x, self.patch_size, tile_step_size=self.tile_step_size, gaussian=self._gaussian)

    def _index_batches(self, tiling: Tiling) -> Iterator[list[int]]:
        order = range(len(tiling.windows))
        for start in range(0, len(order), self.window_batch_size):
            yield list(order[start : start + self.window_batch_size])

    def _calls(self, tiling: Tiling) -> Iterator[Call]:
        pairs = list(itertools.product(tiling.windows, self._flips))
        for network in self.networks:
            for start in range(0, len(pairs), self.window_batch_size):
                yield network, pairs[start : start + self.window_batch_size]

    def _precision(self) -> AbstractContextManager:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    def _sum_of_windows(self, tiling: Tiling) -> torch.Tensor:
        return self._first_pass(tiling, list(self._calls(tiling)), kept=0)[1]

    def _first_pass(
        self, tiling: Tiling, calls: list[Call], kept: int
    ) -> tuple[deque[Graph], torch.Tensor]:
        """Graphs of the first `kept` calls, and z on the padded cases."""
        graphs, total = deque(), None
        for number, (network, batch) in enumerate(calls):
            if number < kept:
                graph = self._graph(tiling, network, batch)
                graphs.append(graph)
                out = graph.out.detach()
            else:
                with torch.no_grad(), self._precision():
                    out = network(mirrored(tiling, batch))
            total = self._add_windows(tiling, total, out, batch)
        assert total is not None  # a case has a window
        return graphs, self._divided(tiling, total)

    def _graph(self, tiling: Tiling, network: nn.Module, batch: Batch) -> Graph:
        leaf = mirrored(tiling, batch).requires_grad_()
        with torch.enable_grad(), self._precision():
            return Graph(leaf, network(leaf))

    def _kept_graphs(self, tiling: Tiling, calls: list[Call]) -> int:
        """How many calls, from the first, keep their graphs until the loss is known."""
        if len(calls) == 1:
            return 1
        if self.graph_bytes == 0:
            return 0
        windows = self.graph_bytes // self._bytes_of(tiling)
        return sum(n <= windows for n in itertools.accumulate(len(batch) for _, batch in calls))

    def _bytes_of(self, tiling: Tiling) -> int:
        """Of the graph of one window."""
        if tiling.x.dtype not in self._bytes_of_window:
            network, batch = next(self._calls(tiling))
            with self._precision():
                size = bytes_of_graph(network, mirrored(tiling, batch[:1]))
            self._bytes_of_window[tiling.x.dtype] = size
        return self._bytes_of_window[tiling.x.dtype]

    def _add_windows(
        self, tiling: Tiling, total: torch.Tensor | None, out: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        out = out.to(tiling.x.dtype)
        if total is None:
            total = out.new_zeros(len(tiling.x), out.shape[1], *tiling.x.shape[2:])
        for (w, f), o in zip(batch, out):
            total[w] += o.flip(f) * self._gaussian
        return total

    def _divided(self, tiling: Tiling, total: torch.Tensor) -> torch.Tensor:
        return total.div_(tiling.weight_sum * (len(self.networks) * len(self._flips)))

    def _per_window_logit(self, tiling: Tiling, cotangent: torch.Tensor) -> torch.Tensor:
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
        self, graph: Graph, batch: Batch, per_logit: torch.Tensor, gradient: torch.Tensor
    ) -> None:
        """Adds dL/dx of one network call into `gradient`, and frees its graph."""
        cotangent = torch.stack([(per_logit[w] * self._gaussian).flip(f) for w, f in batch])
        for (w, f), b in zip(batch, self._gradient(graph, cotangent)):
            gradient[w] += b.flip(f)

    def _gradient(self, graph: Graph, cotangent: torch.Tensor) -> torch.Tensor:
        """d<cotangent, out>/d leaf."""
        if self.autocast is None:
            return torch.autograd.grad(graph.out, graph.leaf, cotangent.to(graph.out))[0]
        return scaled_gradient(graph.out, graph.leaf, cotangent)

    def _of_a_plain_batch(
        self, tiling: Tiling, network: nn.Module, batch: Batch, x: torch.Tensor, loss: LogitLoss
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Where every case is one window: the weights cancel, to the last bit."""
        graph = self._graph(tiling, network, batch)
        # a 2D case of one slice only needs its axis back
        shape = (len(x), -1, *tiling.x.shape[2:])
        z = graph.out.detach().to(x.dtype).reshape(shape)[tiling.crop].to(x.device)
        value, cotangent = loss_and_cotangent(loss, z)
        padded = torch.zeros_like(graph.out, dtype=x.dtype).reshape(shape)
        padded[tiling.crop] = cotangent.to(padded)
        back = self._gradient(graph, padded.reshape(graph.out.shape))
        return value, back.reshape(tiling.x.shape)[tiling.crop].to(x.device), z


def _device_of(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))
