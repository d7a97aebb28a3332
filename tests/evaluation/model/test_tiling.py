"""Windows, weights and sums are those of nnU-Net's own predictor."""

import types

import numpy as np
import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

from evaluation.model.folder import SegmentationModel
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks.losses import cross_entropy
from tests import model_folders
from tests.evaluation.model.windows import PATCH, case, networks


def test_tiling_is_nnunets():
    model_patch, x = (8, 6), case((2, 21, 13))[0]
    window = SlidingWindow(networks(2), patch_size=model_patch, tile_step_size=0.7)
    predictor = predict_from_raw_data.nnUNetPredictor(
        tile_step_size=0.7, device=torch.device("cpu")
    )
    predictor.configuration_manager = types.SimpleNamespace(patch_size=list(model_patch))
    theirs = predictor._internal_get_sliding_window_slicers(x.shape[2:])
    assert [w[1:] for w in window._tile(x).windows] == theirs


@pytest.mark.parametrize(
    ("dimension", "shape"), [(2, (1, 21, 18)), (2, (2, 11, 18)), (3, (17, 20, 11))]
)
def test_logits_agree_with_nnunets_predictor(dimension, shape, tmp_path, monkeypatch):
    folder = model_folders.make_model_folder(
        tmp_path, dimension=dimension, folds=(0, 1), mirror_axes=tuple(range(dimension))
    )
    model = SegmentationModel.from_folder(folder)
    x = case(shape, dtype=torch.float32)[0]
    ours = model.sliding_window(window_batch_size=2).logits(x)[0]

    # its sums in float32: then the two agree to 1e-5
    proxy = types.ModuleType("torch")
    proxy.__dict__.update(vars(torch), half=torch.float32)
    with monkeypatch.context() as patched:
        patched.setattr(predict_from_raw_data, "torch", proxy)
        assert float((ours - model._inference.logits(x[0])).abs().max()) < 1e-5 * max(
            float(ours.abs().max()), 1
        )
    # as deployed, in float16: where weights are normal float16 numbers, a few roundings per window
    deployed = model._inference.logits(x[0])
    assert deployed.dtype == torch.float16
    error = (ours - deployed.float()).abs()
    weights = model.sliding_window()._tile(x).weight_sum
    heavy = (
        weights[
            tuple(
                slice((w - n) // 2, (w - n) // 2 + n)
                for w, n in zip(weights.shape, x.shape[-dimension:])
            )
        ]
        > 1e-2
    )
    heavy = heavy.expand(ours.shape)
    assert heavy.float().mean() > 0.3 and float(error[heavy].max()) < 2**-7 * float(
        ours.abs().max()
    )
    assert np.isfinite(deployed.numpy()).all()


def test_gradients_work_inside_inference_mode_and_after_nnunet_cached_its_gaussian():
    nets, (x, target) = networks(2), case((13, 11))
    with torch.inference_mode():
        compute_gaussian(
            (PATCH,) * 2, sigma_scale=1.0 / 8, value_scaling_factor=10, device=torch.device("cpu")
        )
        window = SlidingWindow(nets, patch_size=(PATCH,) * 2)
        _, inside, _ = window.value_and_gradient(x, lambda z: cross_entropy(z, target))
    _, outside, _ = SlidingWindow(nets, patch_size=(PATCH,) * 2).value_and_gradient(
        x, lambda z: cross_entropy(z, target)
    )
    assert torch.equal(inside, outside)
