"""What an evaluation needs of a model, and no more.

`folder.SegmentationModel`, nnU-Net's folder, is one; `given.GivenModel`, any network or callable,
the other. How a case becomes what a model sees is the case's own business (`load` of
inputs.CaseFiles and of array_cases.ArrayCase).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from evaluation.model.case import Case
from evaluation.model.prediction import Prediction
from nnunetv2_lngswr.attacks.losses import LabelSpace
from nnunetv2_lngswr.attacks.models import DifferentiableModel


class EvaluatedModel(Protocol):
    """A model that run_case.py attacks and scores."""

    device: torch.device
    """Where cases go."""
    label_space: LabelSpace
    """What the channels of the logits mean."""
    label_manager: LabelManager
    """nnU-Net's: names, regions, the ignored label."""

    @property
    def is_cascade(self) -> bool:
        """Whether a previous stage's segmentation is among the channels."""
        ...

    @property
    def surface_unit(self) -> str:
        """Of distances: 'mm', or 'pixels' where files have no spacing."""
        ...

    @property
    def training_seed(self) -> int | None:
        """What its training was seeded with, where that is known."""
        ...

    def sliding_window(
        self,
        *,
        window_batch_size: int | None = None,
        graph_bytes: int = ...,
        autocast: torch.dtype | None = None,
    ) -> DifferentiableModel:
        """The deployed function with gradients; the arguments are for who tiles by our means."""
        ...

    def predict(self, case: Case, x: torch.Tensor | None = None) -> np.ndarray:
        """Labels in the geometry of `case.ground_truth`; x: a perturbed version, (C, *spatial)."""
        ...

    def prediction(self, case: Case, x: torch.Tensor | None = None) -> Prediction:
        """As `predict`, with the probabilities of the labels."""
        ...

    def save_perturbed(self, case: Case, x: torch.Tensor, folder: Path) -> float | None:
        """Write a perturbed x as images.

        Returns
        -------
        float or None
            How far what was written is from x when read back, preprocessed units; None: not known.

        Raises
        ------
        UserError
            Images of it cannot be written exactly.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What a report must state, JSON-ready, with the keys of SegmentationModel.describe."""
        ...
