"""Any nnU-Net v2 model folder, any trainer: loading, preprocessing, prediction and writing, each as nnU-Net itself does it.

Reported segmentations, clean and attacked, come from nnU-Net's own predictor (float16 sums) and export functions, in this process, so that clean
Dice equals nnUNetv2_predict's. Gradients come from `SegmentationModel.sliding_window`, the same function in the precision of x.

A preprocessed case x is (C, *spatial) float32 with nnU-Net's three spatial axes, also in 2D; in a cascade the previous stage's one-hot
segmentation follows the image channels and stays fixed.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import (
    convert_labelmap_to_one_hot,
    determine_num_input_channels,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

import nnunetv2_lngswr
from evaluation.model import perturbed_files
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks.losses import LabelSpace, SegmentationTarget
from nnunetv2_lngswr.attacks.threat_model import Bounds
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint, sha256
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json


@dataclass(frozen=True, kw_only=True)
class Case:
    """One preprocessed case.

    `x`: (C, *spatial) float32. `labels`: (*spatial) int64, preprocessed with -1 -> 0, None without a label. `ground_truth`: the label in the
    file's geometry (nnU-Net's array order, 3 axes), None without. `properties`: nnU-Net's. `spacing`: of the file's axes, mm.
    `image_channels`: leading channels of x that are image. `file_scale`, `file_offset`: (image_channels,), x = scale * file + offset inside
    any clipping, None where the normalisation is not affine. `resampled`: whether preprocessing changed the grid.
    """

    identifier: str
    image_files: tuple[str, ...]
    x: torch.Tensor
    labels: torch.Tensor | None
    ground_truth: np.ndarray | None
    properties: Mapping[str, Any]
    image_channels: int
    file_scale: torch.Tensor | None
    file_offset: torch.Tensor | None
    resampled: bool

    @property
    def batch(self) -> torch.Tensor:
        """(1, C, *spatial)."""
        return self.x[None]

    @property
    def spacing(self) -> tuple[float, ...]:
        return tuple(float(s) for s in self.properties["spacing"])

    @property
    def bounds(self) -> Bounds:
        """[min, max] per channel; only image channels may change."""
        return Bounds.of(self.batch, image_channels=self.image_channels, file_scale=self.file_scale)

    def target(self, label_space: LabelSpace) -> SegmentationTarget:
        """What attacks push the model away from. ValueError for a case without a label."""
        if self.labels is None:
            raise UserError(f"case {self.identifier} was preprocessed without a label")
        return label_space.target(self.labels[None])


class SegmentationModel:
    """A trained nnU-Net v2 model. Build it with `from_folder`; the attributes below are read-only.

    `folder`, `folds`, `checkpoint`, `checkpoint_sha256` {fold: hash}, `trainer_name`, `configuration` (its name), `plans` (PlansManager),
    `configuration_manager`, `dataset_json`, `label_manager`, `label_space`, `networks` (one per fold), `device`, `tile_step_size`,
    `mirror_axes` (those used; None without mirroring), `patch_size`, `image_channels`, `file_ending`.
    """

    def __init__(
        self,
        *,
        folder: Path,
        folds: Sequence[int | str],
        checkpoint: str,
        checkpoint_sha256: Mapping[int | str, str],
        trainer_name: str,
        configuration: str,
        plans: PlansManager,
        dataset_json: Mapping[str, Any],
        networks: Sequence[nn.Module],
        device: torch.device,
        tile_step_size: float,
        mirror_axes: tuple[int, ...] | None,
    ) -> None:
        self.folder, self.folds, self.checkpoint = folder, tuple(folds), checkpoint
        self.checkpoint_sha256 = dict(checkpoint_sha256)
        self.trainer_name, self.configuration, self.plans, self.dataset_json = (
            trainer_name,
            configuration,
            plans,
            dataset_json,
        )
        self.configuration_manager = plans.get_configuration(configuration)
        self.label_manager = plans.get_label_manager(dataset_json)
        self.label_space = LabelSpace.from_label_manager(self.label_manager)
        self.networks, self.device = list(networks), device
        self.tile_step_size, self.mirror_axes = tile_step_size, mirror_axes
        self.patch_size = tuple(int(i) for i in self.configuration_manager.patch_size)
        self.image_channels = len(
            dataset_json.get("channel_names", dataset_json.get("modality", ()))
        )
        self.file_ending = dataset_json["file_ending"]
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
            deepcopy(self.networks[0]),
            plans,
            self.configuration_manager,
            [n.state_dict() for n in self.networks],
            dict(dataset_json),
            trainer_name,
            mirror_axes,
        )

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: torch.device | str = "cpu",
        tile_step_size: float = 0.5,
        use_mirroring: bool = True,
        trust_checkpoint: bool = False,
    ) -> SegmentationModel:
        """Load TRAINER__PLANS__CONFIGURATION with plans.json, dataset.json and fold_*/`checkpoint`.

        `folds`: None takes every fold_0, fold_1, ... that has the checkpoint, or else fold_all. ValueError for a folder without plans.json or
        dataset.json, without the fold or checkpoint, for a trainer that nnU-Net does not find, a checkpoint that weights_only
        refuses (unless `trust_checkpoint`) and weights that do not fit.
        """
        folder = Path(folder)
        if not 0 < tile_step_size <= 1:
            raise UserError(f"tile_step_size must be in (0, 1], got {tile_step_size}")
        folds = find_folds(folder, folds, checkpoint)
        plans = PlansManager(
            read_json(folder / "plans.json", needs=("plans_name", "dataset_name", "configurations"))
        )
        dataset_json = read_json(folder / "dataset.json", needs=("labels", "file_ending"))
        device = torch.device(device)
        networks, hashes, first = [], {}, None
        for fold in folds:
            path = folder / f"fold_{fold}" / checkpoint
            loaded = load_checkpoint(path, trust=trust_checkpoint)
            first = first or {k: v for k, v in loaded.items() if k != "network_weights"}
            network = _build_network(loaded, plans, dataset_json)
            try:
                network.load_state_dict(loaded["network_weights"])
            except RuntimeError as error:
                raise UserError(
                    f"{path} does not fit the network of {loaded['trainer_name']} and plans.json: {error}"
                ) from error
            networks.append(network.to(device).eval())
            hashes[fold] = sha256(path)
        axes = first.get("inference_allowed_mirroring_axes") if use_mirroring else None
        return cls(
            folder=folder,
            folds=folds,
            checkpoint=checkpoint,
            checkpoint_sha256=hashes,
            trainer_name=first["trainer_name"],
            configuration=first["init_args"]["configuration"],
            plans=plans,
            dataset_json=dataset_json,
            networks=networks,
            device=device,
            tile_step_size=tile_step_size,
            mirror_axes=tuple(axes) if axes else None,
        )

    @property
    def is_cascade(self) -> bool:
        return self.configuration_manager.previous_stage_name is not None

    def describe(self) -> dict[str, Any]:
        """What a report must state about the model, JSON-ready."""
        return {
            "folder": str(self.folder),
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

    # --- data ---

    def list_images(self, folder: str | Path) -> dict[str, list[str]]:
        """{identifier: channel files} of an nnU-Net image folder (<identifier>_0000<ending>, ...), sorted. ValueError when there is none."""
        pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(self.file_ending)}$")
        cases: dict[str, list[str]] = {}
        for path in sorted(Path(folder).glob(f"*{self.file_ending}")):
            if match := pattern.match(path.name):
                cases.setdefault(match[1], []).append(str(path))
        if not cases:
            raise UserError(
                f"{folder} holds no images named <case>_0000{self.file_ending} (file_ending of dataset.json)"
            )
        return cases

    def read(
        self,
        image_files: Sequence[str | Path],
        label_file: str | Path | None = None,
        previous_stage_file: str | Path | None = None,
    ) -> tuple[np.ndarray, dict[str, Any], np.ndarray | None, np.ndarray | None]:
        """(image, nnU-Net's properties, label, previous stage) of one case, checked but not preprocessed. ValueErrors as `preprocess`."""
        image_files = tuple(str(f) for f in image_files)
        reader = self.plans.image_reader_writer_class()
        data, properties = _read(reader.read_images, image_files)
        self._check_image(data, image_files)
        reference = None
        if label_file is not None:
            reference, label_properties = _read(reader.read_seg, str(label_file))
            self._check_label(
                reference, label_properties, str(label_file), data, properties, image_files
            )
        previous = None
        if self.is_cascade:
            if previous_stage_file is None:
                raise UserError(
                    f"{self.configuration} is a cascade: give the segmentation of {self.configuration_manager.previous_stage_name} "
                    f"for {image_files[0]} (-prev_stage_predictions)"
                )
            previous, previous_properties = _read(reader.read_seg, str(previous_stage_file))
            _check_same_grid(
                previous,
                previous_properties,
                str(previous_stage_file),
                data,
                properties,
                image_files,
            )
        elif previous_stage_file is not None:
            raise UserError(
                f"{self.configuration} is no cascade and takes no previous stage, got {previous_stage_file}"
            )
        return data, properties, reference, previous

    def preprocess(
        self,
        image_files: Sequence[str | Path],
        label_file: str | Path | None = None,
        previous_stage_file: str | Path | None = None,
        *,
        identifier: str | None = None,
    ) -> Case:
        """One case as nnUNetv2_predict preprocesses it, with its label beside it. `identifier`: default, from the first image's name.

        ValueError for missing or unreadable files, a wrong number of channels, NaN or infinity, a constant image, an empty image, a label whose
        shape or spacing differs from the image's, labels that dataset.json does not know, and a cascade without the previous
        stage's segmentation.
        """
        image_files = tuple(str(f) for f in image_files)
        data, properties, reference, previous = self.read(
            image_files, label_file, previous_stage_file
        )
        case_properties = deepcopy(properties)
        x, previous_labels, case_properties = self._run_preprocessor(
            data, previous, case_properties
        )
        labels = None
        if reference is not None:
            # a second run: the label must not touch the image (z-scoring with a mask would see it), as in nnUNetv2_predict
            _, labels, _ = self._run_preprocessor(data, reference, deepcopy(properties))
            labels = torch.from_numpy(labels[0].astype(np.int64)).clamp_min(0)
        if previous is not None:
            one_hot = convert_labelmap_to_one_hot(
                previous_labels[0], self.label_manager.foreground_labels, x.dtype
            )
            x = np.vstack((x, one_hot))
        affine = self._file_affine(data, previous)
        ending = re.escape(self.file_ending)
        return Case(
            identifier=identifier
            or re.sub(rf"(_\d{{4}})?{ending}$", "", Path(image_files[0]).name),
            image_files=image_files,
            x=torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)),
            labels=labels,
            ground_truth=None if reference is None else reference[0].astype(np.int64),
            properties=case_properties,
            image_channels=self.image_channels,
            file_scale=None if affine is None else torch.tensor(affine[0], dtype=torch.float64),
            file_offset=None if affine is None else torch.tensor(affine[1], dtype=torch.float64),
            resampled=tuple(case_properties["shape_after_cropping_and_before_resampling"])
            != tuple(x.shape[1:]),
        )

    # --- prediction ---

    def sliding_window(
        self,
        *,
        window_batch_size: int | None = None,
        autocast: torch.dtype | None = None,
        folds: Sequence[int | str] | None = None,
    ) -> SlidingWindow:
        """The deployed function with gradients, of all folds or of some. `window_batch_size` None: 8 windows of a slice or one 3D window per
        network call. `autocast`: as SlidingWindow."""
        unknown = [f for f in folds or () if f not in self.folds]
        if unknown:
            raise UserError(f"folds {unknown} are not loaded; loaded: {list(self.folds)}")
        chosen = (
            self.networks
            if folds is None
            else [n for n, f in zip(self.networks, self.folds) if f in folds]
        )
        return SlidingWindow(
            chosen,
            patch_size=self.patch_size,
            tile_step_size=self.tile_step_size,
            mirror_axes=self.mirror_axes,
            window_batch_size=window_batch_size or (8 if len(self.patch_size) == 2 else 1),
            autocast=autocast,
            device=self.device,
        )

    def predict_logits(self, x: torch.Tensor) -> torch.Tensor:
        """(C, *spatial) -> (K, *spatial) float16 on the CPU, by nnU-Net's predictor."""
        return self._predictor.predict_logits_from_preprocessed_data(x.detach().float().cpu()).cpu()

    def predict(self, case: Case, x: torch.Tensor | None = None) -> np.ndarray:
        """Segmentation in the file's geometry (nnU-Net's array order), of the case or of a perturbed `x`, (C, *spatial)."""
        x = case.x if x is None else x
        if x.shape != case.x.shape:
            raise UserError(
                f"x must have the case's shape {tuple(case.x.shape)}, got {tuple(x.shape)}"
            )
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            self.predict_logits(x),
            self.plans,
            self.configuration_manager,
            self.label_manager,
            dict(case.properties),
            return_probabilities=False,
            num_threads_torch=torch.get_num_threads(),
        )

    def write_segmentation(self, segmentation: np.ndarray, path: str | Path, case: Case) -> None:
        """Write a result of `predict` with the case's geometry through nnU-Net's writer."""
        self.plans.image_reader_writer_class().write_seg(
            segmentation, str(path), dict(case.properties)
        )

    def write_case(self, case: Case, x: torch.Tensor, folder: str | Path) -> list[Path]:
        """Write a perturbed x, (C, *spatial), as float images in the case's original geometry: <identifier>_0000<ending>, ... ValueError where
        that cannot be exact; see `perturbed_files.write`."""
        return perturbed_files.write(self, case, x, Path(folder))

    # --- checks and details ---

    def check_surrogate(self, surrogate: SegmentationModel) -> None:
        """ValueError unless `surrogate` preprocesses cases alike and means the same by its outputs, as `transfer` needs."""

        def signature(model: SegmentationModel) -> dict[str, Any]:
            c, plans = model.configuration_manager, model.plans
            return {
                "spacing": [float(s) for s in c.spacing],
                "normalization_schemes": c.normalization_schemes,
                "use_mask_for_norm": c.use_mask_for_norm,
                "transpose_forward": plans.transpose_forward,
                "foreground_intensity_properties": plans.foreground_intensity_properties_per_channel,
                "preprocessor_name": c.preprocessor_name,
                "resampling_fn_data": [
                    c.configuration.get("resampling_fn_data"),
                    c.configuration.get("resampling_fn_data_kwargs"),
                ],
                "previous_stage": c.previous_stage_name,
                "channels": model.image_channels,
                "outputs": (model.label_space.heads, model.label_space.regions),
            }

        mine, theirs = signature(self), signature(surrogate)
        different = [k for k in mine if mine[k] != theirs[k]]
        if different:
            raise UserError(
                f"surrogate {surrogate.folder} differs from {self.folder} in {', '.join(different)}; its perturbations do not carry over"
            )

    def _check_image(self, data: np.ndarray, files: tuple[str, ...]) -> None:
        if data.shape[0] != self.image_channels:
            raise UserError(
                f"{files[0]}: {data.shape[0]} channels, but dataset.json of the model has {self.image_channels} (channel_names)"
            )
        if not np.isfinite(data).all() or any(_nifti_has_nan(f) for f in files):
            raise UserError(f"{files[0]}: the image holds NaN or infinite values")
        if all(channel.min() == channel.max() for channel in data):
            raise UserError(
                f"{files[0]}: the image is constant ({data.flat[0]}), there is nothing to segment or to perturb"
            )

    def _check_label(
        self, label, label_properties, label_file, data, properties, image_files
    ) -> None:
        _check_same_grid(label, label_properties, label_file, data, properties, image_files)
        if _nifti_has_nan(label_file):
            raise UserError(f"{label_file}: the label holds NaN or infinite values")
        known = set(self.label_manager.all_labels) | (
            {self.label_manager.ignore_label} if self.label_manager.has_ignore_label else set()
        )
        unknown = sorted(set(np.unique(label).tolist()) - {float(k) for k in known})
        if unknown:
            raise UserError(
                f"{label_file}: labels {unknown} are not in dataset.json of the model, which has {sorted(int(k) for k in known)}"
            )

    def _run_preprocessor(self, data, seg, properties):
        preprocessor = self.configuration_manager.preprocessor_class(verbose=False)
        return preprocessor.run_case_npy(
            data, seg, properties, self.plans, self.configuration_manager, self.dataset_json
        )

    def _file_affine(
        self, data: np.ndarray, previous: np.ndarray | None
    ) -> tuple[list[float], list[float]] | None:
        """Per channel (scale, offset) with normalised = scale * file + offset where nothing was clipped, fitted to what nnU-Net's
        normalisation does to this case, so that any scheme is covered; None where it is not affine."""
        preprocessor = self.configuration_manager.preprocessor_class(verbose=False)
        if not hasattr(preprocessor, "_normalize"):
            return None
        axes = [0, *[i + 1 for i in self.plans.transpose_forward]]
        seg = None if previous is None else np.copy(previous).transpose(axes)
        before, seg, _ = crop_to_nonzero(data.astype(np.float32).transpose(axes), seg)
        after = preprocessor._normalize(
            before.copy(),
            seg,
            self.configuration_manager,
            self.plans.foreground_intensity_properties_per_channel,
        )
        scales, offsets = [], []
        for c, masked in enumerate(self.configuration_manager.use_mask_for_norm[: len(data)]):
            inside = seg[0] >= 0 if masked else np.ones(seg.shape[1:], bool)
            fit = _fit_affine(
                before[c][inside].astype(np.float64), after[c][inside].astype(np.float64)
            )
            if fit is None:
                return None
            scales.append(fit[0])
            offsets.append(fit[1])
        return scales, offsets


