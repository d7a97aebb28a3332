"""The demo's picture."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_lngswr.experiments.demo import run_demo
from nnunetv2_lngswr.experiments.demo.places import Places
from nnunetv2_lngswr.experiments.demo.results import draw_overlays
from tests.drawn_texts import drawn_texts


def test_an_empty_prediction_is_drawn(tmp_path, commands):
    output = run_demo(tmp_path / "out", ["2d"])
    for path in (output / "predictions" / "Dataset901_PhantomThyroid").glob("*.png"):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image * 0, str(path))
    assert draw_overlays(output, ["2d"]).is_file()


@pytest.mark.parametrize("name", ["W" * 90, "_$\\no{formula$ x_y^z a & b %", "phantom 1"])
@pytest.mark.parametrize("shape", [(20, 24), (20, 600), (600, 20)])
def test_no_text_of_it_is_cut_off(name, shape, monkeypatch, tmp_path):
    places = Places("2d", tmp_path)
    for folder, case, value in (
        (places.raw / "imagesTs", f"{name}_0000", 7),
        (places.raw / "labelsTs", name, 1),
        (places.predictions, name, 0),
    ):
        folder.mkdir(parents=True)
        image = sitk.GetImageFromArray(np.full(shape, value, np.uint8))
        sitk.WriteImage(image, str(folder / f"{case}{places.file_ending}"))
    with drawn_texts(monkeypatch) as drawn:
        draw_overlays(tmp_path, ["2d"])
    written = ["".join(text.text.split()) for text in drawn]
    assert "".join(name.split()) in written and "prediction:empty" in written
    assert not [text for text in drawn if text.is_cut]
    titles = sorted({text.box for text in drawn})
    assert all(one[2] <= other[0] for one, other in zip(titles, titles[1:]))
