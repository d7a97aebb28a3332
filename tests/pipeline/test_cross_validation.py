"""Five folds, the best configuration, ensembling and postprocessing, by nnU-Net's commands."""

import json
import pickle

import numpy as np
import pytest

from tests.pipeline import commands
from tests.pipeline.commands import TRAINER, command, model_folder, predict, read_label, same_files

CONFIGURATIONS = ("2d", "3d_fullres")
CASES = [f"case{i}" for i in range(5)]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def labels(root):
    return root / "nnUNet_raw" / "Dataset999_Tiny" / "labelsTr"


@pytest.fixture(scope="module")
def best(crossvalidated):
    """What nnUNetv2_find_best_configuration writes."""
    with pytest.MonkeyPatch.context() as patch:
        commands.use(patch, crossvalidated)
        command(
            "nnUNetv2_find_best_configuration",
            "999",
            "-c",
            *CONFIGURATIONS,
            "-tr",
            TRAINER,
            "-np",
            2,
        )
    return crossvalidated / "nnUNet_results" / "Dataset999_Tiny"


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_case_is_validated_once_over_the_five_folds(trained, configuration):
    model = model_folder(trained, configuration)
    found = sorted(
        p.name
        for fold in range(5)
        for p in (model / f"fold_{fold}" / "validation").glob("*.nii.gz")
    )
    assert found == [f"{case}.nii.gz" for case in CASES]
    probabilities = [np.load(p)["probabilities"] for p in model.glob("fold_[0-4]/validation/*.npz")]
    assert len(probabilities) == 5
    for p in probabilities:
        assert p.shape == (2, *commands.SHAPE) and np.allclose(p.sum(0), 1, atol=1e-3)


def test_accumulated_results_are_those_of_the_folds(trained, tmp_path):
    command(
        "nnUNetv2_accumulate_crossval_results",
        "999",
        "-c",
        "2d",
        "-tr",
        TRAINER,
        "-o",
        tmp_path / "all",
    )
    summary = json.loads((tmp_path / "all" / "summary.json").read_text())
    found = {}
    for fold in range(5):
        for file in (model_folder(trained, "2d") / f"fold_{fold}" / "validation").glob("*.nii.gz"):
            assert (tmp_path / "all" / file.name).read_bytes() == file.read_bytes()
            found[file.name] = dice(
                read_label(file) == 1, read_label(labels(trained) / file.name) == 1
            )
    assert len(found) == len(summary["metric_per_case"]) == 5
    assert np.isclose(summary["foreground_mean"]["Dice"], np.mean(list(found.values())))


def test_best_configuration_is_chosen_among_both_and_their_ensemble(best):
    information = json.loads((best / "inference_information.json").read_text())
    results = information["all_results"]
    ensemble = (
        f"ensemble___{TRAINER}__nnUNetPlans__2d___{TRAINER}__nnUNetPlans__3d_fullres___0_1_2_3_4"
    )
    assert set(results) == {f"{TRAINER}__nnUNetPlans__{c}" for c in CONFIGURATIONS} | {ensemble}
    assert (
        information["best_model_or_ensemble"]["result_on_crossval_pre_pp"]
        == max(results.values())
        > 0
    )
    assert {
        m["trainer"] for m in information["best_model_or_ensemble"]["selected_model_or_models"]
    } == {TRAINER}
    for case in CASES:
        models = [best / f"{TRAINER}__nnUNetPlans__{c}" for c in CONFIGURATIONS]
        files = [next(model.glob(f"fold_*/validation/{case}.npz")) for model in models]
        p, q = (np.load(file)["probabilities"] for file in files)
        mean = (p.astype(np.float32) + q) / 2
        assert np.array_equal(
            read_label(best / "ensembles" / ensemble / f"{case}.nii.gz"), mean.argmax(0)
        )


def test_the_printed_inference_instructions_run(best, trained, tmp_path):
    """Five folds per model, ensembled if that is best, and the postprocessing determined."""
    images = trained / "nnUNet_raw" / "Dataset999_Tiny" / "imagesTr"
    lines = commands.run_instructions(best, images, tmp_path)
    assert lines[-1].startswith("nnUNetv2_apply_postprocessing")
    functions, settings = pickle.loads(next(best.rglob("postprocessing.pkl")).read_bytes())
    for case in CASES:
        expected = read_label(tmp_path / "OUTPUT_FOLDER" / f"{case}.nii.gz")
        for function, kwargs in zip(functions, settings):
            expected = function(expected, **kwargs)
        assert np.array_equal(
            read_label(tmp_path / "OUTPUT_FOLDER_PP" / f"{case}.nii.gz"), expected
        )


def test_ensemble_is_the_mean_of_the_probabilities(trained, tmp_path):
    members = [
        predict(trained, tmp_path / c, "-f", 0, "--save_probabilities", configuration=c)
        for c in CONFIGURATIONS
    ]
    command(
        "nnUNetv2_ensemble", "-i", *members, "-o", tmp_path / "ensemble", "-np", 2, "--save_npz"
    )
    for case in CASES:
        p, q, found = (
            np.load(f / f"{case}.npz")["probabilities"].astype(np.float32)
            for f in (*members, tmp_path / "ensemble")
        )
        assert not np.allclose(p, q, atol=1e-2)
        assert np.allclose(found, (p + q) / 2, atol=1e-3)
        assert np.array_equal(
            read_label(tmp_path / "ensemble" / f"{case}.nii.gz"), ((p + q) / 2).argmax(0)
        )


def test_postprocessing_removes_what_it_was_determined_to_remove(trained, tmp_path):
    """Determined where it must help: the truth with a second component, as a prediction."""
    folder = predict(trained, tmp_path / "prediction", "-f", 0)
    for case in CASES:
        spoilt = read_label(labels(trained) / f"{case}.nii.gz")
        spoilt[0, 0, :3] = 1
        commands.write_image(folder / f"{case}.nii.gz", spoilt)
    command("nnUNetv2_determine_postprocessing", "-i", folder, "-ref", labels(trained), "-np", 2)
    command(
        "nnUNetv2_apply_postprocessing",
        "-i",
        folder,
        "-o",
        tmp_path / "out",
        "-pp_pkl_file",
        folder / "postprocessing.pkl",
        "-np",
        2,
    )
    for case in CASES:
        assert np.array_equal(
            read_label(tmp_path / "out" / f"{case}.nii.gz"),
            read_label(labels(trained) / f"{case}.nii.gz"),
        )


def test_validation_files_are_complete(trained):
    for fold in range(5):
        names = {
            p.suffix
            for p in (model_folder(trained, "2d") / f"fold_{fold}" / "validation").iterdir()
        }
        assert names == {".gz", ".npz", ".pkl", ".json"}
    assert same_files(
        labels(trained),
        trained / "nnUNet_preprocessed" / "Dataset999_Tiny" / "gt_segmentations",
        "*.nii.gz",
    )
