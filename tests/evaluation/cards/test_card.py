"""What a card says: the report's figures, the claim, the best known, and of nothing that is
private."""

import json
import math
import shutil
import tarfile
from pathlib import Path

import pytest

from evaluation.card import main, make_card
from evaluation.cards.schema import what_is_wrong
from evaluation.groups import Groups
from evaluation.leaderboard import leaderboard
from evaluation.model.kinds import GIVEN
from evaluation.report.cases_table import read_cases, write_cases
from evaluation.report.records import summarise
from evaluation.results_folder import CARD_JSON, CARD_MD
from nnunetv2_lngswr.utils.checkpoints import sha256
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.cards.outs import CASES, SUITE, entry, make, make_out, mean_dice, sha
from tests.evaluation.tiny import run


def test_a_card_of_an_evaluation_is_valid_and_says_what_its_report_says(finished, world, tmp_path):
    made = make_card([finished.folder], tmp_path)
    card, summary = made.card, finished.summary
    assert json.loads((tmp_path / CARD_JSON).read_text()) == card
    assert what_is_wrong(card) == ""
    records = {(r["kind"], r["attack"], r["epsilon_text"]): r for r in summary["results"]}
    same = {"clean": (card["clean"], records["clean", "clean", None])}
    for epsilon in ("4/255", "16/255"):
        found = entry(card, "linf", epsilon)
        worst = records["worst", "worst_linf", epsilon]
        same[f"claimed {epsilon}"] = found["claimed"]["figures"], worst
        same[f"best {epsilon}"] = found["best_known"]["figures"], worst
        same[f"noise {epsilon}"] = found["noise"], records["attack", "noise", epsilon]
    same["corruptions"] = card["corruptions"]["mean"], records["shifts_mean", "all shifts", None]
    for name, (figures, record) in same.items():
        for key in ("dice", "dice_low", "dice_high", "drop", "drop_low", "drop_high", "iou", "nsd"):
            assert figures[key] == pytest.approx(record[key], abs=1e-8), (name, key)
        assert figures["hd95"] == pytest.approx(record["hd95_mm"])
    (gamma,) = card["corruptions"]["each"]
    assert gamma["name"] == "gamma" and len(gamma["dice"]) == len(gamma["strengths"]) == 5
    checkpoint = world[0] / "fold_0" / "checkpoint_final.pth"
    assert card["model"]["checkpoint_sha256"] == {"0": sha256(checkpoint)}
    (evaluation,) = card["evaluations"]
    assert evaluation["summary_sha256"] == sha256(finished.folder / "summary.json")
    assert evaluation["environments"] == summary["environments"]
    assert evaluation["checks"] == summary["checks"]
    assert [a["steps"] for a in evaluation["attacks"]] == [None, 2]
    assert card["data"]["cases"] == 3 and card["data"]["files_sha256"]


