"""Dynamic multi-scale fusion at the bottleneck: an optional part of LNG-SWR (arXiv 2511.16162).

    x <- x + gamma * sum_k w_k(x) DW_k(x)

DW_k is a depthwise 3-wide convolution of dilation k, w(x) a softmax over the branches computed from
the globally pooled features, gamma a weight per channel that starts at 0, so that the module starts
as the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DILATIONS = (1, 2, 3)


class DynamicMultiScaleFusion(nn.Module):
    """The fusion of one feature map (N, channels, *spatial).

    Parameters
    ----------
    channels
        C of the bottleneck.
    spatial_rank
        2 or 3.
    """

    def __init__(self, channels: int, spatial_rank: int):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_rank]
        self.branches = nn.ModuleList(
            convolution(channels, channels, 3, padding=d, dilation=d, groups=channels, bias=False)
            for d in DILATIONS
        )
        self.weighting = nn.Linear(channels, len(DILATIONS))
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, *spatial) -> the same shape."""
        ones = [1] * (x.ndim - 2)
        weights = self.weighting(x.flatten(2).mean(-1)).softmax(dim=1)  # (N, K)
        mixed = sum(
            w.view(-1, 1, *ones) * branch(x) for w, branch in zip(weights.unbind(1), self.branches)
        )
        return x + self.gamma.view(1, -1, *ones) * mixed
