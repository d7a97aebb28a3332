"""Which cases are evaluated by which fold, and what bad files say."""

import json
import shutil

import pytest

from evaluation import robust
from evaluation.options import Options
from evaluation.session import Inputs, prepare
from tests import model_folders
from tests.evaluation.tiny import FAST
from tests.model_folders import make_case, make_model_folder


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