def test_intervals_are_over_the_groups_that_the_evaluation_was_reported_with(tmp_path):
    groups = Groups(of={case: case[:-1] + "abc"[i // 2] for i, case in enumerate(CASES)}, found="x")
    out = make_out(tmp_path / "a", summary={"groups": groups.record(CASES)})
    card = make(tmp_path / "card", out)
    rows = read_cases(out / "cases.csv")
    records = {r["attack"]: r for r in summarise(rows, seed=0, groups=groups)}
    alone = {r["attack"]: r for r in summarise(rows, seed=0)}
    found = card["clean"]["dice_low"], card["clean"]["dice_high"]
    wanted, wrong = (
        tuple(r["clean"][f"dice_{end}"] for end in ("low", "high")) for r in (records, alone)
    )
    assert found == pytest.approx(wanted) and found != pytest.approx(wrong)
    assert card["metrics"]["groups"] == 3
    text = (tmp_path / "card" / CARD_MD).read_text()
    assert "over groups of cases]. **3 groups are few**" in text and "as independent" not in text
    leaderboard([tmp_path / "card"], tmp_path / "l.md")
    text = (tmp_path / "l.md").read_text()
    assert "over groups of cases]" in text and "as independent" not in text


def test_a_leaderboard_says_which_intervals_are_over_groups(tmp_path):
    record = Groups(of={case: case[-1:] for case in CASES}, found="x").record(CASES)
    make(tmp_path / "a", make_out(tmp_path / "1", checkpoint="a", summary={"groups": record}))
    make(tmp_path / "b", make_out(tmp_path / "2", checkpoint="b"), name="B")
    for file in ("l.md", "l.html"):
        leaderboard([tmp_path / "a", tmp_path / "b"], tmp_path / file)
        text = " ".join((tmp_path / file).read_text().split())
        assert "intervals of B are over cases" in text
        assert ("**6 groups are few**" if file == "l.md" else "]. 6 groups are few") in text


def test_a_card_names_no_path_and_no_case(finished, tmp_path):
    make_card([finished.folder], tmp_path)
    for file in (CARD_JSON, CARD_MD):
        text = (tmp_path / file).read_text()
        assert "/tmp" not in text and str(finished.folder.parent) not in text
        assert not any(case in text for case in finished.summary["cases"])


def test_the_surrogates_folder_is_named_without_its_path(tmp_path):
    notes = ["transfer: perturbations made on /data/secret/OTHER, SHA-256 fold 0: abc"]
    options = {"surrogate": "/data/secret/OTHER"}
    out = make_out(tmp_path / "a", summary={"notes": notes}, options=options)
    (note,) = make(tmp_path, out)["evaluations"][0]["notes"]
    assert note.startswith("transfer: perturbations made on OTHER, SHA-256")


def test_best_known_is_the_lowest_case_by_case_and_the_claim_is_the_firsts(tmp_path):
    one = make_out(tmp_path / "one")
    lower = {case: 0.1 if i % 2 else -0.1 for i, case in enumerate(CASES)}
    other = make_out(tmp_path / "two", attack="apgd_dice", suite=None, lower=lower)
    a, b = mean_dice(one, SUITE, "2/255"), mean_dice(other, "apgd_dice", "2/255")
    lowest = sum(min(a[c], b[c]) for c in CASES) / len(CASES)
    assert lowest < min(sum(a.values()), sum(b.values())) / len(CASES) - 0.01
    for outs, claim, attack in (
        ((one, other), a, SUITE),
        ((other, one), b, "worst_linf"),
        ((one,), a, SUITE),
    ):
        found = entry(make(tmp_path / "card", *outs), "linf", "2/255")
        claimed, known = found["claimed"], found["best_known"]
        assert claimed["figures"]["dice"] == pytest.approx(sum(claim.values()) / len(CASES))
        assert (claimed["attack"], claimed["evaluation"]) == (attack, 0)
        expected = lowest if len(outs) == 2 else sum(a.values()) / len(CASES)
        assert known["figures"]["dice"] == pytest.approx(expected)
        who = {(f["attack"], f["evaluation"]): f["cases"] for f in known["found_by"]}
        if len(outs) == 2:
            assert who == {(SUITE, outs.index(one)): 3, ("apgd_dice", outs.index(other)): 3}
        else:
            assert who == {(SUITE, 0): 6}
        for key in ("dice_low", "dice_high"):
            assert known["figures"][key] <= claimed["figures"][key]


def test_a_weaker_evaluation_changes_nothing_that_is_known(tmp_path):
    one, weaker = make_out(tmp_path / "a"), make_out(tmp_path / "b", lower=-0.1, suite=None)
    alone, both = make(tmp_path / "c", one), make(tmp_path / "c", one, weaker)
    for key in ("claimed", "best_known", "noise"):
        assert [e[key] for e in alone["worst"]] == [e[key] for e in both["worst"]]
    assert len(both["evaluations"]) == 2


def test_what_runs_beside_the_suite_is_known_but_not_claimed(tmp_path):
    out = make_out(tmp_path / "a")
    rows = []
    for case in CASES:
        of_case = [r for r in read_cases(out / "cases.csv") if r["case"] == case]
        rows += of_case[:-1]
        for row in of_case:
            if row["kind"] == "worst" and row["norm"] == "linf":  # as if another had found more
                row |= {"source": "square", "dice": row["dice"] - 0.02}
        rows.append(of_case[-1])
    write_cases(out / "cases.csv", rows)
    found = entry(make(tmp_path / "card", out), "linf", "2/255")
    known = found["best_known"]
    assert found["claimed"]["attack"] == SUITE
    assert found["claimed"]["figures"]["dice"] - known["figures"]["dice"] == pytest.approx(0.02)
    assert known["found_by"] == [{"attack": "square", "evaluation": 0, "cases": 6}]


def test_attacks_and_corruptions_may_come_from_two_evaluations(tmp_path):
    attacked = make_out(tmp_path / "a", kinds=("clean", "attack"))
    corrupted = make_out(tmp_path / "b", kinds=("clean", "shift"), suite=None)
    for outs in ((attacked, corrupted), (corrupted, attacked)):
        card = make(tmp_path / "card", *outs)
        assert card["corruptions"]["evaluation"] == outs.index(corrupted)
        assert card["protocol"]["suite"] == SUITE
        assert {e["claimed"]["evaluation"] for e in card["worst"]} == {outs.index(attacked)}
        assert "corruptions" not in card["not_tried"]
    card = make(tmp_path / "card", attacked)
    assert card["corruptions"] is None and "corruptions" in card["not_tried"]
    card = make(tmp_path / "card", corrupted)
    assert card["worst"] == [] and "attacks in Linf" in card["not_tried"]
    assert "was not attacked" in (tmp_path / "card" / CARD_MD).read_text()


def test_a_budget_of_the_second_alone_is_known_and_not_claimed(tmp_path):
    one = make_out(tmp_path / "a", epsilons=["2/255"])
    card = make(tmp_path / "card", one, make_out(tmp_path / "b"))
    assert entry(card, "linf", "1/255")["claimed"] is None
    assert entry(card, "linf", "1/255")["best_known"]["found_by"][0]["evaluation"] == 1
    assert entry(card, "linf", "2/255")["claimed"] is not None


def test_an_undefined_dice_is_null(tmp_path):
    out = make_out(tmp_path / "a")
    rows = read_cases(out / "cases.csv")
    write_cases(out / "cases.csv", [r | {"dice": math.nan} for r in rows])
    card = make(tmp_path / "card", out)
    assert card["clean"]["dice"] is None
    assert entry(card, "linf", "2/255")["best_known"]["figures"]["dice_low"] is None
    assert "undefined" in (tmp_path / "card" / CARD_MD).read_text()


DIFFERENT = {
    "checkpoint": ({"checkpoint": "two"}, "checkpoint_sha256.0"),
    "mirroring": ({"model": {"mirror_axes": [0]}}, "mirror_axes"),
    "tile step": ({"model": {"tile_step_size": 0.7}}, "tile_step_size"),
    "unit": ({"options": {"epsilon_unit": "normalized"}}, "epsilon_unit"),
    "cases": ({"cases": CASES[:5]}, "cases"),
    "files": ({"inputs": {c: sha(f"{c} other") for c in CASES}}, "case0"),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_evaluations_of_another_model_or_other_cases_make_no_card(tmp_path, name):
    more, says = DIFFERENT[name]
    one, other = make_out(tmp_path / "a"), make_out(tmp_path / "b", **more)
    with pytest.raises(UserError) as error:
        make(tmp_path / "card", one, other)
    assert says in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "card").exists()


def test_a_stronger_evaluation_may_differ_in_how_hard_it_attacks(tmp_path):
    harder = {"seed": 7, "steps": 500, "restarts": 5, "autocast": True, "epsilons": ["2/255"]}
    one, other = make_out(tmp_path / "a"), make_out(tmp_path / "b", options=harder, suite=None)
    assert len(make(tmp_path / "card", one, other)["evaluations"]) == 2


def test_evaluations_of_before_make_a_card(tmp_path):
    made_before = Path(__file__).parents[2] / "made_before" / "made.tar.xz"
    with tarfile.open(made_before) as archive:
        archive.extractall(tmp_path, filter="data")
    card = make(tmp_path / "card", tmp_path / "out_lngswr")
    assert card["protocol"]["suite"] is None and card["protocol"]["best_iterate"] == "loss"
    assert card["worst"] and card["corruptions"]


def test_the_card_is_in_the_first_out_and_goes_with_its_results(finished, world, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(finished.folder, out)
    assert main([str(out)]) == 0
    assert CARD_JSON in capsys.readouterr().out
    run(world, out)  # the same evaluation, finished already
    assert (out / CARD_JSON).is_file() and (out / CARD_MD).is_file()
    run(world, out, seed=5, attacks=["fgsm"], corruptions=["none"], max_cases=1, overwrite=True)
    assert not (out / CARD_JSON).exists() and not (out / CARD_MD).exists()


def test_a_network_that_was_given_has_no_card_and_is_not_to_be_evaluated_again(tmp_path):
    model = {"kind": GIVEN, "checkpoint": None, "folds": [], "patch_size": None}
    model |= {"tile_step_size": None, "plans": ""}
    out = make_out(tmp_path / "a", model=model)
    with pytest.raises(UserError, match="network that was given") as raised:
        make_card([out])
    assert "again" not in str(raised.value) and "lngswr compare" in str(raised.value)
