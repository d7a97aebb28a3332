"""Good inputs, small: each function fills a folder, a copy of which every row spoils."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from evaluation.card import make_card
from tests.evaluation.scoring.files import LABELS, write_description, write_labels, write_model
from tests.experiments.robustify.given import write_project, zipped
from tests.experiments.transfer.world import write_world
from tests.model_folders import ball, make_case, make_model_folder

MODEL = "nnUNetTrainer__nnUNetPlans__2d"
PLANS, DATASET = f"{MODEL}/plans.json", f"{MODEL}/dataset.json"
CHECKPOINT = f"{MODEL}/fold_0/checkpoint_final.pth"
IMAGE, LABEL = "images/case0_0000.nii.gz", "labels/case0.nii.gz"
NAME = "Dataset620_Tiny"
SCORED = ("p0_0", "p0_1", "p1_2")


def evaluation(root: Path) -> None:
    """A model folder and one case."""
    make_model_folder(root)
    make_case(root / "images", shape=(20, 24))
    (root / "images" / "labels").rename(root / "labels")


def pictures(root: Path) -> None:
    """A model folder of PNG pictures, and one case."""
    make_model_folder(root, reader="NaturalImage2DIO", file_ending=".png")
    image, label = ball((20, 24))
    _picture(root / "images" / "case0_0000.png", image.clip(0, 255).astype(np.uint8))
    _picture(root / "labels" / "case0.png", label)


def validation(root: Path) -> None:
    """A model folder whose validation case lies in nnU-Net's folders."""
    make_model_folder(root)
    raw, preprocessed = (root / f"nnUNet_{n}" / "Dataset999_Tiny" for n in ("raw", "preprocessed"))
    make_case(raw / "imagesTr", shape=(20, 24))
    (raw / "imagesTr" / "labels").rename(raw / "labelsTr")
    preprocessed.mkdir(parents=True)
    _json(preprocessed / "splits_final.json", [{"train": ["case1"], "val": ["case0"]}])


def evaluations(root: Path) -> None:
    """Two finished OUT folders, out_vanilla and out_lngswr, with their models."""
    with tarfile.open(Path(__file__).parents[1] / "made_before" / "made.tar.xz") as archive:
        archive.extractall(root, filter="data")


def cards(root: Path) -> None:
    """The same, with a card of each beside it and an exported zip of the second's model."""
    evaluations(root)
    for arm in ("vanilla", "lngswr"):
        make_card([root / f"out_{arm}"], root / f"card_{arm}")
    (model,) = root.glob("nnUNetTrainerLNGSWR__*")
    with zipfile.ZipFile(root / "model.zip", "w") as archive:
        for path in sorted(p for p in model.rglob("*") if p.is_file()):
            archive.write(path, f"Dataset999_Tiny/{path.relative_to(root)}")


def image_folder(root: Path) -> None:
    """Four pictures with masks."""
    rng = np.random.default_rng(0)
    for i in range(4):
        _picture(root / "in" / f"p{i} a.png", rng.integers(0, 255, (20, 24), dtype=np.uint8))
        mask = np.zeros((20, 24), np.uint8)
        mask[4 : 10 + i, 5:12] = 255
        _picture(root / "in" / f"p{i} a_mask.png", mask)


def tnscui(root: Path) -> None:
    """The challenge's layout, four pictures."""
    image_folder(root)
    for path in sorted((root / "in").iterdir()):
        kind = "mask" if path.stem.endswith("_mask") else "image"
        (root / "in" / kind).mkdir(exist_ok=True)
        path.rename(root / "in" / kind / f"{path.name[1]}.PNG")
    (root / "in" / "train.csv").write_text("ID,CATE\n0.PNG,0\n1.PNG,1\n2.PNG,0\n3.PNG,1\n")


def raw_data(root: Path) -> None:
    """A data set in nnU-Net's raw format."""
    rng = np.random.default_rng(0)
    for i in range(6):
        image = rng.integers(0, 255, (20, 24), dtype=np.uint8)
        _picture(root / "raw" / "imagesTr" / f"p{i // 2}_{i}_0000.png", image)
    _json(root / "raw" / "dataset.json", {"file_ending": ".png", "labels": {"background": 0}})
    table = "".join(f"p{i // 2}_{i},p{i // 2}\n" for i in range(6))
    (root / "cases.csv").write_text(f"case,patient\n{table}")


def experiment(root: Path) -> None:
    """nnU-Net's folders with a converted data set, for benchmark and paper."""
    raw = root / "nnUNet_raw" / NAME
    cases = [f"case_{i}" for i in range(4)]
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    for case in cases:
        (raw / "labelsTr" / f"{case}.nii.gz").write_text(case)
    dataset = {
        "file_ending": ".nii.gz",
        "numTraining": 4,
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "nodule": 1},
    }
    _json(raw / "dataset.json", dataset)
    folds = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:2], "val": cases[2:]}]
    _json(raw / "splits_final.json", folds)
    for name in ("preprocessed", "results"):
        (root / f"nnUNet_{name}").mkdir()


def trained(root: Path) -> None:
    """nnU-Net's folders with preprocessed data and a model, also as a zip file."""
    zipped(write_project(root), root / "model.zip")


def transfers(root: Path) -> None:
    """nnU-Net's folders with two raw data sets and models of both."""
    write_world(root)


def nothing(root: Path) -> None:
    """An empty folder."""


def _picture(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def scores(root: Path) -> None:
    """Labels, dataset.json, and two models' predictions with their probabilities."""
    write_labels(root / "labels", cases=SCORED)
    write_description(root / "dataset.json", LABELS)
    make_model_folder(root, labels=dict(LABELS))
    for name, noise in (("a", 1.5), ("b", 1.9)):
        write_model(root / name, cases=SCORED, noise=noise, npz=True)
