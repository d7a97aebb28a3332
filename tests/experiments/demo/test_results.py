"""The demo's picture."""

import SimpleITK as sitk

from nnunetv2_lngswr.experiments.demo import run_demo
from nnunetv2_lngswr.experiments.demo.results import draw_overlays


def test_an_empty_prediction_is_drawn(tmp_path, commands):
    output = run_demo(tmp_path / "out", ["2d"])
    for path in (output / "predictions" / "Dataset901_PhantomThyroid").glob("*.png"):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image * 0, str(path))
    assert draw_overlays(output, ["2d"]).is_file()
