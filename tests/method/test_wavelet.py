"""Laws of the wavelet transform; PyWavelets, pytorch_wavelets and ptwt are the oracles."""

import numpy as np
import pytest
import pywt
import torch

from nnunetv2_lngswr.method import wavelet
from nnunetv2_lngswr.method.wavelet import (
    apply_gains,
    band_energy,
    check_wavelet,
    compose,
    decompose,
    subbands,
)

SHAPES = [
    (2, 3, 8, 8),
    (1, 2, 7, 9),
    (1, 1, 1, 6),
    (2, 2, 4, 6, 8),
    (1, 3, 5, 7, 3),
    (1, 2, 1, 4, 5),
]
WAVELETS = ["haar", "db2", "sym4", "coif1"]


def all_axes(shape):
    return tuple(a for a, n in enumerate(shape[2:]) if n > 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wavelet", WAVELETS)
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)]
)
def test_perfect_reconstruction(shape, wavelet, dtype, tolerance, rng):
    x = torch.randn(shape, generator=rng).to(dtype)
    axes = all_axes(shape)
    if wavelet == "sym4":  # PyWavelets tabulates it to 11 digits
        tolerance = max(tolerance, 1e-10)
    back = compose(decompose(x, axes, wavelet), axes, x.shape[2:], wavelet)
    assert back.shape == x.shape
    assert (back - x).abs().max() < tolerance


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_bands_are_those_of_pywt(shape, wavelet, rng):
    x = torch.randn(shape, generator=rng, dtype=torch.float64)
    axes = all_axes(shape)
    bands = decompose(x, axes, wavelet)
    oracle = pywt.dwtn(x.numpy(), wavelet, mode="periodization", axes=[2 + a for a in axes])
    for index, name in enumerate(subbands(len(axes))):
        key = name.replace("L", "a").replace("H", "d")
        # the sign of a high-pass filter is a convention
        signs = (
            1.0 if wavelet != "haar" else np.sign((oracle[key] * bands[:, :, index].numpy()).sum())
        )
        assert np.allclose(bands[:, :, index].numpy(), signs * oracle[key], atol=1e-12)


def test_gained_reconstruction_is_that_of_pytorch_wavelets(rng):
    pytorch_wavelets = pytest.importorskip("pytorch_wavelets", reason="oracle, in the extra 'test'")
    x = torch.randn((2, 3, 16, 12), generator=rng)
    gains = torch.rand((3, 4), generator=rng)
    low, (high,) = pytorch_wavelets.DWTForward(J=1, wave="haar", mode="periodization")(x)
    # its order of the high bands: LH (high along rows' axis), HL, HH
    weighted = (
        high * torch.stack((gains[:, 2], gains[:, 1], gains[:, 3]), dim=1)[None, :, :, None, None]
    )
    inverse = pytorch_wavelets.DWTInverse(wave="haar", mode="periodization")
    oracle = inverse((low * gains[:, 0, None, None], [weighted]))
    assert torch.allclose(apply_gains(x, gains, (0, 1)), oracle, atol=1e-5)


