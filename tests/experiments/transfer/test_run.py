"""`lngswr benchmark transfer` as a whole: its commands, what it goes on with, once for real."""

import json
import os
import threading

import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments.transfer import Options, run
from nnunetv2_lngswr.experiments.transfer.report import OUTPUTS
from nnunetv2_lngswr.experiments.transfer.run import MARKER, benchmark_transfer
from nnunetv2_lngswr.utils.errors import CommandError, UserError
from nnunetv2_lngswr.utils.locks import hold
from tests.bad_inputs.harness import tree
from tests.experiments.transfer.world import (
    A,
    B,
    all_cases,
    model_folders,
    read_json,
    validation_cases,
)

SETS = [A, B]


def call_of(root, out, *words):
    models = map(str, model_folders(root))
    return ["benchmark", "transfer", "-m", *models, "-d", *SETS, "-o", str(out), *words]


def test_every_fold_meets_its_validation_cases_and_all_of_the_others(root, evaluations, tmp_path):
    out = tmp_path / "out"
    assert cli.main(call_of(root, out, "-device", "cpu", "--max-cases", "9")) == 0
    found = []
    for words in evaluations.commands:
        assert words[:2] == ["lngswr", "evaluate"]
        images = words[words.index("-i") + 1] if "-i" in words else None
        labels = words[words.index("-l") + 1] if "-l" in words else None
        assert labels == (images and images.replace("imagesTr", "labelsTr"))
        found.append((words[words.index("-m") + 1], words[words.index("-f") + 1], images))
        assert words[words.index("--max-cases") + 1] == "9" and "--disable_tta" in words
    here, robust, there = map(str, model_folders(root))
    images = {name: str(root / "nnUNet_raw" / name / "imagesTr") for name in SETS}
    assert found == [
        *(
            (model, fold, of)
            for model in (here, robust)
            for of in (None, images[B])
            for fold in "01"
        ),
        (there, "0", images[A]),
        (there, "0", None),
    ]


def test_a_dry_run_says_the_commands_and_writes_nothing(root, evaluations, tmp_path, capsys):
    before = tree(tmp_path)
    assert cli.main(call_of(root, tmp_path / "out", "--dry-run", "--groups", r"p\d+")) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 10 and all(line.startswith("$ lngswr evaluate -m ") for line in said)
    assert evaluations.commands == [] and tree(tmp_path) == before


def test_what_ended_is_not_repeated_and_inputs_are_only_read(root, evaluations, tmp_path):
    out, before = tmp_path / "out", tree(root)
    evaluations.fails = 3
    with pytest.raises(CommandError):
        benchmark_transfer(model_folders(root), SETS, out)
    assert len(evaluations.commands) == 4 and not (out / "transfer.md").exists()
    evaluations.fails = -1
    said = []
    benchmark_transfer(model_folders(root), SETS, out, say=said.append)
    assert len(evaluations.commands) == 4 + 7
    assert sum("done before" in line for line in said) == 3
    assert all((out / name).is_file() for name in OUTPUTS) and tree(root) == before
    report = (out / "transfer.json").read_bytes()
    benchmark_transfer(model_folders(root), SETS, out)
    assert len(evaluations.commands) == 11 and (out / "transfer.json").read_bytes() == report


def test_what_was_written_after_the_evaluation_is_looked_at_again(root, evaluations, tmp_path):
    out = benchmark_transfer(model_folders(root), SETS, tmp_path / "out")
    ran = len(evaluations.commands)
    summary = next(out.glob(f"evaluations/model1_fold0_{B}/summary.json"))
    label = next((root / "nnUNet_raw" / B / "labelsTr").iterdir())
    os.utime(label, (0, summary.stat().st_mtime + 60))
    benchmark_transfer(model_folders(root), SETS, out)
    again = evaluations.commands[ran:]
    # by every fold that is not of this data set itself, and where the case is one to validate
    assert again and all(f"{B}" in " ".join(map(str, command)) for command in again)
    assert len(again) < ran


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"options": Options(attacks=["fgsm"])}, "evaluation"),
        ({"options": Options(max_cases=3)}, "evaluation"),
        ({"options": Options(folds=[0])}, "models"),
        ({"data_sets": [B, A]}, "data_sets"),
        ({"models": 1}, "models"),
    ],
    ids=["attacks", "cases", "folds", "order of data sets", "models"],
)
def test_a_folder_of_another_call_is_refused(root, evaluations, tmp_path, change, named):
    out = benchmark_transfer(model_folders(root), SETS, tmp_path / "out")
    before, ran = tree(out), len(evaluations.commands)
    models = model_folders(root)[: change.get("models")]
    with pytest.raises(UserError, match=f"of a call with another {named} "):
        benchmark_transfer(models, change.get("data_sets", SETS), out, change.get("options"))
    assert tree(out) == before and len(evaluations.commands) == ran


