"""--fail-if: the grammar, what is refused before anything runs, and the status at the end."""

import math
import shutil

import pytest

from evaluation import robust
from evaluation.conditions import failures, find_runs, parse_conditions
from evaluation.options import Options
from evaluation.protocol import plan_runs
from evaluation.report import records
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.report.rows import all_rows
from tests.evaluation.tiny import FAST_WORDS, command, run

NAMED = {
    "attacks": ["noise", "pgd_linf", "pgd_l2", "ssah"],
    "epsilons": ["1/255", "2/255"],
    "epsilons_l2": ["1/255", "2/255"],
    "corruptions": ["gamma"],
}


def runs(**options):
    return plan_runs(Options(**(NAMED | options)), ct=False, two_dimensional=True).runs


def found(*texts, results=(), checks=()):
    """The conditions that hold; `results`: {(attack, budget or severity): Dice}."""
    planned = runs()
    dice = dict(results)
    made = []
    for _, key in find_runs(parse_conditions(texts), planned):
        kind, attack, norm, epsilon, severity = key
        value = dice.get((attack, epsilon or severity), 0.7)
        record = {"kind": kind, "attack": attack, "norm": norm or None, "dice": value}
        made.append({**record, "epsilon_text": epsilon or None, "severity": severity})
    return failures(parse_conditions(texts), planned, {"results": made, "checks": list(checks)})


@pytest.mark.parametrize(
    ("text", "percent", "holds"),
    [
        ("worst_linf@2/255<60", 59.999, True),
        ("worst_linf@2/255<60", 60, False),
        ("worst_linf@2/255<=60", 60, True),
        ("worst_linf@2/255>60", 60, False),
        ("worst_linf@2/255>=60", 60, True),
        ("worst_linf@2/255>60", 60.001, True),
        (" worst_linf @ 2/255 < 60.5 ", 60, True),
        ("worst_linf@4/510<57", 57, False),  # 100 * 0.57 is less than 57
        ("worst_linf@2/255<60", math.nan, True),
        ("worst_linf@2/255>=60", math.nan, True),
    ],
)
def test_a_condition_holds_where_dice_in_percent_is_on_its_side(text, percent, holds):
    said = found(text, results={("worst_linf", "2/255"): percent / 100})
    assert bool(said) == holds
    if holds and not math.isnan(percent):
        assert f"Dice is {percent:.1f}" in said[0] or f"{percent:.3f}" in said[0]


def test_every_name_of_the_report_can_be_asked_for():
    rows = all_rows()
    summary = {"results": records.summarise(rows, seed=0), "checks": []}
    planned = runs()
    # as `all_rows` has them: two severities of five
    planned = [r for r in planned if r.severity is None or r.severity <= 2]
    planned = [r for r in planned if (r.name, r.norm) != ("noise", "l2")]
    names = {
        "clean": 0.93,
        "pgd_linf@1/255": 0.63,
        "noise@2/255": 0.83,
        "noise_linf@2/255": 0.83,
        "pgd_l2@2/255": 0.53,
        "ssah": 0.23,
        "worst_linf@2/255": 0.33,
        "worst_l2@1/255": 0.73,
        "gamma@2": 0.73,
        "gamma": 0.78,
        "corruptions": 0.78,
    }
    for name, dice in names.items():
        for sign, offset, holds in (("<", 0.01, True), ("<", -0.01, False), (">", -0.01, True)):
            text = f"{name}{sign}{100 * (dice + offset):.4f}"
            assert bool(failures(parse_conditions([text]), planned, summary)) == holds, text


def test_the_newest_suite_is_called_worst_too():
    planned = runs(attacks=["worst"])
    (of_suite,) = find_runs(parse_conditions(["worst@2/255<60"]), planned)
    assert of_suite[1] == ("attack", "worst-v2", "linf", "2/255", None)


def test_checks_are_a_condition():
    line = "Check failed: pgd_linf 1/255 (70.0 against 60.0) lower Dice less than the control."
    assert found("checks", checks=["Check passed: all.", line]) == [f"checks: {line}"]
    assert not found("checks", checks=["Check passed: all.", "Warning: something"])


def test_each_condition_that_holds_is_said():
    said = found("clean<75", "clean<60", "gamma@3<90")
    assert [line.split()[0] for line in said] == ["clean<75", "gamma@3<90"]


