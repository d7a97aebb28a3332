"""One fold is in memory at a time; what is run follows from the model."""

import gc
import json
import shutil
import weakref

import pytest

from evaluation import robust, session
from evaluation.model import folder as model_folder
from evaluation.options import Options
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.tiny import FAST
from tests.model_folders import make_case, make_model_folder


@pytest.fixture
def validating(tmp_path, monkeypatch, state_dicts):
    """A model folder of three folds with a validation case each."""
    folder = make_model_folder(tmp_path, folds=(0, 1, 2), state_dicts=[state_dicts[2]] * 3)
    raw, preprocessed = (tmp_path / n / "Dataset999_Tiny" for n in ("raw", "pre"))
    for fold in range(3):
        _, label = make_case(raw / "imagesTr", shape=(20, 24), seed=fold)
    label.parent.rename(raw / "labelsTr")
    preprocessed.mkdir(parents=True)
    splits = [{"train": [], "val": [f"case{fold}"]} for fold in range(3)]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    for name, place in (("nnUNet_raw", raw), ("nnUNet_preprocessed", preprocessed)):
        monkeypatch.setenv(name, str(place.parent))
    return folder


def test_validation_cases_are_those_that_each_fold_had_when_it_was_trained(validating, tmp_path):
    options = {**FAST, "corruptions": [], "attacks": ["noise"], "epsilons": ["4/255"]}
    for fold in range(3):  # as nnU-Net leaves it; more than is looked at now is no harm
        place = validating / f"fold_{fold}" / "validation"
        place.mkdir(exist_ok=True)
        cases = [{"reference_file": f"C:\\raw\\labelsTr\\case{n}.nii.gz"} for n in (fold, 7)]
        (place / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    assert robust.evaluate(validating, tmp_path / "out", **options).finished
    summary = validating / "fold_2" / "validation" / "summary.json"
    summary.write_text(summary.read_text().replace("case2", "case0"))
    with pytest.raises(UserError, match="in fold 2 .*which may have seen case2: put the splits"):
        robust.evaluate(validating, tmp_path / "no", **options)
    assert not (tmp_path / "no").exists()
    assert robust.evaluate(validating, tmp_path / "one", folds=[1], **options).finished


@pytest.mark.parametrize("surrogate", [False, True])
def test_the_last_fold_is_freed_before_the_next_is_loaded(
    surrogate, validating, tmp_path, monkeypatch
):
    living, at_load, load = weakref.WeakSet(), [], model_folder.load_folds

    def load_and_count(*others, **more):
        at_load.append(len(living))
        loaded = load(*others, **more)
        living.update(loaded.networks)
        return loaded

    monkeypatch.setattr(model_folder, "load_folds", load_and_count)
    options = {**FAST, "corruptions": [], "attacks": ["fgsm"], "epsilons": ["4/255"]}
    if surrogate:
        options["surrogate"] = str(validating)
    gc.collect()
    gc.disable()  # nobody shall wait for it to happen by itself
    try:
        assert robust.evaluate(validating, tmp_path / "out", **options).finished
    finally:
        gc.enable()
    assert at_load == ([0, 1] * 3 if surrogate else [0] * 3)


def test_an_mr_model_gets_mrs_corruptions_and_out_says_which(world, tmp_path):
    folder = tmp_path / "model" / world[0].name
    shutil.copytree(world[0], folder)
    description = json.loads((folder / "dataset.json").read_text())
    inputs = session.Inputs(model_folder=folder, images=world[1], labels=world[2])
    options = Options(attacks=["noise"], device="cpu")

    def prepared(name):
        text = json.dumps({**description, "channel_names": {"0": name}})
        (folder / "dataset.json").write_text(text)
        return session.prepare(inputs, options)

    plain, of_mr = prepared("CT"), prepared("T1w")
    added = {r.name for r in of_mr.planned.runs} - {r.name for r in plain.planned.runs}
    assert {"gibbs_ringing", "kspace_spike"} <= added == set(of_mr.settings["mr_corruptions"])
    # what was begun without them, or without torchio, is not gone on with
    assert "mr_corruptions" not in plain.settings
    same = {**of_mr.settings}
    del same["mr_corruptions"]
    assert same == plain.settings