def test_a_model_that_was_trained_on_is_another_one(root, evaluations, tmp_path):
    out = benchmark_transfer(model_folders(root), SETS, tmp_path / "out")
    first, second, _ = (folder / "fold_0/checkpoint_final.pth" for folder in model_folders(root))
    (first.parents[1] / "fold_1/checkpoint_final.pth").write_bytes(first.read_bytes())
    with pytest.raises(UserError, match="another models"):
        benchmark_transfer(model_folders(root), SETS, out)


def test_what_was_evaluated_on_other_cases_is_told_before_anything_runs(
    root, evaluations, tmp_path
):
    out = benchmark_transfer(model_folders(root), SETS, tmp_path / "out")
    first = sorted((out / "evaluations").iterdir())[0] / "summary.json"
    summary = json.loads(first.read_text())
    summary["cases"] = [*summary["cases"][1:], "new"]
    first.write_text(json.dumps(summary))
    ran = len(evaluations.commands)
    with pytest.raises(UserError, match="2 of them others: remove that folder"):
        benchmark_transfer(model_folders(root), SETS, out)
    assert len(evaluations.commands) == ran


def test_groups_and_names_may_change_and_change_the_report_alone(root, evaluations, tmp_path):
    out = benchmark_transfer(model_folders(root), SETS, tmp_path / "out")
    assert {r["groups"] for r in read_json(out / "transfer.json")["dice"]} == {None}
    options = Options(groups=[r"p\d+", rf"{B}=p\d+_\d"], map_labels=["nodule=NODULE"])
    benchmark_transfer(model_folders(root), SETS, out, options)
    assert len(evaluations.commands) == 10
    counts = {
        (r["data_set"], r["own"]): r["groups"] for r in read_json(out / "transfer.json")["dice"]
    }
    cases = len(all_cases(root, B)), len(validation_cases(root, B, 0))
    assert counts == {(A, True): 6, (A, False): 6, (B, False): cases[0], (B, True): cases[1]}


def test_a_second_call_at_once_is_refused(root, evaluations, tmp_path):
    out, refused = tmp_path / "out", []

    def call():
        try:
            benchmark_transfer(model_folders(root), SETS, out)
        except UserError as error:
            refused.append(str(error))

    with hold(out, "another call"):
        # the thread that holds it may hold it again
        second = threading.Thread(target=call)
        second.start()
        second.join()
    assert "is in use by another call" in refused[0] and evaluations.commands == []


@pytest.mark.slow
def test_untrained_models_are_evaluated_for_real(root, tmp_path, monkeypatch, capsys):
    ran = []

    def run_command(command, log, *, environment, say, show=""):
        words = [str(word) for word in command]
        ran.append(words)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            assert cli.main([*words[1:], "--disable_progress_bar", "--workers", "1"]) == 0

    monkeypatch.setattr(run, "run_command", run_command)
    out = tmp_path / "out"
    words = ("-f", "0", "--attacks", "none", "--max-cases", "2", "-device", "cpu")
    assert cli.main(call_of(root, out, *words)) == 0
    assert "# Transfer between data sets" in capsys.readouterr().out and len(ran) == 6
    content = read_json(out / "transfer.json")
    assert {r["kind"] for r in content["dice"]} == {"clean"} and len(content["dice"]) == 6
    chosen = content["data_sets"][0]["cases"]
    first, second, other = (m["name"] for m in content["models"])
    assert chosen[first] == chosen[second] and len(chosen[other]) == 2
    assert set(chosen[first]) <= set(validation_cases(root, A, 0))
    # cases of its own OUT folders, and their Dice
    summaries = [read_json(path) for path in sorted(out.glob("evaluations/*/summary.json"))]
    means = sorted(s["results"][0]["dice"] for s in summaries)
    assert sorted(r["dice"] for r in content["dice"]) == pytest.approx(means)
    assert json.loads((out / MARKER).read_text())["evaluation"][:2] == ["--attacks", "none"]
