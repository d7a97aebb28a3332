"""The cost of an arm's step, and which arms no other beats."""

import json

import pytest

from benchmarks.pareto import front, main, step_cost
from benchmarks.trainings import RUN_KEYS

VANILLA_AND_AT = {"vanilla": 0.5, "AT": 0.6}
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


@pytest.mark.parametrize(
    "arm", [{"arm": "Another"}, {"arm": "AT", "adversarial": {"scheme": "pgd"}}]
)
def test_a_step_that_was_not_timed_has_no_cost(arm):
    with pytest.raises(SystemExit, match="no step of"):
        step_cost(arm, RATIOS)


def test_the_front_holds_what_nothing_beats():
    rows = [{"cost": c, "dice": d} for c, d in [(2, 60), (1, 50), (1, 55), (1.5, 52), (1.7, 70)]]
    assert front(rows) == [{"cost": 1, "dice": 55}, {"cost": 1.7, "dice": 70}]


def test_every_arm_and_reading_of_all_files_is_written(tmp_path):
    def write(name, arms, seeds):
        runs = [
            {"arm": arm, "seed": seed, "dice": dict.fromkeys(RUN_KEYS, dice + 0.02 * seed)}
            for arm, dice in arms.items()
            for seed in seeds
        ]
        record = {"dataset": "Dataset001_X", "configuration": "2d", "runs": runs}
        record["budget"] = {"num_epochs": 20, "num_iterations_per_epoch": 50}
        record["arms"] = {arm: {"arm": arm} for arm in arms}
        (tmp_path / name).write_text(json.dumps(record))
        return str(tmp_path / name)

    files = [write("a.json", {"vanilla": 0.5}, (0, 1)), write("b.json", VANILLA_AND_AT, (0,))]
    main([*files, "-o", str(tmp_path / "pareto.png")])
    found = json.loads((tmp_path / "pareto.json").read_text())["points"]
    expected = [
        (arm, reading, pytest.approx(dice), seeds)
        for arm, dice, seeds in (("vanilla", 51, ["0", "1"]), ("AT", 60, ["0"]))
        for reading in ("clean", "worst 4/255", "worst 8/255")
    ]
    assert [(p["arm"], p["reading"], p["dice"], [*p["by_seed"]]) for p in found] == expected
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
