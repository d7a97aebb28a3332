"""What a share of the budget keeps of the robustness that training from the first step gives."""

import json
from pathlib import Path

import pytest

from benchmarks import robustify
from benchmarks.robustify import (
    FROM_SCRATCH,
    GIVEN,
    Trained,
    Work,
    cost,
    kept,
    main,
    measure,
    with_earlier,
)
from nnunetv2_lngswr.experiments.robustness.times import training_seconds
from nnunetv2_lngswr.utils.errors import UserError


def dice(clean, worst):
    return {"clean": clean, "worst_linf 8/255": worst}


def test_kept_is_the_part_of_the_reduction_of_the_drop_of_means():
    found = kept(
        {
            GIVEN: [dice(0.8, 0.3), dice(0.8, 0.5)],  # drops by .4
            FROM_SCRATCH: [dice(0.8, 0.6), dice(0.8, 0.6)],  # by .2
            "none": [dice(0.7, 0.3), dice(0.7, 0.3)],  # by .4, at a lower level
            "half": [dice(0.8, 0.4), dice(0.8, 0.6)],  # by .3
            "more": [dice(0.7, 0.6), dice(0.7, 0.6)],  # by .1
        }
    )
    assert {k: v["worst_linf 8/255"] for k, v in found.items()} == pytest.approx(
        {"none": 0, "half": 0.5, "more": 1.5}
    )


def test_what_is_kept_of_the_robust_dice_does_not_count_lost_clean_dice():
    arms = {
        GIVEN: [dice(0.8, 0.4)],
        FROM_SCRATCH: [dice(0.8, 0.6)],
        "lost": [dice(0.6, 0.4)],
        "half": [dice(0.5, 0.5)],
    }
    found = {k: v["worst_linf 8/255"] for k, v in kept(arms, of_dice=True).items()}
    assert found == pytest.approx({"lost": 0, "half": 0.5})
    assert kept(arms)["lost"]["worst_linf 8/255"] == pytest.approx(1)


def finished(folder, *, seeds):
    """A benchmark whose vanilla and AT have these seeds."""
    run = {"fold": 0, "plans": "p", "trainer": "t"}
    runs = [{**run, "arm": arm, "seed": s} for arm, of in seeds.items() for s in of]
    (folder / "runs.json").write_text(json.dumps({"runs": runs}))
    settings = {"dataset": "Dataset611_X", "evaluation": [], "configuration": "2d"}
    (folder / "benchmark.json").write_text(json.dumps(settings))
    return Trained(folder)


def test_seeds_that_are_not_paired_are_refused(tmp_path):
    trained = finished(tmp_path, seeds={GIVEN: (0, 1), FROM_SCRATCH: (0,)})
    assert trained.runs(GIVEN) == {0: "t__p__2d", 1: "t__p__2d"}
    with pytest.raises(UserError, match=r"same seeds on fold 0, got seeds \[0, 1\] and \[0\]"):
        measure(Work(tmp_path / "work", trained), [0.1], {})


@pytest.mark.parametrize(("raw", "says"), [("", "not set"), ("RAW", "RAW"), (None, "not set")])
def test_without_the_raw_data_nothing_is_begun(raw, says, tmp_path, monkeypatch):
    (tmp_path / "RAW").mkdir()
    monkeypatch.delenv("nnUNet_raw", raising=False)
    if raw is not None:
        monkeypatch.setenv("nnUNet_raw", raw and str(tmp_path / raw))
    trained = finished(tmp_path, seeds={GIVEN: (0,), FROM_SCRATCH: (0,)})
    work = Work(tmp_path / "work", trained)
    for begin in (
        lambda: measure(work, [0.1], {}),
        lambda: work.run("share", ["lngswr", "doctor"]),
    ):
        with pytest.raises(UserError, match=rf"no data set Dataset611_X in nnUNet_raw \(.*{says}"):
            begin()
    assert not work.folder.exists()


def test_earlier_arms_are_joined_where_they_are_of_the_same_trainings(tmp_path):
    earlier, now = tmp_path / "earlier.json", {GIVEN: [dice(0.8, 0.123456789)]}
    arms = {GIVEN: [dice(0.8, 0.1234568)], FROM_SCRATCH: [dice(0.8, 0.6)], "share 0.1": []}
    earlier.write_text(json.dumps({"dice": arms}))
    found = with_earlier(now | {"share 0.1": [dice(0.7, 0.5)]}, earlier)
    assert found == arms | now | {"share 0.1": [dice(0.7, 0.5)]}
    with pytest.raises(UserError, match="is of other trainings: vanilla has .*0.1234568.*0.3"):
        with_earlier({GIVEN: [dice(0.8, 0.3)]}, earlier)
    earlier.write_text(json.dumps({"dice": {GIVEN: arms[GIVEN]}}))
    with pytest.raises(UserError, match="has no AT, and the benchmark neither"):
        with_earlier(now, earlier)


def test_what_is_joined_to_others_may_lack_at(tmp_path, monkeypatch):
    trained = finished(tmp_path, seeds={GIVEN: (0,)})
    write_fold(trained.model("t__p__2d") / "fold_0", [1.0, 2.0])
    monkeypatch.setattr(robustify, "find_raw", lambda _: tmp_path)
    work = Work(tmp_path / "work", trained)
    assert measure(work, [], {}, joined=True).seconds == {GIVEN: [3.0]}
    assert cost({GIVEN: [3.0], "share 0.1": [0.6]}) == {"share 0.1": {GIVEN: pytest.approx(0.2)}}
    with pytest.raises(UserError, match=r"got seeds \[0\] and \[\]"):
        measure(work, [], {})


STAMP = "2026-09-30 22:01:29.123456: "


