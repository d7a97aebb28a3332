"""The demo: its order and its folder fast, the whole chain marked slow."""

import json
import threading

import pytest

from nnunetv2_lngswr.datasets.phantom import PHANTOM_SETS, write_phantom
from nnunetv2_lngswr.experiments.demo import BUDGETS, MARKER, run_demo
from nnunetv2_lngswr.experiments.demo.chain import Chain
from nnunetv2_lngswr.installation import register
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.locks import hold

NAMES = [
    "nnUNetv2_plan_and_preprocess",
    "nnUNetv2_train",
    "nnUNetv2_predict",
    "nnUNetv2_evaluate_folder",
    "lngswr",
]


@pytest.mark.parametrize("sets", [["2d"], ["3d"], ["2d", "3d"]])
def test_the_chain_is_nnunets_own_commands_and_ends_with_table_and_picture(
    tmp_path, commands, sets
):
    said = []
    output = run_demo(tmp_path / "out", sets, say=said.append)
    assert [c[0] for c in commands] == NAMES * len(sets)
    for kind in sets:
        preprocessed = output / "nnUNet_preprocessed" / PHANTOM_SETS[kind].dataset_name
        raw = output / "nnUNet_raw" / PHANTOM_SETS[kind].dataset_name
        assert (preprocessed / "splits_final.json").read_bytes() == (
            raw / "splits_final.json"
        ).read_bytes()
        assert (
            json.loads((preprocessed / "lngswrDemoPlans.json").read_text())["plans_name"]
            == "lngswrDemoPlans"
        )
    table = [line for line in said if line.endswith("  0.500")]
    assert len(table) == sum(
        len(list((output / "nnUNet_raw" / PHANTOM_SETS[k].dataset_name / "labelsTs").iterdir())) + 1
        for k in sets
    )
    assert (output / "overlay.png").read_bytes().startswith(b"\x89PNG")


def test_finished_steps_are_skipped_and_overwrite_starts_over(tmp_path, commands):
    run_demo(tmp_path / "out", ["3d"])
    commands.clear()
    run_demo(tmp_path / "out", ["3d"])
    assert commands == []
    run_demo(tmp_path / "out", ["3d"], overwrite=True)
    assert [c[0] for c in commands] == NAMES


def test_an_interrupted_training_goes_on(tmp_path, commands, monkeypatch):
    record = Chain._command

    def interrupted(chain, name, command, show=""):
        record(chain, name, command, show)
        if name == "train" and "--c" not in command:
            chain.places.fold.mkdir(parents=True)
            (chain.places.fold / "checkpoint_latest.pth").touch()
            raise KeyboardInterrupt

    monkeypatch.setattr(Chain, "_command", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", ["3d"])
    assert "--c" not in commands[-1]
    commands.clear()
    run_demo(tmp_path / "out", ["3d"])
    assert [c[0] for c in commands] == NAMES[1:] and "--c" in commands[0]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_foreign_folder_is_never_touched(tmp_path, commands, overwrite):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="is no demo folder"):
        run_demo(tmp_path, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"] and commands == []


def test_other_settings_need_overwrite(tmp_path, commands):
    run_demo(tmp_path / "out", ["3d"])
    with pytest.raises(ValueError, match="--overwrite"):
        run_demo(tmp_path / "out", ["3d"], "cuda")
    assert json.loads((tmp_path / "out" / MARKER).read_text())["device"] == "cpu"


def test_two_calls_at_once(tmp_path, commands):
    refused = []

    def call():
        try:
            run_demo(tmp_path / "out", ["3d"], overwrite=True)
        except UserError as error:
            refused.append(str(error))

    with hold(tmp_path / "out", "another lngswr demo"):
        # the thread that holds it may hold it again
        second = threading.Thread(target=call)
        second.start()
        second.join()
    assert "is in use by another lngswr demo (process" in refused[0] and commands == []
    # a lock and what a killed writer left make no foreign folder
    (tmp_path / "out" / f".partial-0-{MARKER}").touch()
    run_demo(tmp_path / "out", ["3d"])
    lock = (tmp_path / "out" / ".lock").stat().st_ino
    run_demo(tmp_path / "out", ["3d"], overwrite=True)
    assert (tmp_path / "out" / ".lock").stat().st_ino == lock


def test_bad_input_leaves_nothing(tmp_path, monkeypatch, registered):
    with pytest.raises(ValueError, match="one or more of 2d, 3d, got 4d"):
        run_demo(tmp_path / "out", ["4d"])
    monkeypatch.setattr(register, "trainers_are_found", lambda: False)
    with pytest.raises(ValueError, match="lngswr register"):
        run_demo(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_chain(tmp_path):
    """Needs `lngswr register` in this environment; about five minutes on two free cores."""
    output = run_demo(tmp_path / "out", say=print)
    for kind in BUDGETS:
        name = PHANTOM_SETS[kind].dataset_name
        summary = json.loads((output / "predictions" / name / "summary.json").read_text())
        assert summary["foreground_mean"]["Dice"] > 0.3, kind
        assert (output / "robustness" / name / "cases.csv").is_file()
    assert (
        write_phantom("2d", output / "nnUNet_raw")
        == output / "nnUNet_raw" / PHANTOM_SETS["2d"].dataset_name
    )