def _fit_affine(file: np.ndarray, normalised: np.ndarray) -> tuple[float, float] | None:
    extent = np.ptp(normalised) if normalised.size else 0.0
    if extent == 0:
        return (
            (1.0, 0.0) if normalised.size else None
        )  # a constant channel never moves; any scale will do
    # the extremes may be clipped values (CT); without two values between them they are all there is
    open_range = (normalised > normalised.min()) & (normalised < normalised.max())
    for chosen in (open_range, np.ones_like(open_range)):
        f, n = file[chosen], normalised[chosen]
        if f.size and np.ptp(f) > 0:
            low, high = f.argmin(), f.argmax()
            scale = (n[high] - n[low]) / (f[high] - f[low])
            offset = n[low] - scale * f[low]
            if scale > 0 and np.abs(scale * f + offset - n).max() <= 1e-4 * extent:
                return float(scale), float(offset)
            if chosen is open_range:
                return None
    return None


def find_folds(folder: Path, folds: Sequence[int | str] | None, checkpoint: str) -> list[int | str]:
    """The folds asked for, or those found, as `SegmentationModel.from_folder` takes them. ValueError for what is no model folder, and for a fold or
    checkpoint that is missing."""
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is no nnU-Net v2 model folder: {name} is missing; give the TRAINER__PLANS__CONFIGURATION folder"
            )
    present = sorted(p.name.removeprefix("fold_") for p in folder.glob("fold_*") if p.is_dir())
    if folds is None:
        usable = [
            int(f) for f in present if f.isdigit() and (folder / f"fold_{f}" / checkpoint).is_file()
        ]
        if not usable and (folder / "fold_all" / checkpoint).is_file():
            usable = ["all"]
        if not usable:
            there = sorted({p.name for p in folder.glob("fold_*/*.pth")})
            raise UserError(
                f"{folder} has no fold with {checkpoint}; folds there: {', '.join(present) or 'none'}, "
                f"checkpoints there: {', '.join(there) or 'none'} (-f, -chk)"
            )
        return sorted(usable)
    if isinstance(folds, (str, int)):
        folds = [folds]
    if not folds:
        raise UserError("folds must name at least one fold, got none")
    unknown = [f for f in folds if f != "all" and not str(f).isdigit()]
    if unknown:
        raise UserError(f"folds must be numbers or 'all', got {', '.join(map(str, unknown))} (-f)")
    chosen = list(dict.fromkeys(f if f == "all" else int(f) for f in folds))
    for f in chosen:
        if str(f) not in present:
            raise UserError(
                f"{folder} has no fold_{f}; folds there: {', '.join(present) or 'none'} (-f)"
            )
        if not (folder / f"fold_{f}" / checkpoint).is_file():
            there = sorted(p.name for p in (folder / f"fold_{f}").glob("*.pth"))
            raise UserError(
                f"{folder / f'fold_{f}'} has no {checkpoint}; checkpoints there: {', '.join(there) or 'none'} (-chk)"
            )
    return chosen


