"""`lngswr robustify` as a whole: once for real, and what it runs, keeps and goes on with."""

import json
import re
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments.robustify import Options, given_model, new_plans, run
from nnunetv2_lngswr.experiments.robustify.run import MARKER, robustify
from nnunetv2_lngswr.experiments.robustify.steps import steps
from nnunetv2_lngswr.method.network import find_lngswr, is_backbone_key
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import CommandError, UserError
from tests.bad_inputs.harness import tree
from tests.experiments.robustify.given import BUDGET, CASES, NAME, make_network, zipped
from tests.pipeline import commands as nnunet

QUICK = ["--attacks", "noise", "fgsm", "--epsilons", "8/255", "--max-cases", "1", "-device", "cpu"]


@pytest.fixture
def in_here(monkeypatch):
    """The commands run in this process; returns what was run."""
    ran = []

    def run_command(command, log, *, environment, say, show=""):
        words = [str(word) for word in command]
        ran.append(words)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            if words[0] == "lngswr":
                assert cli.main([*words[1:], "--disable_progress_bar"]) == 0
            else:
                nnunet.command(*words)

    monkeypatch.setattr(run, "run_command", run_command)
    return ran


def test_a_vanilla_model_becomes_an_ordinary_robust_one(
    project, in_here, tmp_path, monkeypatch, capsys
):
    root, model = project()
    nnunet.use(monkeypatch, root)
    took = "".join(f"Epoch {e}\nEpoch time: 300.0 s\n" for e in range(BUDGET["num_epochs"]))
    (model / "fold_0" / "training_log_2026_1_1_00_00_00.txt").write_text(took)
    before, out = tree(root), tmp_path / "out"
    call = ["robustify", str(model), "-o", str(out), *QUICK]
    assert cli.main(call) == 0
    said = capsys.readouterr().out
    assert "| before" in said
    assert re.search(r"fold 0: the epochs took 0\.\d minutes, 0% of the given model's 100\.0", said)
    check_only_plans_were_added(before, tree(root))
    results = out / "nnUNet_results"
    (robust,) = (results / NAME).iterdir()
    trainer, plans, _ = robust.name.split("__")
    assert f"nnUNet_results={results} nnUNetv2_predict -i IMAGES -o PREDICTIONS -d {NAME}" in said
    assert f"-tr {trainer} -p {plans}" in said
    check_last_phase(robust, model)
    check_comparison(out)
    check_prediction_and_export(robust, root, tmp_path, monkeypatch)
    # nothing of it is done again
    ran = len(in_here)
    assert [words[0] for words in in_here] == ["lngswr", "nnUNetv2_train", "lngswr"]
    assert cli.main(call) == 0 and len(in_here) == ran


def test_a_zip_file_of_a_resenc_model_becomes_a_robust_one_with_lngswr(
    project, in_here, tmp_path, monkeypatch
):
    root, model = project(kind="resenc")
    nnunet.use(monkeypatch, root)
    source, out = zipped(model, tmp_path / "given.zip"), tmp_path / "out"
    shutil.rmtree(model)  # the zip file has all that is needed
    before, given = tree(root), out / "given" / model.name
    packed, trainer = source.read_bytes(), "nnUNetTrainerLNGSWRAT"
    assert cli.main(["robustify", str(source), "-tr", trainer, "-o", str(out), *QUICK]) == 0
    check_only_plans_were_added(before, tree(root))
    assert source.read_bytes() == packed
    (robust,) = (out / "nnUNet_results" / NAME).iterdir()
    assert robust.name.startswith(f"{trainer}__nnUNetPlans_robust_")
    check_last_phase(robust, given)
    gates = gates_of(robust, trainer)
    assert gates.isfinite().all() and gates.any()  # they began at 0, the identity
    check_comparison(out)
    evaluated = [words[words.index("-m") + 1] for words in in_here if words[0] == "lngswr"]
    assert evaluated == [str(given), str(robust)]
    check_prediction_and_export(robust, root, tmp_path, monkeypatch)


