"""An option must agree where it sets an attack that is compared, and nowhere else."""

import pytest

from evaluation import compare
from evaluation.comparison.models import read_models
from evaluation.report.cases_table import read_cases, write_cases
from evaluation.report.records import write_summary
from evaluation.rows import with_worst
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from tests.evaluation.comparison.results import write_result
from tests.evaluation.report.rows import summary_of

SUITE = "worst-v2"


def attacked_by(folder, attacks, *, gain=0.0, **options):
    """An OUT folder with these attacks for pgd_linf, {name: by how much its Dice is lower}."""
    write_result(folder, trainer=folder.name.upper(), gain=gain, options=options)
    by_case = {}
    for row in read_cases(folder / "cases.csv"):
        kept = by_case.setdefault(row["case"], [])
        if row["kind"] == "clean":
            kept.append(row)
        elif row["attack"] == "pgd_linf":
            kept += [{**row, "attack": a, "dice": row["dice"] - by} for a, by in attacks.items()]
    made = [row for rows in by_case.values() for row in with_worst(rows)]
    write_cases(folder / "cases.csv", made)
    said = read_json(folder / "summary.json")
    said = {**summary_of(made), **{key: said[key] for key in ("model", "options", "cases")}}
    write_summary(folder / "summary.json", {**said, "suite": SUITE if SUITE in attacks else None})
    return folder


@pytest.mark.parametrize(
    "attack, options",
    [
        ("apgd_dice", {"steps": 200}),
        ("apgd_dice", {"restarts": 3, "temperature": 0.2}),
        ("square", {"steps_of": {"square": 3000}}),
    ],
)
def test_a_longer_attack_beside_the_suite_is_left_out(attack, options, tmp_path):
    a = attacked_by(tmp_path / "a", {SUITE: 0})
    b = attacked_by(tmp_path / "b", {SUITE: 0, attack: 0.2}, gain=0.05, **options)
    for folders, sign in (([a, b], 1), ([b, a], -1)):
        assert any(attack in note for note in read_models(folders)[1])
        found = compare.compare(folders, tmp_path / "out")
        (worst,) = [
            r for r in found if r["attack"] == "worst_linf" and r["epsilon_text"] == "1/255"
        ][1:]
        assert worst["difference"] == pytest.approx(sign * 0.05)


def test_an_attack_that_is_left_out_speaks_against_no_other(tmp_path):
    a = attacked_by(tmp_path / "a", {SUITE: 0})
    # the lone attack is weaker than noise
    b = attacked_by(tmp_path / "b", {"noise": 0, SUITE: 0.1, "apgd_dice": -0.2}, steps=200)
    said = read_json(b / "summary.json")
    write_summary(b / "summary.json", {**said, "checks": ["Check failed: apgd_dice 1/255"]})
    write_summary(a / "summary.json", {**read_json(a / "summary.json"), "checks": []})
    compare.compare([a, b], tmp_path / "out")
    text = (tmp_path / "out" / "compare.md").read_text()
    assert "Check failed" not in text and "believed.**" not in text


def test_budgets_that_not_all_have_are_left_out(tmp_path):
    a = write_result(tmp_path / "a")
    b = write_result(
        tmp_path / "b",
        trainer="B",
        options={"epsilons": ["1/255"]},
        keep=lambda row: row["epsilon_text"] != "2/255",
    )
    for folders in ([a, b], [b, a]):
        found = compare.compare(folders, tmp_path / "out")
        assert {r["epsilon_text"] for r in found if r["kind"] in ("attack", "worst")} == {
            "1/255",
            "",
        }
        assert any("pgd_linf 2/255" in note for note in read_models(folders)[1])


@pytest.mark.parametrize(
    "options, said",
    [
        ({"steps": 40}, "steps of apgd_dice: was null, is 40"),
        ({"steps_of": {"apgd_dice": 40}}, "steps of apgd_dice: was null, is 40"),
        ({"restarts": 2}, "restarts: was null, is 2"),
        ({"temperature": 0.1}, "temperature: was null, is 0.1"),
    ],
)
def test_an_attack_that_was_set_otherwise_is_not_compared(options, said, tmp_path):
    both = {SUITE: 0, "apgd_dice": 0.1}
    a, b = attacked_by(tmp_path / "a", both), attacked_by(tmp_path / "b", both, **options)
    with pytest.raises(UserError, match=f"not comparable: {said}"):
        read_models([a, b])


def test_steps_that_are_said_in_two_ways_are_the_same(tmp_path):
    attacks = {"apgd_dice": 0, "square": 0.1}
    a = attacked_by(tmp_path / "a", attacks, steps=40)
    b = attacked_by(tmp_path / "b", attacks, steps_of={"apgd_dice": 40})
    assert len(read_models([a, b])[0]) == 2
