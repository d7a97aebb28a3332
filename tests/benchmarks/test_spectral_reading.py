"""The reading reports what a reconstruction with known gains does, and nothing without one."""

import json

import numpy as np
import pytest
import torch

from benchmarks import spectral_reading, spectral_reading_figures
from benchmarks.spectral_reading_energies import FEATURES, energies, instrumented, watched
from benchmarks.spectral_reading_figures import KINDS, read
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr
from tests.benchmarks.models import ball_cases, nnunet_folders, trained_folder
from tests.model_folders import make_network


def reading(network, *, dimension=2, size=16):
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn((2, 1, *[size] * dimension), generator=generator)
    delta = 0.1 * torch.randn(clean.shape, generator=generator)
    return energies(instrumented(network), clean, {"pgd_linf": clean + delta}), clean, delta


def with_gains(dimension, directional, diagonal):
    return attach(
        make_network(dimension, features=(4, 8, 8)),
        LNGSWRConfig(gains=(directional, directional, diagonal)),
    )


@pytest.mark.parametrize("dimension", [2, 3])
def test_identity_gains_remove_nothing(dimension):
    network = make_network(dimension, features=(4, 8, 8))
    found, clean, _ = reading(network, dimension=dimension)
    assert list(found) == ["input", "stage 0", "stage 1", "stage 2"]
    for branch in found.values():
        for key in (FEATURES, "pgd_linf"):
            assert branch[key]["before"] == branch[key]["after"]
            assert min(branch[key]["before"]) > 0
        assert read(branch, "pgd_linf")["removed"] == {"perturbation": 0.0, "features": 0.0}


@pytest.mark.parametrize("dimension", [2, 3])
def test_gains_of_zero_leave_no_high_band(dimension):
    found, *_ = reading(with_gains(dimension, 0.0, 0.0), dimension=dimension)
    for name in ("input", "stage 0", "stage 1"):
        for key in (FEATURES, "pgd_linf"):
            before, after = (np.array(found[name][key][s]) for s in ("before", "after"))
            np.testing.assert_allclose(after[0], before[0], rtol=1e-5)
            # rounding in single precision
            assert (before[1:] > 0).all() and (after[1:] < 1e-6 * before[1:]).all()
        figures = read(found[name], "pgd_linf")
        assert figures["share"]["before"]["low"] < 0.9
        assert figures["share"]["after"]["low"] == pytest.approx(1)
        assert figures["removed"]["perturbation"] == pytest.approx(1)


def test_energy_falls_by_the_square_of_the_gain():
    found, *_ = reading(with_gains(2, 0.5, 0.1))
    for name in ("input", "stage 0", "stage 1"):
        for key in (FEATURES, "pgd_linf"):
            before, after = (np.array(found[name][key][s]) for s in ("before", "after"))
            np.testing.assert_allclose(after / before, [1, 0.25, 0.25, 0.01], rtol=1e-4)


def test_bottleneck_is_left_alone():
    found, *_ = reading(with_gains(2, 0.0, 0.0))
    assert found["stage 2"]["pgd_linf"]["before"] == found["stage 2"]["pgd_linf"]["after"]
    assert len(found["stage 2"]["bands"]) == 4


@pytest.mark.parametrize("dimension", [2, 3])
def test_energy_at_the_input_is_that_of_the_perturbation(dimension):
    found, clean, delta = reading(make_network(dimension), dimension=dimension)
    for key, x in ((FEATURES, clean), ("pgd_linf", delta)):
        # the transform is orthonormal: the mean of the bands is the mean square
        assert np.mean(found["input"][key]["before"]) == pytest.approx(
            float(x.square().mean()), rel=1e-5
        )


def test_vanilla_network_stays_as_it_is():
    network = make_network(2)
    x = torch.randn(1, 1, 16, 16)
    keys = list(network.state_dict())
    copy = instrumented(network)
    assert find_lngswr(network) is None and list(network.state_dict()) == keys
    assert torch.equal(network.eval()(x), copy.eval()(x))
    with watched(copy) as seen:
        copy(x)
    assert len(seen) == 3
    seen.clear()
    copy(x)
    assert not seen


def test_shares_of_kinds_by_hand():
    side = {"before": [4.0, 1.0, 2.0, 1.0], "after": [4.0, 0.25, 0.5, 0.0]}
    branch = {
        "bands": ["LL", "LH", "HL", "HH"],
        FEATURES: {"before": [60.0, 10.0, 10.0, 0.0], "after": [60.0, 2.5, 2.5, 0.0]},
        "pgd_linf": side,
    }
    figures = read(branch, "pgd_linf")
    assert figures["share"]["before"] == {"low": 0.5, "directional": 0.375, "diagonal": 0.125}
    assert figures["relative"] == {"before": 8 / 80, "after": 4.75 / 65}
    assert figures["removed"] == {"perturbation": 1 - 0.75 / 4, "features": 0.75}
    assert spectral_reading_figures.kinds(["LLL", "LLH", "HHL", "HHH"]) == [
        "low",
        "directional",
        "diagonal",
        "diagonal",
    ]
    summary = spectral_reading_figures.summarise(
        [{"branches": {"stage 0": {**branch, "noise": side}}}] * 2
    )
    found = spectral_reading_figures.answers(summary)
    assert found == {
        "acting": ["stage 0"],
        "low_share_grows": ["stage 0"],
        "relative_falls": ["stage 0"],
    }


def test_growth_is_split_into_its_factors():
    def at(before, after):
        return {"pgd_linf": {"relative": {"before": before, "after": after}}}

    found = spectral_reading_figures.growth(
        {"input": at(2.0, 1.0), "stage 0": at(3.0, 1.5), "stage 1": at(6.0, 6.0)}, "pgd_linf"
    )
    assert found == {"reconstruction": 0.25, "layers": 12.0}  # 6 / 2 = 0.25 * 12


def test_command_writes_figures_and_picture(tmp_path, monkeypatch, capsys):
    for name, value in nnunet_folders(tmp_path, ball_cases(tmp_path, 1)).items():
        monkeypatch.setenv(name, value)
    out, picture, folder = (
        tmp_path / "out.json",
        tmp_path / "out.png",
        trained_folder(tmp_path, seed=0),
    )
    options = ["--steps", "2", "--disable_progress_bar", "-o", str(out), "--picture", str(picture)]
    spectral_reading.main(["-m", str(folder), "--reference", str(folder), *options])
    result = json.loads(out.read_text())
    assert result["answers"]["model"]["acting"] == []
    assert result["figures"]["model"] == result["figures"]["reference"]
    assert set(result["figures"]["model"]["input"]["pgd_linf"]["share"]["before"]) == set(KINDS)
    assert picture.read_bytes().startswith(b"\x89PNG") and "| stage 1 | " in capsys.readouterr().out
