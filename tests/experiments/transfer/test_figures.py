"""The numbers: what each is over, against means taken by hand and against `lngswr compare`."""

import numpy as np
import pytest

from evaluation import significance
from evaluation.compare import compare
from nnunetv2_lngswr.experiments.transfer import Options, run
from tests.experiments.transfer.world import (
    GROUPS,
    MODELS,
    ROBUST,
    VANILLA,
    A,
    B,
    Evaluations,
    all_cases,
    made_up_dice,
    model_folders,
    read_json,
    validation_cases,
)

RUNS = {"clean": "clean", "worst_linf": "pgd_linf"}
HERE, HARDENED, THERE = (f"{trainer} on {name}" for trainer, name, _ in MODELS)
INTERVAL = ("difference", "difference_low", "difference_high")


@pytest.fixture
def made(root, evaluations, tmp_path):
    """made(**options): (the folder, transfer.json)."""

    def make(name="out", **options):
        out = run.benchmark_transfer(
            model_folders(root), [A, B], tmp_path / name, Options(**options)
        )
        return out, read_json(out / "transfer.json")

    return make


@pytest.fixture(scope="module")
def plain(made_world, tmp_path_factory):
    """(the folder, transfer.json) of a call without options; nobody changes them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("nnUNet_raw", "nnUNet_preprocessed"):
            patch.setenv(name, str(made_world / name))
        patch.setattr(run, "run_command", Evaluations(made_world))
        out = tmp_path_factory.mktemp("plain") / "out"
        run.benchmark_transfer(model_folders(made_world), [A, B], out)
    return out, read_json(out / "transfer.json")


def values(root, model, data_set, attack, cases=None):
    """By hand: per case, folds averaged where each has the case."""
    trainer, trained_on, folds = dict(zip((HERE, HARDENED, THERE), MODELS))[model]
    found = {}
    for fold in folds:
        own = trained_on == data_set
        its = validation_cases(root, data_set, fold) if own else all_cases(root, data_set)
        for case in its:
            dice = made_up_dice(trainer, trained_on, data_set, fold, case, attack)
            found.setdefault(case, []).append(dice)
    return np.array([np.mean(v) for c, v in found.items() if cases is None or c in cases])


def test_dice_is_over_the_validation_cases_at_home_and_all_cases_elsewhere(made_world, plain):
    _, content = plain
    assert len(content["dice"]) == 3 * 2 * 2
    for record in content["dice"]:
        expected = values(made_world, record["model"], record["data_set"], RUNS[record["attack"]])
        assert record["cases"] == len(expected)
        assert record["own"] == record["model"].endswith(record["data_set"])
        assert record["dice"] == pytest.approx(expected.mean(), abs=1e-6)
        assert record["dice_low"] < record["dice"] < record["dice_high"]


def test_what_is_lost_on_the_way_has_the_interval_of_two_independent_samples(made_world, plain):
    _, content = plain
    assert len(content["own_to_other"]) == 3 * 2
    for record in content["own_to_other"]:
        attack, model = RUNS[record["attack"]], record["model"]
        assert {record["own_data_set"], record["data_set"]} == {A, B}
        own = values(made_world, model, record["own_data_set"], attack)
        other = values(made_world, model, record["data_set"], attack)
        assert record["difference"] == pytest.approx(other.mean() - own.mean(), abs=1e-6)
        rng = np.random.default_rng(7)
        means = [rng.choice(v, (20_000, len(v))).mean(1) for v in (other, own)]
        coverage = significance.coverage_of(min(len(own), len(other)))
        ends = [50 - 50 * coverage, 50 + 50 * coverage]
        expected = np.percentile(means[0] - means[1], ends)
        found = [record["difference_low"], record["difference_high"]]
        # 2,000 draws against 20,000
        assert found == pytest.approx(expected, abs=0.08 * np.ptp(expected))


def test_groups_are_drawn_as_one_and_few_are_told(root, made, plain):
    alone = plain[1]
    out, content = made(groups=[GROUPS])
    ends = [[(r["dice_low"], r["dice_high"]) for r in found["dice"]] for found in (alone, content)]
    assert len(ends[0]) == len(ends[1]) and not set(ends[0]) & set(ends[1])
    said, own = (out / "transfer.md").read_text(), len(validation_cases(root, B, 0))
    assert f"**Few** (6 groups of {A}, 6 groups of {B}, 3 groups of {B})" in said
    assert f"own: {own} cases of 3 groups (pattern {GROUPS}, --groups)" in said
    recorded = content["data_sets"][1]["groups"][HERE]
    assert recorded["count"] == 6 and set(recorded["of"]) == set(all_cases(root, B))


def test_models_elsewhere_are_compared_as_lngswr_compare_does(made_world, plain, tmp_path):
    out, content = plain
    folders = [[out / f"evaluations/model{m}_fold{f}_{B}" for f in (0, 1)] for m in (1, 2)]
    expected = compare(folders, tmp_path / "compared")
    found = [r for r in content["side_by_side"] if r["where"] == "all that were chosen"]
    assert [(r["model"], r["data_set"]) for r in found[:2]] == [(HERE, B), (HARDENED, B)]
    by_run = {r["attack"]: r for r in expected if r["difference"] is not None}
    tested = [r for r in found if r["difference"] is not None]
    assert [r["attack"] for r in tested] == ["clean", "worst_linf"]
    for record in tested:
        theirs = by_run[record["attack"]]
        for key in (*INTERVAL, "p", "dice", "cases"):
            assert record[key] == pytest.approx(theirs[key])
    worst = tested[1]
    assert (
        worst["reduction"] == pytest.approx(by_run["worst_linf"]["reduction"])
        and worst["reduction"] > 0.4
    )


def test_a_stranger_is_paired_with_the_model_of_the_data_set_on_its_validation_cases(
    made_world, plain
):
    _, content = plain
    found = [r for r in content["side_by_side"] if r["where"] == "validation"]
    assert list(dict.fromkeys(r["data_set"] for r in found)) == [A, B]
    cases = {
        A: [c for fold in (0, 1) for c in validation_cases(made_world, A, fold)],
        B: validation_cases(made_world, B, 0),
    }
    baseline = {A: HERE, B: THERE}
    for data_set in (A, B):
        its = [r for r in found if r["data_set"] == data_set]
        assert {r["model"] for r in its} == {HERE, HARDENED, THERE}
        assert {r["baseline"] for r in its} == {baseline[data_set]}
        for record in its:
            attack = RUNS[record["attack"]]
            mine = values(made_world, record["model"], data_set, attack, cases[data_set])
            theirs = values(made_world, baseline[data_set], data_set, attack)
            assert record["cases"] == len(cases[data_set]) == len(mine)
            assert record["dice"] == pytest.approx(mine.mean(), abs=1e-6)
            if record["model"] != baseline[data_set]:
                expected = mine.mean() - theirs.mean()
                assert record["difference"] == pytest.approx(expected, abs=1e-6)


def test_p_values_are_corrected_over_the_whole_report(plain):
    _, content = plain
    tested = [r for r in content["side_by_side"] if r["p"] is not None]
    assert len(tested) == 2 * (2 + 2 + 1)
    assert [r["p_holm"] for r in tested] == significance.holm([r["p"] for r in tested])


def test_validation_cases_that_were_not_chosen_elsewhere_are_told(root, evaluations, made):
    known = all_cases(root, B)[::3]
    write = evaluations.write

    def fewer(out, model, data_set, fold, cases):
        chosen = cases if model.parent.name == data_set else [c for c in cases if c in known]
        write(out, model, data_set, fold, chosen if data_set == B else cases)

    evaluations.write = fewer
    out, content = made(max_cases=len(known))
    where = {r["where"] for r in content["side_by_side"] if r["data_set"] == B}
    assert where == {"all that were chosen"}
    assert f"not beside {THERE} on its validation cases of {B}" in (out / "transfer.md").read_text()


def test_corruptions_that_one_model_lacks_count_for_none(root, evaluations, made):
    evaluations.corruptions = {VANILLA: ["gamma", "contrast"], ROBUST: ["contrast"]}
    dice = evaluations.dice
    evaluations.dice = lambda *what: dice(*what) * (0.5 if what[-1] == "gamma" else 1.0)
    out, content = made()
    means = [r for r in content["dice"] if r["kind"] == "shifts_mean"]
    assert len(means) == 6
    for record in means:
        expected = values(root, record["model"], record["data_set"], "contrast")
        assert record["dice"] == pytest.approx(expected.mean(), abs=1e-6)
    said = (out / "transfer.md").read_text()
    assert "corruptions left out, since they do not apply to every model: gamma" in said


def test_the_table_has_the_own_data_set_in_bold(made_world, plain):
    out, _ = plain
    lines = (out / "transfer.md").read_text().splitlines()
    start = lines.index("## clean")
    rows = [line.split(" | ") for line in lines[start + 4 : start + 7]]
    assert [row[0].removeprefix("| ") for row in rows] == [HERE, HARDENED, THERE]
    bold = [["**" in cell for cell in row[1:]] for row in rows]
    assert bold == [[True, False], [True, False], [False, True]]
    assert (out / "transfer.png").read_bytes()[:4] == b"\x89PNG"
