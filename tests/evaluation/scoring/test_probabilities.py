"""Reading probabilities: what a file says of its array is checked before the array is made."""

import tracemalloc
import zipfile

import numpy as np
import pytest

from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.scoring.files import LABELS, score, write_description, write_labels
from tests.evaluation.scoring.files import write_model as write_predictions

CASE = ("p0_0",)


def test_a_small_file_of_a_huge_array_takes_no_memory(tmp_path):
    write_labels(tmp_path / "labels", cases=CASE)
    write_predictions(tmp_path / "a", cases=CASE)
    write_description(tmp_path / "dataset.json", LABELS)
    file = tmp_path / "a" / f"{CASE[0]}.npz"
    huge = np.zeros((3, 200, 400, 400), np.float16)
    np.savez_compressed(file, probabilities=huge)
    assert file.stat().st_size < 1e-2 * huge.nbytes
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"shape \(200, 400, 400\) are not those of .*p0_0"):
            score(tmp_path, "a", probabilities=True)
        assert tracemalloc.get_traced_memory()[1] < 0.2 * huge.nbytes
    finally:
        tracemalloc.stop()


def test_every_version_of_numpys_format_is_read(tmp_path):
    write_labels(tmp_path / "labels", cases=CASE)
    write_predictions(tmp_path / "a", cases=CASE, npz=True)
    file = tmp_path / "a" / f"{CASE[0]}.npz"
    expected = score(tmp_path, "a", probabilities=True)["calibration"]
    with np.load(file) as content:
        found = content["probabilities"]

    with zipfile.ZipFile(file, "w") as archive, archive.open("probabilities.npy", "w") as member:
        np.lib.format.write_array(member, found, version=(2, 0))
    assert score(tmp_path, "a", out="again", probabilities=True)["calibration"] == expected