def test_gained_reconstruction_is_that_of_ptwt_in_3d(rng):
    ptwt = pytest.importorskip("ptwt", reason="oracle, in the extra 'test'")
    x = torch.randn((2, 3, 8, 6, 10), generator=rng, dtype=torch.float64)
    gains = torch.rand((3, 8), generator=rng, dtype=torch.float64)
    low, high = ptwt.wavedec3(x, "haar", level=1)
    weight = {
        n.replace("L", "a").replace("H", "d"): gains[:, i, None, None, None]
        for i, n in enumerate(subbands(3))
    }
    oracle = ptwt.waverec3(
        (low * weight["aaa"], {k: v * weight[k] for k, v in high.items()}), "haar"
    )
    assert torch.allclose(apply_gains(x, gains, (0, 1, 2)), oracle, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_unit_haar_gains_are_the_exact_identity(shape, dtype, rng):
    x = torch.randn(shape, generator=rng).to(dtype)
    axes = all_axes(shape)
    assert torch.equal(apply_gains(x, torch.ones(shape[1], 2 ** len(axes)), axes), x)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_gains_select_their_own_band(wavelet, rng):
    x = torch.randn((1, 2, 8, 12), generator=rng, dtype=torch.float64)
    for band in range(4):
        gains = torch.zeros(2, 4, dtype=torch.float64)
        gains[:, band] = 1
        kept = decompose(apply_gains(x, gains, (0, 1), wavelet), (0, 1), wavelet)
        expected = torch.zeros_like(kept)
        expected[:, :, band] = decompose(x, (0, 1), wavelet)[:, :, band]
        assert torch.allclose(kept, expected, atol=1e-12)


def test_unpooled_axes_are_left_alone(rng):
    x = torch.randn((1, 1, 3, 8, 8), generator=rng)
    gains = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    y = apply_gains(x, gains, (1, 2))
    for z in range(3):
        assert torch.allclose(y[:, :, z], apply_gains(x[:, :, z], gains, (0, 1)), atol=1e-6)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_energies_sum_to_the_signals(wavelet, rng):
    x = torch.randn((3, 2, 8, 6), generator=rng, dtype=torch.float64)
    energy = band_energy(x, (0, 1), wavelet)
    assert torch.allclose(energy.mean(1), x.square().mean((0, 2, 3)))
    direct = decompose(x, (0, 1), wavelet).square().mean((0, 3, 4))
    assert torch.allclose(energy, direct)


def test_energy_of_an_empty_band_is_not_negative(rng):
    low = torch.zeros(16, 4)
    low[:, 0] = 1
    energy = band_energy(
        apply_gains(torch.randn((8, 16, 20, 20), generator=rng), low, (0, 1)), (0, 1)
    )
    assert (energy >= 0).all() and (energy[:, 1:] < 1e-6 * energy[:, :1]).all()


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_energies_are_full_precision_under_autocast(wavelet, rng):
    x = 100 * torch.randn((2, 2, 64, 64), generator=rng)
    with torch.autocast("cpu", torch.float16):
        low = band_energy(x, (0, 1), wavelet)
    assert low.dtype == torch.float32 and torch.equal(low, band_energy(x, (0, 1), wavelet))


def test_gradients_are_exact(rng):
    x = torch.randn((1, 2, 5, 4), generator=rng, dtype=torch.float64, requires_grad=True)
    gains = torch.rand((2, 4), generator=rng, dtype=torch.float64, requires_grad=True)
    for wavelet in ("haar", "db2"):
        assert torch.autograd.gradcheck(lambda x, g: apply_gains(x, g, (0, 1), wavelet), (x, gains))


@pytest.mark.parametrize("shape", SHAPES)
def test_pieces_and_compiled_code_give_the_same(shape, rng, monkeypatch):
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    axes = all_axes(shape)
    gains = torch.rand(
        (shape[1], 2 ** len(axes)), generator=rng, dtype=torch.float64, requires_grad=True
    )
    grad = torch.randn(shape, generator=rng, dtype=torch.float64)

    def results(function):
        y = function(x, gains, axes)
        return (y, *torch.autograd.grad(y, (x, gains), grad), band_energy(x.detach(), axes))

    whole = results(apply_gains)
    compiled = results(torch.compile(apply_gains, fullgraph=True, backend="eager", dynamic=False))
    weights = gains.view(1, *gains.shape, *[1] * (len(shape) - 2))
    direct = compose(decompose(x, axes) * weights, axes, shape[2:])
    monkeypatch.setattr(wavelet, "CHUNK_ELEMENTS", 1)
    for other in (compiled, results(apply_gains)):
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, other))
    assert torch.allclose(whole[0], direct, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_writing_over_x_changes_neither_result_nor_gradients(shape, rng):
    axes = all_axes(shape)
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    gains = (
        0.02 + 0.98 * torch.rand((shape[1], 2 ** len(axes)), generator=rng, dtype=torch.float64)
    ).requires_grad_()
    grad = torch.randn(shape, generator=rng, dtype=torch.float64)
    expected = apply_gains(x, gains, axes)
    for least_gain in (0.0, 0.02):  # where x itself is kept it must stay what it is
        own = x * 1
        y = apply_gains(own, gains, axes, least_gain=least_gain, in_place=True)
        overwritten = least_gain > 0 and all(shape[2 + a] % 2 == 0 for a in axes)
        assert torch.equal(y, expected) and (y.data_ptr() == own.data_ptr()) == overwritten
        for got, want in zip(
            torch.autograd.grad(y, (x, gains), grad),
            torch.autograd.grad(apply_gains(x, gains, axes), (x, gains), grad),
        ):
            assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)


def layouts(x):
    """The same values, laid out as nnU-Net never does but a caller may."""
    yield x.to(memory_format=torch.channels_last)
    yield torch.cat((x, x), dim=1)[:, x.shape[1] :]
    odd = x.new_empty(x.numel() + 1)[1:].view(x.shape)  # storage that starts at an odd place
    yield odd.copy_(x)
    wide = x.new_empty((*x.shape[:-1], x.shape[-1] + 1))[..., 1:]  # rows of odd length
    yield wide.copy_(x)


@pytest.mark.parametrize("axes", [(0, 1), (1,), (0,)])
def test_any_layout_gives_the_same(axes, rng):
    x = torch.randn((3, 4, 6, 8), generator=rng, dtype=torch.float64)
    grad = torch.randn(x.shape, generator=rng, dtype=torch.float64)
    gains = torch.rand((4, 2 ** len(axes)), generator=rng, dtype=torch.float64, requires_grad=True)

    def results(x, grad):
        x = x.detach().requires_grad_()
        y = apply_gains(x, gains, axes)
        return (y, *torch.autograd.grad(y, (x, gains), grad), band_energy(x.detach(), axes))

    expected = results(x, grad)
    for laid, grad_laid in zip(layouts(x), layouts(grad)):
        for got, want in zip(results(laid, grad_laid), expected):
            assert torch.allclose(got, want, rtol=1e-12, atol=1e-12)