def test_a_zip_file_that_the_disk_cannot_hold_is_not_unpacked(project, tmp_path, monkeypatch):
    _, model = project()
    source = zipped(model, tmp_path / "given.zip")
    monkeypatch.setattr(given_model.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match="given.zip unpacks to .* GiB, .* set TMPDIR"):
        robustify(str(source), tmp_path / "out")


def gates_of(model, trainer):
    network = make_network(json.loads((model / "plans.json").read_text()), trainer, seed=9)
    network.load_state_dict(weights(model))
    lngswr = find_lngswr(network)
    assert lngswr is not None
    return torch.cat([p.detach().flatten() for p in lngswr.gate_parameters()])


def check_only_plans_were_added(before, after):
    """Neither the given model nor its data have changed, and nothing was preprocessed again."""
    (added,) = set(after) - set(before)
    assert re.fullmatch(f"nnUNet_preprocessed/{NAME}/nnUNetPlans_robust_[0-9a-f]{{8}}.json", added)
    assert {path: after[path] for path in before} == before


def check_last_phase(robust, model):
    fold = robust / "fold_0"
    logged = load_checkpoint(fold / "checkpoint_final.pth")["logging"]
    # a tenth of 20 epochs in five short ones, all attacked, and the rate as at the start
    assert logged["lrs"] == pytest.approx([0.01 * (1 - epoch / 5) ** 0.9 for epoch in range(5)])
    assert np.isfinite(logged["selection"]).all() and len(logged["selection"]) == 5
    (log,) = fold.glob("training_log_*.txt")
    said = log.read_text()
    assert "Warm start from" in said and "'num_iterations_per_epoch': 1" in str(entry_of(robust))
    trained, given = (weights(folder) for folder in (robust, model))
    more = set(trained) - set(given)
    assert set(given) <= set(trained) and not any(map(is_backbone_key, more))
    assert bool(more) == ("LNGSWR" in robust.name)
    difference = sum((trained[k] - given[k]).square().sum() for k in given) ** 0.5
    size = sum(value.square().sum() for value in given.values()) ** 0.5
    assert 0 < difference < 0.5 * size


def weights(model):
    return load_checkpoint(model / "fold_0" / "checkpoint_final.pth")["network_weights"]


def entry_of(model):
    return json.loads((model / "plans.json").read_text())["configurations"]["2d"]["lngswr"]


def check_comparison(out):
    record = json.loads((out / "comparison" / "compare.json").read_text())
    assert {row["model"] for row in record["results"]} == {"before", "after"}
    folders = [out / "evaluations" / when for when in ("before", "after")]
    cases = [json.loads((f / "summary.json").read_text())["cases"] for f in folders]
    assert cases[0] == cases[1] == [CASES[3]]


def check_prediction_and_export(robust, root, tmp_path, monkeypatch):
    trainer, plans, _ = robust.name.split("__")
    monkeypatch.setenv("nnUNet_results", str(robust.parents[1]))
    named = ("-d", "999", "-c", "2d", "-f", 0, "-tr", trainer, "-p", plans)
    images = ("-i", root / "nnUNet_raw" / NAME / "imagesTr", "-device", "cpu")
    nnunet.command("nnUNetv2_predict", *images, "-o", tmp_path / "predicted", *named)
    nnunet.command("nnUNetv2_export_model_to_zip", "-o", tmp_path / "model.zip", *named)
    installed = tmp_path / "elsewhere"
    installed.mkdir()
    monkeypatch.setenv("nnUNet_results", str(installed))
    nnunet.command("nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip")
    nnunet.command("nnUNetv2_predict", *images, "-o", tmp_path / "again", *named)
    assert len(nnunet.same_files(tmp_path / "predicted", tmp_path / "again", "*.nii.gz")) == 4
    # what nnU-Net exported can be given as it is, and needs no training from elsewhere
    words = ["robustify", str(tmp_path / "model.zip"), "-o", str(tmp_path / "more"), "--dry-run"]
    assert cli.main(words) == 0 and not (tmp_path / "more").exists()


