"""Kinds of labels and of images, through all of nnU-Net's commands.

Each is planned, preprocessed, trained, validated, predicted and evaluated.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage import io

from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests.pipeline import commands
from tests.pipeline.commands import command, model_folder, plans_file, predict, read_label


def halves(label: np.ndarray) -> np.ndarray:
    """The ball's upper half becomes class 2."""
    label = label.copy()
    top = np.arange(label.shape[-2]) < label.shape[-2] // 2
    label[(label == 1) & top[:, None]] = 2
    return label


def partly_ignored(label: np.ndarray) -> np.ndarray:
    """Two classes, annotated in the left half of the image only."""
    label = halves(label)
    label[..., label.shape[-1] // 2 :] = 3
    return label


def write_png(path: Path, array: np.ndarray, spacing=None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.imsave(path, array[0].astype(np.uint8), check_contrast=False)


def write_rgb_png(path: Path, array: np.ndarray, spacing=None) -> None:
    if "labelsTr" in path.parts:
        write_png(path, array)
    elif path.stem.endswith("_0000"):  # one file holds the three channels
        path.parent.mkdir(parents=True, exist_ok=True)
        io.imsave(
            path,
            np.stack([array[0], array[0] // 2, 255 - array[0]], -1).astype(np.uint8),
            check_contrast=False,
        )


def write_tiff(path: Path, array: np.ndarray, spacing) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array.astype(np.uint8))
    case = path.name.removesuffix(".tif").removesuffix("_0000").removesuffix("_0001")
    (path.parent / f"{case}.json").write_text(json.dumps({"spacing": list(spacing)}))


@dataclass
class Data:
    configuration: str
    classes: int  # outputs of the network
    reader: str
    normalisation: list[str]
    raw: dict
    patch: int | None = None  # larger than the planner's


CLASSES = {"background": 0, "lower": 1, "upper": 2}
REGIONS = {
    "labels": {"background": 0, "ball": [1, 2], "upper": [2]},
    "extra": {"regions_class_order": [1, 2]},
    "relabel": halves,
}
KINDS = {
    "2D PNG, not square, grey, two classes": Data(
        "2d",
        3,
        "NaturalImage2DIO",
        ["ZScoreNormalization"],
        {
            "shape": (1, 20, 37),
            "channels": ("grey",),
            "ending": ".png",
            "write": write_png,
            "labels": CLASSES,
            "relabel": halves,
        },
    ),
    "2D PNG, RGB, regions": Data(
        "2d",
        2,
        "NaturalImage2DIO",
        ["RGBTo01Normalization"] * 3,
        {
            "shape": (1, 24, 28),
            "channels": ("rgb_to_0_1",) * 3,
            "ending": ".png",
            "write": write_rgb_png,
            **REGIONS,
        },
    ),
    "3D TIFF, two channels, CT and z-score, two classes": Data(
        "3d_fullres",
        3,
        "Tiff3DIO",
        ["CTNormalization", "ZScoreNormalization"],
        {
            "shape": (14, 20, 17),
            "channels": ("CT", "T1"),
            "ending": ".tif",
            "write": write_tiff,
            "spacing": (1.5, 1, 1),
            "labels": CLASSES,
            "relabel": halves,
        },
    ),
    "3D NIfTI by nibabel, regions and an ignored half": Data(
        "3d_fullres",
        2,
        "NibabelIO",
        ["ZScoreNormalization"],
        {
            "shape": (14, 18, 17),
            "channels": ("T2",),
            "labels": {**REGIONS["labels"], "ignore": 3},
            "relabel": partly_ignored,
            "extra": REGIONS["extra"] | {"overwrite_image_reader_writer": "NibabelIO"},
        },
    ),
    "2D slices of NIfTI, an ignored half": Data(
        "2d",
        3,
        "SimpleITKIO",
        ["ZScoreNormalization"],
        {"channels": ("T2",), "labels": {**CLASSES, "ignore": 3}, "relabel": partly_ignored},
    ),
    "3D NIfTI, anisotropic, an axis that is not pooled": Data(
        "3d_fullres",
        2,
        "SimpleITKIO",
        ["CTNormalization"],
        {"shape": (5, 30, 26), "spacing": (6, 1, 1)},
    ),
    "3D NIfTI, smaller than the patch": Data(
        "3d_fullres", 2, "SimpleITKIO", ["CTNormalization"], {"shape": (10, 20, 18)}, patch=24
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory):
    """(root, kind): trained on fold 0, predicted and evaluated."""
    root, kind = tmp_path_factory.mktemp("data"), KINDS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        commands.use(patch, root)
        raw = commands.write_raw(root, **kind.raw)
        command(
            "nnUNetv2_plan_and_preprocess",
            "-d",
            "999",
            "--no_pp",
            "--verify_dataset_integrity",
            "--no_pbar",
            "-npfp",
            2,
        )
        plans = commands.shrink(plans_file(root))
        if kind.patch:
            plans["configurations"][kind.configuration]["patch_size"] = [kind.patch] * 3
            plans_file(root).write_text(json.dumps(plans))
        commands.preprocess([kind.configuration])
        commands.train("999", kind.configuration, 0)
        out = predict(
            root, root / "out", "-f", 0, "--save_probabilities", configuration=kind.configuration
        )
        command(
            "nnUNetv2_evaluate_folder",
            raw / "labelsTr",
            out,
            "-djfile",
            out / "dataset.json",
            "-pfile",
            out / "plans.json",
            "-np",
            2,
        )
    return root, kind


def cases(root, kind):
    ending = kind.raw.get("ending", ".nii.gz")
    return [
        (
            root / "nnUNet_raw/Dataset999_Tiny/labelsTr" / f"case{i}{ending}",
            root / "out" / f"case{i}{ending}",
        )
        for i in range(5)
    ]


def read(path):
    if path.suffix == ".tif":
        return tifffile.imread(path)
    return io.imread(path)[None] if path.suffix == ".png" else read_label(path)


def test_the_plans_are_what_the_kind_is_named_after(run):
    root, kind = run
    plans = json.loads((model_folder(root, kind.configuration) / "plans.json").read_text())
    configuration = plans["configurations"][kind.configuration]
    assert plans["image_reader_writer"] == kind.reader
    assert configuration["normalization_schemes"] == kind.normalisation
    if "spacing" in kind.raw and kind.reader == "SimpleITKIO":
        assert [1, 2, 2] in configuration["architecture"]["arch_kwargs"]["strides"]
    if kind.patch:
        assert all(p > n for p, n in zip(configuration["patch_size"], kind.raw["shape"]))


def test_predictions_have_the_labels_and_the_shape_of_the_data_set(run):
    root, kind = run
    allowed = {0, 1, 2}.intersection(
        range(kind.classes + ("regions_class_order" in kind.raw.get("extra", {})))
    )
    found = set()
    for truth, prediction in cases(root, kind):
        segmentation = read(prediction)
        assert segmentation.shape == read(truth).shape
        found |= set(np.unique(segmentation).tolist())
        probabilities = np.load(prediction.parent / f"{prediction.name.split('.')[0]}.npz")[
            "probabilities"
        ]
        assert probabilities.shape == (kind.classes, *segmentation.shape)
        if "regions_class_order" not in kind.raw.get("extra", {}):
            assert np.array_equal(probabilities.argmax(0), segmentation)
        else:
            expected = np.zeros_like(segmentation)
            for label, p in zip(kind.raw["extra"]["regions_class_order"], probabilities):
                expected[p > 0.5] = label
            assert np.array_equal(expected, segmentation)
    assert found <= allowed and len(found) > 1, found  # never the ignore label


def test_the_evaluation_counts_what_is_annotated(run):
    root, kind = run
    summary = json.loads((root / "out" / "summary.json").read_text())
    regions = [
        v
        for k, v in kind.raw.get("labels", {"background": 0, "ball": 1}).items()
        if k not in ("background", "ignore")
    ]
    assert len(summary["mean"]) == len(regions)
    ignore = kind.raw.get("labels", {}).get("ignore")
    by_case = {
        Path(entry["reference_file"]).name: entry["metrics"] for entry in summary["metric_per_case"]
    }
    assert len(by_case) == 5
    for truth, prediction in cases(root, kind):
        t, p = read(truth), read(prediction)
        counted = np.ones(t.shape, bool) if ignore is None else t != ignore
        for region, metrics in zip(regions, by_case[truth.name].values()):
            a, b = np.isin(t, region) & counted, np.isin(p, region) & counted
            assert (metrics["TP"], metrics["FP"], metrics["FN"]) == (
                (a & b).sum(),
                (~a & b).sum(),
                (a & ~b).sum(),
            )


def test_the_network_has_an_input_per_channel_and_an_output_per_class_or_region(run):
    root, kind = run
    weights = load_checkpoint(
        model_folder(root, kind.configuration) / "fold_0" / "checkpoint_final.pth"
    )["network_weights"]
    assert weights["encoder.stages.0.0.convs.0.conv.weight"].shape[1] == len(
        kind.raw.get("channels", ("CT",))
    )
    assert {v.shape[0] for k, v in weights.items() if k.startswith("decoder.seg_layers.")} == {
        kind.classes
    }
    assert all(v.isfinite().all() for v in weights.values())


def test_validation_predicts_what_prediction_predicts(run):
    root, kind = run
    validated = [
        p
        for p in (model_folder(root, kind.configuration) / "fold_0" / "validation").iterdir()
        if p.suffix not in (".json", ".pkl")
    ]
    assert validated
    for file in validated:
        assert np.array_equal(read(file), read(root / "out" / file.name))


def test_images_for_two_stages_are_no_worse_than_with_nnunets_own_training(tmp_path, monkeypatch):
    """nnU-Net 2.8.1 plans two stages for images of 8 to 14 voxels along every axis.

    Its loss then has one output, whose weight it sets to 0 before it divides by the sum of the
    weights: NaN, whatever the trainer.
    """
    commands.use(monkeypatch, tmp_path)
    commands.write_raw(tmp_path, shape=(9, 11, 10))
    commands.plan()
    plans = commands.shrink(plans_file(tmp_path))
    assert plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["n_stages"] == 2
    commands.preprocess(["3d_fullres"])
    finite = {}
    for trainer in ("nnUNetTrainerVanilla", commands.TRAINER):
        commands.train("999", "3d_fullres", 0, trainer=trainer)
        file = (
            model_folder(tmp_path, "3d_fullres", trainer=trainer)
            / "fold_0"
            / "checkpoint_final.pth"
        )
        finite[trainer] = all(
            v.isfinite().all() for v in load_checkpoint(file)["network_weights"].values()
        )
    assert len(set(finite.values())) == 1, finite
