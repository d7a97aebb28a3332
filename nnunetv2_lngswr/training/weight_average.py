"""Weights averaged over the last phase of a training (Izmailov et al. 2018); experimental.

The average is kept in the optimiser's state, so that it travels in checkpoints, under a key of its
own: Adam takes a weight that has any state for one that it has begun with.
While nnU-Net validates and saves, the network holds the average, and the optimiser what the
training goes on from: `exchange` comes between the training and the validation of an epoch, and
before the next one. Buffers are not averaged: nnU-Net's networks (instance norm) have none that
follow from the weights, and the measured priors of LNG-SWR are running means of the features
already.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch.optim import Optimizer

KEY = "averaged"


@torch.no_grad()
def add_to_average(optimizer: Optimizer, *, step: int, momentum: float) -> None:
    """Take the weights of a step into the average.

    Parameters
    ----------
    optimizer
        Of the weights.
    step
        0, 1, ... of those averaged; the first one's weights are the average.
    momentum
        In [0, 1]: what the average keeps of itself, though never more than the mean of all steps
        would. 1: that mean.
    """
    weight = max(1 - momentum, 1 / (step + 1))
    parameters = _parameters(optimizer)
    state = _state(optimizer)
    averages = state.get(KEY)
    if averages is None:
        averages = {number: p.detach().clone() for number, p in enumerate(parameters)}
        state[KEY] = averages
    for number, parameter in enumerate(parameters):
        averages[number].lerp_(parameter, weight)


@torch.no_grad()
def exchange(optimizer: Optimizer) -> None:
    """Swap weights and average; twice is what it was."""
    parameters = _parameters(optimizer)
    for number, average in _state(optimizer).get(KEY, {}).items():
        held = parameters[number].detach().clone()
        parameters[number].copy_(average)
        average.copy_(held)


def _state(optimizer: Optimizer) -> dict[Any, Any]:
    """Typed as having weights for keys alone, which torch saves and loads others beside."""
    return cast(dict[Any, Any], optimizer.state)


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
