"""The standard suite through an evaluation: rows, report, comparison."""

import json

import pytest

from evaluation import compare, robust
from evaluation.command_line import build_parser
from evaluation.comparison.models import read_models
from evaluation.options import Options
from evaluation.report import markdown, strength
from evaluation.report.cases_table import read_cases
from evaluation.report.norms import NORM_TITLES
from evaluation.rows import MEAN_LABEL
from nnunetv2_lngswr.attacks.suites import SUITES, evaluations_of
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.comparison.results import write_result
from tests.evaluation.tiny import run

BUDGETS = ["4/255", "16/255", "64/255"]


@pytest.fixture(scope="module")
def evaluated(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("suite") / "out"
    options = {"attacks": ["worst"], "epsilons": BUDGETS, "steps": None, "max_cases": 2}
    return run(world, out, epsilons_l2=["8/255"], corruptions=["none"], **options)


def dice_of(rows, attack):
    found = {}
    for row in rows:
        if row["attack"] == attack and row["label"] == MEAN_LABEL:
            found.setdefault(row["case"], []).append(row["dice"])
    return found


def test_dice_falls_with_the_budget_and_below_noise(evaluated):
    rows = read_cases(evaluated.folder / "cases.csv")
    noise, suite = dice_of(rows, "noise"), dice_of(rows, "worst-v2")
    assert len(suite) == 2 and all(len(d) == len(BUDGETS) for d in suite.values())
    for case, dice in suite.items():
        assert dice[0] > dice[-1]
        assert dice[-1] < noise[case][-1] - 0.2
    assert dice_of(rows, "worst_linf") == suite
    assert all(len(d) == 1 for d in dice_of(rows, "worst-v2_l2").values())


def test_every_report_says_the_suite_and_what_its_members_add(evaluated):
    summary = json.loads((evaluated.folder / "summary.json").read_text())
    assert summary["suite"] == "worst-v2" and summary["options"]["attacks"] == ["worst-v2"]
    report = (evaluated.folder / "report.md").read_text()
    assert "Suite: **worst-v2**" in report
    members = summary["suite_members"]
    assert [(m["norm"], m["epsilon_text"]) for m in members] == [
        *(("linf", budget) for budget in BUDGETS),
        ("l2", "8/255"),
    ]
    for record in members:
        dice = list(record["dice"].values())
        assert list(record["dice"]) == [m.name for m in SUITES["worst-v2"]]
        assert dice == sorted(dice, reverse=True)
        cells = ("worst-v2", NORM_TITLES[record["norm"]], record["epsilon_text"])
        assert f"| {' | '.join([*cells, *(f'{100 * d:.1f}' for d in dice)])} |" in report


def test_what_a_suite_says_beside_other_attacks_and_where_it_has_not_converged(evaluated):
    summary = json.loads((evaluated.folder / "summary.json").read_text())
    added = {"attack": "square", "norm": "linf"}
    summary["attacks"] += [{**summary["attacks"][0], **added}]
    said = markdown._suite(summary)
    assert "worst-v2**, beside square, which count here" in said
    rows = read_cases(evaluated.folder / "cases.csv")
    for row in rows:
        row["extras"] = json.dumps({**json.loads(row["extras"] or "{}"), "late_fall": 0.05})
    warned = [line for line in strength.checks(rows) if "has not converged" in line]
    assert len(warned) == 4  # advice that the command takes
    linf = [line for line in warned if "_l2" not in line]
    assert len(linf) == 3
    assert all("--attacks worst apgd_dice --steps 200." in line for line in linf)
    (l2,) = set(warned) - set(linf)
    assert "worst-v2_l2 8/255" in l2 and "--attacks worst apgd_dice_l2 --steps 200." in l2
    for advice in (linf[0], l2):
        words = advice.split("suite: ")[1].rstrip(".").split()
        given = build_parser().parse_args(["-m", "M", "-o", "O", *words])
        assert given.attacks == words[1:3] and given.steps == ["200"]
        Options(attacks=given.attacks, steps=200, epsilons=BUDGETS, epsilons_l2=["1/255"])


def test_without_a_suite_the_report_says_so(finished):
    summary = json.loads((finished.folder / "summary.json").read_text())
    assert summary["suite"] is None and summary["suite_members"] == []
    assert "Suite: none" in (finished.folder / "report.md").read_text()


def test_results_of_two_suites_are_not_compared(tmp_path):
    folders = [write_result(tmp_path / name) for name in ("a", "b", "c")]
    for folder, suite in zip(folders, ("worst-v2", "worst-v3", "worst-v2")):
        file = folder / "summary.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "suite": suite}))
    read_models([folders[0], folders[2]])
    comparison = compare.compare([folders[0], folders[2]], tmp_path / "compared", names=["a", "c"])
    assert comparison and "Suite: worst-v2." in (tmp_path / "compared/compare.md").read_text()
    with pytest.raises(UserError, match="suite: was worst-v2 in .*, is worst-v3 in "):
        read_models(folders[:2])


def test_the_estimate_counts_its_gradients(world):
    folder, images, labels = world
    options = {"images": images, "labels": labels, "device": "cpu", "corruptions": ["none"]}
    found = robust.estimate(folder, epsilons=BUDGETS, epsilons_l2=[], **options)
    titles = [f"worst-v2 {budget}" for budget in BUDGETS]
    assert found["runs"] == ["clean", *(f"noise linf {b}" for b in BUDGETS), *titles]
    gradients = len(BUDGETS) * evaluations_of("worst-v2")[1]
    assert found["seconds_per_case"] > gradients * found["gradient_seconds"]
