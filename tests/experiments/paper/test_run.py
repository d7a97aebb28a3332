"""`lngswr paper`: which commands, in which order, and what of them a second call repeats.

The commands themselves are stood in for by files that they would write; that they run is shown by
the tests of trainers and evaluation, which use the same options.
"""

import dataclasses
import json
import os
import shlex
import shutil
import threading
from pathlib import Path

import pytest

from evaluation import compare
from evaluation.command_line import build_parser
from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments.paper import TRAINERS, Protocol, run_paper
from nnunetv2_lngswr.experiments.paper import run as paper_run
from nnunetv2_lngswr.experiments.paper.places import Places
from nnunetv2_lngswr.experiments.paper.steps import make_steps
from nnunetv2_lngswr.utils.errors import CommandError, UserError
from nnunetv2_lngswr.utils.locks import hold
from tests.experiments.paper.commands import NAME

PROTOCOL = Protocol(dataset_id=620, folds=(0, 1))


def test_all_steps_in_their_order(root, commands):
    run = commands()
    table = run_paper(PROTOCOL, root / "out")
    assert table.read_text() == "| table |"
    assert [c[0] for c in run.seen] == ["nnUNetv2_plan_and_preprocess"] + ["nnUNetv2_train"] * 8 + [
        "lngswr"
    ] * 5
    assert [(c[5], c[3]) for c in run.seen[1:9]] == [(t, f) for t in TRAINERS for f in "01"]
    attack = run.seen[9]
    assert attack[attack.index("--attacks") + 1 :][:5] == [
        "worst",
        "pgd_linf",
        "pgd_l2",
        "ssah",
        "--corruptions",
    ]
    # the baseline of the table is the vanilla network
    assert [Path(p).name for p in run.seen[-1][2:6]] == list(TRAINERS)
    copied = root / "nnUNet_preprocessed" / NAME / "splits_final.json"
    assert json.loads(copied.read_text()) == json.loads(
        (root / "nnUNet_raw" / NAME / "splits_final.json").read_text()
    )


def times(root):
    """Of all files but the locks, which say who holds them."""
    files = [p for p in root.rglob("*") if p.is_file() and p.name != ".lock"]
    return {p: p.stat().st_mtime_ns for p in files}


def test_a_second_call_runs_nothing(root, commands):
    commands()
    run_paper(PROTOCOL, root / "out")
    again, said = commands(), []
    before = times(root)
    run_paper(PROTOCOL, root / "out", say=said.append)
    assert before == times(root)
    assert (
        again.seen == [] and len(said) == 15 and all(line.endswith("done before") for line in said)
    )


@pytest.mark.parametrize("at", [1, 4, 11, 14])
def test_a_failed_call_goes_on_where_it_stopped(root, commands, at):
    whole = commands(fail_at=at)
    with pytest.raises(
        CommandError, match=r"failed \(exit status 1\); the same lngswr call goes on"
    ):
        run_paper(PROTOCOL, root / "out")
    rest = commands()
    run_paper(PROTOCOL, root / "out")
    assert len(whole.seen) + len(rest.seen) == 14 + 1
    again = rest.seen[0]
    # a training that was cut off goes on from its checkpoint
    assert again == whole.seen[-1] + (["--c"] if at == 4 else [])


def test_a_new_checkpoint_is_attacked_again(root, commands):
    commands()
    run_paper(PROTOCOL, root / "out")
    changed = (
        next((root / "nnUNet_results" / NAME).glob("nnUNetTrainerAT__*/fold_0"))
        / "checkpoint_final.pth"
    )
    later = max(p.stat().st_mtime for p in root.rglob("*")) + 5
    os.utime(changed, (later, later))
    commands_again = commands()
    # the stand-in's outputs are older than a time in the future, as where a clock was set back
    run_paper(PROTOCOL, root / "out")
    assert [c[:2] for c in commands_again.seen] == [["lngswr", "evaluate"], ["lngswr", "compare"]]
    assert "nnUNetTrainerAT__nnUNetPlans__2d" in commands_again.seen[0][3]
    once_more = commands()
    run_paper(PROTOCOL, root / "out")
    assert once_more.seen == []


