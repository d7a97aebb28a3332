"""How far nnU-Net's memory target is missed: what a training step keeps for its backward pass.

    python -m benchmarks.planner_memory [--plans 2d 3d_fullres]
        [--planner ExperimentPlanner nnUNetPlannerResEncM] [-o FILE.json]

With LNG-SWR, relative to vanilla nnU-Net. nnU-Net's planners choose patch and batch so that a
vanilla network fits into a GPU of the targeted size; they know nothing of LNG-SWR. Here they plan a
data set whose fingerprint is that of images of --image voxels; then the bytes of all distinct
storages are counted that autograd saves in one forward pass and deep supervision loss of the
network planned, at the planned patch with one sample, parameters and their gradients aside (they do
not grow with the patch). fp32, as on a CPU but without data (PyTorch's fake tensors); a count, so
that one run is enough.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import plan_experiments
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from nnunetv2_lngswr.experiments.overhead import ARMS, conditions
from nnunetv2_lngswr.method.network import attach
from nnunetv2_lngswr.utils.files import write_file

INTENSITIES = {
    "max": 1.0,
    "mean": 0.0,
    "median": 0.0,
    "min": -1.0,
    "percentile_00_5": -1.0,
    "percentile_99_5": 1.0,
    "std": 1.0,
}


def plan(
    root: Path, planner: str, image: tuple[int, ...], spacing: tuple[float, ...]
) -> PlansManager:
    """The plans that nnU-Net makes for a data set of images of this size.

    Parameters
    ----------
    root
        Everything lies below it.
    planner
        Name of nnU-Net's planner.
    image
        Voxels of each image, z, y, x.
    spacing
        In mm, z, y, x.
    """
    name = "Dataset997_Planned"
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (root / folder / name).mkdir(parents=True)
        os.environ[folder] = str(root / folder)
    raw = root / "nnUNet_raw" / name
    (raw / "imagesTr").mkdir()
    (raw / "labelsTr").mkdir()
    tiny = sitk.Image(8, 8, 8, sitk.sitkUInt8)  # the planner opens one, to choose the reader
    sitk.WriteImage(tiny, str(raw / "imagesTr" / "case_0000.nii.gz"))
    sitk.WriteImage(tiny, str(raw / "labelsTr" / "case.nii.gz"))
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 100,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    fingerprint = {
        "spacings": [list(spacing)] * 100,
        "shapes_after_crop": [list(image)] * 100,
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
        "median_relative_size_after_cropping": 1.0,
    }
    (root / "nnUNet_preprocessed" / name / "dataset_fingerprint.json").write_text(
        json.dumps(fingerprint)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        identifier = plan_experiments([997], planner)
    return PlansManager(str(root / "nnUNet_preprocessed" / name / f"{identifier}.json"))


def saved_bytes(network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> int:
    """Bytes of the distinct storages that one forward pass and its loss keep for the backward pass.

    Those of parameters and buffers are not counted.
    """
    owned = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            storages[storage._cdata] = storage  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = 0.0
        for logits in network.train()(x):
            target = F.interpolate(y.float(), logits.shape[2:], mode="nearest")[:, 0].long()
            loss = loss + F.cross_entropy(logits, target)
    total = sum(storage.nbytes() for storage in storages.values())
    assert loss.requires_grad and total
    return total


def measure(manager: PlansManager, name: str) -> dict:
    """What each arm keeps, for one configuration of the plans."""
    configuration = manager.get_configuration(name)
    arms = {}
    for arm, config in ARMS.items():
        # shapes and storages without data: a planned 3D network needs 20 GB
        with FakeTensorMode():
            network = nnUNetTrainer.build_network_architecture(manager, configuration, 1, 2, True)
            if config is not None:
                attach(network, config)
            x = torch.randn(1, 1, *configuration.patch_size)
            arms[arm] = {"saved_mib_per_sample": saved_bytes(network, x, x > 1) / 2**20}
    vanilla = arms["vanilla"]["saved_mib_per_sample"]
    for figures in arms.values():
        figures["ratio"] = figures["saved_mib_per_sample"] / vanilla
    return {
        "patch": list(configuration.patch_size),
        "batch": configuration.batch_size,
        "features": list(configuration.network_arch_init_kwargs["features_per_stage"]),
        "strides": [list(s) for s in configuration.network_arch_init_kwargs["strides"]],
        "arms": arms,
    }


def show(title: str, figures: dict) -> None:
    print(f"{title}: patch {figures['patch']}, batch {figures['batch']}, {figures['features']}")
    for arm, values in figures["arms"].items():
        saved, ratio = values["saved_mib_per_sample"], values["ratio"]
        print(f"  {arm:<8} {saved:10.1f} MiB per sample {ratio:8.3f}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--plans", nargs="+", default=["2d", "3d_fullres"], choices=["2d", "3d_fullres"]
    )
    parser.add_argument(
        "--planner", nargs="+", default=["ExperimentPlanner", "nnUNetPlannerResEncM"]
    )
    parser.add_argument(
        "--image",
        nargs=3,
        type=int,
        default=(100, 512, 512),
        metavar="N",
        help="voxels of the data set's images",
    )
    parser.add_argument("--spacing", nargs=3, type=float, default=(3.0, 0.8, 0.8), metavar="MM")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    args.device = "cpu"
    torch.set_num_threads(args.threads)
    command = " ".join(
        ["python", "-m", "benchmarks.planner_memory", *(sys.argv[1:] if argv is None else argv)]
    )
    result = {
        **conditions(command, args.device, args.threads),
        "image": args.image,
        "spacing": args.spacing,
        "planners": {},
    }
    for planner in args.planner:
        with tempfile.TemporaryDirectory() as root:
            manager = plan(Path(root), planner, args.image, args.spacing)
            result["planners"][planner] = {name: measure(manager, name) for name in args.plans}
        for name, figures in result["planners"][planner].items():
            show(f"{planner} {name}", figures)
    if args.o:
        write_file(args.o, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
