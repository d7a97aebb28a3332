"""Windows, weights and sums are those of nnU-Net's own predictor."""

import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

from evaluation.model.folder import SegmentationModel
from evaluation.model.sliding_window import SlidingWindow
from evaluation.model.tiling import gaussian_weights, tile
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


@st.composite
def tilings(draw):
    """(shape of the case, patch, step): patches of as many axes as the case, or one fewer."""
    patch = draw(st.lists(st.integers(2, 9), min_size=2, max_size=3))
    lengths = st.integers(1, 20)
    spatial = [draw(lengths) for _ in patch]
    if len(patch) == 2 and draw(st.booleans()):
        spatial = [draw(st.integers(1, 3)), *spatial]
    return tuple(spatial), tuple(patch), draw(st.sampled_from((0.15, 0.3, 0.5, 0.77, 1.0)))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(tilings(), st.integers(1, 2))
def test_every_voxel_is_covered_and_the_weights_sum_to_one(found, batch):
    spatial, patch, step = found
    x = torch.randn((batch, 1, *spatial), generator=torch.Generator().manual_seed(0))
    gaussian = gaussian_weights(patch, torch.device("cpu"))
    tiling = tile(x, patch, tile_step_size=step, gaussian=gaussian)
    assert torch.equal(tiling.x[tiling.crop], x)
    assert len(tiling.windows) == batch * tiling.windows_per_case
    weights = torch.zeros_like(tiling.x)
    for window in tiling.windows:
        assert tiling.x[window].shape == (1, *patch)
        weights[window] += gaussian.float()
    assert (weights > 0).all() and weights.isfinite().all()
    assert torch.equal(weights, tiling.weight_sum.expand_as(weights))
    # a constant is what the weighted sum of its windows is
    total = torch.zeros_like(tiling.x)
    for window in tiling.windows:
        total[window] += 3 * gaussian.float()
    assert torch.allclose(total / tiling.weight_sum, torch.full_like(total, 3.0), rtol=1e-4)


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
