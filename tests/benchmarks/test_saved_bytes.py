"""The peak of what is held for backward: all at once counts, one after another does not."""

import torch

from benchmarks.saved_bytes import peak_of_saved_bytes


def test_what_is_held_at_once_counts_and_what_is_freed_does_not():
    x = torch.ones(10, dtype=torch.float64, requires_grad=True)

    def gradient(depth):
        y = x
        for _ in range(depth):
            y = y.exp()  # keeps its result, 80 bytes
        y.sum().backward()

    assert peak_of_saved_bytes(lambda: gradient(3)) == 240
    assert peak_of_saved_bytes(lambda: [gradient(1), gradient(2), gradient(1)]) == 160
    assert peak_of_saved_bytes(lambda: None) == 0
