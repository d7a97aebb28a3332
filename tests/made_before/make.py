"""How made.tar.xz was made, once, with the code of commit 600e16f.

    git worktree add /tmp/old 600e16f
    cp make.py /tmp/made_before.py && cd /tmp/old
    PYTHONPATH=/tmp/old OMP_NUM_THREADS=1 python /tmp/made_before.py made.tar.xz

Names are those of that commit: today's code does not run this, it reads what it left. In the
archive are two model folders (LNG-SWR, whose plans have `learned` and `start`; nnU-Net's own
trainer), two cases, what each model made of them (made.npz), an OUT folder of
`python -m evaluation.robust` for each model (without its pictures), and the table of
`python -m evaluation.compare`.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2_lngswr.config import LNGSWRConfig

from nnunetv2_lngswr import trainers
from tests import model_folders

ARMS = {"lngswr": "nnUNetTrainerLNGSWR", "vanilla": "nnUNetTrainerVanilla"}
ENTRY = LNGSWRConfig(learned=True, start=0.7, gains=(0.3, 0.3, 0.1), noise_sigma_stages=0.1)
CASES = (3, 4)
SHAPE = (1, 22, 19)
OPTIONS = [
    *("--attacks", "noise", "pgd_linf", "--epsilons", "24/255", "--epsilons-l2", "4/255"),
    *("--steps", "3", "--shifts", "gaussian_blur", "-device", "cpu", "--workers", "1"),
    "--disable_progress_bar",
]


def make_model(arm: str, folder: Path) -> None:
    """A network trained for a second, in a model folder as its trainer writes it."""
    trainer = ARMS[arm]
    with tempfile.TemporaryDirectory() as temporary:
        made = model_folders.make_model_folder(Path(temporary), trainer=trainer)
        plans = json.loads((made / "plans.json").read_text())
        dataset = json.loads((made / "dataset.json").read_text())
    if arm == "lngswr":
        entry = json.loads(json.dumps(dataclasses.asdict(ENTRY)))
        plans["configurations"]["2d"]["lngswr"] = {**entry, "num_epochs": 1, "seed": 0}
    manager = PlansManager(plans)
    torch.manual_seed(0)
    network = getattr(trainers, trainer).build_network_architecture(
        manager, manager.get_configuration("2d"), 1, 2, False
    )
    for parameter in network.decoder.parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
    model_folders.fit(network, *model_folders.batch(2, count=8), iterations=80)
    checkpoint = {
        "network_weights": network.state_dict(),
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)], "lrs": [np.float32(0.01)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {
            "plans": plans,
            "configuration": "2d",
            "fold": 0,
            "dataset_json": dataset,
            "device": torch.device("cpu"),
        },
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": (0, 1),
    }
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans, indent=1) + "\n")
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1) + "\n")
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def what_it_makes(folder: Path, images: Path) -> dict[str, np.ndarray]:
    """Preprocessed cases, and logits and segmentations of nnU-Net's own predictor."""
    import nnunetv2.inference.predict_from_raw_data as nnunet

    nnunet.recursive_find_trainer_class_by_name = lambda name: getattr(trainers, name)
    predictor = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(folder), (0,), "checkpoint_final.pth")
    found = {}
    for case in CASES:
        image, properties = SimpleITKIO().read_images([str(images / f"case{case}_0000.nii.gz")])
        x, _, _ = DefaultPreprocessor(verbose=False).run_case_npy(
            image,
            None,
            properties,
            predictor.plans_manager,
            predictor.configuration_manager,
            predictor.dataset_json,
        )
        x = torch.from_numpy(np.asarray(x)).float()
        logits = predictor.predict_logits_from_preprocessed_data(x).float().numpy()
        # far enough from a tie that another machine's rounding changes no voxel
        assert np.abs(logits[1] - logits[0]).min() > 1e-3, case
        found[f"case{case}_preprocessed"] = x.numpy()
        found[f"case{case}_logits"] = logits
        found[f"case{case}_segmentation"] = predictor.predict_single_npy_array(
            image, properties
        ).astype(np.uint8)
    return found


def main(here: Path) -> None:
    torch.set_num_threads(1)
    images, labels = here / "images", here / "labels"
    for case in CASES:
        model_folders.make_case(here / "cases", shape=SHAPE, seed=case)
    (here / "cases").rename(images)
    (images / "labels").rename(labels)
    made = {}
    for arm, trainer in ARMS.items():
        folder = here / f"{trainer}__nnUNetPlans__2d"
        make_model(arm, folder)
        made |= {f"{arm}_{k}": v for k, v in what_it_makes(folder, images).items()}
        out = here / f"out_{arm}"
        arguments = ["-m", folder, "-i", images, "-l", labels, "-o", out, *OPTIONS]
        subprocess.run(
            [sys.executable, "-m", "evaluation.robust", *map(str, arguments)], check=True
        )
    np.savez_compressed(here / "made.npz", **made)
    arguments = [here / "out_vanilla", here / "out_lngswr", "-o", here / "compared"]
    subprocess.run([sys.executable, "-m", "evaluation.compare", *map(str, arguments)], check=True)
    for picture in here.rglob("*.png"):
        picture.unlink()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
        with tarfile.open(sys.argv[1], "w:xz") as archive:
            for path in sorted(Path(folder).iterdir()):
                archive.add(path, path.name)
