"""The phantom sets: seeded, in nnU-Net's format, patients apart, nothing foreign overwritten."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lngswr.datasets import phantom
from nnunetv2_lngswr.datasets.phantom import (
    PHANTOM_SETS,
    lung_patient,
    thyroid_patient,
    write_phantom,
)

KINDS = sorted(PHANTOM_SETS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    for kind in KINDS:
        write_phantom(kind, folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes(raw, tmp_path, kind):
    again = write_phantom(kind, tmp_path)
    assert contents(again) == contents(raw / again.name)
    other = write_phantom(kind, tmp_path / "other", seed=1)
    images = {n: h for n, h in contents(other).items() if n.startswith("images")}
    assert not set(images.values()) & set(contents(again).values())


@pytest.mark.parametrize("kind", KINDS)
def test_nnunet_takes_the_folder(raw, kind):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(raw / PHANTOM_SETS[kind].dataset_name), num_processes=1)


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_has_a_label_with_a_nodule(raw, kind):
    folder, ending = raw / PHANTOM_SETS[kind].dataset_name, PHANTOM_SETS[kind].file_ending
    for part in ("Tr", "Ts"):
        images = sorted(p.name for p in (folder / f"images{part}").iterdir())
        labels = sorted(p.name for p in (folder / f"labels{part}").iterdir())
        assert images == [n.removesuffix(ending) + "_0000" + ending for n in labels] and labels
        for image, label in zip(images, labels):
            pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"images{part}" / image)))
            mask = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"labels{part}" / label)))
            assert pixels.shape == mask.shape and pixels.ndim == int(kind[0])
            assert set(np.unique(mask)) == {0, 1}
            assert 0.001 < mask.mean() < 0.35


def test_lung_is_in_hounsfield_units_with_its_spacing(raw):
    image = sitk.ReadImage(str(next((raw / "Dataset902_PhantomLungNodule" / "imagesTr").iterdir())))
    assert image.GetSpacing() == (1.0, 1.0, 1.25) and image.GetSize() == (48, 48, 40)
    assert image.GetPixelID() == sitk.sitkInt16
    cases = [case for patient in range(6) for case in lung_patient(0, patient)]
    parenchyma = np.median([np.percentile(case.image[case.label == 0], 30) for case in cases])
    assert -950 < parenchyma < -750
    assert max(case.image[case.label == 1].max() for case in cases) > 0
    assert all(case.image.min() >= -1024 for case in cases)


def test_thyroid_nodules_are_darker_than_the_gland_around_them():
    from scipy import ndimage

    differences = []
    for patient in range(8):
        for case in thyroid_patient(0, patient):
            ring = ndimage.binary_dilation(case.label, iterations=6) & ~ndimage.binary_dilation(
                case.label, iterations=2
            )
            differences.append(np.median(case.image[ring]) - np.median(case.image[case.label == 1]))
    assert np.median(differences) > 15


def test_some_thyroid_patients_have_several_images():
    counts = [len(list(thyroid_patient(0, patient))) for patient in range(10)]
    assert set(counts) <= {2, 3, 4} and len(set(counts)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_splits_keep_patients_together_and_use_every_case_once(raw, kind):
    folder = raw / PHANTOM_SETS[kind].dataset_name
    splits = json.loads((folder / "splits_final.json").read_text())
    ending = PHANTOM_SETS[kind].file_ending
    cases = sorted(p.name.removesuffix(ending) for p in (folder / "labelsTr").iterdir())
    assert len(splits) == 5
    assert sorted(name for fold in splits for name in fold["val"]) == cases
    for fold in splits:
        assert sorted(fold["train"] + fold["val"]) == cases
        patients = [{name.split("_")[1] for name in fold[part]} for part in ("train", "val")]
        assert not patients[0] & patients[1]
    test = {p.name.split("_")[1].removesuffix(ending) for p in (folder / "labelsTs").iterdir()}
    assert not test & {name.split("_")[1] for name in cases}


def test_a_foreign_folder_is_never_touched(tmp_path):
    folder = tmp_path / "Dataset901_PhantomThyroid"
    folder.mkdir()
    (folder / "dataset.json").write_text('{"labels": {}}')
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is no phantom set"):
            write_phantom("2d", tmp_path, overwrite=overwrite)
    assert contents(tmp_path).keys() == {"Dataset901_PhantomThyroid/dataset.json"}


def test_another_seed_needs_overwrite_and_the_same_seed_is_left_as_it_is(tmp_path):
    folder = write_phantom("3d", tmp_path)
    before = (folder / "dataset.json").stat().st_mtime_ns
    assert write_phantom("3d", tmp_path) == folder
    assert (folder / "dataset.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="of seed 0, asked for is seed 1"):
        write_phantom("3d", tmp_path, seed=1)
    assert (
        json.loads(
            (write_phantom("3d", tmp_path, seed=1, overwrite=True) / "dataset.json").read_text()
        )["generator"]["seed"]
        == 1
    )


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(phantom, "_splits", fail)
    with pytest.raises(OSError):
        write_phantom("3d", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments, said",
    [(("4d",), "must be one of 2d, 3d"), (("2d", -1), "seed must be >= 0, got -1")],
)
def test_bad_arguments(tmp_path, arguments, said):
    kind, seed = (*arguments, 0)[:2]
    with pytest.raises(ValueError, match=said):
        write_phantom(kind, tmp_path, seed=seed)
    assert list(tmp_path.iterdir()) == []
