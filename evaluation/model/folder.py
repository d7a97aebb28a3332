"""Any nnU-Net v2 model folder, any trainer: loading, preprocessing, prediction and writing.

Each is done as nnU-Net itself does it. Reported segmentations come from nnU-Net's own predictor and
export functions (inference.py); gradients come from `SegmentationModel.sliding_window`, the same
function in the precision of x. What a preprocessed case is, case.py says.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

import nnunetv2_lngswr
from evaluation.model import readers
from evaluation.model.case import Case, CaseImages, CasePreprocessor
from evaluation.model.folds import Fold, find_folds
from evaluation.model.graph_memory import GRAPH_BYTES
from evaluation.model.inference import Inference
from evaluation.model.networks import load_folds
from evaluation.model.perturbed_files import roundtrip_error, write_perturbed
from evaluation.model.prediction import Prediction
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks.losses import LabelSpace
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.model_files import check_description

PLANS_NEED = ("plans_name", "dataset_name", "configurations")
DATASET_NEEDS = ("labels", "file_ending")


class SegmentationModel:
    """A trained nnU-Net v2 model. Build it with `from_folder`; attributes are read-only.

    Attributes
    ----------
    folder
        TRAINER__PLANS__CONFIGURATION.
    folds
        Those loaded.
    checkpoint
        Name of the file within a fold.
    checkpoint_sha256
        {fold: hash}.
    trainer_name
        nnU-Net's class.
    configuration
        Its name, such as '3d_fullres'.
    plans, configuration_manager, dataset_json, label_manager
        nnU-Net's.
    label_space
        What the network's outputs mean.
    networks
        One per fold, in eval mode on `device`.
    tile_step_size
        Of the sliding window, as a fraction of the patch.
    mirror_axes
        Those used; None without mirroring.
    patch_size
        Voxels, two or three axes.
    image_channels, file_ending
        Of the images.
    """

    def __init__(
        self,
        *,
        folder: Path,
        folds: Sequence[Fold],
        checkpoint: str,
        checkpoint_sha256: Mapping[Fold, str],
        trainer_name: str,
        configuration: str,
        plans: PlansManager,
        dataset_json: dict[str, Any],
        networks: Sequence[nn.Module],
        device: torch.device,
        tile_step_size: float,
        mirror_axes: tuple[int, ...] | None,
    ) -> None:
        self.folder, self.folds, self.checkpoint = folder, tuple(folds), checkpoint
        self.checkpoint_sha256 = dict(checkpoint_sha256)
        self.trainer_name, self.configuration = trainer_name, configuration
        self.plans, self.dataset_json = plans, dataset_json
        self.networks, self.device = list(networks), device
        self.tile_step_size, self.mirror_axes = tile_step_size, mirror_axes
        self._preprocessor = CasePreprocessor(plans, configuration, dataset_json)
        self.configuration_manager = self._preprocessor.configuration_manager
        self.label_manager = self._preprocessor.label_manager
        self.image_channels = self._preprocessor.image_channels
        self.file_ending = self._preprocessor.file_ending
        self.label_space = LabelSpace.from_label_manager(self.label_manager)
        self.patch_size = tuple(int(i) for i in self.configuration_manager.patch_size)
        self._inference = Inference(
            self.networks,
            self._preprocessor,
            trainer_name=trainer_name,
            device=device,
            tile_step_size=tile_step_size,
            mirror_axes=mirror_axes,
        )

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        folds: Sequence[Fold] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: torch.device | str = "cpu",
        tile_step_size: float = 0.5,
        use_mirroring: bool = True,
        trust_checkpoint: bool = False,
    ) -> SegmentationModel:
        """Load TRAINER__PLANS__CONFIGURATION with plans.json, dataset.json and fold_*/`checkpoint`.

        Parameters
        ----------
        folder, folds, checkpoint
            As `find_folds`.
        device
            Where the networks go.
        tile_step_size
            Of the sliding window, as a fraction of the patch, in (0, 1].
        use_mirroring
            Whether to mirror along the axes that the checkpoint allows.
        trust_checkpoint
            Unpickle and import all that checkpoint and plans.json name, which can run code.

        Raises
        ------
        UserError
            As `find_folds` and `load_folds`; a tile step out of range; plans.json or dataset.json
            that nnU-Net could not work with.
        """
        folder = Path(folder)
        if not 0 < tile_step_size <= 1:
            raise UserError(f"tile_step_size must be in (0, 1], got {tile_step_size}")
        found = find_folds(folder, folds, checkpoint)
        plans, dataset_json = _read_description(folder)
        loaded = load_folds(
            folder,
            found,
            checkpoint=checkpoint,
            plans=plans,
            dataset_json=dataset_json,
            device=torch.device(device),
            trust_checkpoint=trust_checkpoint,
        )
        return cls(
            folder=folder,
            folds=found,
            checkpoint=checkpoint,
            checkpoint_sha256=loaded.sha256,
            trainer_name=loaded.trainer_name,
            configuration=loaded.configuration,
            plans=plans,
            dataset_json=dataset_json,
            networks=loaded.networks,
            device=torch.device(device),
            tile_step_size=tile_step_size,
            mirror_axes=loaded.mirror_axes if use_mirroring else None,
        )

    @property
    def is_cascade(self) -> bool:
        """Whether cases need the previous stage's segmentation."""
        return self._preprocessor.is_cascade

    @property
    def training_seed(self) -> int | None:
        """That of the plans' "lngswr" entry; None where they have none."""
        entry = self.configuration_manager.configuration.get("lngswr")
        seed = entry.get("seed") if isinstance(entry, dict) else None
        return seed if isinstance(seed, int) and not isinstance(seed, bool) else None

    @property
    def surface_unit(self) -> str:
        """Of distances: 'pixels' where files, PNG and the like, have no spacing."""
        reader = self.plans.image_reader_writer_class.__name__
        return "pixels" if "NaturalImage" in reader else "mm"

    def describe(self) -> dict[str, Any]:
        """What a report must state about the model, JSON-ready."""
        return {
            "folder": os.path.abspath(self.folder),
            "trainer": self.trainer_name,
            "plans": self.plans.plans_name,
            "dataset": self.plans.dataset_name,
            "configuration": self.configuration,
            "folds": list(self.folds),
            "checkpoint": self.checkpoint,
            "checkpoint_sha256": {str(k): v for k, v in self.checkpoint_sha256.items()},
            "tile_step_size": self.tile_step_size,
            "mirror_axes": None if self.mirror_axes is None else list(self.mirror_axes),
            "patch_size": list(self.patch_size),
            "cascade": self.is_cascade,
            "regions": self.label_space.regions,
            "device": str(self.device),
            "versions": {
                "nnunetv2": version("nnunetv2"),
                "torch": torch.__version__,
                "nnunetv2_lngswr": nnunetv2_lngswr.__version__,
            },
        }

    def list_images(self, folder: str | Path) -> dict[str, list[str]]:
        """{identifier: channel files} of an nnU-Net image folder, see `readers.list_images`."""
        return readers.list_images(folder, self.file_ending)

    def read(
        self,
        image_files: Sequence[str | Path],
        label_file: str | Path | None = None,
        previous_stage_file: str | Path | None = None,
    ) -> CaseImages:
        """One case, checked but not preprocessed; UserErrors as `preprocess`."""
        return self._preprocessor.read(image_files, label_file, previous_stage_file)

    def preprocess(
        self,
        image_files: Sequence[str | Path],
        label_file: str | Path | None = None,
        previous_stage_file: str | Path | None = None,
        *,
        identifier: str | None = None,
    ) -> Case:
        """One case as nnUNetv2_predict preprocesses it, see `CasePreprocessor.preprocess`."""
        return self._preprocessor.preprocess(
            image_files, label_file, previous_stage_file, identifier=identifier
        )

    def sliding_window(
        self,
        *,
        window_batch_size: int | None = None,
        graph_bytes: int = GRAPH_BYTES,
        autocast: torch.dtype | None = None,
        folds: Sequence[Fold] | None = None,
    ) -> SlidingWindow:
        """The deployed function with gradients.

        Parameters
        ----------
        window_batch_size
            None: 8 windows of a slice or one 3D window per network call.
        graph_bytes, autocast
            As SlidingWindow.
        folds
            Some of those loaded; None for all.

        Raises
        ------
        UserError
            A fold that is not loaded.
        """
        unknown = [f for f in folds or () if f not in self.folds]
        if unknown:
            raise UserError(f"folds {unknown} are not loaded; loaded: {list(self.folds)}")
        chosen = self.folds if folds is None else folds
        return SlidingWindow(
            [network for network, fold in zip(self.networks, self.folds) if fold in chosen],
            patch_size=self.patch_size,
            tile_step_size=self.tile_step_size,
            mirror_axes=self.mirror_axes,
            window_batch_size=window_batch_size or (8 if len(self.patch_size) == 2 else 1),
            graph_bytes=graph_bytes,
            autocast=autocast,
            device=self.device,
        )

    def predict_logits(self, x: torch.Tensor) -> torch.Tensor:
        """(C, *spatial) -> (K, *spatial) float16 on the CPU, by nnU-Net's predictor."""
        return self._inference.logits(x)

    def predict(self, case: Case, x: torch.Tensor | None = None) -> np.ndarray:
        """The segmentation of `prediction`."""
        return self.prediction(case, x).segmentation

    def prediction(self, case: Case, x: torch.Tensor | None = None) -> Prediction:
        """Labels and probabilities in the file's geometry (nnU-Net's array order).

        Parameters
        ----------
        case
            A preprocessed case.
        x
            A perturbed version of it, (C, *spatial); None for the case itself.
        """
        x = case.x if x is None else x
        if x.shape != case.x.shape:
            raise UserError(
                f"x must have the case's shape {tuple(case.x.shape)}, got {tuple(x.shape)}"
            )
        return self._inference.prediction(x, case.properties)

    def write_case(self, case: Case, x: torch.Tensor, folder: str | Path) -> list[Path]:
        """Write a perturbed x, (C, *spatial), as images, see `perturbed_files.write_perturbed`."""
        return write_perturbed(
            case, x, Path(folder), plans=self.plans, file_ending=self.file_ending
        )

    def save_perturbed(self, case: Case, x: torch.Tensor, folder: Path) -> float | None:
        """`write_case`, and how far that is from x when read back; None for a cascade."""
        paths = self.write_case(case, x, folder)
        return None if self.is_cascade else roundtrip_error(self, case, x, paths)

    def check_surrogate(self, surrogate: SegmentationModel) -> None:
        """As `transfer` needs.

        Raises
        ------
        UserError
            Unless `surrogate` preprocesses cases alike and means the same by its outputs.
        """
        mine, theirs = self._signature(), surrogate._signature()
        different = [k for k in mine if mine[k] != theirs[k]]
        if different:
            raise UserError(
                f"surrogate {surrogate.folder} differs from {self.folder} in "
                f"{', '.join(different)}; its perturbations do not carry over"
            )

    def _signature(self) -> dict[str, Any]:
        outputs = (self.label_space.heads, self.label_space.regions)
        return {**self._preprocessor.signature(), "outputs": outputs}


def _read_description(folder: Path) -> tuple[PlansManager, dict[str, Any]]:
    """(plans.json, dataset.json), well-formed."""
    plans = read_json(folder / "plans.json", needs=PLANS_NEED)
    dataset_json = read_json(folder / "dataset.json", needs=DATASET_NEEDS)
    return check_description(
        plans,
        dataset_json,
        plans_are=str(folder / "plans.json"),
        dataset_json_is=str(folder / "dataset.json"),
    ), dataset_json
