"""Free adversarial training that rolls: samples stay for m steps, their perturbations with them.

A batch is m shares. At each step the oldest share leaves and a new one comes, so that a step asks
the augmentation for 1 / m of a batch. The first batch of an epoch is new altogether and leaves
share by share, after 1, 2, ... m steps; what comes later stays m steps, or to the epoch's end.

A batch is what nnU-Net's loaders give: "data" (B, C, *spatial), "target" as "data", or a list of
those of deep supervision, and "keys" (B,).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch import Tensor

from nnunetv2_lngswr.training.adversarial_batch import at_every_resolution


class ShareLoader(nnUNetDataLoader):
    """nnU-Net's loader, asked for one share of a batch at a time.

    nnU-Net guarantees foreground in the last samples of a batch. Shares that follow one another are
    the places of a batch in turn, so any m of one process hold as much of it as a batch does.

    Parameters
    ----------
    whole
        nnU-Net's loader of whole batches.
    shares
        Of a batch; divides its size.
    """

    def __init__(self, whole: nnUNetDataLoader, shares: int) -> None:
        vars(self).update(vars(whole))  # cases, patch sizes, transforms
        self._guaranteed_in_batch = whole.get_do_oversample
        self._shares = shares
        self.batch_size = whole.batch_size // shares
        self.get_do_oversample = self._guaranteed_in_share
        self.restart()

    def restart(self) -> None:
        """Begin with the first share of a batch."""
        self._share = -1

    def generate_train_batch(self) -> dict[str, Any]:
        """The next share."""
        self._share = (self._share + 1) % self._shares
        return super().generate_train_batch()

    def _guaranteed_in_share(self, sample: int) -> bool:
        return self._guaranteed_in_batch(self._share * self.batch_size + sample)


class Rolling:
    """An iterator over nnU-Net's batches that can go on by shares.

    Parameters
    ----------
    batches
        What nnU-Net augments with, single- or multi-process. It works only while it is asked.
    shares
        m.
    """

    def __init__(self, batches: Any, shares: int) -> None:
        self._batches, self._by_share = batches, _augmenter_of_shares(batches, shares)
        self._shares = shares
        self._rolls = self._begun = False

    @property
    def batches(self) -> Any:
        """The augmenter that is at work."""
        return self._by_share if self._rolls else self._batches

    def restart(self, *, rolls: bool) -> None:
        """Go on with a whole new batch, followed by shares, or by whole batches unless it `rolls`.

        The augmenter that is no longer asked ends its processes.
        """
        if rolls != self._rolls and isinstance(self.batches, NonDetMultiThreadedAugmenter):
            self.batches._finish()
        self._rolls, self._begun = rolls, False
        if isinstance(self._by_share, SingleThreadedAugmenter):
            self._by_share.data_loader.restart()

    def __iter__(self) -> Iterator[dict]:
        return self

    def __next__(self) -> dict:
        if self._begun or not self._rolls:
            return next(self.batches)
        self._begun = True
        return _joined([next(self.batches) for _ in range(self._shares)])


class Window:
    """The samples that are trained on, oldest first."""

    def __init__(self) -> None:
        self._held: dict[str, Any] | None = None

    def admit(self, new: dict[str, Any]) -> dict[str, Any]:
        """The batch in which `new` samples have come for as many that leave; at first, `new`."""
        if self._held is not None:
            n = len(new["data"])
            stay = {k: at_every_resolution(lambda v: v[n:], held) for k, held in self._held.items()}
            new = _joined([stay, new])
        self._held = new
        return new


def _augmenter_of_shares(batches: Any, shares: int) -> Any:
    """What nnU-Net would have made, for shares."""
    if isinstance(batches, SingleThreadedAugmenter):
        return SingleThreadedAugmenter(ShareLoader(batches.data_loader, shares), None)
    return NonDetMultiThreadedAugmenter(
        data_loader=ShareLoader(batches.generator, shares),
        transform=None,
        num_processes=batches.num_processes,
        num_cached=batches.num_cached,
        pin_memory=batches.pin_memory,
        wait_time=batches.wait_time,
    )


def _joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {key: _concatenated([part[key] for part in parts]) for key in parts[0]}


def _concatenated(values: Sequence[Any]) -> Any:
    if isinstance(values[0], list):
        return [_concatenated(level) for level in zip(*values, strict=True)]
    if isinstance(values[0], Tensor):
        return torch.cat(tuple(values))
    return np.concatenate(values)
