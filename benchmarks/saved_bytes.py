"""The most memory that is held for backward at any time, on any device, without an allocator's."""

from __future__ import annotations

from collections.abc import Callable

import torch


def peak_of_saved_bytes(run: Callable[[], object]) -> int:
    """Most bytes that are saved for backward at any time of run().

    Each tensor as often as it is saved. Hooks that `run` sets itself hide what they see.
    """
    live = peak = 0

    class Saved:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal live, peak
            self.tensor, self.size = tensor, tensor.numel() * tensor.element_size()
            live += self.size
            peak = max(peak, live)

        def __del__(self) -> None:
            nonlocal live
            live -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        run()
    return peak
