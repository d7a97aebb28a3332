"""How much memory the graph of a network call takes, measured.

The bytes that autograd holds for a backward pass, without those of the parameters, which are there
anyway. What is allocated on the way (workspaces, gradients of activations) is not counted.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

GRAPH_BYTES = 2 * 2**30
"""Graphs that a gradient keeps at once by default, beside the one that it needs anyway: 2 GiB."""


class Graph(NamedTuple):
    """A network call that can be backpropagated."""

    leaf: torch.Tensor
    """(n, C, *patch)."""
    out: torch.Tensor
    """(n, K, *patch)."""


def bytes_of_graph(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes that the graph of network(x) keeps alive, its output included.

    Parameters
    ----------
    network
        As it will be called: in its mode, its parameters frozen or not.
    x
        (B, C, *patch); counted where the graph holds it.
    """
    own = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    found: dict[int, int] = {}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        # layers share what they save, so storages are counted, not tensors
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaf = x.detach().requires_grad_()
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda held: held):
        out = network(leaf)
    count(out)
    return sum(size for address, size in found.items() if address not in own)
