"""The evaluation end to end on tiny models: nnU-Net's clean Dice, every kind of data and attack."""

import json
import textwrap

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

import evaluation
from evaluation import robust
from evaluation.model.sliding_window import SlidingWindow
from evaluation.rows import MEAN_LABEL
from tests import model_folders
from tests.evaluation.model.test_inference import plain_predict
from tests.evaluation.tiny import FAST, installed, run
from tests.model_folders import make_case, make_model_folder


def test_clean_dice_equals_nnunet(world, finished, tmp_path):
    folder, images, labels = world
    rows = [r for r in finished.rows() if r["kind"] == "clean" and r["label"] == "1"]
    assert [r["case"] for r in rows] == ["case0", "case1", "case2"]
    for r in rows:
        theirs = plain_predict(folder, [images / f"{r['case']}_0000.nii.gz"], tmp_path / r["case"])
        assert theirs.any()
        found = compute_metrics(
            str(labels / f"{r['case']}.nii.gz"),
            str(tmp_path / r["case"] / "out.nii.gz"),
            SimpleITKIO(),
            [1],
        )["metrics"][1]
        assert r["dice"] == pytest.approx(found["Dice"], abs=1e-8) and r["iou"] == pytest.approx(
            found["IoU"], abs=1e-8
        )


def test_rows_cover_every_case_run_and_label_with_their_settings(finished):
    rows = finished.rows()
    runs = 1 + 2 + 2 + 2 + 5  # clean, noise, pgd_linf, worst_linf, gamma
    assert len(rows) == 3 * runs * 2
    attacked = [r for r in rows if r["kind"] in ("attack", "worst")]
    for r in attacked:
        assert (
            r["linf_range"] <= r["epsilon"] * (1 + 1e-5)
            and r["epsilon_unit"] == "range"
            and r["seed"] is not None
        )
        assert (
            r["tile_step_size"] == 0.5
            and r["mirror_axes"] == "0 1"
            and len(r["checkpoint_sha256"]) == 16
        )
        assert r["linf_original"] > 1 > r["linf_range"]  # files have a range of about 140
    pgd = [r for r in attacked if r["attack"] == "pgd_linf"]
    assert all(r["steps"] == 2 and r["restarts"] == 1 and r["loss"] == "ce" for r in pgd)
    assert pgd[0]["step_size"] == pytest.approx(2.5 * pgd[0]["epsilon"] / 2)
    drops = {(r["case"], r["label"]): r["dice"] for r in rows if r["kind"] == "clean"}
    assert all(
        r["dice_drop"] == pytest.approx(drops[r["case"], r["label"]] - r["dice"], abs=1e-8)
        for r in rows
    )


def test_zero_epsilon_is_identity(world, tmp_path):
    rows = run(world, tmp_path / "out", epsilons=[0], corruptions=[], max_cases=1).rows()
    assert {r["dice_drop"] for r in rows} == {0.0} and {
        r["linf_range"] for r in rows if r["kind"] == "attack"
    } == {0.0}


def test_every_file_is_there_and_none_besides(finished):
    assert sorted(p.name for p in finished.folder.iterdir()) == [
        ".lock",
        "cases.csv",
        "corruptions.png",
        "curves.png",
        "examples.png",
        "parts",
        "report.html",
        "report.md",
        "settings.json",
        "summary.json",
    ]
    assert (
        finished.summary["shifts_left_out"] == {}
        and "| gamma |" in (finished.folder / "report.md").read_text()
    )


