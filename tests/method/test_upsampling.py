"""Nearest upsampling: an oracle, which looks every voxel's block up."""

import pytest
import torch

from nnunetv2_lngswr.method.upsampling import add_broadcast, add_upsampled, upsampled

CASES = [
    ((6, 8), (2, 2)),
    ((4, 2), (2, 2)),
    ((5, 8), (1, 2)),
    ((6, 7), (2, 1)),
    ((4, 6, 8), (2, 2, 2)),
    ((4, 3, 8), (2, 1, 2)),
    ((3, 6, 5), (1, 2, 1)),
]


def looked_up(coarse: torch.Tensor, lengths, by, begins) -> torch.Tensor:
    """`begins` (N, axes): 1 where a sample begins with the second half of a block."""
    samples = []
    for sample, of_axes in zip(coarse, begins.tolist()):
        for axis, (length, f, begin) in enumerate(zip(lengths, by, of_axes)):
            blocks = [(i + (begin if f == 2 else 0)) // f for i in range(length)]
            sample = sample[(slice(None), *[slice(None)] * axis, blocks)]
        samples.append(sample)
    return torch.stack(samples)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("samples", [1, 6])
@pytest.mark.parametrize("lengths, by", CASES)
def test_all_ways_are_the_looked_up_one(lengths, by, samples, shifted, rng):
    sizes = [n if f == 1 else n // 2 + shifted for n, f in zip(lengths, by)]
    coarse = torch.randn((samples, 3, *sizes), generator=rng)
    fine = torch.randn((samples, 3, *lengths), generator=rng)
    begins = torch.zeros(samples, len(by), dtype=torch.int64)
    shift = [None] * len(by)
    if shifted:
        begins = torch.randint(0, 2, begins.shape, generator=rng)
        shift = begins.float().view(*begins.shape, 1, *[1] * len(by)).unbind(1)
    expected = looked_up(coarse, lengths, by, begins)
    assert torch.equal(upsampled(coarse, lengths, by, shift), expected)
    total = fine.clone()
    add_upsampled(total, coarse, by, shift)
    assert torch.equal(total, fine + expected)
    if not shifted:
        total = fine.clone()
        add_broadcast(total, coarse, by)
        assert torch.equal(total, fine + expected)