def _build_network(
    checkpoint: Mapping[str, Any], plans: PlansManager, dataset_json: Mapping[str, Any]
) -> nn.Module:
    """The network as nnU-Net's predictor builds it: by the trainer's build_network_architecture, without deep supervision."""
    name, configuration = checkpoint["trainer_name"], checkpoint["init_args"]["configuration"]
    try:
        trainer = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise UserError(
            f"trainer {name} is not found by nnU-Net (for ours: `lngswr register`): {error}"
        ) from error
    if configuration not in plans.available_configurations:
        raise UserError(
            f"plans.json has no configuration {configuration}, which the checkpoint names; it has {plans.available_configurations}"
        )
    manager = plans.get_configuration(configuration)
    inputs = determine_num_input_channels(plans, manager, dataset_json)
    outputs = plans.get_label_manager(dataset_json).num_segmentation_heads
    build = trainer.build_network_architecture
    if "plans_manager" in inspect.signature(build).parameters:
        return build(plans, manager, inputs, outputs, enable_deep_supervision=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return build(
            manager.network_arch_class_name,
            manager.network_arch_init_kwargs,
            manager.network_arch_init_kwargs_req_import,
            inputs,
            outputs,
            enable_deep_supervision=False,
        )


def _read(read, files):
    for f in (files,) if isinstance(files, str) else files:
        if not Path(f).is_file():
            raise UserError(f"{f} does not exist")
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(
            said
        ):  # nnU-Net's readers print what is wrong and raise an empty error
            return read(files)
    except (RuntimeError, AssertionError, OSError, ValueError, KeyError) as error:
        detail = " ".join(f"{error} {said.getvalue()}".split())
        raise UserError(
            f"cannot read {files if isinstance(files, str) else ', '.join(files)}: {detail}"
        ) from error


def _nifti_has_nan(file: str) -> bool:
    """ITK reads NaN and infinity in NIfTI files as 0 without a word, so float files are looked at again with nibabel."""
    if not file.endswith((".nii", ".nii.gz")):
        return False
    image = nibabel.load(file)
    return (
        np.issubdtype(image.get_data_dtype(), np.floating)
        and not np.isfinite(np.asanyarray(image.dataobj)).all()
    )


def _check_same_grid(label, label_properties, label_file, data, properties, image_files) -> None:
    if label.shape[1:] != data.shape[1:]:
        raise UserError(
            f"{label_file}: shape {label.shape[1:]} differs from the image's {data.shape[1:]} ({image_files[0]})"
        )
    spacing, image_spacing = (
        [float(s) for s in p["spacing"]] for p in (label_properties, properties)
    )
    if not np.allclose(spacing, image_spacing):
        raise UserError(
            f"{label_file}: spacing {spacing} differs from the image's {image_spacing} ({image_files[0]})"
        )
