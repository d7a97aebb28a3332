"""The evaluation end to end on tiny models: nnU-Net's clean Dice, resume and parts to the byte, every kind of data set, and what bad input says."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

import evaluation
from evaluation import protocol, robust, run_case
from evaluation.model.sliding_window import SlidingWindow
from evaluation.protocol import Options
from evaluation.report.cases_table import MEAN_LABEL
from evaluation.results_folder import ResultsFolder
from tests import model_folders
from tests.evaluation.model.test_folder import plain_predict
from tests.model_folders import make_case, make_model_folder

FAST = {
    "attacks": ["noise", "pgd_linf"],
    "epsilons": ["4/255", "16/255"],
    "steps": 2,
    "shifts": ["gamma"],
    "device": "cpu",
    "progress": False,
}


@pytest.fixture(scope="module")
def state_dicts():
    """{dimension: weights that segment balls}."""
    found = {}
    for dimension in (2, 3):
        x, y = model_folders.batch(dimension)
        found[dimension] = model_folders.fit(
            model_folders.make_network(dimension), x, y
        ).state_dict()
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory, state_dicts):
    """(model folder, images, labels): 2D, three cases."""
    root = tmp_path_factory.mktemp("world")
    folder = make_model_folder(root, state_dicts=[state_dicts[2]])
    for seed in range(3):
        make_case(root / "images", shape=(20, 24), seed=seed)
    return folder, root / "images", root / "images" / "labels"


def run(world, out, **options):
    folder, images, labels = world
    return robust.evaluate(folder, out, images=images, labels=labels, **{**FAST, **options})


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    return run(world, out)


def cases_csv(folder):
    return (Path(folder) / "cases.csv").read_bytes()


# --- the figures are right ---


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


def test_attacks_lower_dice_and_the_summary_agrees_with_the_rows(finished):
    rows, results = finished.rows(), finished.summary["results"]
    worst = [r for r in results if r["kind"] == "worst"]
    for r in worst:
        per_case = [
            v["dice"]
            for v in rows
            if v["kind"] == "worst" and v["epsilon_text"] == r["epsilon_text"] and v["label"] == "1"
        ]
        assert r["dice"] == pytest.approx(np.mean(per_case), abs=1e-8)
    clean = next(r for r in results if r["kind"] == "clean")
    assert worst[-1]["dice"] < clean["dice"] - 0.02
    assert worst[-1]["drop_low"] > 0
    assert json.loads((finished.folder / "summary.json").read_text())["results"] == json.loads(
        json.dumps(results)
    )


def test_zero_epsilon_is_identity(world, tmp_path):
    rows = run(world, tmp_path / "out", epsilons=[0], shifts=[], max_cases=1).rows()
    assert {r["dice_drop"] for r in rows} == {0.0} and {
        r["linf_range"] for r in rows if r["kind"] == "attack"
    } == {0.0}


def test_every_file_is_there_and_none_besides(finished):
    assert sorted(p.name for p in finished.folder.iterdir()) == [
        "cases.csv",
        "curves.png",
        "examples.png",
        "parts",
        "report.md",
        "settings.json",
        "summary.json",
    ]
    assert (
        finished.summary["shifts_left_out"] == {}
        and "| gamma |" in (finished.folder / "report.md").read_text()
    )


# --- resume and parts ---


def test_a_killed_run_resumes_to_the_same_bytes_without_repeating_cases(
    world, finished, tmp_path, monkeypatch
):
    out, done = tmp_path / "out", []
    original = run_case.apply_corruption

    def killed(*args, **kwargs):
        done.append(1)
        if len(done) == 8:  # in the middle of the second case's shifts
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(run_case, "apply_corruption", killed)
    with pytest.raises(KeyboardInterrupt):
        run(world, out)
    assert (
        sorted(p.name for p in (out / "parts").iterdir()) == ["case0.json", "case0.npz"]
        and not (out / "cases.csv").exists()
    )
    written = (out / "parts" / "case0.json").stat().st_mtime_ns
    monkeypatch.undo()
    result = run(world, out)
    assert result.finished and cases_csv(out) == cases_csv(finished.folder)
    assert (out / "parts" / "case0.json").stat().st_mtime_ns == written


def test_parts_merged_equal_the_whole(world, finished, tmp_path, monkeypatch):
    out = tmp_path / "out"
    first = run(world, out, num_parts=2, part_id=1)
    assert not first.finished and not (out / "cases.csv").exists()
    # the other one as torchrun starts it
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert run(world, out).finished
    assert cases_csv(out) == cases_csv(finished.folder)


def test_workers_share_the_cases_and_write_the_same(world, finished, tmp_path, monkeypatch):
    def in_this_process(*args, **kwargs):
        raise AssertionError("a case was run in this process")

    monkeypatch.setattr(robust, "_run", in_this_process)
    threads = torch.get_num_threads()
    monkeypatch.setattr(
        torch, "get_num_threads", lambda: 2 * threads
    )  # so that each worker has as many as made `finished`
    done = run(world, tmp_path / "out", workers=2)
    assert done.finished and cases_csv(done.folder) == cases_csv(finished.folder)
    assert sorted(p.name for p in done.folder.iterdir()) == sorted(
        p.name for p in finished.folder.iterdir()
    )
    # two cases are lost, and only these are done again
    kept, *lost = sorted((done.folder / "parts").glob("*.json"))
    before = kept.stat().st_mtime_ns
    for part in lost:
        part.unlink()
    again = run(world, tmp_path / "out", workers=2)
    assert (
        cases_csv(again.folder) == cases_csv(finished.folder) and kept.stat().st_mtime_ns == before
    )


def test_workers_get_the_exact_options(world, tmp_path, monkeypatch):
    given = Options(
        attacks=["pgd_linf", "pgd_l2"],
        epsilons=["1/300"],
        epsilons_l2=["1/700"],
        steps_of={"pgd_l2": 3},
    )
    called = []
    monkeypatch.setattr(
        robust,
        "_run_workers",
        lambda workers, call, *others: called.append(json.loads(json.dumps(call))),
    )
    monkeypatch.setattr(robust, "_merge", lambda *others: {})
    with suppress(Exception):  # nothing was done that could be merged
        run(
            world,
            tmp_path / "out",
            workers=2,
            **{
                f.name: getattr(given, f.name)
                for f in dataclasses.fields(given)
                if f.name != "device"
            },
        )
    assert dataclasses.replace(Options(**called[0]["options"]), device=None) == given


def test_workers_leave_torchruns_share_alone(world, tmp_path, monkeypatch):
    options = {"attacks": ["noise"], "epsilons": ["4/255"], "shifts": []}
    whole = run(world, tmp_path / "whole", **options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        done = run(world, tmp_path / "shared", workers=2, **options)
    assert done.finished and cases_csv(done.folder) == cases_csv(whole.folder)


def test_a_failing_worker_ends_the_others_and_says_why(world, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="workers must be an integer >= 1"):
        run(world, tmp_path / "none", workers=0)
    monkeypatch.setattr(robust.Options, "record", lambda self: {"max_cases": 0})
    with pytest.raises(ValueError, match="max_cases must be an integer >= 1, got 0"):
        run(world, tmp_path / "out", workers=2)
    folder = shutil.copytree(world[0], tmp_path / "model")
    monkeypatch.undo()
    open_folder = ResultsFolder.open

    def then_lose_the_model(self, settings):
        open_folder(self, settings)
        shutil.rmtree(folder / "fold_0")

    monkeypatch.setattr(ResultsFolder, "open", then_lose_the_model)
    with pytest.raises(ValueError, match="fold"):
        run((folder, *world[1:]), tmp_path / "out2", workers=2)


@pytest.mark.parametrize(
    ("device", "dimension", "cases", "expected"),
    [("cpu", 2, 20, 4), ("cpu", 2, 3, 3), ("cpu", 2, 1, 1), ("cpu", 3, 20, 1), ("cuda", 2, 20, 1)],
)
def test_workers_by_default_where_they_help(device, dimension, cases, expected, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    model = SimpleNamespace(device=torch.device(device), patch_size=(8,) * dimension)
    costly = SimpleNamespace(model=model, runs=[SimpleNamespace(cost=1000)])
    cheap = SimpleNamespace(model=model, runs=[SimpleNamespace(cost=1)])
    assert robust._workers(None, costly, [None] * cases) == expected
    assert robust._workers(None, cheap, [None] * cases) == 1
    assert robust._workers(2, cheap, [None] * cases) == min(2, cases)


def test_a_changed_file_is_evaluated_again(world, state_dicts, tmp_path):
    folder = make_model_folder(tmp_path, state_dicts=[state_dicts[2]])
    for seed in range(2):
        make_case(tmp_path / "images", shape=(20, 24), seed=seed)
    small = (folder, tmp_path / "images", tmp_path / "images" / "labels")
    run(small, tmp_path / "out", shifts=[], epsilons=["4/255"])
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "parts").glob("*.json")}
    image, _ = model_folders.ball((20, 24), seed=0)
    model_folders.write_image(tmp_path / "images" / "case0_0000.nii.gz", image + 3)
    run(small, tmp_path / "out", shifts=[], epsilons=["4/255"])
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "parts").glob("*.json")}
    assert (
        after["case0.json"] > before["case0.json"] and after["case1.json"] == before["case1.json"]
    )


def test_parts_of_changed_files_are_not_merged(state_dicts, tmp_path):
    folder = make_model_folder(tmp_path, state_dicts=[state_dicts[2]])
    for seed in range(2):
        make_case(tmp_path / "images", shape=(20, 24), seed=seed)
    small, quick = (
        (folder, tmp_path / "images", tmp_path / "images" / "labels"),
        {"shifts": [], "attacks": ["noise"], "epsilons": ["4/255"], "num_parts": 2},
    )
    run(small, tmp_path / "out", part_id=1, **quick)
    image, _ = model_folders.ball((20, 24), seed=1)
    model_folders.write_image(tmp_path / "images" / "case1_0000.nii.gz", image + 3)
    assert not run(small, tmp_path / "out", part_id=0, **quick).finished
    assert run(small, tmp_path / "out", part_id=1, **quick).finished


def test_settings_without_results_bind_nobody_and_reformatted_ones_keep_theirs(world, tmp_path):
    out, small = tmp_path / "out", {"shifts": [], "attacks": ["noise"], "max_cases": 1}
    run(world, out, **small, epsilons=["4/255"])
    settings = out / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text())))
    written = (part := next((out / "parts").glob("*.json"))).stat().st_mtime_ns
    assert (
        run(world, out, **small, epsilons=["4/255"]).finished and part.stat().st_mtime_ns == written
    )
    settings.write_text(settings.read_text()[:100])
    with pytest.raises(ValueError, match="settings.json is not readable as JSON.*--overwrite"):
        run(world, out, **small, epsilons=["4/255"])
    assert run(world, out, **small, epsilons=["4/255"], overwrite=True).finished
    for name in ("parts", "cases.csv", "summary.json", "report.md", "curves.png"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(world, out, **small, epsilons=["8/255"]).finished


def test_processes_that_overwrite_at_once_find_it_done(tmp_path):
    for trial in range(5):
        out = tmp_path / str(trial)
        (out / "parts").mkdir(parents=True)
        for i in range(200):
            (out / "parts" / f"{i}.json").write_text("{}")
        (out / "settings.json").write_text('{"a": 1}')
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: ResultsFolder(out).open({"a": 2}), range(4)))
        assert [p.name for p in out.iterdir()] == ["settings.json"] and ResultsFolder(out).holds(
            {"a": 2}
        )


def test_other_settings_are_refused_and_named_unless_overwritten(world, tmp_path):
    small = {"shifts": [], "epsilons": ["4/255"], "attacks": ["noise"], "max_cases": 1}
    run(world, tmp_path / "out", **small)
    before = cases_csv(tmp_path / "out")
    with pytest.raises(
        ValueError, match=r"other settings \(options.nsd_tolerance: was 2.0, is 1.0\).*--overwrite"
    ):
        run(world, tmp_path / "out", **small, nsd_tolerance=1.0)
    assert cases_csv(tmp_path / "out") == before
    run(world, tmp_path / "out", **{**small, "epsilons": ["8/255"]}, overwrite=True)
    assert cases_csv(tmp_path / "out") != before


def test_a_full_disk_leaves_no_half_written_file(world, finished, tmp_path, monkeypatch, capsys):
    folder, images, labels = world
    out = tmp_path / "out"
    original = os.fsync
    command = [
        "-m",
        str(folder),
        "-i",
        str(images),
        "-l",
        str(labels),
        "-o",
        str(out),
        "-device",
        "cpu",
        "--disable_progress_bar",
    ]
    command += [
        "--attacks",
        "noise",
        "pgd_linf",
        "--epsilons",
        "4/255",
        "16/255",
        "--steps",
        "2",
        "--shifts",
        "gamma",
    ]

    def full(handle):
        if "cases.csv" in os.readlink(f"/proc/self/fd/{handle}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert robust.main(command) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(p.name for p in out.iterdir()) == ["parts", "settings.json"] and not list(
        out.rglob("*.tmp")
    )
    monkeypatch.undo()
    assert robust.main(command) == 0
    assert cases_csv(out) == cases_csv(finished.folder)


def test_a_disk_that_fills_while_a_perturbed_case_is_written(world, tmp_path, monkeypatch, capsys):
    folder, images, labels = world
    original = sitk.WriteImage

    def truncated(image, path, *args):  # what ITK does on a full disk, without a word
        original(image, path, *args)
        os.truncate(path, 200)

    monkeypatch.setattr(sitk, "WriteImage", truncated)
    command = [
        "-m",
        str(folder),
        "-i",
        str(images),
        "-l",
        str(labels),
        "-o",
        str(tmp_path / "out"),
        "-device",
        "cpu",
        "--disable_progress_bar",
    ]
    command += [
        "--attacks",
        "fgsm",
        "--epsilons",
        "4/255",
        "--shifts",
        "none",
        "--max-cases",
        "1",
        "--save-adversarial",
    ]
    assert robust.main(command) == 2
    assert "free space and run the same command again" in capsys.readouterr().err
    assert not [p for p in (tmp_path / "out" / "adversarial").rglob("*") if p.is_file()]
    monkeypatch.undo()
    assert (
        robust.main(command) == 0
        and len(list((tmp_path / "out" / "adversarial").rglob("*.nii.gz"))) == 1
    )


# --- every kind of data set and attack ---


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
    options = {**FAST, "shifts": [], "attacks": ["noise"], "epsilons": ["4/255"]}
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
    quick = {**FAST, "shifts": [], "attacks": ["noise"], "epsilons": ["4/255"]}
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


def test_what_does_not_apply_to_a_model_is_left_out_of_the_defaults_and_refused_by_name():
    facts = {"ct": False, "two_dimensional": True}
    runs, _, left_out = protocol.plan_runs(Options(shifts=()), **facts, has_encoder=False)
    assert (
        list(left_out) == ["ssah"]
        and "ssah" not in {r.name for r in runs}
        and "pgd_linf" in {r.name for r in runs}
    )
    with pytest.raises(ValueError, match="attack ssah needs a network with an .encoder"):
        protocol.plan_runs(Options(attacks=["ssah"]), **facts, has_encoder=False)
    if _installed("torchattacks"):
        with pytest.raises(ValueError, match="torchattacks:PGD needs exclusive labels"):
            protocol.plan_runs(Options(attacks=["torchattacks:PGD"]), **facts, regions=True)
        with pytest.raises(
            ValueError, match="torchattacks:PGD needs epsilon in unit range, got normalized"
        ):
            protocol.plan_runs(
                Options(attacks=["torchattacks:PGD"], epsilon_unit="normalized", epsilons=[0.1]),
                **facts,
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
        **FAST | {"shifts": ["all"]},
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
        "ssah",
        "ssah_project",
        "square",
    ]
    names += ["worst_linf", "torchattacks:PGD"] if _installed("torchattacks") else ["worst_linf"]
    steps = {"ssah": 2, "ssah_project": 2, "square": 2}
    result = run(
        world,
        tmp_path / "out",
        attacks=names,
        steps_of=steps,
        shifts=[],
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
            shifts=[],
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
        shifts=[],
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
        **FAST | {"shifts": []},
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


def test_max_cases_is_a_seeded_choice(world, tmp_path):
    folder, images, labels = world
    chosen = [
        [
            c.identifier
            for c in robust._prepare(
                folder,
                images=images,
                labels=labels,
                previous_stage=None,
                num_parts=None,
                part_id=None,
                options=Options(max_cases=2, seed=s, device="cpu"),
            ).cases
        ]
        for s in range(6)
    ]
    assert (
        all(len(c) == 2 and c == sorted(c) for c in chosen) and len({tuple(c) for c in chosen}) > 1
    )


# --- options, the command and bad input ---


def test_budgets_are_exact():
    options = Options(epsilons=["8/255", "1/255"], epsilons_l2=["0.25/255"])
    assert options.epsilons == (Fraction(1, 255), Fraction(8, 255)) and options.epsilons_l2 == (
        Fraction(1, 1020),
    )
    assert [
        protocol.budget_text(e)
        for e in (*options.epsilons, *options.epsilons_l2, Fraction("0.03"), Fraction(0))
    ] == ["1/255", "8/255", "0.25/255", "0.03", "0"]
    assert options.record()["epsilons"] == ["1/255", "8/255"]


def test_seeds_depend_on_case_and_attack_but_not_on_order_or_budget():
    def seed(**change):
        return protocol.EvaluationRun(
            **{
                "kind": "attack",
                "name": "pgd_linf",
                "norm": "linf",
                "epsilon": Fraction(1, 255),
                **change,
            }
        )

    base = seed().seed(0, "a")
    assert seed(epsilon=Fraction(2, 255)).seed(0, "a") == base
    assert (
        len(
            {
                base,
                seed(name="segpgd").seed(0, "a"),
                seed().seed(1, "a"),
                seed().seed(0, "b"),
                seed(norm="l2").seed(0, "a"),
            }
        )
        == 5
    )


def test_noise_is_the_control_in_every_norm_that_is_attacked():
    def norms(attacks, **more):
        runs, *_ = protocol.plan_runs(
            Options(attacks=attacks, shifts=(), **more), ct=False, two_dimensional=True
        )
        return [
            (r.name, r.norm)
            for r in runs
            if r.name == "noise"
            and r.epsilon
            == min(e.epsilon for e in runs if e.norm == r.norm and e.epsilon is not None)
        ]

    assert norms(["noise", "pgd_linf"]) == [("noise", "linf")]
    assert norms(["noise", "pgd_l2", "apgd"]) == [("noise", "l2"), ("noise", "linf")]
    assert norms(["noise"]) == [("noise", "linf")]


def test_dry_run_prints_and_writes_nothing(world, tmp_path, capsys):
    folder, images, labels = world
    code = robust.main(
        [
            "-m",
            str(folder),
            "-i",
            str(images),
            "-l",
            str(labels),
            "-o",
            str(tmp_path / "out"),
            "-device",
            "cpu",
            "--dry-run",
            "--attacks",
            "fgsm",
            "--max-cases",
            "2",
        ]
    )
    said = capsys.readouterr().out
    assert code == 0 and not (tmp_path / "out").exists()
    for needed in (
        "2 cases",
        "fgsm 8/255",
        "gaussian_noise 5",
        "left out: hu_offset",
        "peak memory",
        "for this part",
    ):
        assert needed in said, needed


def test_help_needs_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import evaluation.robust as r; r.main(['--help'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert done.returncode == 0 and "--epsilons" in done.stdout and "worst_linf" in done.stdout


def test_evaluate_is_in_the_package():
    assert evaluation.evaluate is robust.evaluate and evaluation.estimate is robust.estimate
    with pytest.raises(AttributeError):
        evaluation.nothing


BAD = {
    "unknown attack": (["--attacks", "pgd_lnf"], "pgd_linf"),
    "unknown shift": (["--shifts", "gama"], "gamma"),
    "shift of other data": (["--shifts", "hu_offset"], "does not apply to this data set: needs CT"),
    "negative epsilon": (["--epsilons", "-1/255"], "epsilon must be >= 0, got -1/255"),
    "more than the range": (["--epsilons", "8"], "did you mean 8/255?"),
    "derived attacks only": (
        ["--attacks", "worst_linf", "--shifts", "none"],
        "there is nothing to run",
    ),
    "l2 of what has no budget": (["--attacks", "ssah_l2"], "ssah"),
    "no number": (["--epsilons", "eight"], "got 'eight'"),
    "division by zero": (["--epsilons", "1/0"], "got '1/0'"),
    "unknown unit": (
        ["--epsilon-unit", "percent"],
        "epsilon unit must be one of range, normalized, original, got 'percent'",
    ),
    "unit without budgets": (
        ["--epsilon-unit", "original", "--attacks", "pgd_linf"],
        "give --epsilons in unit original",
    ),
    "transfer without surrogate": (["--attacks", "transfer"], "--surrogate"),
    "unknown device": (["-device", "gpu"], "device must be"),
    "no such fold": (["-f", "3"], "has no fold_3; folds there: 0"),
    "fold no number": (["-f", "first"], "folds must be numbers or 'all', got first"),
    "no such checkpoint": (
        ["-chk", "checkpoint_best.pth"],
        "checkpoints there: checkpoint_final.pth",
    ),
    "step size": (["-step_size", "1.5"], "must be in (0, 1], got 1.5"),
    "steps": (["--steps", "ten"], "steps must be N or NAME=N"),
    "steps of no attack": (
        ["--attacks", "fgsm", "--steps", "ssah=5"],
        "ssah, which is not among the attacks",
    ),
    "part": (["-num_parts", "2", "-part_id", "2"], "part_id must be in 0..1"),
    "part without number": (["-part_id", "1"], "num_parts must be >= 1"),
}


@pytest.mark.parametrize("arguments, message", BAD.values(), ids=BAD)
def test_bad_options_say_what_and_how_to_fix(arguments, message, world, tmp_path, capsys):
    folder, images, labels = world
    code = robust.main(
        [
            "-m",
            str(folder),
            "-i",
            str(images),
            "-l",
            str(labels),
            "-o",
            str(tmp_path / "out"),
            *([] if "-device" in arguments else ["-device", "cpu"]),
            *arguments,
        ]
    )
    assert code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _without_plans(root):
    (next(root.glob("nnUNetTrainer__*")) / "plans.json").unlink()


def _damaged_plans(root):
    path = next(root.glob("nnUNetTrainer__*")) / "plans.json"
    path.write_text(path.read_text()[:50])


def _empty_dataset_json(root):
    (next(root.glob("nnUNetTrainer__*")) / "dataset.json").write_text("{}")


def _nan_label(root):
    label = np.ones((20, 24), np.float32)
    label[3, 3] = np.nan
    model_folders.write_image(root / "images" / "labels" / "case1.nii.gz", label)


def _out_is_a_file(root):
    (root / "out").write_text("mine")


def _without_labels(root):
    (root / "images" / "labels" / "case0.nii.gz").unlink()


def _without_images(root):
    (root / "images" / "case0_0000.nii.gz").unlink()


def _no_images_at_all(root):
    for path in (root / "images").glob("*.nii.gz"):
        path.unlink()


def _other_shape(root):
    model_folders.write_image(
        root / "images" / "labels" / "case1.nii.gz", np.zeros((20, 25), np.uint8)
    )


def _other_spacing(root):
    model_folders.write_image(
        root / "images" / "labels" / "case1.nii.gz", np.ones((20, 24), np.uint8), spacing=(2, 1)
    )


def _with_nan(root):
    image = np.ones((20, 24), np.float32)
    image[3, 3] = np.nan
    model_folders.write_image(root / "images" / "case1_0000.nii.gz", image)


def _two_channels(root):
    model_folders.write_image(root / "images" / "case1_0001.nii.gz", np.ones((20, 24), np.float32))


def _constant(root):
    model_folders.write_image(
        root / "images" / "case1_0000.nii.gz", np.full((20, 24), 7, np.float32)
    )


def _unknown_label(root):
    model_folders.write_image(
        root / "images" / "labels" / "case1.nii.gz", np.full((20, 24), 3, np.uint8)
    )


def _foreign_out(root):
    (root / "out").mkdir()
    (root / "out" / "cases.csv").write_text("mine")


def _unsafe_checkpoint(root):
    path = next(root.rglob("checkpoint_final.pth"))
    torch.save({**torch.load(path, weights_only=False), "logging": Path("x")}, path)


BAD_FILES = {
    "no plans.json": (_without_plans, "plans.json is missing"),
    "damaged plans.json": (_damaged_plans, "plans.json is not readable as JSON"),
    "empty dataset.json": (_empty_dataset_json, "dataset.json lacks labels, file_ending"),
    "nan in a label": (_nan_label, "case1.nii.gz: the label holds NaN"),
    "out is a file": (_out_is_a_file, "is a file; -o needs a folder"),
    "image without label": (_without_labels, "1 images without a label"),
    "label without image": (_without_images, "1 labels in"),
    "no images": (_no_images_at_all, "holds no images named <case>_0000.nii.gz"),
    "shape": (_other_shape, "case1.nii.gz: shape"),
    "spacing": (_other_spacing, "case1.nii.gz: spacing"),
    "nan": (_with_nan, "case1_0000.nii.gz: the image holds NaN"),
    "channels": (_two_channels, "2 channels, but dataset.json of the model has 1"),
    "constant": (_constant, "the image is constant"),
    "label value": (_unknown_label, "labels [3.0] are not in dataset.json"),
    "foreign out": (_foreign_out, "holds cases.csv without settings.json"),
    "unsafe checkpoint": (_unsafe_checkpoint, "--trust-checkpoint"),
}


@pytest.mark.parametrize("damage, message", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_named_before_anything_is_written(damage, message, tmp_path, capsys):
    folder = make_model_folder(tmp_path)
    for seed in range(2):
        make_case(tmp_path / "images", shape=(20, 24), seed=seed)
    damage(tmp_path)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    images = tmp_path / "images"
    code = robust.main(
        [
            "-m",
            str(folder),
            "-i",
            str(images),
            "-l",
            str(images / "labels"),
            "-o",
            str(tmp_path / "out"),
            "-device",
            "cpu",
            "--disable_progress_bar",
        ]
    )
    assert code == 2
    said = capsys.readouterr().err
    assert message in said, said
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_images_without_labels_argument(world, tmp_path, capsys):
    folder, images, labels = world
    assert robust.main(["-m", str(folder), "-i", str(images), "-o", str(tmp_path / "o")]) == 2
    assert "images (-i) were given without labels (-l)" in capsys.readouterr().err
    assert robust.main(["-m", str(folder), "-l", str(labels), "-o", str(tmp_path / "o")]) == 2
    assert "labels (-l) were given without images (-i)" in capsys.readouterr().err


def _installed(name):
    import importlib.util

    return importlib.util.find_spec(name) is not None
