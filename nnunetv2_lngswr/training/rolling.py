"""Free adversarial training that rolls: samples stay for m steps, their perturbations with them.

A batch is m shares, as equal as they can be. At each step the oldest share leaves and a new one
comes, so that a step asks the augmentation for 1 / m of a batch. The first batch of an epoch is new
altogether and leaves share by share, after 1, 2, ... m steps; what comes later stays m steps, or to
the epoch's end.

A batch is what nnU-Net's loaders give: "data" (B, C, *spatial), "target" as "data", or a list of
those of deep supervision, and "keys" (B,). It is asked for whole and cut: nnU-Net guarantees
foreground by the place in a batch, and its augmenting processes deliver in no fixed order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_lngswr.training.adversarial_batch import at_every_resolution


class Rolling:
    """An iterator over nnU-Net's batches that can go on by shares.

    Parameters
    ----------
    batches
        What nnU-Net augments with, single- or multi-process.
    shares
        m, at most the batch size.
    """

    def __init__(self, batches: Any, shares: int) -> None:
        self.batches = batches
        self._shares = shares
        self.restart(rolls=False)

    def restart(self, *, rolls: bool) -> None:
        """Go on with a whole new batch, followed by shares if it `rolls`, else by whole batches."""
        self._rolls, self._begun = rolls, False
        self._waiting: deque[dict[str, Any]] = deque()

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        if self._begun and not self._waiting:
            self._waiting.extend(_shares_of(next(self.batches), self._shares))
        if self._begun:
            return self._waiting.popleft()
        self._begun = self._rolls
        return next(self.batches)


class Window:
    """The samples that are trained on, oldest first."""

    def __init__(self) -> None:
        self._held: dict[str, Any] | None = None

    def admit(self, new: dict[str, Any]) -> dict[str, Any]:
        """The batch in which `new` samples have come for as many that leave; at first, `new`."""
        if self._held is not None:
            stay = _samples(self._held, slice(len(new["data"]), None))
            new = _joined([stay, new])
        self._held = new
        return new


def _shares_of(batch: dict[str, Any], shares: int) -> Iterator[dict[str, Any]]:
    size, longer = divmod(len(batch["data"]), shares)
    start = 0
    for share in range(shares):
        end = start + size + (share < longer)
        yield _samples(batch, slice(start, end))
        start = end


def _samples(batch: dict[str, Any], which: slice) -> dict[str, Any]:
    return {key: at_every_resolution(lambda v: v[which], held) for key, held in batch.items()}


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {key: _concatenated([part[key] for part in parts]) for key in parts[0]}


def _concatenated(values: Sequence[Any]) -> Any:
    if isinstance(values[0], list):
        return [_concatenated(level) for level in zip(*values, strict=True)]
    if isinstance(values[0], Tensor):
        return torch.cat(tuple(values))
    return np.concatenate(values)
