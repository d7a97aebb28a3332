"""The attacks of a case share network calls, and say so neither in figures nor in times."""

import time

import pytest
import torch

from evaluation import case_attacks, run_case
from evaluation.model import sliding_window
from evaluation.model.folder import SegmentationModel
from evaluation.model.graph_memory import bytes_of_graph
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import run_attack
from tests.evaluation.tiny import run
from tests.model_folders import make_case, make_model_folder

# each with its own length: noise leaves first, the suite runs the longest
ATTACKS = {
    "attacks": ["noise", "pgd_linf", "fgsm", "worst"],
    "epsilons_l2": ["none"],
    "corruptions": ["none"],
}


@pytest.fixture
def calls(monkeypatch):
    """Cases of every call of a sliding window."""
    found, original = [], SlidingWindow.value_and_gradient

    def counted(self, x, loss):
        found.append(len(x))
        return original(self, x, loss)

    monkeypatch.setattr(SlidingWindow, "value_and_gradient", counted)
    return found


def evaluated(world, out, batch, **more):
    options = {**ATTACKS, "use_mirroring": False, "window_batch_size": batch, "workers": 1, **more}
    return run(world, out, max_cases=1, **options)


def test_shared_calls_change_no_figure(world, tmp_path, calls):
    alone = evaluated(world, tmp_path / "alone", 1)
    assert set(calls) == {1}
    one_by_one, calls[:] = len(calls), []
    shared = evaluated(world, tmp_path / "shared", 64)
    assert max(calls) >= 4 and len(calls) < one_by_one / 2
    for one, other in zip(alone.rows(), shared.rows(), strict=True):
        for column in ("case", "attack", "norm", "epsilon", "label", "forwards", "gradients"):
            assert one[column] == other[column]
        for column in ("dice", "iou", "ece", "attack_loss", "linf_range"):
            values = [r[column] for r in (one, other)]
            if None not in values:
                values[1] = pytest.approx(values[1], rel=1e-3, abs=2e-3, nan_ok=True)
            assert values[0] == values[1]


def test_times_of_runs_are_shares_of_what_was_spent(world, tmp_path, monkeypatch):
    found, original = [], run_case.run_case

    def timed(*arguments, **more):
        started = time.perf_counter()
        found.append((original(*arguments, **more), started, time.perf_counter()))
        return found[-1][0]

    monkeypatch.setattr(run_case, "run_case", timed)
    evaluated(world, tmp_path / "out", 64)
    ((result, started, ended),) = found
    assert len(result.seconds) == 1 + 2 * 4 and min(result.seconds.values()) > 0
    assert sum(result.seconds.values()) <= ended - started
    assert result.seconds["worst-v2 16/255"] > result.seconds["fgsm 16/255"]


def test_features_and_surrogates_are_attacked_alone(world, tmp_path, calls):
    ssah = {"attacks": ["ssah", "pgd_linf"], "steps": None}
    evaluated(world, tmp_path / "out", 64, **ssah)
    assert max(calls) == 2  # the two budgets of pgd_linf


def test_only_as_many_as_memory_holds_whatever_is_spent_on_graphs(world, monkeypatch):
    model = SegmentationModel.from_folder(world[0], device="cpu", use_mirroring=False)
    x = torch.randn(1, 1, 1, 16, 16)
    one_window = bytes_of_graph(model.networks[0], x[:, :, 0])
    for held, expected in ((0, 1), (1, 1), (3, 3), (100, 8)):
        monkeypatch.setattr(sliding_window, "SHARED_BYTES", held * one_window)
        for graph_bytes in (0, 2**30):
            window = model.sliding_window(graph_bytes=graph_bytes)
            assert window.cases_per_call(x) == expected
    mirrored = SegmentationModel.from_folder(world[0], device="cpu", use_mirroring=True)
    assert mirrored.sliding_window().cases_per_call(x) == 2


def test_a_2d_model_of_volumes_has_low_frequencies_in_its_planes(tmp_path, monkeypatch):
    seen = []

    def attacked(name, *of, **arguments):
        seen.append(arguments.get("axes"))
        return run_attack(name, *of, **arguments)

    monkeypatch.setattr(case_attacks, "run_attack", attacked)
    for dimension in (2, 3):
        root = tmp_path / str(dimension)
        folder = make_model_folder(root, dimension=dimension)
        make_case(root / "images", shape=(6, 20, 18))
        world = (folder, root / "images", root / "images" / "labels")
        of_ssah = {"attacks": ["ssah", "noise"], "steps": None, "steps_of": {"ssah": 1}}
        run(world, root / "out", **of_ssah, corruptions=["none"])
        assert seen.count(dimension) == 1 and None in seen
        seen.clear()
