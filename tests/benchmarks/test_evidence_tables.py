"""Tables of a page: what they say is what the JSON holds, and nothing else of the page changes."""

import json

import pytest

from benchmarks import evidence_tables, trainings
from tests.benchmarks.evidence import result

PAGE = """# Page

<!-- table: {} -->
old
<!-- end of table -->

After it.
"""


@pytest.mark.parametrize(
    ("what", "line"),
    [
        (
            "cases x.json AT",
            "| AT from the first step | 80.0 | 60.0 [50, 70] | 60.0 [50, 70] | "
            "20.0 [10.0, 30.0], p 0.01 | 20.0 [10.0, 30.0], p 0.01 | 20.0 [10.0, 30.0], p 0.01 | "
            "50% [40, 60] | 50% [40, 60] |",
        ),
        (
            "both x.json AT",
            "| AT from the first step | 1.73 | 80.0 | 60.0 | 60.0 | "
            "20.0 [10.0, 30.0]; [10.0, 30.0] | 50% [40, 60]; [40, 60] | 50% [40, 60]; [40, 60] |",
        ),
        ("seeds x.json", "| AT from the first step |  | 71.0, 52.0, 33.0 |"),
        ("search A.json,B.json", "| `B` | 72.0 | +2.0 (1.0) |"),
    ],
)
def test_a_table_says_what_was_measured(results, what, line):
    assert line in evidence_tables.table(what).splitlines()


def test_arms_of_two_benchmarks_are_paired_by_seed_if_vanilla_is_the_same(results):
    def runs(name, arm, shift):
        found = []
        for seed in (0, 1):
            for of, more in (("vanilla", 0.0), (arm, shift * (seed + 1))):
                keys = trainings.RUN_KEYS
                found.append({"arm": of, "seed": seed, "dice": dict.fromkeys(keys, 0.5 + more)})
        path = evidence_tables.RESULTS / name
        path.write_text(json.dumps({"runs": found, "arms": {}}))
        return path

    runs("a.json", "AT", 0.02)
    other = runs("b.json", "LNGSWR", 0.03)
    row = evidence_tables.table("against a.json,b.json AT LNGSWR").splitlines()[2]
    # 1 and 2 points: 1.5, plus or minus 12.706 times .5
    assert row.count("1.0, 2.0") == 3 and row.count("1.5 [-4.9, 7.9]") == 3
    other.write_text(other.read_text().replace("0.5,", "0.4,").replace("0.5}", "0.4}"))
    with pytest.raises(SystemExit, match="vanilla are not the same"):
        evidence_tables.table("against a.json,b.json AT LNGSWR")


def test_shares_are_by_seed_and_of_the_mean_dice(results):
    def runs(*robust, clean=0.8):
        return [
            {
                "seed": seed,
                "dice": {"clean": clean, "worst_linf 4/255": d, "worst_linf 8/255": d / 2},
            }
            for seed, d in enumerate(robust)
        ]

    of = {"vanilla": runs(0.4, 0.6), "AT": runs(0.6, 0.7), "LateAT": runs(0.5, 0.7)}
    found = [{"arm": arm, **run} for arm, its in of.items() for run in its]
    record = {"runs": found, "arms": {arm: {"arm": arm} for arm in of}}
    (evidence_tables.RESULTS / "shares.json").write_text(json.dumps(record))
    head, _, row = evidence_tables.table("shares shares.json AT LateAT").splitlines()
    assert "gain at 4/255, of AT's" in head
    # means .8 and .5, .65, .6: a drop of .3 with .2 left, where AT has .15 left
    smaller = "25, 50; 33% | 8, 10; 9%"
    of_at = " | ".join(["50, 100; 67%"] * 4)
    assert row == f"| late AT | {smaller} | {of_at} |"
    # a lower clean Dice makes the drop smaller, and gains nothing: .2 and 0 where AT has .2 and .1
    lower = runs(0.5, 0.7, clean=0.7)
    record["runs"] += [{"arm": "LNGSWR", **run} for run in lower]
    (evidence_tables.RESULTS / "shares.json").write_text(json.dumps(record))
    row = evidence_tables.table("shares shares.json AT LNGSWR").splitlines()[-1]
    assert row == (
        "| LNG-SWR | 50, 100; 67% | 25, 30; 27% | 50, 100; 67% | 50, 100; 67% | "
        "100, 200; 133% | 150, 300; 200% |"
    )


