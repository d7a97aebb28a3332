"""p values of `lngswr score`: those of `lngswr compare`, and statsmodels' Holm."""

import csv
import json
import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.paired_rows import paired_rows
from evaluation.groups import Groups
from evaluation.rows import MEAN_LABEL
from evaluation.score import score_predictions
from evaluation.scoring import run
from tests.evaluation.scoring.files import (
    CASES,
    LABELS,
    write_description,
    write_image,
    write_labels,
    write_model,
)

PATIENTS = {case: case.split("_")[0] for case in CASES}
CLEAN = {"kind": "clean", "attack": "clean", "norm": "", "epsilon_text": "", "severity": None}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Labels and three models."""
    for name in ("draw_scores", "draw_reliability"):
        monkeypatch.setattr(run, name, lambda path, *of: path.write_text("a picture"))
    write_labels(tmp_path / "labels")
    for name, noise, offset in (("a", 1.5, 0), ("b", 1.9, 50), ("c", 1.6, 90)):
        write_model(tmp_path / name, noise=noise, offset=offset, npz=True)
    write_description(tmp_path / "dataset.json", LABELS)
    return tmp_path


def score(root, *models, **options):
    return score_predictions(
        [root / m for m in models],
        root / "labels",
        root / "out",
        dataset_json=root / "dataset.json",
        processes=1,
        **options,
    )


def with_p(summary):
    return [r for r in summary["results"] if "p" in r]


@pytest.mark.parametrize("groups", [None, PATIENTS])
def test_the_pair_is_tested_as_compare_tests_it(world, groups):
    found = score(world, "a", "b", groups=groups, seed=3)
    table = [*csv.DictReader((world / "out/cases.csv").open(newline=""))]
    models = [
        ComparedModel(
            name=name,
            folders=(),
            summary={},
            rows=[{**r, **CLEAN, "dice": float(r["dice"])} for r in table if r["model"] == name],
        )
        for name in "ab"
    ]
    grouped = None if groups is None else Groups(of=groups, found="as given")
    (_, said) = paired_rows(models, seed=3, groups=grouped)
    record = next(r for r in with_p(found) if r["measure"] == "dice")
    for key in ("difference", "difference_low", "difference_high", "p"):
        assert record[key] == pytest.approx(said[key], rel=1e-6)
    assert record["p"] == (0.25 if groups else 2 / 2**6)


def test_holm_is_statsmodels_over_all_measures_of_all_models(world):
    records = with_p(score(world, "a", "b", "c", probabilities=True))
    assert len(records) == 2 * 14 and {r["label"] for r in records} == {MEAN_LABEL}
    p = [r["p"] for r in records]
    assert len(set(p)) > 5
    said = multipletests(p, method="holm")[1]
    assert [r["p_holm"] for r in records] == pytest.approx(list(said))
    assert min(said) > min(p)


def test_the_report_shows_them_and_what_few_patients_allow(world):
    found = score(world, "a", "b", groups=PATIENTS)
    report = (world / "out/report.md").read_text()
    record = next(r for r in with_p(found) if r["measure"] == "nsd")
    (line,) = (x for x in report.splitlines() if x.startswith("| NSD (%) |"))
    assert line.endswith(f"| {record['p']:.3g} | {record['p_holm']:.3g} |")
    assert "within patients; Holm-corrected over all 10 differences" in report
    assert "Their p cannot fall below 0.25." in report
    assert "within patients" in found["metrics"]["p"]
    alone = score(world, "a", groups=PATIENTS)
    assert "p" not in alone["metrics"] and not with_p(alone)
    assert "Their p" not in (world / "out/report.md").read_text()


def test_what_is_undefined_is_not_tested(world):
    nothing = np.zeros((10, 14, 12))
    for case in CASES:  # no HD95 without a prediction of anything
        write_image(world / "b" / f"{case}.nii.gz", nothing)
    found = {r["measure"]: r for r in with_p(score(world, "a", "b"))}
    undefined = {m for m, r in found.items() if math.isnan(r["difference"])}
    assert undefined and undefined < set(found)
    assert all(math.isnan(found[m]["p"]) and math.isnan(found[m]["p_holm"]) for m in undefined)
    report = (world / "out/report.md").read_text()
    assert f"over all {len(found) - len(undefined)} differences" in report
    assert "undefined |  |  |" in report
    on_disk = json.loads((world / "out/summary.json").read_text())
    assert {r["measure"] for r in on_disk["results"] if r.get("p", 1) is None} == undefined
