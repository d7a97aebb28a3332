"""Laws of rows: the worst is the lowest of its norm and budget, phantoms are said."""

from evaluation.rows import MEAN_LABEL, never_there, run_key, with_worst
from tests.evaluation.report.rows import row, rows_of


def test_worst_is_the_lowest_of_its_norm_and_budget_and_ssah_takes_no_part():
    rows = rows_of("a")
    worst = [r for r in rows if r["kind"] == "worst" and r["label"] == MEAN_LABEL]
    assert {
        (r["attack"], r["epsilon_text"]): (r["source"], round(r["dice"], 3)) for r in worst
    } == {
        ("worst_linf", "1/255"): ("pgd_linf", 0.6),
        ("worst_linf", "2/255"): ("pgd_linf", 0.3),
        ("worst_l2", "1/255"): ("pgd_l2", 0.7),
        ("worst_l2", "2/255"): ("pgd_l2", 0.5),
    }
    for w in worst:
        assert all(
            w["dice"] <= r["dice"]
            for r in rows
            if r["kind"] == "attack"
            and r["label"] == MEAN_LABEL
            and run_key(r)[2:] == run_key(w)[2:]
        )
    assert len([r for r in rows if r["kind"] == "worst"]) == 3 * len(worst)


def test_nothing_there_and_nothing_found_is_no_success():
    rows = [
        row(
            "a",
            "attack",
            "noise",
            float("nan"),
            norm="linf",
            epsilon=0.1,
            label=MEAN_LABEL,
        )
    ]
    rows += [row("a", "attack", "pgd_linf", 0.0, norm="linf", epsilon=0.1, label=MEAN_LABEL)]
    assert with_worst(rows)[-1]["source"] == "pgd_linf"
    assert with_worst(rows[::-1])[-1]["source"] == "pgd_linf"


def test_the_noise_control_alone_is_no_worst_attack():
    rows = with_worst([r for r in rows_of("a") if r["kind"] == "clean" or r["attack"] == "noise"])
    assert not [r for r in rows if r["kind"] == "worst"]


def test_labels_that_are_predicted_and_never_there_are_said():
    def found(label, there, predicted):
        more = {"reference_voxels": there, "predicted_voxels": predicted, "label": label}
        return row("a", "clean", "clean", 0.5, **more)

    rows = [found("1", 0, 4), found("1", 3, 0), found("2", 0, 0), found(MEAN_LABEL, 0, 9)]
    assert never_there(rows) == ""
    said = never_there([*rows, found("2", 0, 1)])
    assert said.startswith("name 2 (2): in no ground truth of these cases, but predicted; its Dice")
    assert "name 1" not in said
