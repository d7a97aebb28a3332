"""nnU-Net's planners, with what LNG-SWR keeps for the backward pass counted.

=============================  ====================================
nnUNetPlannerLNGSWR            nnU-Net's default (ExperimentPlanner)
nnUNetPlannerLNGSWRResEncM     nnUNetPlannerResEncM
nnUNetPlannerLNGSWRResEncL     nnUNetPlannerResEncL
nnUNetPlannerLNGSWRResEncXL    nnUNetPlannerResEncXL
=============================  ====================================

``nnUNetv2_plan_experiment -pl NAME`` takes them. Patches or batches become smaller, so that a
training needs the GPU memory that the plain planner's would need without LNG-SWR. Plans are named
as the plain planner's, with LNGSWR behind. 2d and 3d_fullres use the data of the default plans;
3d_lowres, and what is planned with another spacing, is preprocessed by ``nnUNetv2_preprocess
-plans_name``. How large the difference is: benchmarks/planner_memory.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
    ExperimentPlanner,
)
from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
    residual_encoder_unet_planners as resenc,
)

SUFFIX = "LNGSWR"


class _CountsLNGSWR(ExperimentPlanner):
    """Before one of nnU-Net's planners: its estimate plus `extra_feature_maps`, under plans names
    of their own."""

    _plain_name: str
    """Of the plain planner's plans."""

    def __init__(
        self, dataset_name_or_id: str | int, *, plans_name: str | None = None, **kwargs: Any
    ):
        plans_name = plans_name or self._plain_name + SUFFIX
        super().__init__(dataset_name_or_id, plans_name=plans_name, **kwargs)

    def static_estimate_VRAM_usage(
        self,
        patch_size,
        input_channels,
        output_channels,
        arch_class_name,
        arch_kwargs,
        arch_kwargs_req_import,
    ):
        plain = super().static_estimate_VRAM_usage(
            patch_size,
            input_channels,
            output_channels,
            arch_class_name,
            arch_kwargs,
            arch_kwargs_req_import,
        )
        return plain + extra_feature_maps(
            patch_size, arch_kwargs["strides"], arch_kwargs["features_per_stage"], input_channels
        )

    def generate_data_identifier(self, configuration_name: str) -> str:
        """The default plans' data where they are the same, as nnU-Net's ResEnc planners have it,
        which forget a spacing and a preprocessor of the user's."""
        same = (
            configuration_name in ("2d", "3d_fullres")
            and self.overwrite_target_spacing is None
            and self.preprocessor_name == "DefaultPreprocessor"
        )
        return f"{'nnUNetPlans' if same else self.plans_identifier}_{configuration_name}"


class nnUNetPlannerLNGSWR(_CountsLNGSWR):
    """ExperimentPlanner for LNG-SWR's trainers. Plans: nnUNetPlansLNGSWR."""

    _plain_name = "nnUNetPlans"


class nnUNetPlannerLNGSWRResEncM(_CountsLNGSWR, resenc.nnUNetPlannerResEncM):
    """nnUNetPlannerResEncM for LNG-SWR's trainers. Plans: nnUNetResEncUNetMPlansLNGSWR."""

    _plain_name = "nnUNetResEncUNetMPlans"


class nnUNetPlannerLNGSWRResEncL(_CountsLNGSWR, resenc.nnUNetPlannerResEncL):
    """nnUNetPlannerResEncL for LNG-SWR's trainers. Plans: nnUNetResEncUNetLPlansLNGSWR."""

    _plain_name = "nnUNetResEncUNetLPlans"


class nnUNetPlannerLNGSWRResEncXL(_CountsLNGSWR, resenc.nnUNetPlannerResEncXL):
    """nnUNetPlannerResEncXL for LNG-SWR's trainers. Plans: nnUNetResEncUNetXLPlansLNGSWR."""

    _plain_name = "nnUNetResEncUNetXLPlans"


def extra_feature_maps(
    patch_size: Sequence[int],
    strides: Sequence[int | Sequence[int]],
    features_per_stage: Sequence[int],
    input_channels: int,
) -> int:
    """What LNG-SWR adds to nnU-Net's estimate, which counts each convolution's output once.

    A counted output is kept twice, by the normalisation and by the next convolution. LNG-SWR keeps
    one tensor more of the input and of each stage: what the next convolution gets is not what the
    nonlinearity gave. With gains that one cannot divide by ("prior", 0) it would be two.

    Parameters
    ----------
    patch_size
        Voxels per axis.
    strides, features_per_stage
        Of the encoder's stages.
    input_channels
        Of the image.

    Returns
    -------
    Elements, in nnU-Net's unit
    """
    shape, total = np.array(patch_size, np.int64), input_channels * int(np.prod(patch_size))
    for stride, features in zip(strides, features_per_stage):
        shape = -(-shape // np.array(stride))
        total += features * int(np.prod(shape))
    return total // 2


__all__ = [
    "nnUNetPlannerLNGSWR",
    "nnUNetPlannerLNGSWRResEncM",
    "nnUNetPlannerLNGSWRResEncL",
    "nnUNetPlannerLNGSWRResEncXL",
]
