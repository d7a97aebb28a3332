"""What is measured: networks as nnU-Net builds them, with and without LNG-SWR, and their steps."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn
from torch.nn import functional as F

from nnunetv2_lngswr.method.network import attach, find_lngswr
from nnunetv2_lngswr.trainers import (
    nnUNetTrainerLNG,
    nnUNetTrainerLNGSWR,
    nnUNetTrainerLNGSWRGuided,
    nnUNetTrainerSWR,
)

ARMS = {
    "vanilla": None,
    "LNG": nnUNetTrainerLNG.method,
    "SWR": nnUNetTrainerSWR.method,
    "LNG-SWR": nnUNetTrainerLNGSWR.method,
    "LNG-SWR, guided": nnUNetTrainerLNGSWRGuided.method,
}
PLANS = {
    # those nnU-Net made for Dataset611_ThyroidUS at 128 px and for Dataset621_LungNodule3D, smaller
    # batch and patch
    "2d": {"batch": 10, "patch": (128, 112), "features": (32, 64, 128, 256, 512)},
    "3d": {"batch": 2, "patch": (48, 48, 48), "features": (32, 64, 128, 256)},
    # what nnU-Net plans for large 3D data
    "3d_large": {"batch": 2, "patch": (128, 128, 128), "features": (32, 64, 128, 256, 320, 320)},
}


class Arm:
    """One network with its optimiser, and a fixed batch of random data.

    Parameters
    ----------
    name
        One of ARMS.
    plan
        As in PLANS: "batch", "patch" (*spatial) and "features" per stage.
    device
        "cpu" or "cuda".
    compiled
        By torch.compile, as nnU-Net does on CUDA.
    """

    def __init__(self, name: str, plan: Mapping[str, Any], device: str, *, compiled: bool = False):
        torch.manual_seed(0)
        self.network = _make_network(plan)
        method = ARMS[name]
        if method is not None:
            attach(self.network, method)
        self.network.to(device)
        self.lngswr = find_lngswr(self.network)
        self.forward = torch.compile(self.network) if compiled else self.network
        # as nnU-Net: half precision on CUDA only
        self.scaler = torch.amp.GradScaler("cuda") if device == "cuda" else None
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), 1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5
        )
        self.x = torch.randn(plan["batch"], 1, *plan["patch"], device=device)
        self.y = (self.x[:, 0] > 1).long()

    def train_step(self) -> None:
        """One step as nnU-Net's trainer takes it."""
        self.network.train()
        for guidance in self.lngswr.guidance() if self.lngswr is not None else ():
            guidance.pass_on(new=len(self.x) // 2)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.x.new_zeros(())
        with self._autocast():
            for level, logits in enumerate(self.forward(self.x)):
                coarser = [slice(None, None, 2**level)] * (self.y.ndim - 1)
                target = self.y[(slice(None), *coarser)]
                loss = loss + F.cross_entropy(logits, target) / 2**level
        if self.scaler is None:
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), 12)
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.lngswr is not None:
            self.lngswr.commit_priors()
            self.lngswr.clamp_gates_()

    @torch.inference_mode()
    def infer(self) -> None:
        """One prediction of the batch."""
        self.network.eval()
        self.network.decoder.deep_supervision = False
        with self._autocast():
            self.forward(self.x)
        self.network.decoder.deep_supervision = True

    def bytes_at_rest(self) -> int:
        """What lies in memory between steps: batch, weights, gradients, buffers, optimiser."""
        weights = list(self.network.parameters())
        gradients = [w.grad for w in weights if w.grad is not None]
        of_optimizer = [value for of in self.optimizer.state.values() for value in of.values()]
        state = [value for value in of_optimizer if isinstance(value, torch.Tensor)]
        if self.lngswr is not None:
            for guidance in self.lngswr.guidance():
                found = guidance.direction
                of_guidance = [] if found is None else [found, found.grad]
                state += [tensor for tensor in of_guidance if tensor is not None]
        held = [self.x, self.y, *weights, *gradients, *self.network.buffers(), *state]
        return sum(t.numel() * t.element_size() for t in held)

    def _autocast(self) -> AbstractContextManager:
        return nullcontext() if self.scaler is None else torch.autocast("cuda")


def _make_network(plan: Mapping[str, Any]) -> Any:
    """nnU-Net's PlainConvUNet for one input channel and two classes."""
    rank, stages = len(plan["patch"]), len(plan["features"])
    return get_network_from_plans(
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        {
            "n_stages": stages,
            "features_per_stage": plan["features"],
            "conv_op": f"torch.nn.modules.conv.Conv{rank}d",
            "kernel_sizes": [[3] * rank] * stages,
            "strides": [[1] * rank] + [[2] * rank] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{rank}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        ["conv_op", "norm_op", "dropout_op", "nonlin"],
        1,
        2,
        deep_supervision=True,
    )