def test_a_dry_run_says_the_commands_and_writes_nothing(project, tmp_path, capsys):
    _, model = project(folds=(0, 1))
    before = tree(tmp_path)
    words = ["robustify", str(model), "-o", str(tmp_path / "out"), "--groups", "p.", "--dry-run"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    commands = [line.split()[1:] for line in said.splitlines() if line.startswith("$ ")]
    assert [words[:2] for words in commands] == [
        ["lngswr", "evaluate"],
        *2 * [["nnUNetv2_train", NAME]],
        ["lngswr", "evaluate"],
        ["lngswr", "compare"],
    ]
    assert [words[3] for words in commands[1:3]] == ["0", "1"]
    assert ["--groups=p." in words for words in commands] == [True, False, False, True, True]
    assert "20 x 3 iterations: 5 x 1 more with nnUNetTrainerAT" in said
    assert tree(tmp_path) == before


def test_a_training_tells_where_it_is(project, tmp_path):
    _, model = project()
    options = Options(device="cpu", skip_evaluation=True, dry_run=True)
    (train,) = steps(robustify(model, tmp_path / "out", options))
    told = ["Epoch 12", "Epoch time: 3.2 s", "Pseudo dice [0.5]", "Mean Validation Dice:  0.7"]
    assert all(re.search(train.show, line) for line in told)
    assert not re.search(train.show, "Current learning rate: 0.00372")


@pytest.mark.parametrize("number", range(4))
def test_a_call_that_was_ended_goes_on(project, noted, tmp_path, number):
    _, model = project(folds=(0, 1))
    noted.fails = number
    with pytest.raises(CommandError):
        robustify(model, tmp_path / "out", Options(device="cpu"))
    begun, noted.fails = list(noted.commands), -1
    noted.commands.clear()
    robustify(model, tmp_path / "out", Options(device="cpu"))
    names = ["lngswr", "nnUNetv2_train", "nnUNetv2_train", "lngswr"]
    assert [words[0] for words in begun] == names[: number + 1]
    assert [words[0] for words in noted.commands] == names[number:]
    again = begun[-1] + (["--c"] if names[number] == "nnUNetv2_train" else [])
    assert noted.commands[0] == again


def test_evaluations_can_be_left_out_and_come_later(project, noted, tmp_path):
    _, model = project()
    out = tmp_path / "out"
    robustify(model, out, Options(device="cpu", skip_evaluation=True))
    assert [words[0] for words in noted.commands] == ["nnUNetv2_train"]
    noted.commands.clear()
    robustify(model, out, Options(device="cpu", attacks=("pgd_linf",)))
    assert [words[:2] for words in noted.commands] == [["lngswr", "evaluate"]] * 2
    noted.commands.clear()
    # what was evaluated is kept in mind where a later call leaves it out
    robustify(model, out, Options(device="cpu", skip_evaluation=True))
    with pytest.raises(UserError, match="with another evaluation"):
        robustify(model, out, Options(device="cpu", attacks=("fgsm",)))
    assert not noted.commands


def test_a_model_of_all_cases_is_evaluated_on_images_of_others(
    project, noted, tmp_path, monkeypatch
):
    root, model = project()
    (model / "fold_0").rename(model / "fold_all")
    with pytest.raises(UserError, match=r"fold_all .* \(-i, -l\)"):
        robustify(model, tmp_path / "out", Options(device="cpu"))
    monkeypatch.delenv("nnUNet_raw")
    places = {n: root / "nnUNet_raw" / NAME / f"{n}Tr" for n in ("images", "labels")}
    robustify(model, tmp_path / "out", Options(device="cpu", **places))
    before, train, after = noted.commands
    assert train[3] == "all" and (tmp_path / "out/start/fold_all.pth").is_file()
    for words in (before, after):
        assert words[words.index("-f") + 1] == "all"
        assert words[words.index("-i") + 1] == str(places["images"])
        assert words[words.index("-l") + 1] == str(places["labels"])


def test_a_folder_of_another_call_is_refused(project, noted, tmp_path):
    _, model = project()
    out = tmp_path / "out"
    robustify(model, out, Options(device="cpu"))
    before = tree(tmp_path)
    for changed, said in [
        ({"share": 0.25}, "another share, plans_name, settings"),
        ({"trainer": "nnUNetTrainerLNGSWRAT"}, "another trainer"),
        ({"settings": {"seed": 3}}, "another plans_name, settings"),
        ({"max_cases": 3}, "another evaluation"),
    ]:
        with pytest.raises(UserError, match=said):
            robustify(model, out, Options(device="cpu", **changed))
    shutil.copytree(model / "fold_0", model / "fold_1")
    (model / "fold_1" / "validation" / "summary.json").unlink()
    with pytest.raises(UserError, match=r"is of fold 0 .*, asked for was 0 1: .*\(-f\)"):
        robustify(model, out, Options(device="cpu"))
    shutil.rmtree(model / "fold_1")
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    checkpoint["network_weights"]["decoder.seg_layers.0.bias"] += 1
    torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UserError, match="another checkpoint_sha256"):
        robustify(model, out, Options(device="cpu"))
    changed = {path for path, content in tree(tmp_path).items() if before[path] != content}
    assert changed == {str((model / "fold_0/checkpoint_final.pth").relative_to(tmp_path))}


