"""Comparisons over groups of cases, and of models that were trained several times."""

import csv
import json
import shutil

import numpy as np
import pytest

from evaluation import compare, significance
from evaluation.comparison.models import read_models
from evaluation.comparison.paired_rows import COLUMNS
from evaluation.comparison.replicates import (
    Part,
    Replicate,
    paired_by_seed,
    replicates_of,
    seed_of,
)
from evaluation.report.cases_table import read_cases, write_cases
from evaluation.report.records import write_summary
from evaluation.trainings import TwoLevelDraws, difference_figure, estimate, reduction_figure
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.comparison.results import write_result
from tests.evaluation.test_compare import find

CASES = [f"p{i // 2}_{i}" for i in range(6)]
PATTERN = r"^p\d"
ORDER = [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
"""(model folder, fold) as no shell gives them, but a user may."""


def result(
    folder,
    *,
    shift=0.0,
    of_clean=0.0,
    spread=0.0,
    seed=0,
    groups=None,
    training_seed=None,
    **more,
):
    """An OUT folder whose attacked Dice differ from case to case, by a patient's part and more."""
    write_result(folder, cases=CASES, **more)
    rng = np.random.default_rng(seed)
    of_patient = dict(zip("012", rng.normal(0, spread, 3)))
    moved = {case: shift + of_patient[case[1]] + rng.normal(0, spread / 4) for case in CASES}
    rows = read_cases(folder / "cases.csv")
    for row in rows:
        by = of_clean if row["kind"] == "clean" else moved[row["case"]]
        row["dice"] = float(np.clip(row["dice"] + by, 0, 1))
    write_cases(folder / "cases.csv", rows)
    summary = json.loads((folder / "summary.json").read_text())
    if groups:
        summary["groups"] = groups
    if training_seed is not None:
        summary["model"]["training_seed"] = training_seed
    write_summary(folder / "summary.json", summary)
    return folder


def values_of(folders, run=("worst_linf", "2/255")):
    """(trainings, cases, labels) of a run, trainings by seed."""
    model = read_models([folders, folders], names=["a", "b"])[0][0]
    assert len(model.replicates) == len(folders)
    values = np.empty((len(folders), len(CASES), 2))
    for number, replicate in enumerate(model.replicates):
        for row in replicate.rows:
            if (row["attack"], row["epsilon_text"]) == run and row["label"] != "mean":
                values[number, CASES.index(row["case"]), int(row["label"]) - 1] = row["dice"]
    return values


def test_a_label_that_is_never_there_is_said(tmp_path):
    folders = [result(tmp_path / name) for name in "ab"]
    for lacking, said in (("2", 0), ("1", 1)):
        for folder in folders:
            rows = read_cases(folder / "cases.csv")
            for r in rows:
                # of the other label only one case lacks it
                if r["label"] == "1" and (lacking == "1" or r["case"] == CASES[0]):
                    r["reference_voxels"] = 0
            write_cases(folder / "cases.csv", rows)
        compare.compare(folders, tmp_path / "out", names=["x", "y"])
        text = (tmp_path / "out" / "compare.md").read_text()
        assert text.count("name 1 (1): in no ground truth") == said


def test_whole_groups_are_drawn_and_named(tmp_path):
    a = result(tmp_path / "a")
    b = result(tmp_path / "b", trainer="B", shift=0.05, spread=0.08)
    plain = compare.compare([a, b], tmp_path / "plain")
    grouped = compare.compare([a, b], tmp_path / "grouped", groups=PATTERN)
    one, other = (find(r, "B", "worst_linf", "2/255") for r in (plain, grouped))
    assert [one[k] for k in ("dice", "difference", "reduction")] == pytest.approx(
        [other[k] for k in ("dice", "difference", "reduction")]
    )
    # of three the interval goes from one patient's mean to another's
    difference = values_of([b])[0] - values_of([a])[0]
    of_patients = [
        np.mean([d for case, d in zip(CASES, difference) if case[1] == patient])
        for patient in "012"
    ]
    ends = [other["difference_low"], other["difference_high"]]
    assert ends == pytest.approx([min(of_patients), max(of_patients)])
    assert ends != [one["difference_low"], one["difference_high"]]
    # three patients: no p below 2 / 8
    assert other["p"] >= 0.25 > one["p"] and other["groups"] == 3 and "groups" not in one
    text = (tmp_path / "grouped" / "compare.md").read_text()
    assert rf"6 cases of 3 groups (pattern {PATTERN}, --groups)" in text
    assert "intervals over groups of cases" in text
    assert "3 groups are few" in text and "cannot fall below 0.25" in text
    page = (tmp_path / "grouped" / "report.html").read_text()
    assert "]. 3 groups are few: " in page and "**" not in page.partition("<script")[0]
    content = json.loads((tmp_path / "grouped" / "compare.json").read_text())
    assert content["groups"]["of"] == {c: c[:2] for c in CASES}
    with open(tmp_path / "grouped" / "compare.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == (*COLUMNS, "groups")


def test_without_groups_nothing_is_said_of_them(tmp_path):
    a, b = result(tmp_path / "a"), result(tmp_path / "b", trainer="B", shift=0.05)
    compare.compare([a, b], tmp_path / "out")
    with open(tmp_path / "out" / "compare.csv", newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert "groups" not in json.loads((tmp_path / "out" / "compare.json").read_text())
    text = (tmp_path / "out" / "compare.md").read_text()
    said = text.split("\n- ")[0]  # the folders' names come after it
    assert "group" not in said and "Trained again" not in said and "trained once" not in text


def test_groups_that_folders_were_reported_with_are_used(tmp_path):
    groups = {"found": "F", "count": 3, "of": {c: c[:2] for c in CASES}}
    a = result(tmp_path / "a", groups=groups)
    b = result(tmp_path / "b", trainer="B", shift=0.05, spread=0.05)
    found = compare.compare([a, b], tmp_path / "out")
    assert found == compare.compare([a, b], tmp_path / "given", groups=PATTERN)
    assert "6 cases of 3 groups (F)" in (tmp_path / "out" / "compare.md").read_text()
    others = {"found": "G", "count": 6, "of": {c: c for c in CASES}}
    c = result(tmp_path / "c", trainer="C", groups=others)
    with pytest.raises(UserError, match="were reported with other groups"):
        compare.compare([a, c], tmp_path / "no")
    assert not (tmp_path / "no").exists()
    assert compare.compare([a, c], tmp_path / "said", groups=PATTERN)


@pytest.mark.parametrize("paired", [True, False])
def test_several_trainings_have_figures_over_both_levels(tmp_path, paired):
    seeds = {"a": (4, 5, 6), "b": (6, 4, 5) if paired else (7, 8, 9)}
    folders = {
        name: [
            result(
                tmp_path / f"{name}{s}",
                trainer=name,
                shift=(0.02 + 0.01 * (s % 2)) * (name == "b") + 0.01 * (s % 3),
                of_clean=-0.01 * (s % 4) * (name == "b"),
                spread=0.03,
                seed=s,
                training_seed=s,
            )
            for s in of
        ]
        for name, of in seeds.items()
    }
    records = compare.compare([*folders.values()], tmp_path / "out", groups=PATTERN)
    found = find(records, "b", "worst_linf", "2/255")
    figure = difference_figure(values_of(folders["b"]), values_of(folders["a"]))
    draws = TwoLevelDraws.of(np.repeat([0, 1, 2], 2), seed=0)
    expected = estimate(figure, [3, 3], draws, paired=paired)
    assert found["trainings"] == 3 and found["paired_trainings"] == (3 if paired else 0)
    keys = ("difference_again", "difference_again_low", "difference_again_high", "p_again")
    of = (expected.value, expected.low, expected.high, expected.p)
    assert [found[k] for k in keys] == pytest.approx(of)
    assert (found["se_trainings"], found["se_groups"]) == pytest.approx(
        (expected.se_trainings, expected.se_groups)
    )
    assert found["difference_again"] == pytest.approx(found["difference"])
    clean = ("clean", "")
    drops = [
        f(folders[name]) for name in "ba" for f in (lambda of: values_of(of, clean), values_of)
    ]
    share = estimate(reduction_figure(*drops), [3, 3], draws, paired=paired)
    ends = [found[f"reduction_again{end}"] for end in ("", "_low", "_high")]
    assert ends == pytest.approx([share.value, share.low, share.high])
    assert share.low < share.value < share.high
    tested = [r for r in records if r.get("p_again") is not None]
    corrected = significance.holm([r["p_again"] for r in tested])
    assert [r["p_again_holm"] for r in tested] == corrected and len(tested) > 2
    assert "trainings" not in find(records, "b", "pgd_linf", "2/255")  # it was not tested
    text = (tmp_path / "out" / "compare.md").read_text()
    said = "paired with a's by seed (4, 5, 6)" if paired else "not paired with a's by seed"
    assert "## Trained again" in text and said in text


def test_trainings_that_happen_to_agree_have_an_interval_and_no_p(tmp_path):
    folders = [
        [
            result(tmp_path / f"{name}{s}", trainer=name, shift=shift, spread=0.03, training_seed=s)
            for s in (1, 2, 3)
        ]
        for name, shift in (("a", 0.0), ("b", 0.02))
    ]
    records = compare.compare(folders, tmp_path / "out", groups=PATTERN)
    found = find(records, "b", "worst_linf", "2/255")
    assert found["se_trainings"] == 0 and found["p_again"] is None is found["p_again_holm"]
    assert found["difference_again_low"] <= found["difference"] <= found["difference_again_high"]
    assert "none where the trainings happen to agree" in (tmp_path / "out/compare.md").read_text()


def test_trained_once_is_said_and_its_figures_are_left_out(tmp_path):
    a = [result(tmp_path / f"a{s}", spread=0.02, seed=s, training_seed=s) for s in (0, 1)]
    b = result(tmp_path / "b", trainer="B", training_seed=0)
    records = compare.compare([a, b], tmp_path / "out")
    assert find(records, "A", "clean")["trainings"] == 2
    assert "trainings" not in find(records, "B", "clean")
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "B: trained once: nothing is known of training it again" in text


def part(seed, *cases, folder=None, folds=(0,)):
    rows = [{"case": c} for c in cases]
    return Part(seed=seed, cases=cases, rows=rows, folder=folder, folds=folds)


def test_folders_are_told_apart_as_folds_and_seeds():
    parts = [part(s, c, folds=(f,)) for f, c in enumerate("xy") for s in (1, 0)]
    found = replicates_of(parts, ["x", "y"])
    assert [r.seed for r in found] == [0, 1]
    assert all([r["case"] for r in of.rows] == ["x", "y"] for of in found)
    # one seed twice is two trainings of no known pairs
    twice = replicates_of([part(3, "x")] * 2, ["x"])
    assert [r.seed for r in twice] == [None, None]
    assert paired_by_seed(twice, found) == ([0, 1], [0, 1], False)
    # but told apart by their places, which are not needed for the folds of one training
    places = [part(3, "xy"[f], folder=m, folds=(f,)) for m, f in ORDER]
    assert [[r["case"] for r in of.rows] for of in replicates_of(places, ["x", "y"])] == [
        ["x", "y"]
    ] * 2
    assert len(replicates_of([places[0], places[2]], ["x", "y"])) == 1
    # a training that lacks a fold
    assert replicates_of(parts[:3], ["x", "y"]) == ()


def test_without_seeds_trainings_are_told_apart_by_the_models_folders():

    named = [part(None, "xy"[f], folder=m, folds=(f,)) for m, f in ORDER]
    for of in (named, named[::-1]):
        found = replicates_of(of, ["x", "y"])
        assert [sorted(id(r) for r in training.rows) for training in found] == [
            sorted(id(r) for p in of if p.folder == folder for r in p.rows)
            for folder in dict.fromkeys(p.folder for p in of)
        ]
    # of one folder, or of none that is known: which fold belongs to which cannot be told
    for folder in ("a", None):
        parts = [part(None, "xy"[f], folder=folder, folds=(f,)) for _, f in ORDER]
        assert replicates_of(parts, ["x", "y"]) == ()
        assert len(replicates_of(parts[:2], ["x"])) == 2  # one fold, trained again in its place


@pytest.mark.parametrize("seed", [None, 0])
def test_folds_that_judge_the_same_cases_are_no_repetitions(seed):
    parts = [part(seed, "x", "y", folder="a", folds=(f,)) for f in range(3)]
    assert replicates_of(parts, ["x", "y"]) == ()
    assert len(replicates_of(parts[:1], ["x", "y"])) == 1


def test_a_checkpoint_counts_once(tmp_path):
    a, b, c = (result(tmp_path / n, training_seed=s) for s, n in enumerate("abc"))
    assert compare.compare([[a, b], c], tmp_path / "out")
    shutil.copytree(a, tmp_path / "copy")
    with pytest.raises(UserError, match=r"a and .*copy are of the same checkpoint and cases"):
        compare.compare([[a, tmp_path / "copy"], c], tmp_path / "no")
    assert compare.compare([a, tmp_path / "copy"], tmp_path / "itself")  # as two models it may


def test_common_seeds_are_paired():
    def of(*seeds):
        return [Replicate(seed=s, rows=()) for s in seeds]

    assert paired_by_seed(of(0, 1, 2), of(1, 2, 3)) == ([1, 2], [0, 1], True)
    assert paired_by_seed(of(0, 1), of(1, 2)) == ([0, 1], [0, 1], False)
    assert paired_by_seed(of(0), of(0, 1)) is None


def test_a_seed_is_that_of_the_summary_or_of_the_benchmarks_plans():
    def seed(**model):
        return seed_of({"model": model})

    assert seed(training_seed=4, plans="lngswrBenchmarkSeed1") == 4
    assert seed(plans="lngswrBenchmarkSeed12Epochs7_late") == 12
    assert seed(plans="nnUNetPlans") is None and seed(plans="mySeed1") is None