def test_a_robust_model_keeps_of_at_what_the_drop_and_the_dice_say(results):
    def one(arm, clean, robust):
        dice[arm] = [dict(zip(trainings.RUN_KEYS, (clean, robust, robust)))]
        rows = [result(arm, "clean", "", clean, 0.1)]
        return [*rows, *(result(arm, "worst", e, robust, 0.1) for e in ("4/255", "8/255"))]

    dice = {}
    later = [*one("vanilla", 0.8, 0.4), *one("share 0.1", 0.7, 0.5)]
    earlier = [*one("vanilla", 0.8, 0.4), *one("AT", 0.7, 0.6)]
    for name, rows in (("later.json", later), ("earlier.json", earlier)):
        (evidence_tables.RESULTS / name).write_text(json.dumps({"dice": dice, "results": rows}))
    lines = evidence_tables.table("robustified later.json,earlier.json").splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [
        "| vanilla",
        "| share 0.1",
        "| AT, from scratch",
    ]
    # of a drop of .4 it leaves .2, AT .1: two thirds of AT's; of .2 of the Dice it gains .1
    assert lines[1].endswith(" | 67% (50%) | 67% (50%) |")
    assert "70.0 | 50.0 | 50.0 | 10.0 [0.0, 20.0]" in lines[1]


def test_an_overview_has_a_blank_where_a_data_set_lacks_an_arm(results):
    record = json.loads((evidence_tables.RESULTS / "x.json").read_text())
    for row in record["results"]:
        if row["reduction_again_low"]:
            row["reduction_again_low"] = 0.3  # other than that over cases
    other = {**record, "dataset": "Dataset611_ThyroidUS", "arms": {"vanilla": {"arm": "vanilla"}}}
    other["results"] = [row for row in record["results"] if row["model"] == "vanilla"]
    for name, of in (("x", record | {"dataset": "Dataset1_Other"}), ("y", other)):
        (evidence_tables.RESULTS / f"{name}.json").write_text(json.dumps(of))
    head, _, vanilla, at = evidence_tables.table("overview x.json,y.json vanilla AT").splitlines()
    assert "Dataset1_Other: clean, 4/255, 8/255" in head and "thyroid: clean" in head
    assert vanilla == "| vanilla | 1 | 60.0, 40.0, 40.0 |  | 60.0, 40.0, 40.0 |  |"
    # the interval of training again
    assert at.startswith("| AT from the first step | 1.73 | 80.0, 60.0, 60.0 | 50% [30, 60] |  |")


def test_a_reading_at_equal_time_has_the_step_of_its_arm(results):
    path = evidence_tables.RESULTS / "x.json"
    record = json.loads(path.read_text())
    for row in record["results"]:
        if row["model"] == "AT":
            row["model"] = "AT (same time)"
    path.write_text(json.dumps(record))
    *_, line = evidence_tables.table('both x.json vanilla "AT (same time)"').splitlines()
    assert line.startswith("| AT from the first step, same time | 1.73 | 80.0 |")


def test_the_factors_of_a_spectral_reading_lead_from_the_image_to_the_bottleneck():
    name = "2026-12-01-spectral-reading-guided-thyroid2d-cpu.json"
    figures = json.loads((evidence_tables.RESULTS / name).read_text())["figures"]["model"]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in evidence_tables.table(f"spectra {name}").splitlines()
    ]
    assert {len(row) for row in rows} == {8}
    ours = [row for row in rows if row[1] == "LNG-SWR, guided"]
    before, _, after = ours[0][2].partition(" -> ")
    assert [row[0] for row in ours[: len(figures)]] == list(figures) and float(after) < float(
        before
    )
    factors = next(row[2] for row in ours if row[0] == "image to bottleneck")
    reconstructions, layers = (float(f) for f in factors.removeprefix("x ").split(" x "))
    reached = float(before) * reconstructions * layers
    assert reached == pytest.approx(float(ours[len(figures) - 1][2]), rel=0.01)


def test_searches_on_other_cases_are_not_put_together(results):
    path = evidence_tables.RESULTS / "B.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cases": 3}))
    with pytest.raises(SystemExit, match="other cases"):
        evidence_tables.table("search A.json,B.json")


def test_trainings_that_happen_to_agree_are_not_tested(results):
    path = evidence_tables.RESULTS / "x.json"
    assert ", p 0.01" in evidence_tables.table("again x.json")
    path.write_text(path.read_text().replace('"se_trainings": 0.01', '"se_trainings": 0.0'))
    assert ", p " not in evidence_tables.table("again x.json")
    assert ", p 0.01" in evidence_tables.table("cases x.json")


def test_arms_of_one_training_are_not_said_to_be_trained_again(results):
    assert "AT from" in evidence_tables.table("again x.json")
    path = evidence_tables.RESULTS / "x.json"
    path.write_text(path.read_text().replace('"trainings": 2', '"trainings": 1'))
    assert "AT from" not in evidence_tables.table("again x.json")


def test_only_the_tables_of_a_page_are_written_and_old_ones_are_seen(results, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE.format("both x.json"))
    with pytest.raises(SystemExit, match="page.md has other tables"):
        evidence_tables.main([str(page), "--check"])
    evidence_tables.main([str(page)])
    before, _, after = PAGE.format("both x.json").partition("old\n")
    text = page.read_text()
    assert text.startswith(before) and text.endswith(after) and "old" not in text
    evidence_tables.main([str(page), "--check"])


