"""Which cases are evaluated by which fold, and what bad files say."""

import json
import shutil

import numpy as np
import pytest
from skimage import io

from evaluation import robust
from evaluation.inputs import from_cross_validation
from evaluation.options import Options
from evaluation.session import Inputs, prepare
from nnunetv2_lngswr.utils.errors import UserError
from tests import model_folders
from tests.evaluation.tiny import FAST
from tests.model_folders import ball, make_case, make_model_folder


def test_a_picture_in_colour_holds_all_channels_in_one_file(tmp_path, monkeypatch):
    """As nnU-Net takes it, and as -i takes it."""
    of = {"reader": "NaturalImage2DIO", "file_ending": ".png"}
    folder = make_model_folder(tmp_path, channels=3, normalization="RGBTo01Normalization", **of)
    raw = tmp_path / "raw" / "Dataset999_Tiny"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for name, seed in (("case0", 0), ("case1", 1)):
        image, label = ball((24, 28), seed=seed)
        grey = image.clip(0, 255).astype(np.uint8)
        colour = np.stack([grey, grey // 2, 255 - grey], -1)
        io.imsave(raw / "imagesTr" / f"{name}_0000.png", colour, check_contrast=False)
        io.imsave(raw / "labelsTr" / f"{name}.png", label, check_contrast=False)
    splits = tmp_path / "pre" / "Dataset999_Tiny" / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text(json.dumps([{"train": ["case1"], "val": ["case0"]}]))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    options = {**FAST, "corruptions": [], "attacks": ["noise"], "epsilons": ["4/255"]}
    validation = robust.evaluate(folder, tmp_path / "validation", **options)
    both = robust.evaluate(
        folder, tmp_path / "given", images=raw / "imagesTr", labels=raw / "labelsTr", **options
    )
    found, given = validation.rows(), both.rows()
    # of which it was trained on one
    said = "1 of these cases it was trained on"
    assert said in both.summary["protocol"] and said not in json.dumps(validation.summary)
    assert [line for line in both.summary["checks"] if line.startswith(f"Check failed: {said}")]
    assert {r["case"] for r in found} == {"case0"}
    dice = {(r["kind"], r["label"]): r["dice"] for r in given if r["case"] == "case0"}
    assert {(r["kind"], r["label"]): r["dice"] for r in found} == dice
    # one file per channel that is not there is still named
    grey_one = raw / "imagesTr" / "case0_0000.png"
    io.imsave(grey_one, io.imread(grey_one)[..., 0], check_contrast=False)
    with pytest.raises(UserError, match="1 channels, but dataset.json of the model has 3"):
        robust.evaluate(folder, tmp_path / "grey", **options)
    grey_one.rename(raw / "imagesTr" / "case0_0001.png")
    with pytest.raises(UserError, match="case0_0000.png does not exist, but splits_final.json"):
        robust.evaluate(folder, tmp_path / "none", **options)


def test_cross_validation_uses_the_model_that_has_not_seen_the_case(
    tmp_path, state_dicts, monkeypatch
):
    untrained = model_folders.make_network(2, seed=5).state_dict()
    folder = make_model_folder(tmp_path, folds=(0, 1), state_dicts=[state_dicts[2], untrained])
    raw = tmp_path / "raw" / "Dataset999_Tiny"
    for seed in range(3):
        make_case(raw / "imagesTr", shape=(20, 24), seed=seed)
    (raw / "imagesTr" / "labels").rename(raw / "labelsTr")
    splits = tmp_path / "pre" / "Dataset999_Tiny" / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text(
        json.dumps(
            [
                {"train": ["case1"], "val": ["case2", "case0"]},
                {"train": ["case0", "case2"], "val": ["case1"]},
            ]
        )
    )
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    options = {**FAST, "corruptions": [], "attacks": ["noise"], "epsilons": ["4/255"]}
    rows = [
        r
        for r in robust.evaluate(folder, tmp_path / "out", **options).rows()
        if r["kind"] == "clean" and r["label"] == "1"
    ]
    assert [(r["case"], r["folds"]) for r in rows] == [
        ("case0", "0"),
        ("case2", "0"),
        ("case1", "1"),
    ]
    assert rows[0]["checkpoint_sha256"] != rows[2]["checkpoint_sha256"]
    assert (
        min(rows[0]["dice"], rows[1]["dice"]) > 0.9 > rows[2]["dice"]
    )  # fold 1's model has learnt nothing
    # the same case by the other fold's model, which nobody should be shown
    by_fold_0 = robust.evaluate(
        folder,
        tmp_path / "o",
        images=raw / "imagesTr",
        labels=raw / "labelsTr",
        folds=["0"],
        **options,
    ).rows()
    assert next(r["dice"] for r in by_fold_0 if r["case"] == "case1" and r["label"] == "1") > 0.9
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(ValueError, match="environment variable nnUNet_raw; it is not set"):
        robust.evaluate(folder, tmp_path / "o2", **options)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    splits.unlink()
    with pytest.raises(ValueError, match="splits_final.json does not exist"):
        robust.evaluate(folder, tmp_path / "o2", **options)
    (folder / "fold_0").rename(folder / "fold_all")
    with pytest.raises(ValueError, match="fold_all was trained on every case"):
        robust.evaluate(folder, tmp_path / "o2", folds=["all"], **options)
    assert not (tmp_path / "o2").exists()


def test_cases_keep_the_names_of_the_data_set_where_files_share_one(
    tmp_path, state_dicts, monkeypatch
):
    folder = make_model_folder(tmp_path, state_dicts=[state_dicts[2]])
    raw, entries = tmp_path / "raw" / "Dataset999_Tiny", {}
    for seed in range(2):
        image, label = make_case(tmp_path / f"made{seed}", shape=(20, 24), seed=seed)
        home = raw / f"patient{seed}"
        home.mkdir(parents=True)
        shutil.copy(image[0] if isinstance(image, (list, tuple)) else image, home / "image.nii.gz")
        shutil.copy(label, home / "label.nii.gz")
        entries[f"patient{seed}"] = {
            "images": [f"patient{seed}/image.nii.gz"],
            "label": f"patient{seed}/label.nii.gz",
        }
    (raw / "dataset.json").write_text(json.dumps({"dataset": entries}))
    splits = tmp_path / "pre" / "Dataset999_Tiny" / "splits_final.json"
    splits.parent.mkdir(parents=True)
    splits.write_text(json.dumps([{"train": [], "val": list(entries)}]))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    quick = {**FAST, "corruptions": [], "attacks": ["noise"], "epsilons": ["4/255"]}
    rows = [
        r
        for r in robust.evaluate(folder, tmp_path / "out", **quick).rows()
        if r["kind"] == "attack" and r["label"] == "1"
    ]
    assert [r["case"] for r in rows] == list(entries) and len({r["seed"] for r in rows}) == 2
    splits.write_text(
        json.dumps([{"train": [], "val": list(entries)}, {"train": [], "val": ["patient1"]}])
    )
    shutil.copytree(folder / "fold_0", folder / "fold_1")
    with pytest.raises(ValueError, match="lists patient1 as validation case of folds 0 and 1"):
        robust.evaluate(folder, tmp_path / "twice", **quick)


def test_max_cases_is_a_seeded_choice(world, tmp_path):
    folder, images, labels = world
    inputs = Inputs(model_folder=folder, images=images, labels=labels)
    chosen = []
    for seed in range(6):
        session = prepare(inputs, Options(max_cases=2, seed=seed, device="cpu"))
        chosen.append([c.identifier for c in session.cases])
    assert (
        all(len(c) == 2 and c == sorted(c) for c in chosen) and len({tuple(c) for c in chosen}) > 1
    )


BAD_SPLITS = {
    "no val": ([{"train": ["case0"]}], 'fold 0 lacks "val"'),
    "no folds": ({"val": ["case0"]}, "must hold a list of folds, got dict"),
    "a fold that is none": ([["case0"]], 'fold 0 lacks "val"'),
    "null": ([{"train": None, "val": None}], '"train" of fold 0 must be a list'),
    "a name": ([{"train": [], "val": "case0"}], '"val" of fold 0 must be a list of names'),
    "a number": ([{"train": [], "val": [0]}], '"val" of fold 0 must be a list of names'),
    "a path": ([{"train": [], "val": ["../case0"]}], '"val" of fold 0 must be a list of names'),
    "empty": ([{"train": ["case0"], "val": []}], "fold 0 has no validation cases"),
    "seen": ([{"train": ["case0"], "val": ["case0"]}], "trained on too: case0; mend the file"),
    "no fold": ([], "has 0 folds and no fold 0"),
}


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """Dataset999_Tiny with one case, as from_cross_validation finds it; (raw, preprocessed)."""
    folders = []
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        folders.append(tmp_path / variable / "Dataset999_Tiny")
    raw, preprocessed = folders
    for file in (raw / "imagesTr" / "case0_0000.png", raw / "labelsTr" / "case0.png"):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
    preprocessed.mkdir(parents=True)
    return raw, preprocessed


def validation_cases():
    return from_cross_validation(
        dataset="Dataset999_Tiny", folds=[0], ending=".png", channels=1, previous_stage=None
    )


@pytest.mark.parametrize("splits, said", BAD_SPLITS.values(), ids=BAD_SPLITS)
def test_splits_that_are_none_are_named(data_set, splits, said):
    file = data_set[1] / "splits_final.json"
    file.write_text(json.dumps([{"train": [], "val": ["case0"]}]))
    assert [c.identifier for c in validation_cases()] == ["case0"]
    file.write_text(json.dumps(splits))
    with pytest.raises(UserError) as error:
        validation_cases()
    assert said in str(error.value) and str(file) in str(error.value)


@pytest.mark.parametrize(
    "content, said",
    [
        ([], '"dataset" must place cases by name'),
        ({"dataset": ["case0"]}, '"dataset" must place cases by name'),
        ({"dataset": {"case0": "a.png"}}, 'case0 needs "images", a list'),
        ({"dataset": {"case0": {"images": ["a.png"]}}}, 'case0 needs "images", a list'),
        ({"dataset": {"case0": {"images": "a.png", "label": "b.png"}}}, "case0 needs"),
        ({"dataset": {"case0": {"images": [], "label": "b.png"}}}, "case0 needs"),
    ],
)
def test_places_that_are_none_are_named(data_set, content, said):
    raw, preprocessed = data_set
    (preprocessed / "splits_final.json").write_text('[{"train": [], "val": ["case0"]}]')
    (raw / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said):
        validation_cases()
