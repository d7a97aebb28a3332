"""Laws of the output files: equal results give equal bytes, the worst is the lowest, an interrupted write breaks nothing."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from evaluation import metrics
from evaluation.report import figures
from evaluation.report import markdown as report
from nnunetv2_lngswr.utils.files import write_file

TEXT = (
    "case",
    "fold",
    "kind",
    "attack",
    "norm",
    "epsilon_text",
    "epsilon_unit",
    "label",
    "label_name",
)


def row(case, kind, attack, dice, *, norm="", epsilon=None, severity=None, label="1", **more):
    text = "" if epsilon is None else f"{epsilon * 255:g}/255"
    values = dict.fromkeys(report.COLUMNS, None)
    values |= dict.fromkeys(TEXT, "") | dict.fromkeys(metrics.METRICS, dice)
    values |= {
        "case": case,
        "kind": kind,
        "attack": attack,
        "norm": norm,
        "epsilon": epsilon,
        "epsilon_text": text,
        "severity": severity,
        "label": label,
    }
    return (
        values
        | {
            "label_name": f"name {label}",
            "dice_drop": 0.0,
            "reference_voxels": 3,
            "predicted_voxels": 2,
            "source": "",
        }
        | more
    )


def rows_of(case, shift=0.0):
    """Clean, two attacks at two budgets in two labels, a shift in two severities."""
    runs = [("clean", "clean", "", None, None, 0.9)]
    for i, e in enumerate((1 / 255, 2 / 255)):
        runs += [
            ("attack", "noise", "linf", e, None, 0.85 - 0.05 * i),
            ("attack", "pgd_linf", "linf", e, None, 0.6 - 0.3 * i),
        ]
        runs += [("attack", "pgd_l2", "l2", e, None, 0.7 - 0.2 * i)]
    runs += [("attack", "ssah", "", None, None, 0.2)]
    runs += [("shift", "gamma", "", None, s, 0.9 - 0.1 * s) for s in (1, 2)]
    made = []
    for kind, attack, norm, e, s, dice in runs:
        sizes = dict.fromkeys(report._SIZES, 0.01) if kind == "attack" else {}
        for label, offset in (("1", 0.05), ("2", -0.05), (report.MEAN_LABEL, 0.0)):
            made.append(
                row(
                    case,
                    kind,
                    attack,
                    dice + offset + shift,
                    norm=norm,
                    epsilon=e,
                    severity=s,
                    label=label,
                    **sizes,
                )
            )
    return report.with_worst(made)


def all_rows():
    return [r for i, c in enumerate(("a", "b", "c")) for r in rows_of(c, 0.03 * i)]


def summary_of(rows):
    results = report.summarise(rows, seed=0)
    model = {
        "trainer": "T",
        "plans": "P",
        "configuration": "2d",
        "dataset": "D",
        "mirror_axes": None,
        "folder": "F",
        "checkpoint": "c.pth",
    }
    model |= {
        "tile_step_size": 0.5,
        "patch_size": [8, 8],
        "device": "cpu",
        "folds": [0],
        "checkpoint_sha256": {"0": "abc"},
    }
    return {
        "schema_version": 1,
        "model": model,
        "protocol": "3 cases",
        "options": {"epsilon_unit": "range", "steps": None, "restarts": None, "seed": 0},
        "metrics": {"surface_unit": "mm", "nsd_tolerance": 2.0},
        "attacks": report.attack_settings(rows),
        "results": results,
        "checks": report.checks(results),
        "shifts_left_out": {"jpeg": "needs a 2D configuration"},
        "shift_strengths": {"gamma": {"strengths": [1.2, 1.5], "unit": "gamma | inverse"}},
        "notes": [],
        "cost": [{"run": "clean", "seconds": 0.5, "forwards": 0.0, "gradients": 0.0}],
        "environment": {"python": "3"},
    }


def test_worst_is_the_lowest_of_its_norm_and_budget_and_ssah_takes_no_part():
    rows = rows_of("a")
    worst = [r for r in rows if r["kind"] == "worst" and r["label"] == report.MEAN_LABEL]
    assert {
        (r["attack"], r["epsilon_text"]): (r["source"], round(r["dice"], 3)) for r in worst
    } == {
        ("worst_linf", "1/255"): ("pgd_linf", 0.6),
        ("worst_linf", "2/255"): ("pgd_linf", 0.3),
        ("worst_l2", "1/255"): ("pgd_l2", 0.7),
        ("worst_l2", "2/255"): ("pgd_l2", 0.5),
    }
    for w in worst:
        assert all(
            w["dice"] <= r["dice"]
            for r in rows
            if r["kind"] == "attack"
            and r["label"] == report.MEAN_LABEL
            and report.run_key(r)[2:] == report.run_key(w)[2:]
        )
    assert len([r for r in rows if r["kind"] == "worst"]) == 3 * len(worst)


def test_nothing_there_and_nothing_found_is_no_success():
    rows = [
        row("a", "attack", "noise", float("nan"), norm="linf", epsilon=0.1, label=report.MEAN_LABEL)
    ]
    rows += [row("a", "attack", "pgd_linf", 0.0, norm="linf", epsilon=0.1, label=report.MEAN_LABEL)]
    assert report.with_worst(rows)[-1]["source"] == "pgd_linf"
    assert report.with_worst(rows[::-1])[-1]["source"] == "pgd_linf"


def test_cases_csv_round_trips_and_is_deterministic(tmp_path):
    rows = all_rows()
    rows[0]["dice"] = float("nan")
    rows[1]["dice_drop"] = -0.0
    for name in ("a", "b"):
        report.write_cases(tmp_path / name, rows)
    text = (tmp_path / "a").read_text()
    assert text == (tmp_path / "b").read_text() and "\r" not in text and "-0," not in text
    back = report.read_cases(tmp_path / "a")
    assert len(back) == len(rows)
    assert (
        np.isnan(back[0]["dice"])
        and back[0]["epsilon"] is None
        and back[3]["dice"] == pytest.approx(rows[3]["dice"], rel=1e-8)
    )
    report.write_cases(tmp_path / "c", back)
    assert (tmp_path / "c").read_text() == text
    assert not any("second" in c or "time" in c for c in report.COLUMNS)


def test_another_csv_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("case,dice\na,1\n")
    with pytest.raises(ValueError, match="no cases.csv of this version"):
        report.read_cases(tmp_path / "x.csv")


def test_summary_means_intervals_and_drops():
    results = report.summarise(all_rows(), seed=0)
    pgd = next(r for r in results if r["attack"] == "pgd_linf" and r["epsilon_text"] == "2/255")
    assert pgd["dice"] == pytest.approx(0.33) and pgd["drop"] == pytest.approx(0.6)
    assert pgd["dice_low"] == pytest.approx(0.30) and pgd["dice_high"] == pytest.approx(0.36)
    assert pgd["drop_low"] == pytest.approx(0.6) and pgd["drop_high"] == pytest.approx(
        0.6
    )  # paired: the same in every case
    assert pgd["labels"]["1"]["dice"] == pytest.approx(0.38)
    gamma = next(r for r in results if r["kind"] == "shift_mean")
    assert gamma["dice"] == pytest.approx(0.78)
    assert results == report.summarise(all_rows(), seed=0)


def test_checks_name_the_attack_that_is_weaker_than_noise():
    assert report.checks(report.summarise(all_rows(), seed=0))[0].startswith("Check passed")
    weak = [
        {**r, "dice": 0.99} if r["attack"] == "pgd_linf" and r["epsilon_text"] == "1/255" else r
        for r in all_rows()
    ]
    failed = report.checks(report.summarise(weak, seed=0))
    assert failed[0].startswith("Check failed: pgd_linf 1/255 (99.0 against 88.0)")


def test_checks_name_an_attack_that_returned_every_case_as_it_was():
    def found(cases):
        rows = [
            {**r, "linf_range": 0.0} if r["attack"] == "ssah" and r["case"] in cases else r
            for r in all_rows()
        ]
        return [
            line
            for line in report.checks(report.summarise(rows, seed=0))
            if line.startswith("Check failed")
        ]

    assert found("ab") == []
    assert len(found("abc")) == 1 and found("abc")[0].startswith(
        "Check failed: ssah returned every case as it was"
    )


def test_nothing_defined_is_no_passed_check():
    undefined = [{**r, "dice": float("nan")} for r in all_rows()]
    assert report.checks(report.summarise(undefined, seed=0)) == [
        "Not checked against the noise control: Dice is undefined in every case."
    ]


def test_the_noise_control_alone_is_no_worst_attack():
    rows = report.with_worst(
        [r for r in rows_of("a") if r["kind"] == "clean" or r["attack"] == "noise"]
    )
    assert not [r for r in rows if r["kind"] == "worst"]


def test_settings_of_the_attacks_are_stated_once_for_all_budgets(tmp_path):
    settings = json.dumps(
        {"steps": 10, "step_size": 0.25, "restarts": 2, "loss": "ce", "random_start": True}
    )
    rows = [
        {
            **r,
            "steps": 10,
            "step_size": 2.5 * r["epsilon"] / 10,
            "restarts": 2,
            "loss": "ce",
            "settings": settings,
        }
        if r["attack"] == "pgd_linf"
        else r
        for r in all_rows()
    ]
    summary = summary_of(rows)
    assert [a["attack"] for a in summary["attacks"]] == ["noise", "pgd_linf", "pgd_l2", "ssah"]
    report.write_report(tmp_path / "report.md", summary)
    assert (
        "| pgd_linf | linf | 10 | 0.25 | 2 | ce | random_start True |"
        in (tmp_path / "report.md").read_text()
    )


def test_files_of_a_report(tmp_path):
    summary = summary_of(all_rows())
    report.write_summary(tmp_path / "summary.json", summary)
    report.write_report(tmp_path / "report.md", summary)
    figures.draw_curves(tmp_path / "curves.png", summary)
    again = json.loads((tmp_path / "summary.json").read_text())
    assert again["results"][0]["kind"] == "clean"
    text = (tmp_path / "report.md").read_text()
    for needed in (
        "worst_linf",
        "ssah",
        "gamma \\| inverse",
        "the diagonal of the image",
        "name 1 (1)",
        "needs a 2D configuration",
        "Check passed",
        "36.0",
    ):
        assert needed in text, needed
    assert Image.open(tmp_path / "curves.png").size[0] > 1500
    assert (
        len(
            {
                len([c for c in line.replace("\\|", "").split("|")])
                for line in text.splitlines()
                if line.startswith("| gamma") or line.startswith("| shift")
            }
        )
        == 1
    )


@pytest.mark.parametrize("kinds", [("clean",), ("clean", "shift"), ("clean", "attack", "worst")])
def test_reports_with_less_in_them(kinds, tmp_path):
    summary = summary_of([r for r in all_rows() if r["kind"] in kinds])
    report.write_report(tmp_path / "report.md", summary)
    figures.draw_curves(tmp_path / "curves.png", summary)
    assert "93.0" in (tmp_path / "report.md").read_text()


def example(case, after, before=0.9, value=1):
    reference = np.zeros((20, 30), np.int16)
    reference[5:12, 8:20] = value
    image = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    arrays = {
        "image": image,
        "perturbation": 0.01 * image,
        "reference": reference,
        "before": reference,
        "after": np.roll(reference, 4, 1),
    }
    return {
        **arrays,
        "range": 6.0,
        "names": {"1": "nodule"},
        "case": case,
        "attack": "pgd_linf",
        "norm": "linf",
        "epsilon_text": "4/255",
        "dice_before": before,
        "dice_after": after,
    }


def test_examples_are_the_worst_and_the_median():
    shown = [
        example(str(i), after, before)
        for i, (after, before) in enumerate(
            [(0.5, 0.9), (0.0, 0.7), (0.0, 0.9), (0.8, 0.9), (float("nan"), float("nan"))]
        )
    ]
    assert figures.choose_examples(shown) == [("worst case", 2), ("median case", 0)]
    assert figures.choose_examples(shown[:1]) == [("the only case", 0)]


def test_examples_are_drawn_without_touching_pyplot(tmp_path):
    import sys

    before = set(sys.modules)
    figures.draw_examples(
        tmp_path / "e.png",
        [("worst case", example("a", 0.1)), ("median case", example("b", 0.4, value=2))],
    )
    assert Image.open(tmp_path / "e.png").size[0] > 2000
    assert "matplotlib.pyplot" not in set(sys.modules) - before


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    target = write_file(tmp_path / "x.txt", "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["x.txt"]

    def stopped(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(target, stopped)
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["x.txt"]