BAD = {
    "": "such as",
    "worst_linf@4/255": "such as",
    "worst_linf@2/255=60": "such as",
    "worst_linf@2/255<": "such as",
    "worst_linf@2/255<sixty": "such as",
    "worst_linf@2/255<-1": "such as",
    "worst_linf@2/255<nan": "such as",
    "worst_linf@2/255<0.6": "did you mean 60?",
    "worst_linf@2/255<0": "from 1 to 100",
    "worst_linf@2/255>101": "from 1 to 100",
    "worst_linf@x<60": "got 'x'",
    "worst-v9@2/255<60": "there are worst-v1",
    "worst_linf@8/255<60": "worst_linf@1/255, worst_linf@2/255",
    "worst_linf@0.0078431372549<60": "worst_linf@1/255, worst_linf@2/255",  # near is another budget
    "worst_linf<60": "worst_linf@1/255, worst_linf@2/255",
    "clean@2/255<60": "without a budget",
    "wrst_linf@2/255<60": "did you mean worst_linf",
    "apgd@2/255<60": "not run here",
    "noise@2/255<60": "noise_linf or noise_l2",
    "gamma@6<60": "gamma@1",
    "jpeg@1<60": "not run here",
}


@pytest.mark.parametrize(("text", "says"), BAD.items())
def test_what_is_no_condition_or_not_run_is_refused(text, says):
    with pytest.raises(UserError) as error:
        find_runs(parse_conditions([text]), runs())
    assert says in str(error.value) and "\n" not in str(error.value)
    assert "--fail-if" in str(error.value)


def test_of_noise_alone_there_is_no_worst():
    planned = runs(attacks=["noise"])
    with pytest.raises(UserError, match="worst_linf, which is not run here"):
        find_runs(parse_conditions(["worst_linf@2/255<60"]), planned)


def test_noise_of_one_norm_is_no_attack_that_a_worst_is_made_of():
    attacks = ["pgd_linf", "noise_l2"]
    planned = runs(attacks=attacks)
    assert find_runs(parse_conditions(["worst_linf@1/255<50"]), planned)
    with pytest.raises(UserError, match="worst_l2, which is not run here"):
        find_runs(parse_conditions(["worst_l2@1/255<50"]), planned)


@pytest.mark.parametrize("corruptions", ["all", ["gamma", "contrast"], ["contrast"]])
def test_corruptions_are_the_mean_over_all_of_them(corruptions):
    (found_run,) = find_runs(parse_conditions(["corruptions<60"]), runs(corruptions=corruptions))
    assert found_run[1][0] == records.CORRUPTIONS_MEAN


def test_without_corruptions_there_is_no_mean_of_them():
    with pytest.raises(UserError, match="corruptions, which is not run here"):
        find_runs(parse_conditions(["corruptions<60"]), runs(corruptions="none"))


def test_a_wrong_condition_is_refused_before_a_model_is_read(tmp_path):
    with pytest.raises(UserError, match="such as"):
        robust.evaluate(tmp_path / "no_model", tmp_path / "out", fail_if=["worst"])


def test_what_is_not_run_is_refused_before_anything_is_written(world, tmp_path):
    for tried in (run, lambda *a, **k: robust.estimate(world[0], a[1], **_places(world), **k)):
        with pytest.raises(UserError, match="apgd, which is not run here"):
            tried(world, tmp_path / "out", fail_if=["apgd@4/255<60"])
        assert not (tmp_path / "out").exists()


def _places(world):
    return {"images": world[1], "labels": world[2], "device": "cpu"}


def test_the_command_ends_with_1_after_everything_is_written(world, finished, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished.folder, out)  # the same call: nothing is left to run
    (out / "summary.json").unlink()
    words = command(world, out, *FAST_WORDS, "--disable_progress_bar")
    assert robust.main([*words, "--fail-if", "clean<1", "worst_linf@4/255>100"]) == 0
    assert "--fail-if" not in capsys.readouterr().err
    (out / "summary.json").unlink()
    status = robust.main([*words, "--fail-if", "clean>1", "--fail-if", "worst_linf@4/255<=100"])
    said = capsys.readouterr()
    assert status == 1
    lines = said.err.strip().splitlines()
    assert [line.split(" holds")[0] for line in lines] == [
        f"{robust.command_line.PROG}: --fail-if {text}"
        for text in ("clean>1", "worst_linf@4/255<=100")
    ]
    for name in ("summary.json", "report.md", "cases.csv", "curves.png", "examples.png"):
        assert (out / name).is_file()
    assert (out / "cases.csv").read_bytes() == (finished.folder / "cases.csv").read_bytes()
    assert "fail" not in (out / "summary.json").read_text()
    assert "written to" in said.out