def test_a_command_without_its_outputs_is_told(root, commands, monkeypatch):
    commands()
    monkeypatch.setattr(paper_run, "call_command", lambda argv: 0)
    with pytest.raises(CommandError, match="the command ended without its outputs"):
        run_paper(PROTOCOL, root / "out")


def test_two_calls_at_once(root, commands):
    run, refused = commands(), []

    def call(output):
        try:
            run_paper(PROTOCOL, output)
        except UserError as error:
            refused.append(str(error))

    for held in (root / "out", root / "nnUNet_results" / NAME):
        with hold(held, "another lngswr paper"):
            # the thread that holds it may hold it again
            second = threading.Thread(target=call, args=(root / "out",))
            second.start()
            second.join()
        assert f"{held} is in use by another lngswr paper (process" in refused.pop()
    assert run.seen == []
    run_paper(PROTOCOL, root / "out")


def test_data_that_were_converted_anew_are_preprocessed_again_or_refused(root, commands):
    first = commands(fail_at=2)
    with pytest.raises(CommandError, match="failed"):
        run_paper(PROTOCOL, root / "out")
    shutil.rmtree(root / "nnUNet_results")
    label = root / "nnUNet_raw" / NAME / "labelsTr" / "case_3.nii.gz"
    label.write_text("any reader")
    second = commands()
    run_paper(PROTOCOL, root / "out")
    assert [c[0] for c in first.seen[:1] + second.seen[:2]] == [
        "nnUNetv2_plan_and_preprocess"
    ] * 2 + ["nnUNetv2_train"]
    # else nnU-Net keeps the fingerprint of what was there before
    assert "--clean" in second.seen[0]
    label.write_text("all readers")
    changed = "labelsTr has changed since it was preprocessed"
    trained = ".*nnUNetTrainerVanilla were trained on that"
    with pytest.raises(ValueError, match=f"{changed} .* {trained}"):
        run_paper(PROTOCOL, root / "out")


def test_plans_of_ones_own_are_preprocessed_not_planned(root, commands):
    folder = root / "nnUNet_preprocessed" / NAME
    folder.mkdir(parents=True)
    plans = {"configurations": {"2d": {"data_identifier": "mine_2d"}}}
    (folder / "mine.json").write_text(json.dumps(plans))
    steps = make_steps(Places.of(dataclasses.replace(PROTOCOL, plans="mine"), root / "out"))
    assert shlex.join(steps[1].command) == "nnUNetv2_preprocess -d 620 -c 2d -plans_name mine"
    assert not steps[1].done()


def test_ctrl_c_ends_with_one_line(root, commands, monkeypatch, capsys):
    def interrupted(command):
        raise KeyboardInterrupt

    monkeypatch.setattr(paper_run, "call_command", interrupted)
    assert cli.main(["paper", "lidc", "-o", str(root / "out"), "-device", "cpu"]) == 130
    assert (
        capsys.readouterr().err
        == "lngswr: interrupted; what is done is kept: the same call goes on\n"
    )


def printed_commands(capsys):
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(line) for line in lines if not line.startswith("#")]


def test_dry_run_prints_what_would_be_run_and_writes_nothing(root, commands, capsys):
    stand_in = commands()
    before = sorted(root.rglob("*"))
    call = ["paper", "lidc", "-o", str(root / "out"), "--dry-run", "--epochs", "5", "--steps", "3"]
    assert cli.main([*call, "-f", "0"]) == 0
    assert stand_in.seen == [] and sorted(root.rglob("*")) == before
    printed = printed_commands(capsys)
    preprocess = "nnUNetv2_plan_and_preprocess -d 620 -c 2d --verify_dataset_integrity --clean"
    train = "nnUNetv2_train 620 2d 0 -tr nnUNetTrainerVanilla_5epochs -p nnUNetPlans"
    assert printed[1] == preprocess.split()
    assert printed[2] == train.split()
    assert len(printed) == 11


