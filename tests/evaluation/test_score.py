"""Laws of `lngswr score`: nnU-Net's numbers, intervals over patients, paired differences."""

import json
import math
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import numpy as np
import pytest
from nnunetv2.evaluation import evaluate_predictions
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from evaluation.rows import MEAN_LABEL
from evaluation.scoring import run
from evaluation.scoring.label_set import labels_of
from evaluation.significance import interval, resample
from nnunetv2_lngswr.cli.main import main
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.scoring.files import (
    CASES,
    LABELS,
    PATTERN,
    REGIONS,
    find,
    rows,
    score,
    truth,
    write_description,
    write_image,
    write_labels,
    write_model,
)

PATIENTS = {case: case.split("_")[0] for case in CASES}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Figures take nine tenths of a small call's time; tests/evaluation/scoring draws them."""
    for name in ("draw_scores", "draw_reliability"):
        monkeypatch.setattr(run, name, lambda path, *of: path.write_text("a picture"))


@pytest.fixture
def world(tmp_path):
    """Labels and two models."""
    write_labels(tmp_path / "labels")
    write_model(tmp_path / "a", npz=True)
    write_model(tmp_path / "b", noise=1.9, offset=50, npz=True)
    write_description(tmp_path / "dataset.json", LABELS)
    return tmp_path


def nnunet_says(root, monkeypatch, labels=LABELS, folder="a"):
    """nnU-Net's own compute_metrics_on_folder, on threads instead of processes."""
    threads = SimpleNamespace(Pool=ThreadPool)
    fake = SimpleNamespace(get_context=lambda how: threads)
    monkeypatch.setattr(evaluate_predictions, "multiprocessing", fake)
    known = labels_of(root / "dataset.json")
    return evaluate_predictions.compute_metrics_on_folder(
        str(root / "labels"),
        str(root / folder),
        None,
        SimpleITKIO(),
        ".nii.gz",
        known.labels,
        known.ignore_label,
        num_processes=1,
    )


def test_what_is_cut_off_has_no_summary_of_earlier_scores(world, monkeypatch):
    score(world, "a")

    def full(path, text):
        raise OSError("no space left")

    monkeypatch.setattr(run, "write_file", full)
    with pytest.raises(OSError, match="no space"):
        score(world, "a")
    assert not (world / "out" / "summary.json").exists()


@pytest.mark.parametrize("regions", [False, True])
def test_the_clean_part_is_nnunets(tmp_path, monkeypatch, regions):
    write_labels(tmp_path / "labels", ignore=regions)
    write_model(tmp_path / "a", regions=regions)
    # a case without a lesion in either
    write_image(tmp_path / "labels" / "p9_9.nii.gz", truth(9).clip(0, 1))
    write_image(tmp_path / "a" / "p9_9.nii.gz", truth(8).clip(0, 1))
    order = [1, 2] if regions else None
    write_description(tmp_path / "dataset.json", REGIONS if regions else LABELS, order)
    said = nnunet_says(tmp_path, monkeypatch)
    found = score(tmp_path, "a")
    assert len(said["mean"]) == 2
    for ours, theirs in (("dice", "Dice"), ("iou", "IoU")):
        assert find(found, ours)["mean"] == pytest.approx(said["foreground_mean"][theirs])
        for label, mean in said["mean"].items():
            assert find(found, ours, label=str(label))["mean"] == pytest.approx(mean[theirs])
    table = {(r["case"], r["label"]): r for r in rows(tmp_path)}
    for case in said["metric_per_case"]:
        name = case["prediction_file"].split("/")[-1].removesuffix(".nii.gz")
        for label, metrics in case["metrics"].items():
            row = table[name, str(label)]
            for ours, theirs in (("dice", "Dice"), ("iou", "IoU")):
                assert float(row[ours]) == pytest.approx(metrics[theirs], nan_ok=True)
            counts = [int(row[k]) for k in ("predicted_voxels", "reference_voxels")]
            assert counts == [metrics["n_pred"], metrics["n_ref"]]
    assert any(math.isnan(float(r["dice"])) for r in table.values())


