import numpy as np
import pytest
import torch

from nnunetv2_lngswr.attacks import BatchModel, Bounds, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.ssah import _Semantics, low_frequencies
from tests.attacks.problems import SPACE, run


@pytest.mark.parametrize("shape", ((4, 6), (5, 7), (1, 5, 4), (4, 4, 2)))
def test_low_frequencies_are_the_haar_reconstruction_without_details(shape):
    pywt = pytest.importorskip("pywt", reason="PyWavelets is the oracle")
    x = torch.randn((1, 1, *shape), dtype=torch.float64)
    axes = tuple(i for i, n in enumerate(shape) if n > 1)
    image = x[0, 0].numpy()
    padded = image
    for axis in axes:
        if padded.shape[axis] % 2:
            padded = np.concatenate([padded, padded.take([-1], axis)], axis)
    bands = pywt.dwtn(padded, "haar", axes=axes)
    low = pywt.idwtn(
        {k: v if set(k) == {"a"} else v * 0 for k, v in bands.items()}, "haar", axes=axes
    )
    expected = torch.from_numpy(low[tuple(slice(n) for n in shape)])
    assert torch.allclose(low_frequencies(x, len(shape))[0, 0], expected)


@pytest.mark.parametrize("dimension", (2, 3))
def test_ssah_moves_features_and_spares_low_frequencies(dimension, trained):
    x, result = run("ssah", trained, dimension=dimension, steps=150)
    assert (result.extras["feature_loss"] < result.extras["start_loss"]).all()
    assert (result.norms["linf_range"] > 1e-3).all()
    # far less low-frequency energy than noise of the same RMS has
    delta = result.perturbed - x
    noise = torch.randn(delta.shape, generator=torch.Generator().manual_seed(0)) * delta.flatten(
        1
    ).std(1).reshape(-1, *[1] * (x.ndim - 1))

    def low(d):
        return low_frequencies(d, dimension).square().mean()

    assert low(delta) < 0.1 * low(noise)


def test_ssah_without_its_constraint_leaves_the_low_frequencies(trained):
    # the constraint does the sparing: with a weight of 0 the same law fails
    network, x, y = trained[2]
    ball, target = (
        ThreatModel(norm="linf", epsilon=0.05).ball(Bounds.of(x[:2])),
        SPACE.target(y[:2]),
    )

    def share(weight):
        r = run_attack(
            "ssah",
            BatchModel(network),
            x[:2],
            target,
            ball,
            generator=torch.Generator(),
            steps=150,
            low_frequency_weight=weight,
        )
        delta = r.perturbed - x[:2]
        return float(low_frequencies(delta, 2).square().sum() / delta.square().sum())

    assert share(0.1) < 0.5 * share(0.0)


def test_ssah_leaves_the_clean_case_with_one_window_only(trained):
    # s_p = 1 is a saddle there: without a first random step nothing moves
    _, result = run("ssah", trained, cases=1, steps=150)
    assert result.extras["windows"] == 1 and result.norms["linf_range"] > 1e-3
    assert (result.extras["feature_loss"] < result.extras["start_loss"]).all()


def test_ssah_negatives_of_windows_without_foreground_are_pooled_globally(trained):
    network, x, y = trained[2]
    y = y.clone()
    y[0] = 0
    semantics = _Semantics(BatchModel(network), x, SPACE.target(y), margin=0.2)
    assert torch.allclose(
        semantics.clean.norm(dim=2), torch.ones(len(x), 2)
    )  # a zero vector would be the least similar to all
    assert torch.equal(semantics.clean[0, 0], semantics.clean[0, 1]) and not torch.equal(
        semantics.clean[1, 0], semantics.clean[1, 1]
    )