def test_the_printed_commands_are_ones_that_exist(root, capsys, monkeypatch):
    compared = []

    def stand_in(folders, output, **_):
        compared.append((folders, output))
        Path(output).mkdir(parents=True)
        (Path(output) / "compare.md").touch()

    monkeypatch.setattr(compare, "compare", stand_in)
    call = ["paper", "lidc", "-o", str(root / "out"), "--dry-run", "--steps", "3"]
    cli.main([*call, "--max-cases", "2", "--disable_tta", "-device", "cpu", "--epochs", "1"])
    for words in printed_commands(capsys):
        if words[:2] == ["lngswr", "evaluate"]:
            parsed = build_parser().parse_args(words[2:])
            assert parsed.corruptions == [] and parsed.max_cases == 2
            assert not parsed.use_mirroring and len(parsed.folds) == 5
        elif words[0] == "lngswr":
            assert words[1] == "compare" and compare.main(words[2:]) == 0
            assert len(compared[0][0]) == 4 and Path(compared[0][1]).name == "table"
        elif words[0] == "nnUNetv2_train":
            assert hasattr(trainers, words[words.index("-tr") + 1])


@pytest.mark.parametrize(
    ("configurations", "said"),
    [
        (["2d"], '"configurations" must be an object'),
        ({"3d_fullres": {}}, "has no configuration 2d; it has 3d_fullres"),
        ({"2d": None}, 'configuration 2d has no "data_identifier"'),
        ({"2d": {"inherits_from": "x"}}, "inherits none .got 'x'"),
        ({"2d": {"inherits_from": "2d"}}, "inherits none .got '2d'"),
        ({"2d": {"data_identifier": 3}}, "inherits none"),
    ],
)
def test_plans_that_are_none_are_refused(root, commands, configurations, said):
    folder = root / "nnUNet_preprocessed" / NAME
    folder.mkdir(parents=True)
    (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": configurations}))
    with pytest.raises(UserError, match=said):
        run_paper(PROTOCOL, root / "out", dry_run=True)


def test_splits_that_another_trainer_s_models_were_trained_with_stay(root, commands):
    commands()
    copied = root / "nnUNet_preprocessed" / NAME / "splits_final.json"
    model = root / "nnUNet_results" / NAME / "nnUNetTrainer__nnUNetPlans__2d"
    for path in (copied, model / "fold_0" / "checkpoint_best.pth"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("[]")
    with pytest.raises(UserError, match="nnUNetTrainer were trained with it"):
        run_paper(PROTOCOL, root / "out")
    assert copied.read_text() == "[]"


def test_refusals(root, commands, monkeypatch):
    commands()
    run_paper(PROTOCOL, root / "out")
    with pytest.raises(ValueError, match="is of another protocol"):
        run_paper(Protocol(dataset_id=620, folds=(0, 1), steps=3), root / "out")
    with pytest.raises(ValueError, match="fold 7 was asked for"):
        run_paper(Protocol(dataset_id=620, folds=(7,)), root / "other")
    with pytest.raises(ValueError, match="must hold one data set of number 610"):
        run_paper(Protocol(dataset_id=610), root / "other")
    with pytest.raises(ValueError, match="minePlans.json does not exist"):
        run_paper(Protocol(dataset_id=620, plans="minePlans"), root / "other", dry_run=True)
    # other splits under trained models would mix training and validation
    (root / "nnUNet_preprocessed" / NAME / "splits_final.json").write_text("[]")
    with pytest.raises(ValueError, match="were trained with it"):
        run_paper(PROTOCOL, root / "out")
    (root / "nnUNet_raw" / NAME / "splits_final.json").unlink()
    with pytest.raises(ValueError, match="has no splits_final.json"):
        run_paper(PROTOCOL, root / "out")
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(ValueError, match="environment variables first: nnUNet_results"):
        run_paper(PROTOCOL, root / "out")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"folds": ()}, "folds must be"),
        ({"folds": (0, 0)}, "different"),
        ({"epochs": 7}, "got 7"),
    ],
)
def test_bad_protocols(options, said):
    with pytest.raises(ValueError, match=said):
        Protocol(dataset_id=1, **options)