def test_volumes_are_in_millilitres_and_signed(world):
    smaller = truth(0) * (np.arange(truth(0).shape[-1]) % 2)  # columns left out
    write_image(world / "a" / f"{CASES[0]}.nii.gz", smaller)
    score(world, "a")
    voxel = 1.0 * 1.5 * 2.0 / 1000
    signs = set()
    for row in rows(world):
        reference, predicted = (int(row[k]) for k in ("reference_voxels", "predicted_voxels"))
        if row["label"] != "mean":
            error = voxel * (predicted - reference)
            assert float(row["volume_error"]) == pytest.approx(error)
            assert float(row["absolute_volume_error"]) == pytest.approx(abs(error))
            relative = (predicted - reference) / reference
            assert float(row["relative_volume_error"]) == pytest.approx(relative)
            signs.add(error > 0)
    assert signs == {True, False}


def test_folds_that_are_joined_are_one_folder(world):
    whole = score(world, "a", out="whole")
    model = world / "nnUNetTrainer__nnUNetPlans__2d"
    for fold, cases in enumerate((CASES[:2], CASES[2:])):
        write_model(model / f"fold_{fold}" / "validation", cases=cases, npz=True)
    (model / "fold_all" / "validation").mkdir(parents=True)
    by_hand = [f"{model.name}/fold_{f}/validation" for f in (0, 1)]
    for given in (model.name, [f"{model.name}/fold_0", f"{model.name}/fold_1"], by_hand):
        joined = score(world, given)
        assert joined["models"][0]["name"] == model.name
        assert [r["mean"] for r in joined["results"]] == [r["mean"] for r in whole["results"]]
    with pytest.raises(UserError, match="count twice"):
        score(world, [by_hand[0], "a"])


def test_intervals_are_over_patients(world):
    # both cases of a patient alike: twice the cases, no more patients
    for kind in ("a", "labels"):
        for case in CASES[::2]:
            number = int(case.split("_")[1])
            twin = world / kind / f"{case[:2]}_{number + 1}.nii.gz"
            twin.write_bytes((world / kind / f"{case}.nii.gz").read_bytes())
    alone = score(world, "a", out="alone")
    grouped = score(world, "a", out="grouped", groups=PATIENTS)
    for folder in ("a", "labels"):
        for case in CASES[1::2]:
            (world / folder / f"{case}.nii.gz").unlink()
    once = score(world, "a", out="once")
    ends = [
        [find(s, "dice")[k] for k in ("mean", "mean_low", "mean_high")] for s in (grouped, once)
    ]
    assert ends[0] == pytest.approx(ends[1])
    dice = find(alone, "dice")
    assert dice["mean_low"] > ends[0][1] and dice["mean_high"] < ends[0][2]
    assert grouped["patients"] == 3 and alone["patients"] is None
    assert any("--groups" in note for note in alone["notes"])
    assert not any("--groups" in note for note in grouped["notes"])


def test_few_patients_or_cases_are_said_and_their_intervals_are_wider(world):
    alone = score(world, "a", out="alone")
    own = score(world, "a", out="own", groups={case: case for case in CASES})
    few = find(own, "dice")
    # of a patient each it is the same
    assert few == find(alone, "dice")
    draws = resample(len(CASES), seed=0)
    dice = [float(r["dice"]) for r in rows(world, "alone") if r["label"] == MEAN_LABEL]
    low, high = interval(np.array(dice)[:, None], draws)
    assert few["mean_low"] < low and few["mean_high"] > high
    assert "expanded percentile" in own["metrics"]["intervals"]
    for out, what in (("own", "patients"), ("alone", "cases")):
        assert f"**{len(CASES)} {what} are few**" in (world / out / "report.md").read_text()


def test_pooled_lesions_and_calibration_are_resampled_by_patients_too(world):
    grouped = score(world, "a", probabilities=True, groups=dict.fromkeys(CASES, "one"))
    for record in (*grouped["lesions"], *grouped["calibration"]):
        for name in ("f1", "sensitivity", "ece", "brier_box"):
            if name in record:
                assert record[f"{name}_low"] == record[name] == record[f"{name}_high"]
    assert any("one patient" in note for note in grouped["notes"])
    alone = score(world, "a", probabilities=True)
    assert all(r["f1_low"] < r["f1"] < r["f1_high"] for r in alone["lesions"])
    assert all(r["ece_low"] < r["ece"] < r["ece_high"] for r in alone["calibration"])