@pytest.mark.parametrize(
    ("options", "shape", "last"),
    [
        ({"dimension": 3, "normalization": "CTNormalization"}, (10, 18, 17), "1"),
        (
            {
                "dimension": 2,
                "labels": {"background": 0, "whole": [1, 2], "core": 2},
                "regions_class_order": [1, 2],
            },
            (20, 24),
            "2",
        ),
        ({"dimension": 2, "labels": {"background": 0, "ball": 1, "ignore": 2}}, (20, 24), "1"),
        ({"dimension": 3, "previous_stage": "3d_lowres"}, (10, 18, 17), "1"),
        ({"dimension": 2, "folds": (0, 1), "channels": 2}, (3, 20, 18), "1"),
    ],
    ids=("3d-ct", "regions", "ignore", "cascade", "ensemble-slices-two-channels"),
)
def test_kinds_of_data_sets(options, shape, last, tmp_path):
    folder = make_model_folder(tmp_path, **options)
    _, label = make_case(tmp_path / "images", shape=shape, channels=options.get("channels", 1))
    if "ignore" in options.get("labels", {}):
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(label)))
        values[:4] = 2
        model_folders.write_image(label, values)
    more = {"previous_stage": label.parent} if "previous_stage" in options else {}
    result = robust.evaluate(
        folder,
        tmp_path / "out",
        images=tmp_path / "images",
        labels=label.parent,
        **FAST | {"corruptions": ["all"]},
        **more,
    )
    rows = result.rows()
    assert {r["label"] for r in rows} == {
        MEAN_LABEL,
        *(["(1, 2)"] if "regions_class_order" in options else []),
        last,
    }
    shifts = {r["attack"] for r in rows if r["kind"] == "shift"}
    assert (
        ("hu_offset" in shifts)
        == ("rician_noise" not in shifts)
        == (options.get("normalization") == "CTNormalization")
    )
    assert ("jpeg" in shifts) == (options["dimension"] == 2)
    text = (tmp_path / "out" / "report.md").read_text()
    assert ("previous stage's segmentation is an input that stays fixed" in text) == bool(more)
    assert (
        np.isfinite([r["dice"] for r in rows]).all()
        and (tmp_path / "out" / "examples.png").exists()
    )


def test_every_attack_runs_by_name(world, tmp_path):
    names = [
        "noise",
        "fgsm",
        "pgd_linf",
        "pgd_l2",
        "segpgd",
        "segpgd_l2",
        "cospgd",
        "apgd",
        "apgd_masked_ce",
        "apgd_js",
        "apgd_dice",
        "apgd_dice_l2",
        "ssah",
        "ssah_project",
        "square",
    ]
    names += ["worst_linf", "torchattacks:PGD"] if installed("torchattacks") else ["worst_linf"]
    steps = {"ssah": 2, "ssah_project": 2, "square": 2}
    result = run(
        world,
        tmp_path / "out",
        attacks=names,
        steps_of=steps,
        corruptions=[],
        epsilons=["4/255"],
        epsilons_l2=["1/255"],
        surrogate=world[0],
        max_cases=1,
    )
    rows = [r for r in result.rows() if r["label"] == "1"]
    ran = {(r["attack"], r["norm"]) for r in rows if r["kind"] in ("attack", "worst")}
    assert (
        ("transfer", "linf") in ran
        and ("noise", "l2") in ran
        and ("segpgd_l2", "l2") in ran
        and ("ssah", "") in ran
    )
    assert {n for n, _ in ran} == set(names) | {"transfer", "worst_l2"}
    assert {n: r["steps"] for r in rows for n in steps if r["attack"] == n} == steps
    for r in rows:
        if r["norm"] == "linf":
            assert r["linf_range"] <= 4 / 255 * (1 + 1e-5), r["attack"]
        if r["norm"] == "l2":
            assert r["rms_range"] <= 1 / 255 * (1 + 1e-5), r["attack"]


def test_attacks_in_mixed_precision_find_what_those_in_full_precision_find(
    world, tmp_path, monkeypatch
):
    types = set()
    monkeypatch.setattr(
        SlidingWindow,
        "_precision",
        lambda self, its=SlidingWindow._precision: types.add(self.autocast) or its(self),
    )
    found = []
    for name, autocast in (("full", False), ("mixed", True)):
        result = run(
            world,
            tmp_path / name,
            attacks=["pgd_linf"],
            corruptions=[],
            epsilons=["16/255"],
            steps=5,
            autocast=autocast,
        )
        assert (
            json.loads((tmp_path / name / "summary.json").read_text())["options"]["autocast"]
            is autocast
        )
        found.append(
            {
                r["attack"]: r["dice"]
                for r in json.loads((tmp_path / name / "summary.json").read_text())["results"]
            }
        )
    assert types == {None, torch.float16}
    full, mixed = found
    assert mixed["clean"] == full["clean"] > full["pgd_linf"] + 0.05
    assert mixed["pgd_linf"] == pytest.approx(full["pgd_linf"], abs=0.02) and result.finished


