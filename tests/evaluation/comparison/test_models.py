"""Which folders are compared: the same images and labels, told by their hash."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from evaluation import compare
from evaluation.comparison.models import read_models
from evaluation.report.cases_table import read_cases, write_cases
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.comparison.results import CASES, write_result
from tests.evaluation.tiny import run
from tests.model_folders import make_case, make_model_folder

INPUTS = {case: f"sha of {case}" for case in CASES}
OTHERS = INPUTS | {"case1": "moved", "case4": "moved"}


def test_cases_of_other_images_or_labels_are_not_paired_by_their_name(tmp_path, capsys):
    a = write_result(tmp_path / "a", inputs=INPUTS)
    b = write_result(tmp_path / "b", trainer="B", inputs=OTHERS)
    assert compare.main([str(a), str(b), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "image or label of case1, case4 are other files under the same name" in said
    assert said.count("\n") == 1 and not (tmp_path / "out").exists()
    # nor do seeds of one model go together
    seeds = [a, write_result(tmp_path / "c", inputs=OTHERS)]
    with pytest.raises(UserError, match="case1, case4 are other files"):
        read_models([seeds, seeds])


@pytest.mark.parametrize(
    ("surrogates", "noted"),
    [(["x", "x"], False), (["x", "y"], True), (["x", None], False)],
)
def test_transfer_from_other_surrogates_is_noted(tmp_path, surrogates, noted):
    folders = []
    for name, surrogate in zip("ab", surrogates):
        folder = write_result(tmp_path / name, trainer=name.upper(), inputs=INPUTS)
        path = folder / "summary.json"
        summary = json.loads(path.read_text())
        summary["surrogate"] = surrogate and {"0": surrogate}
        path.write_text(json.dumps(summary))
        folders.append(folder)
    _, notes = read_models(folders)
    assert any("not of the same surrogate in A, B" in note for note in notes) == noted


def test_labels_that_were_moved_are_found_in_an_evaluation(world, tmp_path):
    folder, images, labels = world
    moved = shutil.copytree(labels, tmp_path / "labels")
    for path in moved.iterdir():
        label = sitk.ReadImage(str(path))
        array = np.roll(sitk.GetArrayFromImage(label), 1, 0)  # as many voxels as before
        image = sitk.GetImageFromArray(array)
        image.CopyInformation(label)
        sitk.WriteImage(image, str(path))
    short = {"attacks": ["noise"], "epsilons": ["4/255"], "steps": None, "max_cases": 1}
    a, b = tmp_path / "a", tmp_path / "b"
    for out, of in ((a, labels), (b, moved)):
        run((folder, images, of), out, corruptions=["none"], **short)
    assert read_models([a, a])[1] == []
    with pytest.raises(UserError, match="other files under the same name"):
        read_models([a, b])


def test_a_corruption_that_one_fold_lacks_is_left_out_and_named(tmp_path):
    def folder(trainer, fold, keep=lambda row: True):
        cases, out = CASES[3 * fold : 3 * fold + 3], tmp_path / f"{trainer}{fold}"
        return write_result(out, trainer=trainer, cases=cases, model={"folds": [fold]}, keep=keep)

    def without(row):
        return row["kind"] != "shift"

    whole = [folder("A", 0), folder("A", 1)]
    models, notes = read_models([whole, [folder("B", 0), folder("B", 1, without)]])
    kinds = [{r["kind"] for r in m.rows} for m in models]
    assert "shift" in kinds[0] and "shift" not in kinds[1]
    corruptions = {r["attack"] for r in models[0].rows if r["kind"] == "shift"}
    assert [n.rsplit(": ")[-1].split(", ") for n in notes if "corruptions" in n] == [
        sorted(corruptions),
        sorted(corruptions),
    ]
    rows = compare.compare([whole, [tmp_path / "B0", tmp_path / "B1"]], tmp_path / "out")
    assert not [r for r in rows if "shift" in r["kind"]]


def test_folders_of_one_model_are_of_one_trainer_and_what_else_differs_is_said(tmp_path):
    seed = {"training_seed": 1, "plans": "Other"}
    a = write_result(tmp_path / "a", model={"training_seed": 0})
    other = write_result(tmp_path / "b", model=seed | {"mirror_axes": None, "tile_step_size": 1.0})
    (model,), notes = read_models([[a, other]])
    assert any(note.startswith("tile_step_size differs between folders") for note in notes)
    assert len(model.replicates) == 2
    for of, said in (
        ({"trainer": "B"}, "trainer: was A"),
        ({"model": {"configuration": "3d_fullres"}}, "configuration: was"),
    ):
        with pytest.raises(UserError, match=f"not folds or seeds of one model: {said}"):
            read_models([[a, write_result(tmp_path / "c", **of)]])


def test_folders_without_hashes_are_compared_with_a_note(tmp_path):
    known = write_result(tmp_path / "known", trainer="K", inputs=INPUTS)
    same = write_result(tmp_path / "same", trainer="S", inputs=INPUTS)
    old = write_result(tmp_path / "old", trainer="O")
    cascade = write_result(
        tmp_path / "cascade", trainer="C", inputs=OTHERS, model={"cascade": True}
    )
    assert read_models([known, same])[1] == []
    (note,) = read_models([known, old, cascade])[1]
    assert note.startswith("cases of O, C are paired by name and by the sizes of their labels")
    compare.compare([known, old], tmp_path / "out")
    assert "cases of O are paired by name" in (tmp_path / "out" / "compare.md").read_text()


def cascade(folder, trainer, stage="s", changed=()):
    inputs = {
        case: {
            "image_and_label_sha256": "other" if case in changed else case,
            "previous_stage_sha256": stage,
        }
        for case in CASES
    }
    return write_result(folder, trainer=trainer, inputs=inputs, model={"cascade": True})


def test_cascades_are_paired_by_image_and_label_and_other_previous_stages_are_noted(tmp_path):
    a, same = cascade(tmp_path / "a", "A"), cascade(tmp_path / "same", "S")
    assert read_models([a, same])[1] == []
    (note,) = read_models([a, same, cascade(tmp_path / "b", "B", stage="t")])[1]
    assert note == (
        "the previous stage's segmentations, which cascades are given, are other files for A and B "
        "(case0, case1, case2, case3, case4 and 1 more): the difference is one of both stages"
    )
    with pytest.raises(UserError, match="image or label of case2 are other files"):
        read_models([a, cascade(tmp_path / "c", "C", changed=["case2"])])


def test_an_evaluation_of_a_cascade_keeps_what_pairs_its_cases(tmp_path):
    folder = make_model_folder(tmp_path, dimension=3, previous_stage="3d_lowres")
    images, stages = tmp_path / "images", tmp_path / "stages"
    _, label = make_case(images, shape=(10, 18, 17))
    short = {"attacks": ["noise"], "epsilons": ["4/255"], "steps": None, "corruptions": ["none"]}
    shutil.copytree(label.parent, stages)
    a, b = tmp_path / "a", tmp_path / "b"
    run((folder, images, label.parent), a, previous_stage=label.parent, **short)
    stage = sitk.ReadImage(str(stages / label.name))
    sitk.WriteImage(stage * 0, str(stages / label.name))
    run((folder, images, label.parent), b, previous_stage=stages, **short)
    (note,) = read_models([a, b])[1]
    assert note.startswith("the previous stage's segmentations") and "case0" in note
    assert read_models([a, a])[1] == []


def change_rows(folder, change, **where):
    rows = read_cases(folder / "cases.csv")
    rows = [{**r, **change} if where.items() <= r.items() else r for r in rows]
    write_cases(folder / "cases.csv", rows)


@pytest.mark.parametrize(
    "where, change, message",
    [
        (
            {"case": "case2", "label": "1"},
            {"reference_voxels": 4},
            "label 1 of case2 has 3 voxels in one and 4 in the other",
        ),
        ({"label": "1"}, {"label": "3"}, "not comparable: labels: "),
        ({"label": "1"}, {"label_name": "name 2"}, "not comparable: labels: "),
    ],
    ids=("size", "value", "name"),
)
def test_other_labels_of_the_same_cases_are_refused(where, change, message, tmp_path):
    a, b = write_result(tmp_path / "a"), write_result(tmp_path / "b", trainer="B")
    change_rows(b, change, **where)
    with pytest.raises(UserError, match=message):
        read_models([a, b])


def test_a_table_without_its_worst_rows_is_given_them(tmp_path):
    a, b = write_result(tmp_path / "a"), write_result(tmp_path / "b", trainer="B")
    rows = [r for r in read_cases(b / "cases.csv") if r["kind"] != "worst"]
    write_cases(b / "cases.csv", rows)
    summary = json.loads((b / "summary.json").read_text())
    summary["results"] = [r for r in summary["results"] if r["kind"] != "worst"]
    (b / "summary.json").write_text(json.dumps(summary))
    models, _ = read_models([a, b])
    worst = [[r["dice"] for r in m.rows if r["kind"] == "worst"] for m in models]
    assert worst[0] == worst[1] != []


def test_names_and_seeds_and_folders_that_are_none_are_refused(tmp_path, capsys):
    a, b = (write_result(tmp_path / name) for name in "ab")
    for names in (["x", "x"], ["x"], ["x", "y", "z"]):
        with pytest.raises(UserError, match="names must be one for each of the 2 models"):
            compare.compare([a, b], tmp_path / "out", names=names)
    with pytest.raises(UserError, match="every model needs at least one folder"):
        compare.compare([a, []], tmp_path / "out")
    for seed in (-1, 1.5, True, None, "0"):
        with pytest.raises(UserError, match="seed must be an integer >= 0"):
            compare.compare([a, b], tmp_path / "out", seed=seed)
    for words, said in (
        ([str(a), str(b), "--seed", "-1"], "seed must be an integer >= 0, got -1"),
        ([str(a), f"{b},"], "folders are joined by single commas, got"),
        ([str(a), f"{b},{tmp_path / 'c'}"], "c does not exist"),
    ):
        assert compare.main([*words, "-o", str(tmp_path / "out")]) == 2
        found = capsys.readouterr().err
        assert said in found and found.count("\n") == 1
    assert not (tmp_path / "out").exists()