def test_differences_are_paired_by_case(world):
    found = score(world, "a", "b", "a", names=["a", "b", "a again"])
    same, other = (find(found, "dice", model=m) for m in ("a again", "b"))
    assert same["difference"] == same["difference_low"] == same["difference_high"] == 0
    means = [find(found, "dice", model=m)["mean"] for m in ("b", "a")]
    assert other["difference"] == pytest.approx(means[0] - means[1])
    assert other["difference_low"] < other["difference_high"] < 0
    # narrower than intervals of the two that know nothing of each other
    widths = [find(found, "dice", model=m) for m in ("a", "b")]
    apart = sum(r["mean_high"] - r["mean_low"] for r in widths)
    assert other["difference_high"] - other["difference_low"] < apart
    assert "difference" not in find(found, "dice")


def test_pooled_lesions_are_sums_over_cases(world):
    found = score(world, "a")
    for record in found["lesions"]:
        of = [r for r in rows(world) if r["label"] == record["label"]]
        for name in ("reference", "predicted", "matched"):
            assert record[name] == sum(int(r[f"{name}_lesions"]) for r in of)
        total = record["reference"] + record["predicted"]
        assert record["f1"] == pytest.approx(2 * record["matched"] / total)
        assert 0 < record["matched"] < total
        for share, whole in (("sensitivity", "reference"), ("precision", "predicted")):
            assert record[share] == pytest.approx(record["matched"] / record[whole])
            for r in of:
                if float(r[f"{whole}_lesions"]):
                    one = float(r["matched_lesions"]) / float(r[f"{whole}_lesions"])
                    assert float(r[f"lesion_{share}"]) == pytest.approx(one)


@pytest.mark.parametrize("regions", [False, True])
def test_calibration_is_of_nnunets_probabilities(tmp_path, regions):
    write_labels(tmp_path / "labels", ignore=regions)
    write_model(tmp_path / "a", npz=True, regions=regions)
    order = [1, 2] if regions else None
    write_description(tmp_path / "dataset.json", REGIONS if regions else LABELS, order)
    found = score(tmp_path, "a", probabilities=True)
    channels = {"(1, 2)": (0, (1, 2)), "(2,)": (1, (2,))} if regions else None
    channels = channels or {"1": (1, (1,)), "2": (2, (2,))}
    for record in found["calibration"]:
        channel, values = channels[record["label"]]
        error = []
        for case in CASES:
            p = np.load(tmp_path / "a" / f"{case}.npz")["probabilities"][channel]
            y = truth(int(case.split("_")[1]), ignore=regions)
            counted = y != 3
            error.append(((p - np.isin(y, values)) ** 2)[counted])
        assert record["brier"] == pytest.approx(np.concatenate(error).mean())
        assert sum(b["voxels"] for b in record["bins"]) == sum(e.size for e in error)
        mean = find(found, "brier", label=record["label"])["mean"]
        assert mean == pytest.approx(np.mean([e.mean() for e in error]))


def test_without_a_description_labels_are_those_found(world):
    described = score(world, "a", probabilities=True)
    (world / "dataset.json").unlink()
    found = score(world, "a", out="found", probabilities=True)
    numbers = [[r["mean"] for r in s["results"]] for s in (described, found)]
    assert numbers[0] == pytest.approx(numbers[1])
    assert found["labels"]["scored"] == {"1": "1", "2": "2"}
    # an ignore label that is told by hand
    write_labels(world / "labels", ignore=True)
    ignoring = score(world, "a", out="il", ignore_label=3)
    assert ignoring["labels"]["scored"] == {"1": "1", "2": "2"}
    assert find(ignoring, "dice")["mean"] != find(found, "dice")["mean"]


def test_a_label_that_only_some_cases_have_is_undefined_in_the_others(tmp_path):
    for folder in ("labels", "a"):
        write_image(tmp_path / folder / "x.nii.gz", truth(0).clip(0, 1))
        write_image(tmp_path / folder / "y.nii.gz", truth(0))
    found = score(tmp_path, "a")
    assert find(found, "dice", label="2")["cases"] == 1
    row = next(r for r in rows(tmp_path) if (r["case"], r["label"]) == ("x", "2"))
    assert row["dice"] == "nan" and row["reference_voxels"] == row["matched_lesions"] == "0"


