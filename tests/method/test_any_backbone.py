"""LNG-SWR on a U-Net in plain torch, which nnU-Net did not make, in 2D and 3D."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr

FEATURES = (4, 8, 12)
STRIDES = (1, 2, 2)


class Encoder(nn.Module):
    def __init__(self, rank: int):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
        inputs = (1, *FEATURES[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(i, o, 3, stride=s, padding=1), nn.GELU())
            for i, o, s in zip(inputs, FEATURES, STRIDES)
        )

    def forward(self, x):
        skips = []
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        return skips


class UNet(nn.Module):
    """x (N, 1, *spatial) -> logits (N, 2, *spatial)."""

    def __init__(self, rank: int):
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[rank]
        self.encoder = Encoder(rank)
        self.merge = nn.ModuleList(
            convolution(deep + skip, skip, 3, padding=1)
            for deep, skip in zip(FEATURES[:0:-1], FEATURES[-2::-1])
        )
        self.head = convolution(FEATURES[0], 2, 1)

    def forward(self, x):
        *skips, x = self.encoder(x)
        for merge, skip in zip(self.merge, reversed(skips)):
            x = merge(torch.cat((F.interpolate(x, skip.shape[2:]), skip), 1)).relu()
        return self.head(x)


def unet(rank: int, config: LNGSWRConfig | None = None) -> nn.Module:
    torch.manual_seed(0)
    network = UNet(rank)
    if config is None:
        return network
    return attach(network, config, strides=STRIDES, features=FEATURES)


def batch(rank: int):
    """A bright square in noise, of odd sizes."""
    shape = (2, 1, *(13, 12, 9)[:rank])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(2, *shape[2:], dtype=torch.long)
    inside = (slice(None), *[slice(3, 8)] * rank)
    y[inside] = 1
    return x + 2 * y.unsqueeze(1), y


@torch.no_grad()
def noiseless_loss(network, x, y) -> float:
    loss = F.cross_entropy(network.eval()(x), y).item()
    network.train()
    return loss


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("gains", ["prior", (0.12, 0.02)])
def test_it_trains_and_its_gates_learn(rank, gains):
    network = unet(rank, LNGSWRConfig(gains=gains, gate_init=0.5)).train()
    lngswr = find_lngswr(network)
    gates = lngswr.gate_parameters()
    assert len(gates) == 3  # the image, and two stages before the bottleneck
    before = [gate.detach().clone() for gate in gates]
    x, y = batch(rank)
    # Small steps, and the loss without noise: another CPU's rounding then changes little.
    optimizer, first = torch.optim.Adam(network.parameters(), 0.01), noiseless_loss(network, x, y)
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(x), y)
        loss.backward()
        assert all(p.grad is not None for p in network.parameters())
        optimizer.step()
        lngswr.commit_priors()
        lngswr.clamp_gates_()
    assert noiseless_loss(network, x, y) < 0.8 * first  # .68 is the worst of 24 seeds
    for gate, start in zip(gates, before):
        assert not torch.equal(gate, start) and gate.isfinite().all()
    for _, branch in lngswr.branches():
        if branch.reconstruction is not None:
            gate = branch.reconstruction.gate()
            assert gate.min() >= 0 and gate.max() <= 1


@pytest.mark.parametrize("rank", [2, 3])
def test_closed_gates_are_the_identity_in_eval_mode(rank):
    plain, ours = unet(rank).eval(), unet(rank, LNGSWRConfig(gate_init=0.0)).eval()
    x, _ = batch(rank)
    assert torch.equal(ours(x), plain(x))
    with torch.no_grad():
        assert torch.equal(ours(x), plain(x))


@pytest.mark.parametrize("rank", [2, 3])
def test_eval_mode_is_deterministic_and_train_mode_is_noisy(rank):
    network = unet(rank, LNGSWRConfig())
    x, _ = batch(rank)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), copy.deepcopy(network)(x))


def test_the_method_imports_torch_numpy_and_pywavelets_alone():
    code = """
import sys
from nnunetv2_lngswr.method import network
foreign = {"nnunetv2", "batchgenerators", "batchgeneratorsv2", "scipy", "matplotlib"}
assert not foreign & set(sys.modules), foreign & set(sys.modules)
own = [m for m in sys.modules if m.startswith("nnunetv2_lngswr.")]
outside = [m for m in own if not m.startswith("nnunetv2_lngswr.method")]
assert not outside, outside
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
