"""The cost of an arm's step, and which arms no other beats."""

import json

import pytest

from benchmarks.pareto import front, main, step_cost

RATIOS = {"vanilla": 1.0, "LNG-SWR": 1.1, "AT FGSM-RS": 1.7, "LNG-SWR + AT FGSM-RS": 2.0}


@pytest.mark.parametrize(
    ("arm", "cost"),
    [
        ({"arm": "vanilla"}, 1.0),
        ({"arm": "DA5"}, 1.0),
        ({"arm": "LNGSWR", "gate_init": 0.5}, 1.1),
        ({"arm": "AT"}, 1.7),
        ({"arm": "AT", "adversarial": {"start": 0.8}}, 0.8 + 0.2 * 1.7),
        ({"arm": "LateAT"}, 0.8 + 0.2 * 1.7),
        ({"arm": "LNGSWRAT", "adversarial": {"start": 0.5}}, 0.5 * 1.1 + 0.5 * 2.0),
    ],
)
def test_a_step_costs_what_its_phases_cost(arm, cost):
    assert step_cost(arm, RATIOS) == pytest.approx(cost)


@pytest.mark.parametrize("arm", [{"arm": "SWR"}, {"arm": "AT", "adversarial": {"scheme": "pgd"}}])
def test_a_step_that_was_not_timed_has_no_cost(arm):
    with pytest.raises(SystemExit, match="no step of"):
        step_cost(arm, RATIOS)


def test_the_front_holds_what_nothing_beats():
    rows = [{"cost": c, "dice": d} for c, d in [(2, 60), (1, 50), (1, 55), (1.5, 52), (1.7, 70)]]
    assert front(rows) == [{"cost": 1, "dice": 55}, {"cost": 1.7, "dice": 70}]


def test_every_arm_and_reading_is_written(tmp_path):
    results = [
        {"kind": kind, "epsilon_text": text, "model": arm, "dice": d}
        | dict.fromkeys(("dice_low", "dice_high"), d)
        for arm, d in (("vanilla", 0.5), ("AT", 0.6))
        for kind, text in (("clean", ""), ("worst", "8/255"), ("noise", "8/255"))
    ]
    record = {
        "dataset": "Dataset001_X",
        "configuration": "2d",
        "runs": [{"seed": 0}],
        "arms": {"vanilla": {"arm": "vanilla"}, "AT": {"arm": "AT"}},
        "results": results,
    }
    (tmp_path / "robustness.json").write_text(json.dumps(record))
    main([str(tmp_path / "robustness.json"), "-o", str(tmp_path / "pareto.png")])
    points = json.loads((tmp_path / "pareto.json").read_text())["points"]
    assert [(p["arm"], p["reading"], p["dice"]) for p in points] == [
        ("vanilla", "clean", 50),
        ("vanilla", "worst 8/255", 50),
        ("AT", "clean", 60),
        ("AT", "worst 8/255", 60),
    ]
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
