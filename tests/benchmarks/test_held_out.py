"""Searches: the held-out fold stays out, networks are as small as asked, seeds are paired."""

import json

import pytest

from benchmarks.held_out import HeldOutSearch
from benchmarks.small_search import differences
from nnunetv2_lngswr.utils.errors import UserError


def test_the_held_out_fold_is_neither_trained_on_nor_validated(tmp_path):
    data = tmp_path / "bench/nnUNet_preprocessed/Dataset001_X"
    data.mkdir(parents=True)
    cases = [f"c{i}" for i in range(10)]
    folds = [
        {"train": [c for c in cases if c not in val], "val": val}
        for val in (cases[:2], cases[2:4], cases[4:])
    ]
    (data / "splits_final.json").write_text(json.dumps(folds))
    network = {"arch_kwargs": {"features_per_stage": [32, 64, 128]}}
    plans = {"configurations": {"2d": {"architecture": network}}}
    (data / "lngswrBenchmarkSeed0.json").write_text(json.dumps(plans))
    search = HeldOutSearch(tmp_path / "work", "Dataset001_X", 5, features=16)
    for _ in range(2):  # a second call finds it done
        search.prepare(tmp_path / "bench")
    (split,) = json.loads((search.preprocessed / "splits_final.json").read_text())
    assert split == {"train": cases[4:], "val": cases[2:4]}

    with pytest.raises(UserError, match="one fold alone"):
        HeldOutSearch(tmp_path / "other", "Dataset001_X", 5).prepare(tmp_path / "work")

    done = search.model("nnUNetTrainerVanilla", "s0_A") / "fold_0"
    done.mkdir(parents=True)
    (done / "checkpoint_final.pth").touch()
    # of a checkpoint without a record nothing is known
    with pytest.raises(UserError, match="checkpoint_final.pth is of other settings"):
        search.train("nnUNetTrainerVanilla", "s0_A", {"seed": 0})
    (done / "checkpoint_final.pth").unlink()

    def finish(name, command):
        (done / "checkpoint_final.pth").touch()

    object.__setattr__(search, "run", finish)
    for _ in range(2):
        search.train("nnUNetTrainerVanilla", "s0_A", {"seed": 0})
    written = json.loads((search.preprocessed / "s0_A.json").read_text())
    configuration = written["configurations"]["2d"]
    assert configuration["architecture"]["arch_kwargs"]["features_per_stage"] == [16, 32, 64]
    assert configuration["lngswr"]["seed"] == 0 and written["plans_name"] == "s0_A"
    with pytest.raises(UserError, match="checkpoint_final.pth is of other settings than this call"):
        search.train("nnUNetTrainerVanilla", "s0_A", {"seed": 0, "noise_sigma_input": 3})
    output = tmp_path / "work/evaluations/s0_A"
    output.mkdir(parents=True)

    def evaluated(name, command):
        (output / "summary.json").write_text('{"results": []}')

    object.__setattr__(search, "run", evaluated)
    assert search.evaluate("nnUNetTrainerVanilla", "s0_A") == {}
    others = HeldOutSearch(tmp_path / "work", "Dataset001_X", 6, features=16)
    with pytest.raises(UserError, match="is of other settings"):
        others.evaluate("nnUNetTrainerVanilla", "s0_A")


def test_differences_are_paired_by_seed():
    dice = {
        "first": {"seed 0": {"clean": 70.0}, "seed 1": {"clean": 80.0}},
        "other": {"seed 0": {"clean": 71.0}, "seed 1": {"clean": 83.0}},
    }
    (found,) = differences(dice).values()
    assert found == {"clean": pytest.approx({"mean": 2.0, "standard_error": 1.0})}
