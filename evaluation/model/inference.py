"""nnU-Net's own predictor and export, in this process: what is reported as a segmentation.

Its sums are float16, so clean Dice equals nnUNetv2_predict's. Gradients come from
sliding_window.py, the same function in the precision of x.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from evaluation.model.case import CasePreprocessor
from evaluation.model.prediction import Prediction, finite


class Inference:
    """Prediction of preprocessed cases.

    Parameters
    ----------
    networks
        One per fold.
    preprocessor
        Of the model: its plans and labels.
    trainer_name
        nnU-Net's class.
    device
        Where the networks are.
    tile_step_size
        Of the sliding window, as a fraction of the patch.
    mirror_axes
        Of the patch; None for none.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        preprocessor: CasePreprocessor,
        *,
        trainer_name: str,
        device: torch.device,
        tile_step_size: float,
        mirror_axes: tuple[int, ...] | None,
    ) -> None:
        self._preprocessor = preprocessor
        with contextlib.redirect_stdout(io.StringIO()):  # it prints advice on CPU
            self._predictor = nnUNetPredictor(
                tile_step_size=tile_step_size,
                use_gaussian=True,
                use_mirroring=mirror_axes is not None,
                perform_everything_on_device=device.type == "cuda",
                device=device,
                allow_tqdm=False,
            )
        # the predictor loads each fold's weights into its own network, so ours are never swapped
        self._predictor.manual_initialization(
            deepcopy(networks[0]),
            preprocessor.plans,
            preprocessor.configuration_manager,
            [n.state_dict() for n in networks],
            dict(preprocessor.dataset_json),
            trainer_name,
            mirror_axes,
        )

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """(C, *spatial) -> (K, *spatial) float16 on the CPU."""
        return self._predictor.predict_logits_from_preprocessed_data(x.detach().float().cpu()).cpu()

    def prediction(self, x: torch.Tensor, properties: Mapping[str, Any]) -> Prediction:
        """(C, *spatial) -> labels and probabilities in the file's geometry (its array order)."""
        manager = self._preprocessor.label_manager
        kept = _KeepsLogits(manager)
        segmentation = convert_predicted_logits_to_segmentation_with_correct_shape(
            finite(self.logits(x)),
            self._preprocessor.plans,
            self._preprocessor.configuration_manager,
            cast(Any, kept),
            dict(properties),
            return_probabilities=False,
            num_threads_torch=torch.get_num_threads(),
        )
        assert isinstance(segmentation, np.ndarray) and kept.logits is not None
        return Prediction(
            segmentation=segmentation,
            logits=kept.logits,
            label_manager=manager,
            axes=self._preprocessor.plans.transpose_backward,
            corner=[low for low, _ in properties["bbox_used_for_cropping"]],
        )


class _KeepsLogits:
    """nnU-Net's label manager, which keeps the resampled logits that it makes a segmentation of.

    The export with return_probabilities=True takes the argmax of the probabilities, which rounding
    makes ties of: segmentations would not be those of nnUNetv2_predict to the last voxel.
    """

    def __init__(self, manager: LabelManager) -> None:
        self._manager = manager
        self.logits: torch.Tensor | np.ndarray | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def convert_logits_to_segmentation(self, predicted_logits: torch.Tensor | np.ndarray) -> Any:
        self.logits = predicted_logits
        return self._manager.convert_logits_to_segmentation(predicted_logits)
