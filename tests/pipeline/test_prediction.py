"""The ways to predict with a model folder agree, and each option does what it says."""

import shutil

import numpy as np
import pytest
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from tests.pipeline import commands
from tests.pipeline.commands import command, model_folder, predict, read_label, same_files

CASES = [f"case{i}" for i in range(5)]


def predictor(folder, folds, *, checkpoint="checkpoint_final.pth", **options) -> nnUNetPredictor:
    made = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False, **options
    )
    made.initialize_from_trained_model_folder(str(folder), folds, checkpoint)
    return made


def images(root):
    return root / "nnUNet_raw" / "Dataset999_Tiny" / "imagesTr"


def probabilities(folder, case):
    return np.load(folder / f"{case}.npz")["probabilities"].astype(np.float32)


@pytest.fixture(scope="module")
def reference(crossvalidated, tmp_path_factory):
    """`nnUNetv2_predict -f 0 1 --save_probabilities`, which the other ways are compared with."""
    with pytest.MonkeyPatch.context() as patch:
        commands.use(patch, crossvalidated)
        return predict(
            crossvalidated, tmp_path_factory.mktemp("reference"), "-f", 0, 1, "--save_probabilities"
        )


def test_folds_are_averaged_before_the_softmax(trained, reference, tmp_path):
    single = [
        predict(trained, tmp_path / str(fold), "-f", fold, "--save_probabilities")
        for fold in (0, 1)
    ]
    for case in CASES:
        p, q = (probabilities(folder, case) for folder in single)
        assert not np.allclose(p, q, atol=0.01)
        joint = np.sqrt(p * q)
        assert np.allclose(probabilities(reference, case), joint / joint.sum(0), atol=0.01)
        assert np.array_equal(
            read_label(reference / f"{case}.nii.gz"), probabilities(reference, case).argmax(0)
        )


def test_labels_of_the_data_set_are_predicted(reference):
    assert set(np.unique([read_label(reference / f"{case}.nii.gz") for case in CASES])) == {0, 1}


def test_fold_all(trained, tmp_path):
    model = model_folder(trained, "2d")
    shutil.copytree(model, tmp_path / "nnUNet_results" / model.parent.name / model.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(tmp_path / "nnUNet_results"))
        commands.train("999", "2d", "all")
        found = predict(trained, tmp_path / "all", "-f", "all", "--save_probabilities")
        model = model_folder(tmp_path, "2d")
        assert sorted(p.name for p in (model / "fold_all" / "validation").glob("*.nii.gz")) == [
            f"{c}.nii.gz" for c in CASES
        ]
        ours = predictor(model, ("all",)).predict_from_files(
            str(images(trained)), None, save_probabilities=True
        )
    for case, (segmentation, p) in zip(CASES, ours):
        assert np.array_equal(read_label(found / f"{case}.nii.gz"), segmentation)
        assert np.allclose(probabilities(found, case), p, atol=1e-3)


def test_model_folder_command_writes_the_same_bytes(trained, reference, tmp_path):
    model = ("-m", model_folder(trained, "2d"), "-f", 0, 1, "-device", "cpu")
    places = ("-i", images(trained), "-o", tmp_path)
    command("nnUNetv2_predict_from_modelfolder", *places, *model, "--save_probabilities")
    assert len(same_files(tmp_path, reference, "*.nii.gz")) == 5
    for case in CASES:
        assert np.array_equal(probabilities(tmp_path, case), probabilities(reference, case))


def test_without_worker_processes_the_same_bytes(trained, reference, tmp_path):
    assert (
        len(
            same_files(
                predict(trained, tmp_path, "-f", 0, 1, "-npp", 0, "-nps", 0), reference, "*.nii.gz"
            )
        )
        == 5
    )