def test_backward_needs_the_features_alone(rng):
    x = torch.randn((4, 8, 32, 32), generator=rng, requires_grad=True)
    gains = torch.rand((8, 4), generator=rng, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        apply_gains(x, gains, (0, 1))
    assert sum(t.numel() for t in kept if t.data_ptr() != x.data_ptr()) <= gains.numel()


@pytest.mark.parametrize("shape", SHAPES)
def test_keeping_the_result_gives_the_same_gradients(shape, rng):
    axes = all_axes(shape)
    x = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    gains = (
        0.02 + 0.98 * torch.rand((shape[1], 2 ** len(axes)), generator=rng, dtype=torch.float64)
    ).requires_grad_()
    grad = torch.randn(shape, generator=rng, dtype=torch.float64)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = apply_gains(x, gains, axes, least_gain=0.02)
    if all(n % 2 == 0 for n in shape[2:]):  # else the result is cropped
        assert y.data_ptr() in {t.data_ptr() for t in kept} and x.data_ptr() not in {
            t.data_ptr() for t in kept
        }
    expected = torch.autograd.grad(apply_gains(x, gains, axes), (x, gains), grad)
    for got, want in zip(torch.autograd.grad(y, (x, gains), grad), expected):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-12)


def test_a_result_that_cannot_be_divided_is_not_kept(rng):
    x = torch.randn((2, 2, 8, 8), generator=rng, requires_grad=True)
    gains = torch.zeros((2, 4), requires_grad=True)
    (gradient,) = torch.autograd.grad(
        apply_gains(x, gains, (0, 1), least_gain=0.0).sum() * 1.0, gains
    )
    assert torch.isfinite(gradient).all()
    coarse = x.detach().bfloat16().requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        apply_gains(coarse, gains, (0, 1), least_gain=0.5)
    assert coarse.data_ptr() in {t.data_ptr() for t in kept}


def test_gradients_of_small_gains_survive_half_precision(rng):
    x = torch.randn((2, 4, 64, 64), generator=rng).half().requires_grad_()
    grad = torch.randn(x.shape, generator=rng).half() + x.detach()
    gains = torch.tensor([[1.0, 0.12, 0.12, 0.02]] * 4, requires_grad=True)
    exact = torch.autograd.grad(
        apply_gains(x.double(), gains.double(), (0, 1)), gains, grad.double()
    )[0]
    (found,) = torch.autograd.grad(apply_gains(x, gains, (0, 1), least_gain=0.02), gains, grad)
    assert torch.allclose(found, exact, rtol=0.01)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("least_gain", [0.0, 0.02])
def test_constant_gains_keep_no_feature_map_and_may_overwrite(shape, least_gain, rng):
    axes = all_axes(shape)
    leaf = torch.randn(shape, generator=rng, requires_grad=True)
    gains = 0.02 + 0.98 * torch.rand((shape[1], 2 ** len(axes)), generator=rng)
    grad = torch.randn(shape, generator=rng)
    expected = torch.autograd.grad(
        apply_gains(leaf, gains.clone().requires_grad_(), axes), leaf, grad
    )[0]
    kept, x = [], leaf * 1
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = apply_gains(x, gains, axes, least_gain=least_gain, in_place=True)
    assert sum(t.numel() for t in kept) <= gains.numel()
    assert y.data_ptr() == x.data_ptr() or any(n % 2 for n in shape[2:])
    assert torch.equal(torch.autograd.grad(y, leaf, grad)[0], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_place_gives_the_same_and_only_without_a_graph(shape, rng):
    axes = all_axes(shape)
    x, gains = (
        torch.randn(shape, generator=rng),
        torch.rand((shape[1], 2 ** len(axes)), generator=rng),
    )
    expected, before = apply_gains(x, gains, axes), x.clone()
    with_graph = apply_gains(x, gains.clone().requires_grad_(), axes, in_place=True)
    assert torch.equal(with_graph, expected) and torch.equal(x, before)
    y = apply_gains(x, gains, axes, in_place=True)
    assert torch.equal(y, expected)
    assert y.data_ptr() == x.data_ptr() or any(
        n % 2 for n in shape[2:]
    )  # else the result is cropped


@pytest.mark.parametrize(
    "name, fault", [("har", "orthogonal PyWavelets wavelet"), ("bior2.2", "must be orthogonal")]
)
def test_other_wavelets_are_refused(name, fault):
    with pytest.raises(ValueError, match=f"{fault}.*{name}"):
        check_wavelet(name)
