"""Tiny nnU-Net v2 model folders and cases, made by hand: no planning, no training, no processes.

`make_model_folder` writes plans.json, dataset.json and fold_*/checkpoint_final.pth as a vanilla
trainer would; `make_case` writes an image with a bright ball and its label; `fit` trains a network
on such images in a second or two, for tests that need a model that works.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch.nn import functional as F

INTENSITIES = {
    "mean": 100.0,
    "std": 50.0,
    "percentile_00_5": -50.0,
    "percentile_99_5": 250.0,
    "median": 100.0,
    "min": -200.0,
    "max": 400.0,
}


def architecture(
    dimension: int, kind: str = "plain", *, features: tuple[int, ...] = (4, 8)
) -> dict:
    """The 'architecture' entry of a configuration, with len(features) stages.

    `kind`: 'plain' for a PlainConvUNet, 'resenc' for a ResidualEncoderUNet.
    """
    stages = len(features)
    kwargs = {
        "n_stages": stages,
        "features_per_stage": list(features),
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "kernel_sizes": [[3] * dimension] * stages,
        "strides": [[1] * dimension] + [[2] * dimension] * (stages - 1),
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = {"plain": "PlainConvUNet", "resenc": "ResidualEncoderUNet"}[kind]
    kwargs["n_conv_per_stage" if kind == "plain" else "n_blocks_per_stage"] = [1] * stages
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def make_network(
    dimension: int = 2,
    *,
    kind: str = "plain",
    inputs: int = 1,
    outputs: int = 2,
    seed: int = 0,
    deep_supervision: bool = False,
    features: tuple[int, ...] = (4, 8),
) -> torch.nn.Module:
    """An untrained network with logits of order 1."""
    arch = architecture(dimension, kind, features=features)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = get_network_from_plans(
            arch["network_class_name"],
            arch["arch_kwargs"],
            arch["_kw_requires_import"],
            inputs,
            outputs,
            deep_supervision=deep_supervision,
        )
        for p in network.parameters():
            if p.ndim > 1:
                torch.nn.init.kaiming_normal_(p)
    return network


def make_model_folder(
    root: Path,
    *,
    dimension: int = 2,
    kind: str = "plain",
    labels: dict | None = None,
    regions_class_order: list[int] | None = None,
    folds: tuple = (0,),
    patch_size: tuple[int, ...] | None = None,
    spacing: tuple[float, ...] | None = None,
    normalization: str = "ZScoreNormalization",
    use_mask: bool = False,
    channels: int = 1,
    mirror_axes: tuple[int, ...] | None = (0, 1),
    previous_stage: str | None = None,
    reader: str = "SimpleITKIO",
    file_ending: str = ".nii.gz",
    state_dicts: list[dict] | None = None,
    trainer: str = "nnUNetTrainer",
    extra: dict | None = None,
) -> Path:
    """Write a model folder and return it. The log holds numpy scalars, as nnU-Net's does.

    `state_dicts`: weights per fold (default: untrained, one seed per fold). `extra`: further
    checkpoint entries.
    """
    labels = labels or {"background": 0, "ball": 1}
    name = _configuration_name(dimension, previous_stage)
    configuration = _configuration(
        name,
        architecture(dimension, kind),
        patch_size=list(patch_size or (16,) * dimension),
        spacing=list(spacing or (1.0,) * dimension),
        normalization_schemes=[normalization] * channels,
        use_mask_for_norm=[use_mask] * channels,
    )
    configurations = {name: configuration}
    if previous_stage:
        configurations[previous_stage] = dict(configuration)
        configuration["previous_stage"] = previous_stage
    plans = _plans(configurations, reader, channels)
    dataset = _dataset(channels, labels, file_ending, regions_class_order)
    folder = root / f"{trainer}__nnUNetPlans__{name}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    foreground = [v for k, v in labels.items() if k not in ("background", "ignore")]
    inputs = channels + (len(foreground) if previous_stage else 0)
    outputs = len(foreground) + (0 if regions_class_order else 1)
    for i, fold in enumerate(folds):
        if state_dicts:
            weights = state_dicts[i]
        else:
            network = make_network(dimension, kind=kind, inputs=inputs, outputs=outputs, seed=i)
            weights = network.state_dict()
        init_args = {"plans": plans, "configuration": name, "fold": fold, "dataset_json": dataset}
        checkpoint = _checkpoint(weights, init_args, trainer, mirror_axes) | (extra or {})
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def _configuration_name(dimension: int, previous_stage: str | None) -> str:
    if dimension == 2:
        return "2d"
    return "3d_cascade_fullres" if previous_stage else "3d_fullres"


def _configuration(name: str, network: dict, *, patch_size: list[int], **entries) -> dict:
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": f"tiny_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": patch_size,
        "median_image_size_in_voxels": [24] * len(patch_size),
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
        "architecture": network,
        "batch_dice": False,
        **entries,
    }


def _plans(configurations: dict, reader: str, channels: int) -> dict:
    return {
        "dataset_name": "Dataset999_Tiny",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [24, 24, 24],
        "experiment_planner_used": "ExperimentPlanner",
        "foreground_intensity_properties_per_channel": {
            str(c): INTENSITIES for c in range(channels)
        },
        "configurations": configurations,
    }


def _dataset(
    channels: int, labels: dict, file_ending: str, regions_class_order: list[int] | None
) -> dict:
    regions = {"regions_class_order": regions_class_order} if regions_class_order else {}
    return {
        "channel_names": {str(c): "CT" for c in range(channels)},
        "labels": labels,
        "numTraining": 2,
        "file_ending": file_ending,
        **regions,
    }


def _checkpoint(
    weights: dict, init_args: dict, trainer: str, mirror_axes: tuple[int, ...] | None
) -> dict:
    return {
        "network_weights": weights,
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "lrs": [np.float32(0.01), np.int64(3)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {**init_args, "device": torch.device("cpu")},
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": mirror_axes,
    }


def ball(shape: tuple[int, ...], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(image float32, label uint8) of this shape: a ball of 160 on 60, noise of sd 10, all > 0."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    centre = [n / 2 + rng.uniform(-0.1, 0.1) * n for n in shape]
    radius = 0.28 * min(n for n in shape if n > 1)
    label = (sum((g - c) ** 2 for g, c in zip(grid, centre)) < radius**2).astype(np.uint8)
    image = (60 + 100 * label + rng.normal(0, 10, shape)).clip(1).astype(np.float32)
    return image, label


def write_image(path: Path, array: np.ndarray, *, spacing: tuple[float, ...] | None = None) -> Path:
    """Write a (z, y, x) or (y, x) array; `spacing` in the same order."""
    image = sitk.GetImageFromArray(array)
    if spacing is not None:
        image.SetSpacing([float(s) for s in spacing[::-1]])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def make_case(
    folder: Path,
    *,
    shape: tuple[int, ...],
    seed: int = 0,
    channels: int = 1,
    ending: str = ".nii.gz",
    spacing: tuple[float, ...] | None = None,
) -> tuple[list[Path], Path]:
    """Write case<seed>_0000, ... and case<seed>; returns (channel files, label file)."""
    image, label = ball(shape, seed=seed)
    rng = np.random.default_rng(seed + 1000)
    images = [image] + [
        (image + rng.normal(0, 5, shape)).clip(1).astype(np.float32) for _ in range(channels - 1)
    ]
    files = [
        write_image(folder / f"case{seed}_{c:04d}{ending}", im, spacing=spacing)
        for c, im in enumerate(images)
    ]
    return files, write_image(folder / "labels" / f"case{seed}{ending}", label, spacing=spacing)


def fit(
    network: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    iterations: int = 60,
    learning_rate: float = 2e-2,
) -> torch.nn.Module:
    """Train on x (B, C, *spatial), y (B, *spatial) long with CE; returns it in eval mode."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for _ in range(iterations):
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    return network.eval()


def batch(
    dimension: int = 2, *, size: int = 16, count: int = 4, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x (B, 1, *spatial) z-scored, y (B, *spatial) long) of balls."""
    pairs = [ball((size,) * dimension, seed=seed + i) for i in range(count)]
    x = torch.stack([torch.from_numpy((im - im.mean()) / im.std()) for im, _ in pairs])[:, None]
    return x.float(), torch.stack([torch.from_numpy(lb.astype(np.int64)) for _, lb in pairs])
