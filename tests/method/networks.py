"""nnU-Net's two kinds of U-Net, small, with 3 stages, and images for them."""

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

FEATURES = (4, 6, 8)
STRIDES = {
    "2d": [[1, 1], [2, 2], [2, 2]],
    "3d": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "anisotropic": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
}


def make(kind="plain", strides="2d", channels=1, seed=0):
    strides = STRIDES[strides]
    conv, norm = {2: (nn.Conv2d, nn.InstanceNorm2d), 3: (nn.Conv3d, nn.InstanceNorm3d)}[
        len(strides[0])
    ]
    common = {
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": True,
    }
    torch.manual_seed(seed)
    cls, blocks = (
        (PlainConvUNet, "n_conv_per_stage")
        if kind == "plain"
        else (ResidualEncoderUNet, "n_blocks_per_stage")
    )
    return cls(
        channels,
        3,
        FEATURES,
        conv,
        3,
        strides,
        num_classes=2,
        n_conv_per_stage_decoder=1,
        **{blocks: 1},
        **common,
    )


def image(strides="2d", channels=1, batch=2, even=True):
    torch.manual_seed(1)
    return torch.randn(batch, channels, *([16] * len(STRIDES[strides][0])))
