"""The planners count what LNG-SWR keeps for backward.

Against the tensors that autograd really saves, and in nnU-Net's own planning.
"""

import json
from pathlib import Path

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

from nnunetv2_lngswr import planners
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach
from nnunetv2_lngswr.planners import extra_feature_maps
from tests import tiny_dataset
from tests.model_folders import make_case

STRIDES = {2: [[1, 1], [2, 2], [2, 2], [2, 2]], 3: [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]}
FEATURES = [8, 16, 32, 64]
PATCH = {2: (64, 48), 3: (16, 32, 24)}


def build(kind, dimension):
    conv, norm = (getattr(torch.nn, f"{n}{dimension}d") for n in ("Conv", "InstanceNorm"))
    blocks = {"n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}
    if kind is ResidualEncoderUNet:
        blocks = {"n_blocks_per_stage": [1, 3, 4, 6], "n_conv_per_stage_decoder": 1}
    torch.manual_seed(0)
    return kind(
        2,
        4,
        FEATURES,
        conv,
        3,
        STRIDES[dimension],
        num_classes=2,
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **blocks,
    )


def saved_bytes(network, dimension) -> int:
    """Of the activations that autograd keeps for one sample."""
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage  # held, or its address would be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = network.train()(torch.randn(1, 2, *PATCH[dimension]))
    assert out
    return sum(s.nbytes() for s in storages.values())


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet], ids=["plain", "residual"])
def test_the_estimate_grows_as_the_saved_tensors_do(kind, dimension):
    network = build(kind, dimension)
    plain = saved_bytes(network, dimension)
    estimate = network.compute_conv_feature_map_size(PATCH[dimension])
    attached = saved_bytes(attach(network, LNGSWRConfig()), dimension)
    predicted = 1 + extra_feature_maps(PATCH[dimension], STRIDES[dimension], FEATURES, 2) / estimate
    assert attached / plain > 1.05
    assert predicted == pytest.approx(attached / plain, rel=0.03)


@pytest.mark.parametrize("name", ["nnUNetPlannerLNGSWR", "nnUNetPlannerLNGSWRResEncM"])
def test_plans_stay_within_the_memory_that_the_plain_planner_has_without(
    name, tmp_path, monkeypatch
):
    from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiment_dataset

    write_large_data_set(tmp_path)
    tiny_dataset.use(monkeypatch, tmp_path)
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # the planner's threads
    planner = getattr(planners, name)
    ours, ours_name = plan_experiment_dataset(999, planner)
    plain, plain_name = plan_experiment_dataset(999, planner.__mro__[2])
    assert ours_name == plain_name + "LNGSWR"
    limits, smaller = planner(999), {}
    for configuration, dimension in (("2d", 2), ("3d_fullres", 3)):
        a, b = ours["configurations"][configuration], plain["configurations"][configuration]
        assert (
            a["data_identifier"] == f"nnUNetPlans_{configuration}" and a["spacing"] == b["spacing"]
        )
        reference_batch = getattr(limits, f"UNet_reference_val_corresp_bs_{dimension}d")
        limit = getattr(limits, f"UNet_reference_val_{dimension}d") * reference_batch
        rounding = 1 + 0.5 / a["batch_size"]  # nnU-Net rounds the batch size
        assert (
            memory(a, ours=True) <= limit * rounding and memory(b, ours=False) <= limit * rounding
        )
        smaller[configuration] = memory(a, ours=True) < memory(b, ours=True)
        assert smaller[configuration] or a["patch_size"] == b["patch_size"]
    assert smaller["2d"]  # by the batch; in 3D patches shrink in coarse steps
    # spacings of the user's own need data of their own
    coarse, _ = plan_experiment_dataset(
        999, planner, overwrite_target_spacing=(2.0, 2.0, 2.0), overwrite_plans_name="Coarse"
    )
    assert coarse["configurations"]["3d_fullres"]["data_identifier"] == "Coarse_3d_fullres"
    # so does a preprocessor, which would first remove the default plans' data
    other, _ = plan_experiment_dataset(
        999, planner, preprocess_class_name="OtherPreprocessor", overwrite_plans_name="Other"
    )
    assert other["configurations"]["2d"]["data_identifier"] == "Other_2d"


def test_the_manual_names_the_plans_and_what_is_preprocessed_for_them():
    page = (Path(__file__).parents[1] / "docs" / "trainers.md").read_text()
    said = " ".join(page[page.index("## Memory") : page.index("## Settings")].split())
    for name in ("nnUNetPlannerLNGSWR", "nnUNetPlannerLNGSWRResEncM"):
        planner = getattr(planners, name).__new__(getattr(planners, name))
        plans = planner.plans_identifier = planner._plain_name + planners.SUFFIX
        assert f"-pl {name}`" in said and f"-p {plans}`" in said
        planner.overwrite_target_spacing = None
        planner.preprocessor_name = "DefaultPreprocessor"
        identifiers = {c: planner.generate_data_identifier(c) for c in ("2d", "3d_lowres")}
        assert identifiers == {"2d": "nnUNetPlans_2d", "3d_lowres": f"{plans}_3d_lowres"}
    assert "-plans_name nnUNetPlansLNGSWR -c 3d_lowres`" in said


def write_large_data_set(root) -> None:
    """One small case, and the fingerprint of 200 large ones."""
    raw, preprocessed = (
        root / "nnUNet_raw" / tiny_dataset.NAME,
        root / "nnUNet_preprocessed" / tiny_dataset.NAME,
    )
    _, label = make_case(raw / "imagesTr", shape=(8, 9, 10), seed=0)
    (raw / "labelsTr").mkdir()
    label.rename(raw / "labelsTr" / label.name)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "ball": 1},
        "numTraining": 200,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    preprocessed.mkdir(parents=True)
    statistics = dict.fromkeys(
        ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std"), 1.0
    )
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0]] * 200,
        "shapes_after_crop": [[160, 300, 280]] * 200,
        "foreground_intensity_properties_per_channel": {"0": statistics},
        "median_relative_size_after_cropping": 1.0,
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))


def memory(configuration: dict, *, ours: bool) -> float:
    """nnU-Net's estimate for a batch, with what LNG-SWR adds or without."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )

    network = configuration["architecture"]
    kwargs, patch = network["arch_kwargs"], configuration["patch_size"]
    estimate = ExperimentPlanner.static_estimate_VRAM_usage(
        patch, 1, 2, network["network_class_name"], kwargs, network["_kw_requires_import"]
    )
    if ours:
        estimate += extra_feature_maps(patch, kwargs["strides"], kwargs["features_per_stage"], 1)
    return estimate * configuration["batch_size"]
