"""Laws of the corruptions: strengths rise with severity, one seed gives one result, nothing else
changes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization
from scipy import ndimage

from evaluation import corruption_table, corruptions, mr_corruptions
from evaluation.corruption_table import inapplicable_of_mr, is_mr
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.tiny import installed
from tests.model_folders import ball


def _marks(corruption):
    missing = corruption.package and not installed(corruption.package)
    return [pytest.mark.skip(f"needs {corruption.package} (extra [mr])")] if missing else []


NAMES = [pytest.param(c.name, marks=_marks(c)) for c in corruptions.CORRUPTIONS.values()]
INSTALLED = [
    c.name for c in corruptions.CORRUPTIONS.values() if not c.package or installed(c.package)
]
WITH_TORCHIO = pytest.mark.skipif(not installed("torchio"), reason="needs torchio (extra [mr])")
SHAPES = [(1, 24, 30), (12, 20, 16), (3, 16, 40)]
HU = {"file_scale": [1 / 50.0] * 2, "file_offset": [-2.0] * 2}


def case(shape, channels=2):
    image = torch.from_numpy(np.stack([ball(shape, seed=c)[0] for c in range(channels)]))
    return image / 50 - 2


def corrupted(name, x, severity, seed=0, **options):
    return corruptions.apply_corruption(name, x, severity=severity, seed=seed, **HU, **options)


def test_each_of_the_table_has_its_function_and_five_strengths():
    assert set(corruptions._FUNCTIONS) == set(corruptions.CORRUPTIONS)
    for corruption in corruptions.CORRUPTIONS.values():
        assert len(corruption.strengths) == len(corruptions.SEVERITIES), corruption.name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_strength_rises_with_severity(name, shape):
    x = case(shape)
    seeds = range(8 if name == "occlusion" else 3)  # a box that lies in dark air changes little
    distance = [
        np.mean([(corrupted(name, x, s, seed) - x).abs().mean() for seed in seeds])
        for s in corruptions.SEVERITIES
    ]
    assert distance[0] > 0
    assert all(b > a for a, b in zip(distance, distance[1:])), distance


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_result_inside_the_range(name, monkeypatch):
    def refuse(seed):
        raise AssertionError("the states of GPUs would not come back")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    for shape in SHAPES:
        x = case(shape)
        before, numpy_state, torch_state = (
            x.clone(),
            np.random.get_state()[1].copy(),
            torch.random.get_rng_state(),
        )
        for severity in (1, 5):
            y = corrupted(name, x, severity, seed=4)
            assert torch.equal(y, corrupted(name, x, severity, seed=4))
            assert y.shape == x.shape and y.dtype == x.dtype and torch.isfinite(y).all()
            for c in range(2):
                assert x[c].min() <= y[c].min() and y[c].max() <= x[c].max()
        assert torch.equal(x, before)
        assert (np.random.get_state()[1] == numpy_state).all() and torch.equal(
            torch.random.get_rng_state(), torch_state
        )


@pytest.mark.parametrize(
    "name",
    [
        *["gaussian_noise", "speckle", "bias_field", "motion_blur", "occlusion", "rician_noise"],
        "kspace_spike",
        *(pytest.param(name, marks=WITH_TORCHIO) for name in ("mr_motion", "mr_ghosting")),
    ],
)
def test_another_seed_gives_another_pattern(name):
    x = case((1, 24, 30))
    assert not torch.equal(corrupted(name, x, 3, seed=1), corrupted(name, x, 3, seed=2))


@pytest.mark.parametrize("name", NAMES)
def test_channels_that_are_no_image_stay_fixed(name):
    x = case((1, 24, 30), channels=3)
    y = corrupted(name, x, 5, image_channels=2)
    assert torch.equal(y[2], x[2]) and not torch.equal(y[:2], x[:2])


def test_constant_channels_stay_constant():
    x = case((1, 24, 30))
    x[1] = 0.7
    for name in INSTALLED:
        assert torch.equal(corrupted(name, x, 5)[1], x[1]), name


def test_hu_offset_is_in_hu():
    x = torch.linspace(-4, 4, 25).reshape(1, 1, 5, 5)  # HU = 50 (x + 2)
    y = corrupted("hu_offset", x, 3)
    inside = (y > x.min()) & (y < x.max())
    hu = ((y - x) * 50)[inside]
    assert hu.abs().numpy() == pytest.approx(np.full(hu.numel(), 40), rel=1e-4)


def test_hu_scale_keeps_water():
    x = torch.linspace(-4, 4, 25).reshape(1, 1, 5, 5)
    x[0, 0, 0, 1] = -2.0  # 0 HU
    y = corrupted("hu_scale", x, 5)
    assert y[0, 0, 0, 1] == pytest.approx(-2.0, abs=1e-5)
    assert abs(float(y[0, 0, 2, 2]) + 2) == pytest.approx(2 * 1.16, rel=1e-4) or abs(
        float(y[0, 0, 2, 2]) + 2
    ) == pytest.approx(2 * 0.84, rel=1e-4)


@pytest.mark.parametrize("name", ["hu_offset", "hu_scale"])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_hu_that_is_clipped_stays_clipped(name, severity):
    """As nnU-Net's own normalisation of the changed file, but near the ends of its window."""
    rng = np.random.default_rng(0)
    file = np.concatenate([np.full(400, -1000.0), rng.uniform(-1, 190, 400), np.full(200, 900.0)])
    window = {"mean": 90.0, "std": 40.0, "percentile_00_5": -17.0, "percentile_99_5": 201.0}

    def normalised(values):
        scheme = CTNormalization(intensityproperties=window)
        return scheme.run(values.astype(np.float32).reshape(1, 25, 40), None)

    x = torch.from_numpy(normalised(file))[None]
    scale = {"file_scale": [1 / 40], "file_offset": [-90 / 40]}
    for seed in range(4):  # up and down
        y = corruptions.apply_corruption(name, x, severity=severity, seed=seed, **scale)
        moved = ((y - x) * 40)[(y > x.min()) & (y < x.max()) & (y != x)].double().numpy()
        hu = (x[(y > x.min()) & (y < x.max()) & (y != x)] * 40 + 90).double().numpy()
        if name == "hu_offset":
            changed = file + np.median(moved)
        else:
            changed = file * (1 + np.median(moved / hu))
        expected = torch.from_numpy(normalised(changed))[None]
        assert float((y - expected).abs().max()) * 40 < 0.01


