"""DICOM files -> scans in Hounsfield units, in ITK's geometry."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lngswr.datasets.dicom import make_scan, read_header
from tests.datasets.lidc_download import box_nodule, read, run, scan_name, stored
from tests.datasets.lidc_files import write_series, write_xml


# supine; prone; turned in the plane, which no transposed direction survives; slices that ascend
# against z
@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (0.8, 0.6, 0, -0.6, 0.8, 0), (1, 0, 0, 0, -1, 0)],
)
def test_itk_reads_the_same_series_and_crops_lie_in_it(tmp_path, orientation):
    folder = tmp_path / "in" / "a"
    uids = write_series(folder, stored(1), orientation=orientation)
    write_xml(folder / "a.xml", "1", [[box_nodule("N", uids, (3, 4), 28, 35, 20, 24)]])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    expected = reader.Execute()
    image, label = read(run(tmp_path / "in", tmp_path / "raw", form="scans"), scan_name())
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(expected))
    for what in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert np.allclose(getattr(image, what)(), getattr(expected, what)()) and np.allclose(
            getattr(label, what)(), getattr(expected, what)()
        )
    crop, _ = read(
        run(tmp_path / "in", tmp_path / "crops", form="crops", crop_mm=8), f"{scan_name()}_n1"
    )
    start = expected.TransformPhysicalPointToIndex(crop.GetOrigin())
    assert min(start) > 0 and np.allclose(
        expected.TransformIndexToPhysicalPoint(start), crop.GetOrigin(), atol=1e-3
    )
    (x, y, z), (nx, ny, nz) = start, crop.GetSize()
    part = sitk.GetArrayFromImage(expected)[z : z + nz, y : y + ny, x : x + nx]
    assert np.array_equal(sitk.GetArrayFromImage(crop), part) and np.allclose(
        crop.GetDirection(), expected.GetDirection()
    )


@pytest.mark.parametrize("slope, kind", [(2, np.int16), (0.5, np.float32)])
def test_rescaling(tmp_path, slope, kind):
    write_series(tmp_path / "s", stored(0), slope=slope, intercept=-1000)
    scan, _ = make_scan([read_header(p) for p in (tmp_path / "s").iterdir()])
    pixels = scan.hounsfield(4)
    assert pixels.dtype == kind and np.array_equal(pixels, stored(0)[4] * slope - 1000)


def test_rounded_positions_are_even_and_a_tilted_gantry_is_not(tmp_path):
    for name, options in (
        ("rounded", {"zs_mm": np.round(np.arange(10) * 0.625, 1)}),
        ("tilted", {"shift_mm": 0.4}),
    ):
        write_series(tmp_path / name, stored(0), **options)
    rounded, tilted = (
        make_scan([read_header(p) for p in (tmp_path / n).iterdir()])[0]
        for n in ("rounded", "tilted")
    )
    assert rounded.runs == [range(10)] and len(tilted.runs) == 10
