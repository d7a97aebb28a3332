"""A case as the network sees it: read and preprocessed as nnUNetv2_predict does, with its label.

A preprocessed case x is (C, *spatial) float32 with nnU-Net's three spatial axes, also in 2D. In a
cascade the previous stage's one-hot segmentation follows the image channels and stays fixed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from evaluation.model.affine import file_affine
from evaluation.model.readers import FileImage, read_image, read_label, read_segmentation
from nnunetv2_lngswr.attacks.losses import LabelSpace, SegmentationTarget
from nnunetv2_lngswr.attacks.threat_model import Bounds
from nnunetv2_lngswr.utils.errors import UserError, blamed_on
from nnunetv2_lngswr.utils.model_files import count_channels

MOST_VOXELS = 1e10
"""Of a preprocessed image: 40 GB a channel."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One preprocessed case."""

    identifier: str
    """The name of its files without channel and ending."""
    image_files: tuple[str, ...]
    """One per channel."""
    x: torch.Tensor
    """(C, *spatial) float32, preprocessed units."""
    labels: torch.Tensor | None
    """(*spatial) int64, preprocessed with -1 -> 0; None without a label."""
    ground_truth: np.ndarray | None
    """The label in the file's geometry (nnU-Net's array order, 3 axes); None without a label."""
    properties: Mapping[str, Any]
    """nnU-Net's, after preprocessing; of arrays the spacing alone."""
    transpose_forward: tuple[int, ...] | None = None
    """nnU-Net's, from the file's axes to x's; None where x is on the file's grid."""
    image_channels: int
    """Leading channels of x that are image."""
    file_scale: torch.Tensor | None
    """(image_channels,): x = scale * file + offset inside any clipping; None where not affine."""
    file_offset: torch.Tensor | None
    """(image_channels,), see `file_scale`."""
    resampled: bool
    """Whether preprocessing changed the grid."""
    outside: torch.Tensor | None = None
    """(image_channels, *spatial) bool, what nnU-Net sets to 0 whatever is there: voxels beyond the
    nonzero mask, of channels that are normalised within it. None where there are no such channels.
    """
    clipped: torch.Tensor | None = None
    """(image_channels, *spatial) bool, what normalisation has clipped in the file (CT), which
    resampling's ringing hides in x. None where nothing is."""

    @property
    def batch(self) -> torch.Tensor:
        """(1, C, *spatial)."""
        return self.x[None]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Of the file's axes, mm."""
        return tuple(float(s) for s in self.properties["spacing"])

    @property
    def bounds(self) -> Bounds:
        """[min, max] per channel; only image channels may change."""
        return Bounds.of(self.batch, image_channels=self.image_channels, file_scale=self.file_scale)

    def on_grid_of_x(self, segmentation: np.ndarray) -> np.ndarray:
        """A segmentation in the file's geometry, nearest neighbour: for pictures only."""
        if self.transpose_forward is None:
            return segmentation
        moved = segmentation.transpose(self.transpose_forward)
        crop = self.properties["bbox_used_for_cropping"]
        moved = moved[tuple(slice(int(a), int(b)) for a, b in crop)]
        for axis, n in enumerate(self.x.shape[1:]):
            index = ((np.arange(n) + 0.5) * moved.shape[axis] / n).astype(int)
            moved = np.take(moved, index, axis=axis)
        return moved

    def target(self, label_space: LabelSpace) -> SegmentationTarget:
        """What attacks push the model away from.

        Raises
        ------
        UserError
            The case has no label.
        """
        if self.labels is None:
            raise UserError(f"case {self.identifier} was preprocessed without a label")
        return label_space.target(self.labels[None])


@dataclass(frozen=True, kw_only=True)
class CaseImages:
    """A case as read and checked, before preprocessing."""

    image: FileImage
    label: FileImage | None
    previous_stage: FileImage | None