def test_parts_add_up_to_the_whole(trained, reference, tmp_path):
    predict(trained, tmp_path, "-f", 0, 1, "-num_parts", 2, "-part_id", 0)
    assert sorted(p.name for p in tmp_path.glob("*.nii.gz")) == [
        "case0.nii.gz",
        "case2.nii.gz",
        "case4.nii.gz",
    ]
    predict(trained, tmp_path, "-f", 0, 1, "-num_parts", 2, "-part_id", 1)
    assert len(same_files(tmp_path, reference, "*.nii.gz")) == 5


def test_an_aborted_prediction_continues(trained, reference, tmp_path):
    for case in CASES[:2]:
        (tmp_path / f"{case}.nii.gz").write_bytes(b"done before")
    predict(trained, tmp_path, "-f", 0, 1, "--continue_prediction")
    assert [(tmp_path / f"{case}.nii.gz").read_bytes() == b"done before" for case in CASES] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert (tmp_path / "case4.nii.gz").read_bytes() == (reference / "case4.nii.gz").read_bytes()


@pytest.mark.parametrize(
    "options, settings",
    [
        pytest.param([], {}, id="default"),
        pytest.param(["-step_size", 1], {"tile_step_size": 1.0}, id="-step_size 1"),
        pytest.param(["--disable_tta"], {"use_mirroring": False}, id="--disable_tta"),
        pytest.param(
            ["-chk", "checkpoint_best.pth"], {"checkpoint": "checkpoint_best.pth"}, id="-chk"
        ),
    ],
)
def test_command_and_python_agree_on_files_and_arrays(
    trained, reference, tmp_path, options, settings
):
    command_made = predict(
        trained, tmp_path / "command", "-f", 0, 1, "--save_probabilities", *options
    )
    ours = predictor(model_folder(trained, "2d"), (0, 1), **settings)
    read = [
        SimpleITKIO().read_images([str(images(trained) / f"{case}_0000.nii.gz")]) for case in CASES
    ]
    arrays, properties = map(list, zip(*read))
    from_arrays = ours.predict_from_list_of_npy_arrays(arrays, None, properties, None, 1, True)
    single = ours.predict_single_npy_array(*read[3], None, None, True)
    for case, (segmentation, p) in zip(CASES, from_arrays):
        assert np.array_equal(read_label(command_made / f"{case}.nii.gz"), segmentation)
        assert np.allclose(probabilities(command_made, case), p, atol=1e-3)
    assert np.array_equal(single[0], from_arrays[3][0]) and np.array_equal(
        single[1], from_arrays[3][1]
    )
    difference = max(
        np.abs(probabilities(command_made, c) - probabilities(reference, c)).max() for c in CASES
    )
    # one epoch: the best checkpoint is the final one
    assert difference == 0 if not options or options[0] == "-chk" else difference > 1e-3


def test_an_image_without_its_label_and_of_another_size_comes_out_in_its_own_geometry(
    trained, tmp_path
):
    image, _ = commands.ball((9, 37, 26), seed=7)
    commands.write_image(tmp_path / "in" / "new_0000.nii.gz", image, spacing=(1.5, 0.7, 1.2))
    model = ("-d", "999", "-c", "3d_fullres", "-tr", commands.TRAINER, "-f", 0, "-device", "cpu")
    command("nnUNetv2_predict", "-i", tmp_path / "in", "-o", tmp_path / "out", *model)
    read = SimpleITKIO().read_images([str(tmp_path / "out" / "new.nii.gz")])
    assert read[0].shape == (1, 9, 37, 26) and np.allclose(read[1]["spacing"], (1.5, 0.7, 1.2))


@pytest.mark.slow
def test_the_commands_in_processes_of_their_own_with_real_workers(trained, reference, tmp_path):
    """What threads in place of workers cannot show: all that a worker is given can be pickled."""
    places = ("-i", images(trained), "-o", tmp_path)
    model = ("-d", "999", "-c", "2d", "-tr", commands.TRAINER, "-f", 0, 1, "-device", "cpu")
    commands.subprocess_command(
        trained, "nnUNetv2_predict", *places, *model, environment={"nnUNet_def_n_proc": "2"}
    )
    assert len(same_files(tmp_path, reference, "*.nii.gz")) == 5