def test_units_mean_the_same_perturbation(world, tmp_path):
    rows = run(
        world,
        tmp_path / "a",
        attacks=["pgd_linf"],
        corruptions=[],
        epsilons=["2.5"],
        epsilon_unit="original",
        max_cases=1,
    ).rows()
    attacked = next(r for r in rows if r["kind"] == "attack")
    assert (
        attacked["linf_original"] == pytest.approx(2.5, rel=1e-3)
        and attacked["epsilon_unit"] == "original"
    )


def test_a_saved_perturbed_case_scores_what_was_reported(tmp_path, state_dicts):
    folder = make_model_folder(
        tmp_path, state_dicts=[state_dicts[2]], normalization="CTNormalization"
    )
    _, label = make_case(tmp_path / "images", shape=(20, 24))
    result = robust.evaluate(
        folder,
        tmp_path / "out",
        images=tmp_path / "images",
        labels=label.parent,
        save_adversarial=True,
        **FAST | {"corruptions": []},
    )
    saved = tmp_path / "out" / "adversarial" / "pgd_linf_linf_16_255" / "case0_0000.nii.gz"
    prediction = plain_predict(folder, [saved], tmp_path / "again")
    prediction, reference = (
        prediction.squeeze() > 0,
        sitk.GetArrayFromImage(sitk.ReadImage(str(label))) > 0,
    )
    dice = 2 * (prediction & reference).sum() / (prediction.sum() + reference.sum())
    reported = next(
        r
        for r in result.rows()
        if r["attack"] == "pgd_linf" and r["epsilon_text"] == "16/255" and r["label"] == "1"
    )
    assert dice == pytest.approx(reported["dice"], abs=1e-8) and reported["dice_drop"] > 0
    (note,) = result.summary["notes"]
    assert (
        "differ from what was attacked by at most" in note
        and float(note.split("at most ")[1].split()[0]) < 1e-5
    )


def test_a_constant_case_is_saved_and_reported(tmp_path, state_dicts):
    folder = make_model_folder(
        tmp_path, state_dicts=[state_dicts[2]], normalization="CTNormalization"
    )
    _, label = make_case(tmp_path / "images", shape=(20, 24))
    path = tmp_path / "images" / "case0_0000.nii.gz"
    air = sitk.ReadImage(str(path)) - 10_000  # all of it is clipped to one value
    sitk.WriteImage(air, str(path))
    places = {"images": tmp_path / "images", "labels": label.parent, "save_adversarial": True}
    options = FAST | {"attacks": ["fgsm"], "epsilons": ["16/255"], "corruptions": []}
    result = robust.evaluate(folder, tmp_path / "out", **places, **options | {"steps": None})
    saved = tmp_path / "out" / "adversarial" / "fgsm_linf_16_255" / "case0_0000.nii.gz"
    # a budget is a share of the range, which is nought
    written, given = (sitk.GetArrayFromImage(i) for i in (sitk.ReadImage(str(saved)), air))
    assert np.array_equal(written, given)
    assert {row["dice_drop"] for row in result.rows() if row["kind"] == "attack"} == {0.0}


def test_evaluate_is_in_the_package():
    assert evaluation.evaluate is robust.evaluate and evaluation.estimate is robust.estimate
    with pytest.raises(AttributeError):
        evaluation.nothing  # noqa: B018, which is what is tested


def test_the_page_in_the_package_runs_as_it_stands(world):
    lines = evaluation.__doc__.splitlines()
    start = lines.index("    import torch")
    end = next(i for i in range(start, len(lines)) if lines[i] and lines[i][0] != " ")
    folder, images, labels = world
    names = {
        "model_folder": folder,
        "image_files": [images / "case0_0000.nii.gz"],
        "label_file": labels / "case0.nii.gz",
    }
    exec(textwrap.dedent("\n".join(lines[start:end])), names)
    assert names["attacked"].shape == names["clean"].shape
    assert float(names["result"].norms["linf_range"]) == pytest.approx(8 / 255, rel=1e-3)
