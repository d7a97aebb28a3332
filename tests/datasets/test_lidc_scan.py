"""One scan with its readings -> the whole scan, slices, crops."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lngswr.datasets.options import LidcOptions
from tests.datasets.lidc_download import (
    SHAPE,
    SPACING,
    arrays,
    box,
    cases,
    read,
    run,
    scan_name,
    series_folder,
    skipped,
    stored,
)
from tests.datasets.lidc_files import nodule, write_series, write_xml


def label_a_majority() -> np.ndarray:
    """At least 2 of 4 readers on nodule A."""
    votes = np.zeros(SHAPE, int)
    for zs, x0, x1 in ((slice(2, 5), 10, 19), (slice(3, 6), 10, 17), (slice(3, 5), 12, 19)):
        votes[zs, 5:10, x0 : x1 + 1] += 1
    return (votes >= 2).astype(np.uint8)


@pytest.mark.parametrize(
    "number", [1, 2]
)  # instance numbers ascend, descend; file names mean nothing in both
def test_a_whole_scan_in_hounsfield_units_with_its_geometry(lidc, tmp_path, number):
    done = run(lidc, tmp_path / "raw", form="scans")
    assert cases(done) == [scan_name(n) for n in (1, 2, 3)] and done.skipped == []
    image, label = read(done, scan_name(number))
    assert image.GetPixelID() == sitk.sitkInt16
    assert np.array_equal(sitk.GetArrayFromImage(image), stored(number) - 1024)
    assert np.array_equal(sitk.GetArrayFromImage(label), label_a_majority())
    for one in (image, label):
        assert np.allclose(one.GetSpacing(), SPACING[::-1]) and np.allclose(
            one.GetOrigin(), (-100, -90, -50)
        )
        assert np.allclose(one.GetDirection(), np.eye(3).ravel())


def test_slices_hold_all_nodules_of_a_slice(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", consensus="any")
    assert [c for c in cases(done) if scan_name() in c] == [
        f"{scan_name()}_z{z:03d}" for z in (2, 3, 4, 5, 7)
    ]
    image, label = arrays(done, f"{scan_name()}_z003")
    assert np.array_equal(image, stored(1)[3] - 1024)
    expected = np.zeros(SHAPE[1:], np.uint8)
    expected[5:10, 10:20] = 1
    assert np.array_equal(label, expected)
    flat = read(done, f"{scan_name()}_z003")[0]
    assert flat.GetDimension() == 2 and np.allclose(flat.GetSpacing(), (0.6, 0.7))


def test_nnunet_takes_2d_slices(lidc, tmp_path):
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(run(lidc, tmp_path / "raw").folder), num_processes=1)


def test_a_crop_shows_its_part_of_the_scan(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", form="crops", crop_mm=15, consensus="any")
    assert [c for c in cases(done) if scan_name() in c] == [
        f"{scan_name()}_n1",
        f"{scan_name()}_n2",
    ]
    image, label = read(done, f"{scan_name()}_n2")
    # 15 mm around x 30..33, y 25..28, z 7 are 25, 21 and 6 voxels; the box's lower end comes first
    whole = sitk.GetImageFromArray(stored(1) - 1024)
    whole.SetSpacing(SPACING[::-1])
    whole.SetOrigin((-100, -90, -50))
    start = whole.TransformPhysicalPointToIndex(image.GetOrigin())
    x, y, z = start
    assert (
        (y, y + 21) == (16, 37)
        and (x, x + 25) == (19, 44)
        and (z, z + image.GetSize()[2]) == (4, 10)
    )
    part = (slice(z, z + image.GetSize()[2]), slice(y, y + 21), slice(x, x + 25))
    assert np.array_equal(sitk.GetArrayFromImage(image), stored(1)[part] - 1024)
    expected = np.zeros(SHAPE, np.uint8)
    for zs, x1 in ((slice(2, 5), 19), (slice(5, 6), 17)):
        expected[zs, 5:10, 10 : x1 + 1] = 1
    expected[7, 25:29, 30:34] = 1
    # also what of the other nodule lies in the crop
    assert np.array_equal(sitk.GetArrayFromImage(label), expected[part])


def test_cropped_slices_share_their_nodules_window(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", crop_mm=9, consensus="any")
    names = [c for c in cases(done) if f"{scan_name()}_n1" in c]
    assert names == [f"{scan_name()}_n1_z{z:03d}" for z in (2, 3, 4, 5)]
    assert {arrays(done, c)[0].shape for c in names} == {(13, 15)}


def test_the_whole_nodule_is_in_its_crop_however_small_that_was_asked_for(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", form="crops", crop_mm=1, consensus="any")
    image, label = arrays(done, f"{scan_name()}_n1")
    assert image.shape == label.shape == (4, 5, 10)


def test_small_nodules_are_left_out_unless_asked_for(lidc, tmp_path):
    without = run(lidc, tmp_path / "raw", form="scans", consensus="any")
    _, label = arrays(without, scan_name())
    assert label[8].sum() == 0 and any(
        "1 marks of nodules under 3 mm" in e.reason
        for e in without.entries
        if e.status == "left out"
    )
    with_them = run(lidc, tmp_path / "other", form="scans", consensus="any", small=True)
    _, label = arrays(with_them, scan_name())
    z, y, x = np.nonzero(label[8:9])
    distance_mm = np.hypot((y - 30) * 0.7, (x - 5) * 0.6)
    assert distance_mm.max() <= 1.5 and len(z) == sum(
        np.hypot(0.7 * i, 0.6 * j) <= 1.5 for i in range(-3, 4) for j in range(-3, 4)
    )


def test_options_of_slices_scans_and_readers(lidc, tmp_path):
    # readers 1 to 3 outlined slices 3 and 4, one slice more reader 1 and another reader 2: 50 and
    # 40 pixels
    few = [
        c
        for c in cases(run(lidc, tmp_path / "few", consensus="any", min_pixels=41))
        if scan_name() in c
    ]
    assert few == [f"{scan_name()}_z{z:03d}" for z in (2, 3, 4)]
    # nodule B is that of reader 4 alone, who outvotes nobody in the scan, but is all who marked it
    alone = run(lidc, tmp_path / "alone", form="scans", voters="nodule")
    assert arrays(alone, scan_name())[1][7].sum() == 16
    write_xml(series_folder(lidc, 3) / "003.xml", "3", [[], []])
    assert len(cases(run(lidc, tmp_path / "without", form="scans"))) == 2
    empty = run(lidc, tmp_path / "with", form="scans", keep_empty=True)
    assert len(cases(empty)) == 3 and not arrays(empty, scan_name(3))[1].any()
    third = run(lidc, tmp_path / "third", form="scans", consensus="one", reader=3)
    assert (
        cases(third) == [scan_name(1), scan_name(2)]
        and "reader 3 was asked for, the scan has 2" in skipped(third)["003.xml"]
    )


def test_what_readers_do_not_agree_upon_is_left_out_and_named(lidc, tmp_path):
    done = run(lidc, tmp_path / "raw", form="crops")
    assert len(cases(done)) == 3 and done.skipped == []
    assert any(
        "reader 4: 0" in e.reason and "no voxel by consensus majority" in e.reason
        for e in done.entries
    )
    one = run(lidc, tmp_path / "one", form="scans", consensus="one", reader=3)
    assert arrays(one, scan_name())[1].sum() == 2 * 5 * 8


def test_holes_are_taken_out(tmp_path):
    folder = tmp_path / "in" / "a"
    uids = write_series(folder, stored(0))
    rois = [
        (uids[4], box(5, 20, 5, 20), True),
        (uids[4], [(10, 10), (14, 10), (14, 14), (10, 14)], False),
    ]
    write_xml(folder / "a.xml", "1", [[nodule("N", rois)]])
    done = run(tmp_path / "in", tmp_path / "raw", form="scans")
    label = arrays(done, scan_name())[1][4]
    # a hole takes its edge with it: 5 x 5 pixels
    assert not label[10:15, 10:15].any() and label.sum() == 16 * 16 - 25


@pytest.mark.parametrize(
    "options, said",
    [
        ({"form": "volumes"}, "form must be one of slices, crops, scans"),
        ({"consensus": "most"}, "consensus must be one of"),
        ({"reader": 0}, "reader must be >= 1, got 0"),
        ({"crop_mm": -1}, "crop_mm must be > 0"),
        ({"crop_mm": 5, "form": "scans"}, "whole scans are not cut"),
        ({"reader": 2}, 'reader is for consensus "one" alone'),
        ({"voters": "nodule", "consensus": "any"}, "voters is for .* would have no effect"),
        ({"min_pixels": 5, "form": "crops"}, "min_pixels is for slices alone"),
        ({"keep_empty": True}, "keep_empty is for scans alone"),
    ],
)
def test_bad_options(options, said):
    with pytest.raises(ValueError, match=said):
        LidcOptions(**options)
