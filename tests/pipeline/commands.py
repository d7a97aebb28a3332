"""nnU-Net's commands by name, run in this process or in one of their own, on a tiny project.

`command` calls the function that the console script calls, with its own argument parser. Each new
Python process imports torch for 5 to 10 s, and nnU-Net starts several per command, so here its
worker processes are threads (`in_threads`); what only real processes can show, such as that
everything can be pickled, is left to the few tests that call `subprocess_command`.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from multiprocessing.dummy import DummyProcess, Manager
from multiprocessing.pool import ThreadPool
from pathlib import Path

import matplotlib
import numpy as np
import torch
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
    DatasetFingerprintExtractor,
)

from nnunetv2_lngswr import trainers
from tests.model_folders import ball, write_image

ROOT = Path(__file__).parents[2]
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
TRAINER = "nnUNetTrainerLNGSWR"
# along one axis three windows of 16 at half a step and two at a whole one, along the others less
# than one window
SHAPE = (14, 28, 15)
BUDGET = {
    "num_epochs": 1,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "seed": 0,
}

# a command as in a fresh shell, with the trainers found as after `lngswr register`
DRIVER = """
import importlib.metadata, sys
from nnunetv2_lngswr import trainers
import nnunetv2.run.run_training, nnunetv2.inference.predict_from_raw_data
for module in (nnunetv2.run.run_training, nnunetv2.inference.predict_from_raw_data):
    module.recursive_find_trainer_class_by_name = lambda name: getattr(trainers, name)
if sys.argv[1] == "evaluate":  # ours
    from evaluation.robust import main
    sys.exit(main(sys.argv[2:]))
points = importlib.metadata.distribution("nnunetv2").entry_points
entry, = [e for e in points if e.name == sys.argv[1]]
sys.argv = sys.argv[1:]
entry.load()()
"""


class _Threads:
    """multiprocessing's spawn context, in threads."""

    Pool = staticmethod(lambda *args, **kwargs: ThreadPool(2))

    class Process(DummyProcess):
        def __init__(self, *args, daemon=None, **kwargs):
            super().__init__(*args, **kwargs)


def in_threads(patch) -> None:
    """nnU-Net's worker processes become threads.

    It leaves this process's number of torch threads alone.
    """
    patch.setattr(multiprocessing, "get_context", lambda method=None: _Threads)
    patch.setattr("nnunetv2.utilities.utils.Pool", _Threads.Pool)
    patch.setattr("nnunetv2.inference.data_iterators.Manager", Manager)
    patch.setattr(torch, "set_num_threads", lambda n: None)


def in_seconds(patch) -> None:
    """Take away two costs that grow with nothing here.

    nnU-Net draws 100 million voxels for a data set's intensities (5 s), and draws progress.png at
    3000 x 5400 pixels (1 s an epoch).
    """
    init = DatasetFingerprintExtractor.__init__

    def draw_fewer(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.num_foreground_voxels_for_intensitystats = 1e5

    patch.setattr(DatasetFingerprintExtractor, "__init__", draw_fewer)
    patch.setitem(matplotlib.rcParams, "savefig.dpi", 20)


def find_trainers(patch) -> None:
    """nnU-Net finds the trainers as after `lngswr register`, with no file in the installed one."""
    for module in ("nnunetv2.run.run_training", "nnunetv2.inference.predict_from_raw_data"):
        patch.setattr(
            f"{module}.recursive_find_trainer_class_by_name", lambda name: getattr(trainers, name)
        )


def use(patch, root: Path) -> None:
    """nnU-Net's folders lie below `root`; its commands run here, in threads.

    Augmentation is in the process itself.
    """
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True, exist_ok=True)
        patch.setenv(folder, str(root / folder))
    patch.setenv("nnUNet_n_proc_DA", "0")
    patch.setenv("nnUNet_compile", "f")
    in_threads(patch)
    in_seconds(patch)
    find_trainers(patch)


def copy_data(source: Path, root: Path) -> None:
    """What models are trained on, without models."""
    for folder in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(source / folder, root / folder)


def command(name: str, *arguments) -> None:
    """Run one of nnU-Net's commands, such as nnUNetv2_train, in this process."""
    (entry,) = [
        e for e in importlib.metadata.distribution("nnunetv2").entry_points if e.name == name
    ]
    before = sys.argv
    sys.argv = [name, *map(str, arguments)]
    try:
        entry.load()()
    finally:
        sys.argv = before