def test_what_an_earlier_version_began_goes_on(project, noted, tmp_path, monkeypatch):
    """It left the robust curve of short epochs as long as that of others."""
    _, model = project()
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(new_plans, "short_curve", lambda *_: {})
        robustify(model, out, Options(device="cpu", skip_evaluation=True))
    ran, before = len(noted.commands), (out / MARKER).read_text()
    robustify(model, out, Options(device="cpu", skip_evaluation=True))
    assert len(noted.commands) == ran and (out / MARKER).read_text() == before
    asked = Options(settings={"adversarial": {"val_batches": 1}}, skip_evaluation=True)
    with pytest.raises(UserError, match="another plans_name, settings"):
        robustify(model, out, asked)


def test_a_record_that_lacks_something_is_named(project, noted, tmp_path):
    _, model = project()
    out = tmp_path / "out"
    robustify(model, out, Options(device="cpu"))
    record = json.loads((out / "robustify.json").read_text())
    del record["evaluation"]
    (out / "robustify.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="robustify.json lacks evaluation"):
        robustify(model, out, Options(device="cpu"))


def test_a_zip_file_is_installed_into_out(project, noted, tmp_path):
    _, model = project()
    source, out = zipped(model, tmp_path / "model.zip"), tmp_path / "out"
    noted.fails = 0
    with pytest.raises(CommandError):
        robustify(source, out, Options(device="cpu"))
    noted.fails = -1
    robustify(source, out, Options(device="cpu"))
    installed = out / "given" / model.name
    evaluated = noted.commands[0]
    assert evaluated[evaluated.index("-m") + 1] == str(installed)
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth", "fold_0/debug.json"):
        assert (installed / name).read_bytes() == (model / name).read_bytes()
    assert json.loads((out / MARKER).read_text())["model"] == str(source)


def test_of_several_models_in_a_zip_file_one_is_chosen(project, noted, tmp_path, capsys):
    root, model = project()
    source = zipped(model, tmp_path / "model.zip")
    with zipfile.ZipFile(source, "a") as archive:
        for name in ("plans.json", "dataset.json"):
            archive.writestr(f"{NAME}/nnUNetTrainer__nnUNetPlans__3d_fullres/{name}", "{}")
    call = ["robustify", str(source), "-o", str(tmp_path / "out"), "--dry-run"]
    assert cli.main(call) == 2
    assert "__2d, nnUNetTrainer__nnUNetPlans__3d_fullres: choose" in capsys.readouterr().err
    assert cli.main([*call, "-c", "2d"]) == 0


def test_files_of_a_zip_file_stay_where_they_belong(project, noted, tmp_path):
    _, model = project()
    source, out = zipped(model, tmp_path / "model.zip"), tmp_path / "out"
    with zipfile.ZipFile(source, "a") as archive:
        for name in ("../../evil.pth", "../evil.json", "fold_0/../../../evil.pth", "fold_0/x.py"):
            archive.writestr(f"{NAME}/{model.name}/{name}", "evil")
    before = set(tmp_path.iterdir())
    robustify(source, out, Options(device="cpu"))
    assert set(tmp_path.iterdir()) - before == {out}
    names = {p.name for p in (out / "given").rglob("*") if p.is_file()}
    files = {p.name for p in model.rglob("*") if p.is_file()}
    assert names == files and not list(tmp_path.rglob("evil*"))
