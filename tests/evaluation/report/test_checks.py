"""Attacks that cannot have worked are named."""

from evaluation.report import checks, records
from tests.evaluation.report.rows import all_rows


def test_checks_name_the_attack_that_is_weaker_than_noise():
    assert checks.checks(records.summarise(all_rows(), seed=0))[0].startswith("Check passed")
    weak = [
        {**r, "dice": 0.99} if r["attack"] == "pgd_linf" and r["epsilon_text"] == "1/255" else r
        for r in all_rows()
    ]
    failed = checks.checks(records.summarise(weak, seed=0))
    assert failed[0].startswith("Check failed: pgd_linf 1/255 (99.0 against 88.0)")


def test_controls_of_l2_are_checked_though_they_are_called_after_it():
    for control in ("noise", "transfer"):
        renamed = [
            {**r, "attack": f"{control}_l2", "norm": "l2", "dice": 0.5}
            for r in all_rows()
            if r["attack"] == "noise"
        ]
        others = [r for r in all_rows() if r["attack"] != "noise"]
        found = checks.checks(records.summarise([*others, *renamed], seed=0))
        assert found[0].startswith("Check failed: pgd_l2 1/255 (7"), control


def test_checks_name_an_attack_that_returned_every_case_as_it_was():
    def found(cases):
        rows = [
            {**r, "linf_range": 0.0} if r["attack"] == "ssah" and r["case"] in cases else r
            for r in all_rows()
        ]
        return [
            line
            for line in checks.checks(records.summarise(rows, seed=0))
            if line.startswith("Check failed")
        ]

    assert found("ab") == []
    assert len(found("abc")) == 1 and found("abc")[0].startswith(
        "Check failed: ssah returned every case as it was"
    )


def test_where_nothing_was_found_in_clean_images_no_attack_has_failed():
    for clean in (0.0, float("nan")):
        rows = [{**r, "dice": clean} | ({"linf_range": 0.0}) for r in all_rows()]
        lines = checks.checks(records.summarise(rows, seed=0))
        assert not any("returned every case" in line for line in lines), clean


def test_what_to_do_where_every_case_came_back_as_it_was_can_be_done():
    renamed = {"pgd_l2": "worst-v1_l2", "pgd_linf": "worst-v1"}
    rows = [
        {**r, "attack": renamed.get(r["attack"], r["attack"])}
        | ({} if r["attack"] == "noise" else {"linf_range": 0.0})
        for r in all_rows()
    ]
    said = {}
    for line in checks.checks(records.summarise(rows, seed=0)):
        if "returned every case as it was" in line:
            said[line.split()[2]] = line.split("its Dice says nothing. ")[1]
    assert said == {
        "worst-v1": "Look further beside the suite: --attacks worst apgd_dice --steps 200.",
        "worst-v1_l2": "Look further beside the suite: --attacks worst apgd_dice_l2 --steps 200.",
        "ssah": "Raise --steps ssah=N.",
    }


def test_nothing_defined_is_no_passed_check():
    undefined = [{**r, "dice": float("nan")} for r in all_rows()]
    assert checks.checks(records.summarise(undefined, seed=0)) == [
        "Not checked against the noise control: Dice is undefined in every case."
    ]


def test_what_passed_claims_no_more_than_what_was_checked():
    said = checks.checks(records.summarise(all_rows(), seed=0))[0]
    assert "no attack is weaker than the noise control" in said
    assert said.endswith("this checks nothing else.")