def write_log(fold, begun, *lines):
    text = "".join(f"{STAMP}{line} \n" for line in lines)
    (fold / f"training_log_{begun}.txt").write_text(text)


def write_fold(fold, seconds, *, epochs=None):
    """A fold as a training leaves it whose epochs took this long."""
    fold.mkdir(parents=True)
    (fold / "debug.json").write_text(json.dumps({"num_epochs": str(epochs or len(seconds))}))
    lines = [f"{e}\nEpoch time: {s} s" for e, s in enumerate(seconds)]
    write_log(fold, "2026_9_30_22_01_29", *(f"Epoch {line}" for line in lines), "Training done.")
    return fold


def test_an_epoch_that_was_trained_again_counts_once(tmp_path):
    fold = write_fold(tmp_path / "fold_0", [10.5, 20.0], epochs=4)
    # the second was saved, the third was cut off; by their names the later logs come first
    write_log(fold, "2026_10_1_08_00_00", "Epoch 2", "Epoch time: 300.0 s", "Epoch 3")
    goes_on = ["Epoch 2", "Pseudo dice [0.5]", "Epoch time: 3.25 s", "Epoch 3", "Epoch time: 4.0 s"]
    write_log(fold, "2026_10_2_08_00_00", "Warm start: 1 Epoch", *goes_on, "Epoch 4")
    assert training_seconds(fold) == 10.5 + 20 + 3.25 + 4
    # begun anew in the same folder
    write_log(fold, "2026_10_10_08_00_00", "Epoch 0", "Epoch time: 1.0 s", "Epoch 1")
    assert training_seconds(fold) == 1 + 20 + 3.25 + 4


def test_logs_that_lack_an_epoch_are_refused(tmp_path):
    fold = write_fold(tmp_path / "fold_0", [1.0, 2.0], epochs=3)
    with pytest.raises(UserError, match="each of its 3 epochs, got none of epoch 2"):
        training_seconds(fold)


def test_a_budget_that_is_no_number_is_refused(tmp_path):
    fold = write_fold(tmp_path / "fold_0", [1.0, 2.0], epochs="many")
    with pytest.raises(UserError, match="debug.json: num_epochs must be a number, got"):
        training_seconds(fold)


def test_cost_is_the_median_of_what_each_seed_cost():
    found = cost({GIVEN: [10.0, 10, 40], FROM_SCRATCH: [20.0, 16, 80], "share 0.1": [2.0, 2, 2]})
    assert found == {
        FROM_SCRATCH: {GIVEN: 2},
        "share 0.1": {GIVEN: pytest.approx(0.2), FROM_SCRATCH: pytest.approx(0.1)},
    }


def test_the_times_of_all_trainings_are_written(tmp_path, monkeypatch):
    """All but the trainings and evaluations themselves."""
    bench, work = tmp_path / "bench", tmp_path / "work"
    results = "nnUNet_results/Dataset1_A"
    runs = []
    for arm, trainer, took in ((GIVEN, "V", 10.0), (FROM_SCRATCH, "A", 30.0)):
        for seed in (0, 1):
            run = {"arm": arm, "seed": seed, "fold": 0, "plans": f"p{seed}", "trainer": trainer}
            write_fold(bench / results / f"{trainer}__p{seed}__2d" / "fold_0", [took + seed] * 4)
            runs.append(run)
    (bench / "runs.json").write_text(json.dumps({"runs": runs}))
    settings = {"dataset": "Dataset1_A", "evaluation": [], "configuration": "2d"}
    (bench / "benchmark.json").write_text(json.dumps(settings))
    for run in runs:
        write_evaluation(bench / "evaluations" / f"{run['trainer']}__{run['plans']}__2d__fold_0")

    def run_command(command, log, **_):
        out = Path(command[command.index("-o") + 1])
        if command[1] == "evaluate":
            write_evaluation(out)
        else:
            assert command[command.index("--share") + 1] == "0.1"
            assert command[command.index("-tr") + 1] == "nnUNetTrainerLNGSWRAT"
            fold = write_fold(out / results / "A__q__2d" / "fold_0", [2.5, 2.5])
            (fold / "checkpoint_final.pth").touch()

    def compare(folders, output, names, groups):
        output.mkdir(parents=True)
        (output / "compare.json").write_text('{"results": []}')
        (output / "compare.md").write_text("")

    monkeypatch.setattr(robustify, "run_command", run_command)
    monkeypatch.setattr(robustify, "compare", compare)
    raw = tmp_path / "raw" / "Dataset1_A"
    raw.mkdir(parents=True)
    (raw / "dataset.json").write_text("{}")
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    asked = ["--shares", "0.1", "-tr", "nnUNetTrainerLNGSWRAT"]
    main([str(bench), str(work), *asked, "-o", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["options"] == {"-tr": "nnUNetTrainerLNGSWRAT"}
    assert written["training_seconds"] == {
        GIVEN: [40.0, 44.0],
        FROM_SCRATCH: [120.0, 124.0],
        "share 0.1": [5.0, 5.0],
    }
    assert written["cost"]["share 0.1"] == pytest.approx(
        {GIVEN: (5 / 40 + 5 / 44) / 2, FROM_SCRATCH: (5 / 120 + 5 / 124) / 2}, abs=1e-6
    )


def write_evaluation(folder):
    folder.mkdir(parents=True)
    clean = {"kind": "clean", "attack": "clean", "epsilon_text": "", "dice": 0.8}
    worst = {"kind": "worst", "attack": "worst_linf", "epsilon_text": "8/255", "dice": 0.4}
    (folder / "summary.json").write_text(json.dumps({"results": [clean, worst]}))