def test_which_corruptions_apply():
    us, ct3d = (
        corruptions.inapplicable(ct=False, two_dimensional=True),
        corruptions.inapplicable(ct=True, two_dimensional=False),
    )
    assert set(us) == {"hu_offset", "hu_scale"}
    assert set(ct3d) == {"jpeg", "rician_noise", "speckle"}


def test_a_spike_is_stripes_of_its_amplitude():
    x = torch.rand(2, 32, 48, generator=torch.Generator().manual_seed(0))
    changed = mr_corruptions.kspace_spike(x, 0.1, np.random.default_rng(0), None) - x
    spectrum = torch.fft.fftn(changed, dim=(1, 2)).abs()
    for channel in spectrum:  # one wave: two places of k-space, opposite each other
        first, second, third = channel.flatten().sort(descending=True).values[:3].tolist()
        assert first == pytest.approx(second, rel=1e-3)
        assert third < 1e-3 * first
    assert changed.abs().amax((1, 2)).numpy() == pytest.approx([0.1, 0.1], rel=0.05)


def test_a_spike_lies_within_volumes_of_two_slices():
    x = torch.rand(1, 2, 24, 20, generator=torch.Generator().manual_seed(0))
    for seed in range(60):
        changed = mr_corruptions.kspace_spike(x, 0.1, np.random.default_rng(seed), None)
        assert changed.isfinite().all() and not torch.equal(changed, x)


