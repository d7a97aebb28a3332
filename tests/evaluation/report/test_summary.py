"""summary.json agrees with the rows of cases.csv, and keeps the names of all versions."""

import json

import numpy as np
import pytest


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


def test_the_keys_are_those_of_all_versions(finished):
    summary = json.loads((finished.folder / "summary.json").read_text())
    assert list(summary) == [
        "schema_version",
        "model",
        "protocol",
        "threat_model",
        "options",
        "suite",
        "best_iterate",
        "metrics",
        "surrogate",
        "cases",
        "attacks",
        "suite_members",
        "results",
        "checks",
        "shifts_left_out",
        "shift_strengths",
        "notes",
        "cost",
        "environment",
        "environments",
    ]
    assert summary["options"]["shifts"] == ["gamma"] and list(summary["shift_strengths"]) == [
        "gamma"
    ]
    assert {r["kind"] for r in finished.rows()} == {"clean", "attack", "worst", "shift"}
    settings = json.loads((finished.folder / "settings.json").read_text())
    assert settings["options"]["shifts"] == ["gamma"]