def test_seeds_of_vanilla_that_a_second_file_adds_are_compared_with(results):
    def write(name, seeds, arms):
        dice = dict.fromkeys(trainings.RUN_KEYS, 0.5) | {"clean": 0.7}
        of = [{"arm": a, "seed": s, "dice": dice} for a in arms for s in seeds]
        record = {"runs": of, "arms": {a: {"arm": a} for a in arms}, "configuration": "2d"}
        path = evidence_tables.RESULTS / name
        path.write_text(json.dumps(record))
        return path

    write("a.json", (0, 1), ["vanilla"])
    other = write("b.json", (0, 1, 2), ["vanilla", "AT"])
    row = evidence_tables.table("against a.json,b.json vanilla AT").splitlines()[2]
    assert row.count("0.0, 0.0, 0.0") == 3
    other.write_text(json.dumps(json.loads(other.read_text()) | {"groups": {"of": {"c": "p"}}}))
    with pytest.raises(SystemExit, match="other groups of cases"):
        evidence_tables.table("against a.json,b.json vanilla AT")


def test_nnunets_validation_of_several_budgets_is_side_by_side(results):
    for epochs, of in ((10, {"vanilla": [0.5, 0.7], "LNGSWR": [0.4]}), (20, {"vanilla": [0.8]})):
        runs = [{"arm": arm, "validation_dice": d} for arm, dice in of.items() for d in dice]
        budget = {"num_epochs": epochs, "num_iterations_per_epoch": 50}
        record = {"runs": runs, "arms": dict.fromkeys(of), "budget": budget}
        (evidence_tables.RESULTS / f"{epochs}.json").write_text(json.dumps(record))
    head, _, *rows = evidence_tables.table("validation 10.json,20.json").splitlines()
    assert head == "|  | 10 x 50 | 20 x 50 |"
    assert rows == ["| vanilla | 60.0 | 80.0 |", "| LNG-SWR | 40.0 |  |"]


def of_machine(name, dice):
    """A robustness.json of {arm: Dice by seed}, whose results are the same for all arms."""
    runs = []
    for arm, of_seeds in dice.items():
        for seed, value in enumerate(of_seeds):
            run = {
                "arm": arm,
                "seed": seed,
                "plans": "P",
                "dice": dict.fromkeys(trainings.RUN_KEYS),
            }
            run["dice"] = {key: value - 0.1 * i for i, key in enumerate(trainings.RUN_KEYS)}
            runs.append(run)
    record = {"arms": {arm: {"arm": arm} for arm in dice}, "runs": runs, "configuration": "2d"}
    record["results"] = [
        result(arm, kind, text, 0.9, None if arm == "vanilla" else 0.3)
        for arm in dice
        for kind, text in (("clean", ""), ("worst", "4/255"), ("worst", "8/255"))
    ]
    (evidence_tables.RESULTS / name).write_text(json.dumps(record))


def test_the_same_seeds_on_two_machines_are_compared(results):
    of_machine("a.json", {"vanilla": [0.5, 0.6], "LNGSWRGuided": [0.7, 0.7]})
    of_machine("b.json", {"vanilla": [0.51, 0.62], "guided": [0.69, 0.69]})
    table = evidence_tables.table("machines a.json +\n b.json vanilla LNGSWRGuided=guided")
    vanilla, guided = table.splitlines()[2:]
    # plus or minus 12.706 times .5
    assert vanilla.count("1.0, 2.0") == 3 and vanilla.count("1.5 [-4.9, 7.9]") == 3
    assert guided.startswith("| LNG-SWR, guided | -1.0, -1.0 | ")


def test_arms_of_another_machine_are_marked_and_keep_what_was_said_there(results):
    of_machine("a.json", {"vanilla": [0.6, 0.7], "LNGSWR": [0.7, 0.8]})
    of_machine("b.json", {"vanilla": [0.1, 0.1], "LNGSWR": [0.9, 0.9], "AT": [0.8, 0.8]})
    what = "both a.json + b.json vanilla LNGSWR AT"
    vanilla, lngswr, at = evidence_tables.table(what).splitlines()[2:]
    assert vanilla.startswith("| vanilla | 1 |") and lngswr.startswith("| LNG-SWR | 1.12 |")
    assert at.startswith(
        "| AT from the first step * | 1.73 | 90.0 | 90.0 | 90.0 | 30.0 [20.0, 40.0]"
    )
    with pytest.raises(SystemExit, match="overview takes no files of other machines"):
        evidence_tables.table(what.replace("both", "overview"))


@pytest.mark.parametrize("arm", ["LNG", "SWR"])
def test_half_a_method_has_the_cost_of_its_own_step(results, arm):
    of_machine("a.json", {"vanilla": [0.6], arm: [0.7]})
    (cost,) = {"LNG": ["1.07"], "SWR": ["1.11"]}[arm]
    assert f"| {cost} |" in evidence_tables.table(f"both a.json {arm}")