class CasePreprocessor:
    """Reads and preprocesses cases as one configuration of a model's plans says.

    Parameters
    ----------
    plans
        nnU-Net's, of the model folder.
    configuration
        Its name, such as '3d_fullres'.
    dataset_json
        Content of the model folder's dataset.json.
    """

    def __init__(
        self, plans: PlansManager, configuration: str, dataset_json: dict[str, Any]
    ) -> None:
        self.plans, self.configuration, self.dataset_json = plans, configuration, dataset_json
        self.configuration_manager = plans.get_configuration(configuration)
        self.label_manager = plans.get_label_manager(dataset_json)
        self.image_channels = count_channels(dataset_json)
        self.file_ending: str = dataset_json["file_ending"]

    @property
    def is_cascade(self) -> bool:
        """Whether cases need the previous stage's segmentation."""
        return self.configuration_manager.previous_stage_name is not None

    def read(
        self,
        image_files: Sequence[str | Path],
        label_file: str | Path | None = None,
        previous_stage_file: str | Path | None = None,
    ) -> CaseImages:
        """Read one case and check it.

        Raises
        ------
        UserError
            As `preprocess`.
        """
        reader = self.plans.image_reader_writer_class()
        files = [str(f) for f in image_files]
        image = read_image(reader, files, channels=self.image_channels)
        self._refuse_huge(image)
        label = None
        if label_file is not None:
            known = self._known_labels()
            label = read_label(reader, str(label_file), image=image, known=known)
        previous = None
        if self.is_cascade:
            if previous_stage_file is None:
                raise UserError(
                    f"{self.configuration} is a cascade: give the segmentation of "
                    f"{self.configuration_manager.previous_stage_name} for {files[0]} "
                    "(-prev_stage_predictions)"
                )
            previous = read_segmentation(reader, str(previous_stage_file), image=image)
        elif previous_stage_file is not None:
            raise UserError(
                f"{self.configuration} is no cascade and takes no previous stage, got "
                f"{previous_stage_file}"
            )
        return CaseImages(image=image, label=label, previous_stage=previous)

    def preprocess(
        self,
        image_files: Sequence[str | Path],
        label_file: str | Path | None = None,
        previous_stage_file: str | Path | None = None,
        *,
        identifier: str | None = None,
    ) -> Case:
        """Preprocess one case as nnUNetv2_predict does, its label beside it.

        Parameters
        ----------
        image_files
            One per channel.
        label_file
            Its ground truth.
        previous_stage_file
            The previous stage's segmentation, for a cascade.
        identifier
            Default: from the first image's name.

        Raises
        ------
        UserError
            Missing or unreadable files, a wrong number of channels, NaN or infinity, a constant or
            empty image, a label whose shape or spacing differs from the image's, labels that
            dataset.json does not know, and a cascade without the previous stage's segmentation.
        """
        read = self.read(image_files, label_file, previous_stage_file)
        image, previous = read.image, _array(read.previous_stage)
        x, labels, properties = self._run(image, previous)
        before_resampling = properties["shape_after_cropping_and_before_resampling"]
        if previous is not None:
            foreground = self.label_manager.foreground_labels
            one_hot = convert_labelmap_to_one_hot(labels[0], foreground, x.dtype)
            x = np.vstack((x, one_hot))
        affine = file_affine(image.array, previous, self.plans, self.configuration_manager)
        return Case(
            identifier=identifier or self._identifier(image.file),
            image_files=tuple(str(f) for f in image_files),
            x=torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)),
            labels=self._preprocessed_label(read),
            ground_truth=None if read.label is None else read.label.array[0].astype(np.int64),
            properties=properties,
            transpose_forward=tuple(self.plans.transpose_forward),
            image_channels=self.image_channels,
            file_scale=_double(affine and affine.scale),
            file_offset=_double(affine and affine.offset),
            resampled=tuple(before_resampling) != tuple(x.shape[1:]),
            outside=self._outside(labels),
            clipped=None if affine is None else self._on_grid_of_x(affine.clipped, x, image),
        )

    def _on_grid_of_x(
        self, clipped: np.ndarray, x: np.ndarray, image: FileImage
    ) -> torch.Tensor | None:
        """`Case.clipped`, resampled as a label is; None where it is empty."""
        if not clipped.any():
            return None
        if clipped.shape[1:] != x.shape[1:]:
            spacing = [image.properties["spacing"][axis] for axis in self.plans.transpose_forward]
            target = self.configuration_manager.spacing
            # 2D configurations leave the first axis as it is
            target = [*spacing[: len(spacing) - len(target)], *target]
            resampling = self.configuration_manager.resampling_fn_seg
            clipped = np.asarray(resampling(clipped.astype(np.int8), x.shape[1:], spacing, target))
        return torch.from_numpy(clipped > 0)

    def _outside(self, labels: np.ndarray) -> torch.Tensor | None:
        """Of `Case`; nnU-Net's labels are -1 there."""
        masked = list(self.configuration_manager.use_mask_for_norm[: self.image_channels])
        if not any(masked):
            return None
        return torch.from_numpy(np.stack([(labels[0] < 0) & bool(m) for m in masked]))

    def signature(self) -> dict[str, Any]:
        """What two models must agree in for one's preprocessed case to be the other's."""
        configuration, plans = self.configuration_manager, self.plans
        resampling = ("resampling_fn_data", "resampling_fn_data_kwargs")
        intensities = plans.foreground_intensity_properties_per_channel
        return {
            "spacing": [float(s) for s in configuration.spacing],
            "normalization_schemes": configuration.normalization_schemes,
            "use_mask_for_norm": configuration.use_mask_for_norm,
            "transpose_forward": plans.transpose_forward,
            "foreground_intensity_properties": intensities,
            "preprocessor_name": configuration.preprocessor_name,
            "resampling_fn_data": [configuration.configuration.get(key) for key in resampling],
            "previous_stage": configuration.previous_stage_name,
            "channels": self.image_channels,
        }

    def _known_labels(self) -> set[int]:
        known = set(self.label_manager.all_labels)
        if self.label_manager.ignore_label is not None:
            known.add(self.label_manager.ignore_label)
        return known

    def _refuse_huge(self, image: FileImage) -> None:
        """UserError where resampling would make of it what no memory holds."""
        axes = self.plans.transpose_forward
        shape = [image.array.shape[1:][axis] for axis in axes]
        spacing = [float(image.properties["spacing"][axis]) for axis in axes]
        # 2D configurations leave the first axis as it is
        target = [float(s) for s in self.configuration_manager.spacing]
        target = [*spacing[: len(spacing) - len(target)], *target]
        voxels = math.prod(n * a / b for n, a, b in zip(shape, spacing, target))
        if voxels > MOST_VOXELS:
            raise UserError(
                f"{image.file} has spacing {spacing} mm, plans.json {target}: resampled it would "
                f"have {voxels:.3g} voxels, of at most {MOST_VOXELS:.3g}; mend the one that is "
                "wrong"
            )

    def _run(self, image: FileImage, segmentation: np.ndarray | None):
        """nnU-Net's preprocessing: (image, segmentation, properties)."""
        with blamed_on(f"{image.file} cannot be preprocessed as plans.json says"):
            return self.configuration_manager.preprocessor_class(verbose=False).run_case_npy(
                image.array,
                segmentation,
                deepcopy(image.properties),
                self.plans,
                self.configuration_manager,
                self.dataset_json,
            )

    def _preprocessed_label(self, read: CaseImages) -> torch.Tensor | None:
        if read.label is None:
            return None
        # a run of its own: the label must not touch the image (z-scoring with a mask would see it),
        # as in nnUNetv2_predict
        _, labels, _ = self._run(read.image, read.label.array)
        return torch.from_numpy(labels[0].astype(np.int64)).clamp_min(0)

    def _identifier(self, file: str) -> str:
        return re.sub(rf"(_\d{{4}})?{re.escape(self.file_ending)}$", "", Path(file).name)


def _array(segmentation: FileImage | None) -> np.ndarray | None:
    return None if segmentation is None else segmentation.array


def _double(values: Sequence[float] | None) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)
