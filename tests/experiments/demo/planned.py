"""Plans as nnU-Net's planner writes them for the phantoms, as far as the demo reads them."""

from nnunetv2_lngswr.experiments.demo import BUDGETS


def planned(kind: str) -> dict:
    d = int(kind[0])
    stages = {2: 6, 3: 4}[d]
    arch = {
        "n_stages": stages,
        "features_per_stage": [min(32 * 2**s, 512) for s in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{d}d",
        "kernel_sizes": [[3] * d] * stages,
        "strides": [[1] * d] + [[2] * d] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{d}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "nnUNetPlans_x",
        "batch_size": 40,
        "patch_size": [128, 160][:d] if d == 2 else [40, 48, 48],
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arch,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "plans_name": "nnUNetPlans",
        "configurations": {BUDGETS[kind].configuration: configuration},
    }