def test_probabilities_of_a_label_count_in_cases_that_lack_it(tmp_path):
    write_labels(tmp_path / "labels", cases=CASES[:2])
    write_model(tmp_path / "a", cases=CASES[:2])
    for case, held in zip(CASES, (truth(0), truth(1).clip(0, 1))):
        for folder in ("a", "labels"):
            write_image(tmp_path / folder / f"{case}.nii.gz", held)
        one_hot = np.stack([held == k for k in range(3)]).astype(np.float32)
        np.savez_compressed(tmp_path / "a" / f"{case}.npz", probabilities=one_hot)
    found = score(tmp_path, "a", probabilities=True)
    for record in found["calibration"]:
        assert sum(b["voxels"] for b in record["bins"]) == 2 * truth(0).size
    assert find(found, "ece", label="2")["cases"] == 2


def test_pictures_have_pixels(tmp_path):
    for folder in ("labels", "a"):
        (tmp_path / folder).mkdir()
        picture = np.zeros((20, 30), np.uint8)
        picture[5:15, 5:25] = 1
        Image.fromarray(picture).save(tmp_path / folder / "x.png")
    found = score(tmp_path, "a")
    assert found["metrics"]["length_unit"] == found["metrics"]["volume_unit"] == "pixels"
    assert rows(tmp_path)[0]["reference_volume"] == "200"
    assert "HD95 (pixels)" in (tmp_path / "out" / "report.md").read_text()


def test_cases_that_not_all_have_are_left_out_on_request_and_named(world):
    (world / "a" / f"{CASES[0]}.nii.gz").unlink()
    (world / "b" / f"{CASES[1]}.nii.gz").unlink()
    found = score(world, "a", "b", chill=True)
    assert found["cases"] == 4
    assert sum("1 of 6 labels without a prediction of" in note for note in found["notes"]) == 2
    assert {r["case"] for r in rows(world)} == set(CASES[2:])


def test_two_calls_give_the_same_bytes(world):
    files = ("cases.csv", "summary.json", "report.md", "report.html")
    score(world, "a", "b")
    before = [(world / "out" / f).read_bytes() for f in files]
    score(world, "a", "b")
    assert [(world / "out" / f).read_bytes() for f in files] == before


def test_the_command_writes_a_report_that_can_be_read(world, capsys):
    words = ["-p", f"{world}/a", f"{world}/b", "-l", f"{world}/labels", "-o", f"{world}/out"]
    more = ["-djfile", f"{world}/dataset.json", "--groups", PATTERN, "--npz", "-np", "1"]
    assert main(["score", *words, *more, "--tolerance", "1.5", "--disable_progress_bar"]) == 0
    report = (world / "out" / "report.md").read_text()
    assert capsys.readouterr().out.startswith(report)
    assert "6 cases of 3 patients" in report and "NSD at 1.5 mm" in report
    for heading in ("Scores", "Per label", "Volume", "Lesions", "Calibration", "Lowest Dice"):
        assert f"## {heading}\n" in report
    summary = json.loads((world / "out" / "summary.json").read_text())
    shown = f"{100 * find(summary, 'dice', model='b')['mean']:.1f}"
    assert f"b **{shown} [" in report and "[nan" not in report
    assert (world / "out" / "reliability.png").exists()
    # without probabilities the figure of an earlier call goes
    assert main(["score", *words, "-np", "1", "--disable_progress_bar"]) == 0
    assert not (world / "out" / "reliability.png").exists()
    assert "--npz" in (world / "out" / "report.md").read_text()


def test_patients_come_from_a_table_too(world):
    table = "case,patient\n" + "".join(f"{c},{p}\n" for c, p in PATIENTS.items())
    (world / "patients.CSV").write_text(table)
    words = ["-p", f"{world}/a", "-l", f"{world}/labels", "-o", f"{world}/out", "-np", "1"]
    assert main(["score", *words, "--groups", f"{world}/patients.CSV"]) == 0
    assert json.loads((world / "out" / "summary.json").read_text())["patients"] == 3