def subprocess_command(
    root: Path, name: str, *arguments, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run one of nnU-Net's commands, or `evaluate`, in a process of its own; fails if it does.

    nnU-Net's folders lie below `root`.
    """
    env = os.environ | {folder: str(root / folder) for folder in FOLDERS}
    env |= {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "0",
    } | (environment or {})
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, name, *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{name} {arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def train(dataset: str, configuration: str, fold, *options, trainer: str = TRAINER) -> None:
    what = (dataset, configuration, fold, "-tr", trainer)
    command("nnUNetv2_train", *what, "-device", "cpu", *options)


def predict(
    root: Path,
    output: Path,
    *options,
    dataset: str = "999",
    configuration: str = "2d",
    trainer: str = TRAINER,
) -> Path:
    """nnUNetv2_predict on the data set's imagesTr; returns `output`."""
    images = next((root / "nnUNet_raw").glob(f"Dataset{dataset}_*")) / "imagesTr"
    model = ("-d", dataset, "-c", configuration, "-tr", trainer, "-device", "cpu")
    command("nnUNetv2_predict", "-i", images, "-o", output, *model, *options)
    return output


def run_instructions(best: Path, images: Path, output: Path) -> list[str]:
    """Run what nnUNetv2_find_best_configuration tells the user to run, and return it.

    `best`: where it wrote that. Results go into OUTPUT_FOLDER... below `output`.
    """
    text = (best / "inference_instructions.txt").read_text()
    lines = [line for line in text.splitlines() if line.startswith("nnUNetv2_")]

    def meant(word: str) -> str:
        if word == "INPUT_FOLDER":
            return str(images)
        return str(output / word) if word.startswith("OUTPUT_FOLDER") else word

    for line in lines:
        words = [meant(word) for word in shlex.split(line)]
        command(*words, *(["-device", "cpu"] if words[0] == "nnUNetv2_predict" else []))
    return lines


def write_raw(
    root: Path,
    name: str = "Dataset999_Tiny",
    *,
    cases: int = 5,
    shape: tuple[int, ...] = SHAPE,
    channels: tuple[str, ...] = ("CT",),
    ending: str = ".nii.gz",
    spacing: tuple[float, ...] | None = None,
    labels: dict | None = None,
    extra: dict | None = None,
    relabel=None,
    write=write_image,
) -> Path:
    """Write a raw data set of balls below root/nnUNet_raw and return its folder.

    `shape`, `spacing` in array order; `relabel` turns a ball's label (uint8, `shape`) into the one
    to write; `write(path, array, spacing=...)` writes one file.
    """
    folder = root / "nnUNet_raw" / name
    for seed in range(cases):
        image, label = ball(shape, seed=seed)
        label = label if relabel is None else relabel(label)
        rng = np.random.default_rng(seed + 1000)
        for channel in range(len(channels)):
            noisy = (image + channel * rng.normal(0, 5, shape)).clip(1, 255).astype(np.float32)
            write(folder / "imagesTr" / f"case{seed}_{channel:04d}{ending}", noisy, spacing=spacing)
        write(folder / "labelsTr" / f"case{seed}{ending}", label, spacing=spacing)
    dataset = {
        "channel_names": {str(i): name for i, name in enumerate(channels)},
        "labels": labels or {"background": 0, "ball": 1},
        "numTraining": cases,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(dataset | (extra or {})))
    return folder


def plan(dataset: str = "999", *options) -> None:
    how = ("-np", 2, "--verify_dataset_integrity", "--no_pbar")
    command("nnUNetv2_extract_fingerprint", "-d", dataset, *how)
    command("nnUNetv2_plan_experiment", "-d", dataset, *options)


def plans_file(root: Path, name: str = "nnUNetPlans", dataset: str = "999") -> Path:
    return next((root / "nnUNet_preprocessed").glob(f"Dataset{dataset}_*")) / f"{name}.json"


def shrink(
    path: Path, *, entry: dict | None = BUDGET, patch_limit: int = 16, cascade: bool = False
) -> dict:
    """Make nnU-Net's plans tiny, in place: three stages of 4 to 8 features, small patches.

    `entry`: their "lngswr" entry. `cascade` adds the 3d_lowres and 3d_cascade_fullres that the
    planner drops for images this small. Returns the plans.
    """
    plans = json.loads(path.read_text())
    for configuration in plans["configurations"].values():
        if "architecture" not in configuration:
            continue
        network = configuration["architecture"]["arch_kwargs"]
        stages = network["n_stages"] = min(3, network["n_stages"])
        network["features_per_stage"] = [4, 8, 8][:stages]
        for key in ("kernel_sizes", "strides"):
            network[key] = network[key][:stages]
        for key in {"n_conv_per_stage", "n_blocks_per_stage"} & set(network):
            network[key] = [1] * stages
        network["n_conv_per_stage_decoder"] = [1] * (stages - 1)
        divisors = np.prod(network["strides"], axis=0)
        patch = [
            max(d, min(p, patch_limit) // d * d)
            for p, d in zip(configuration["patch_size"], divisors)
        ]
        configuration |= {"patch_size": [int(p) for p in patch], "batch_size": 2}
        if entry is not None:
            configuration["lngswr"] = entry
    if cascade:
        full = plans["configurations"]["3d_fullres"]
        lowres = full | {
            "data_identifier": "nnUNetPlans_3d_lowres",
            "spacing": [2.0 * s for s in full["spacing"]],
        }
        plans["configurations"]["3d_lowres"] = lowres | {"next_stage": "3d_cascade_fullres"}
        plans["configurations"]["3d_cascade_fullres"] = {
            "inherits_from": "3d_fullres",
            "previous_stage": "3d_lowres",
        }
    path.write_text(json.dumps(plans))
    return plans


def preprocess(
    configurations: Iterable[str], dataset: str = "999", plans: str = "nnUNetPlans"
) -> None:
    what = ("-d", dataset, "-plans_name", plans, "-c", *configurations)
    command("nnUNetv2_preprocess", *what, "-np", 2, "--no_pbar")


def model_folder(
    root: Path,
    configuration: str,
    *,
    plans: str = "nnUNetPlans",
    trainer: str = TRAINER,
    dataset: str = "999",
) -> Path:
    return (
        next((root / "nnUNet_results").glob(f"Dataset{dataset}_*"))
        / f"{trainer}__{plans}__{configuration}"
    )


def same_files(a: Path, b: Path, pattern: str) -> list[str]:
    """Names of the files of `pattern`; fails unless both folders have the same, byte by byte."""
    names = sorted(p.name for p in a.glob(pattern))
    assert names and names == sorted(p.name for p in b.glob(pattern))
    for name in names:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    return names


def read_label(path: Path) -> np.ndarray:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