def test_motion_blur_is_the_mean_along_a_path_of_unit_steps():
    x = torch.rand(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    found = corruptions._FUNCTIONS["motion_blur"](x, 7, np.random.default_rng(1), None)
    angle = np.random.default_rng(1).uniform(0, np.pi)
    step = np.array([0.0, np.sin(angle), np.cos(angle)])
    moved = [
        [ndimage.shift(c, t * step, order=1, mode="nearest") for t in range(-3, 4)]
        for c in x.numpy()
    ]
    assert np.array_equal(found.numpy(), np.mean(moved, axis=1, dtype=np.float32))


def test_ringing_keeps_what_is_slow_and_stands_beside_edges():
    x = torch.zeros(1, 32, 32)
    x[:, :, 16:] = 1
    ringing = mr_corruptions.gibbs_ringing(x, 0.7, None, None)
    assert float(ringing.mean()) == pytest.approx(0.5, abs=1e-3)
    assert ringing.max() > 1.05  # overshoot, which blur has not


@WITH_TORCHIO
@pytest.mark.parametrize("shape", [(24, 30), (3, 16, 40)])
def test_slices_move_within_their_plane(shape):
    x = torch.zeros(1, *shape)
    x[..., 4:-4, 6:-6] = 1
    if len(shape) == 3:
        x[:, 1] *= 0.5
    y = mr_corruptions.mr_motion(x, 2.0, np.random.default_rng(1), None)
    assert (y - x).abs().max() > 0.05
    if len(shape) == 3:  # thin: nothing comes from the slices beside
        assert torch.allclose(y[:, 1], 0.5 * y[:, 0], atol=1e-5)


@WITH_TORCHIO
def test_ghosts_are_along_one_axis():
    x = torch.zeros(1, 32, 32)
    x[:, 12:20, 12:20] = 1
    changed = (mr_corruptions.mr_ghosting(x, 0.5, np.random.default_rng(0), None) - x)[0].abs()
    rows, columns = (float(changed.amax(axis)[:8].max()) for axis in (1, 0))
    assert max(rows, columns) > 0.02
    assert min(rows, columns) < 1e-5


def test_severity_3_of_mrs_own_costs_what_the_others_cost():
    """As measured; the strengths measured are those of the table."""
    file = "benchmarks/results/2026-11-25-mr-calibration-hippocampus2d-cpu.json"
    measured = json.loads((Path(__file__).parents[2] / file).read_text())
    own = {n: c for n, c in corruptions.CORRUPTIONS.items() if c.needs == "mr"}
    assert own.keys() == measured["own"].keys()
    for name, corruption in own.items():
        drops = measured["own"][name]["drop_by_strength"]
        by_severity = [drops[f"{strength:g}"] for strength in corruption.strengths]
        assert by_severity == sorted(by_severity), name
        assert by_severity[2] == pytest.approx(measured["target_drop"], abs=0.01), name


def test_modality_is_read_from_channel_names():
    for names in (["MR"], ["MRI"], ["T1w", "T2w", "FLAIR"], ["t1ce"], ["0: mp-MRI", "ADC"], ["T1"]):
        assert is_mr(names), names
    for names in ([], ["CT"], ["MR", "CT"], ["ultrasound"], ["zscore"], ["rgb_to_0_1"], ["PET"]):
        assert not is_mr(names), names


def test_without_torchio_its_corruptions_are_left_out_with_the_reason(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchio", None)
    monkeypatch.setattr(corruption_table, "find_spec", lambda name: None)
    left_out = inapplicable_of_mr(mr=True)
    assert set(left_out) == {"mr_motion", "mr_ghosting"}
    assert "pip install 'nnunetv2_lngswr[mr]'" in left_out["mr_motion"]
    for name in left_out:
        with pytest.raises(UserError, match=r"need torchio: pip install 'nnunetv2_lngswr\[mr\]'"):
            corrupted(name, case((1, 24, 30)), 3)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda x: corruptions.apply_corruption("gausian_noise", x, severity=1, seed=0),
            "gaussian_noise",
        ),
        (
            lambda x: corruptions.apply_corruption("gamma", x, severity=6, seed=0),
            "severity must be one of",
        ),
        (lambda x: corruptions.apply_corruption("hu_offset", x, severity=1, seed=0), "HU scale"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(case((1, 8, 8)))
