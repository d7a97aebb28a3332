"""Five folds, the best configuration, ensembling and postprocessing, by nnU-Net's commands."""

import json
import pickle
import shutil

import numpy as np
import pytest

from tests.pipeline import commands
from tests.pipeline.commands import TRAINER, command, model_folder, predict, read_label, same_files

CONFIGURATIONS = ("2d", "3d_fullres")


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_every_case_is_validated_once_over_the_five_folds(trained, configuration):
    model = model_folder(trained, configuration)
    found = sorted(p.name for fold in range(5) for p in (model / f"fold_{fold}" / "validation").glob("*.nii.gz"))
    assert found == [f"case{i}.nii.gz" for i in range(5)]
    probabilities = [np.load(p)["probabilities"] for p in model.glob("fold_*/validation/*.npz")]
    assert len(probabilities) == 5
    for p in probabilities:
        assert p.shape == (2, 18, 20, 17) and np.allclose(p.sum(0), 1, atol=1e-3)
