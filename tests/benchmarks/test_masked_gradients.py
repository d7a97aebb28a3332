"""An honest model passes, constructed masked ones are found, and each rule says what it should."""

import copy
import dataclasses
import json
from fractions import Fraction

import pytest
import torch

from benchmarks import masked_gradients, masked_gradients_verdicts
from benchmarks.masked_gradients_checks import (
    TOLERANCE,
    Protocol,
    adaptive,
    gains_detached,
    measure_case,
)
from benchmarks.masked_gradients_verdicts import MASKED, PASSES, UNSETTLED, judge, summarise
from benchmarks.model_pair import Pair
from evaluation.model.folder import SegmentationModel
from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.method.network import attach, find_lngswr
from nnunetv2_lngswr.method.reconstruction import SelectiveWaveletReconstruction
from tests.benchmarks.models import (
    Noisy,
    Quantised,
    Saturated,
    ball_cases,
    nnunet_folders,
    trained_folder,
    with_network,
)
from tests.model_folders import make_network

FAST = Protocol(
    epsilon=Fraction(40, 255),
    attack_steps=10,
    step_sweep=(1, 2, 10, 20),
    radii=(Fraction(20, 255), Fraction(200, 255)),
    queries=20,
    grid=3,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(model, reference) folders."""
    return tuple(
        trained_folder(tmp_path_factory.mktemp(f"model{seed}"), seed=seed) for seed in (0, 1)
    )


@pytest.fixture(scope="module")
def models(folders):
    return tuple(SegmentationModel.from_folder(f) for f in folders)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return ball_cases(tmp_path_factory.mktemp("cases"))


def measured(model, other, cases):
    return summarise([measure_case(model, other, files, FAST) for files in cases], FAST)


@pytest.fixture(scope="module")
def honest(models, cases):
    return measured(*models, cases)


def verdicts(figures):
    return {check: v["verdict"] for check, v in judge(figures).items()}


# --- models ---


def test_honest_model_is_not_called_masked(honest):
    found = verdicts(honest)
    assert MASKED not in found.values(), judge(honest)
    for check in ("transfer", "surface", "adaptive", "radius"):
        assert found[check] == PASSES, judge(honest)


def test_step_sweep_falls(honest):
    dice, loss = ([s[k] for s in honest["steps"].values()] for k in ("dice", "loss"))
    assert honest["clean"]["dice"] > 0.9 and dice[0] < honest["clean"]["dice"]
    assert all(b <= a + TOLERANCE for a, b in zip(dice, dice[1:])), dice
    assert loss == sorted(loss), loss


def test_quantised_input_is_called_masked(models, cases):
    figures = measured(with_network(models[0], Quantised(models[0].networks[0])), models[1], cases)
    assert figures["clean"]["dice"] > 0.9  # a model that works, and whose Dice stands against PGD
    found = verdicts(figures)
    del found["adaptive"], found["designed"]  # it has no reconstruction to design against
    assert all(v == MASKED for v in found.values()), judge(figures)


def test_saturated_loss_is_called_masked(models, cases):
    figures = measured(with_network(models[0], Saturated(models[0].networks[0])), models[1], cases)
    # transfer, square and both sweeps let it pass
    assert verdicts(figures)["surface"] == MASKED, judge(figures)


def test_random_model_is_called_masked(models, cases):
    model = with_network(models[0], Noisy(models[0].networks[0]))
    case = model.preprocess(cases[0].images, cases[0].label)
    assert adaptive(model, case)["equal"] is False


@pytest.mark.parametrize("gains", [(0.12, 0.12, 0.02), "prior"])
def test_gains_are_constants(models, cases, gains):
    model = with_network(models[0], attach(make_network(2), LNGSWRConfig(gains=gains)))
    found = adaptive(model, model.preprocess(cases[0].images, cases[0].label))
    assert found == {"gains": 2, "difference": 0.0, "equal": True}


class InputDependent(SelectiveWaveletReconstruction):
    def forward(self, x, prior_gain=None, **options):
        self.level = x.square().mean().sigmoid()
        return super().forward(x, prior_gain)

    def gains(self, prior_gain=None):
        low, high = super().gains(prior_gain).split((1, len(self.bands) - 1), dim=1)
        return torch.cat((low, high * self.level), dim=1)


def test_gains_that_depend_on_the_input_are_found(models, cases):
    network = attach(make_network(2), LNGSWRConfig())
    find_lngswr(network).image.reconstruction.__class__ = InputDependent
    model = with_network(models[0], network)
    found = adaptive(model, model.preprocess(cases[0].images, cases[0].label))
    assert found["difference"] > 1e-3 and found["equal"]
    assert masked_gradients_verdicts._judge_adaptive(**found)[0] == UNSETTLED


def test_detaching_gains_is_undone():
    network = attach(make_network(2), LNGSWRConfig())
    before = [dict(m.__dict__) for m in network.modules()]
    with gains_detached([network]) as count:
        assert count == 2
        with gains_detached([network]):
            pass
        assert not find_lngswr(network).image.reconstruction.gains().requires_grad
    assert find_lngswr(network).image.reconstruction.gains().requires_grad
    assert [dict(m.__dict__).keys() for m in network.modules()] == [b.keys() for b in before]


# --- rules ---


def test_each_rule(honest):
    def with_dice(key, value, entry=None):
        figures = copy.deepcopy(honest)
        (figures[key] if entry is None else figures[key][entry])["dice"] = value
        return verdicts(figures)

    white, clean = honest["white_box"]["dice"], honest["clean"]["dice"]
    shortest, longest, largest = "1", "20", "200/255"
    assert with_dice("transfer", white - 0.02)["transfer"] == MASKED
    assert with_dice("transfer", white - 0.005)["transfer"] == PASSES
    assert (
        with_dice("square", white - 0.02)["black box"]
        == with_dice("noise", white - 0.02)["black box"]
        == MASKED
    )
    assert (
        with_dice("steps", clean, longest)["steps"]
        == with_dice("steps", 0.0, shortest)["steps"]
        == MASKED
    )
    assert with_dice("steps", honest["steps"]["10"]["dice"] - 0.03, longest)["steps"] == UNSETTLED
    assert with_dice("radii", 0.06, largest)["radius"] == MASKED

    def with_surface(loss=None, error=0.0):
        return verdicts(
            {
                **honest,
                "surface": {
                    "loss": loss or [[1, 1, 1], [2, 2, 2], [3, 3, 3]],
                    "gradient_error": error,
                },
            }
        )["surface"]

    assert with_surface() == PASSES
    assert with_surface(error=0.3) == with_surface(error=None) == MASKED
    assert with_surface([[4, 1, 1], [2, 2, 2], [3, 3, 3]]) == MASKED
    assert with_surface([[1, 2, 1], [2, 1, 2], [3, 3, 3]]) == UNSETTLED

    def with_adaptive(**changed):
        return verdicts(
            {**honest, "adaptive": {"gains": 1, "difference": 0.0, "equal": True, **changed}}
        )["adaptive"]

    assert with_dice("designed", white - 0.02, "other model")["transfer"] == MASKED
    assert with_dice("designed", white - 0.02, "other model")["designed"] == PASSES
    assert with_dice("designed", white - 0.02, "low band")["designed"] == MASKED
    assert with_dice("designed", white - 0.02, "other start")["designed"] == PASSES

    assert [with_adaptive(), with_adaptive(difference=1e-9), with_adaptive(equal=False)] == [
        PASSES,
        UNSETTLED,
        MASKED,
    ]


def test_sweeps_share_their_start():
    runs = [r for r in FAST.runs() if r.name == "pgd_linf"]
    assert len({r.seed(0, "case") for r in runs}) == 1
    assert len({(r.epsilon, r.options["steps"]) for r in runs}) == len(runs)


def test_another_attack_is_swept_in_pgds_place_and_only_one_that_ascends():
    by_dice = dataclasses.replace(FAST, attack="apgd_dice")
    ours, pgds = ([r for r in p.runs() if r.gradients] for p in (by_dice, FAST))
    assert {r.name for r in ours} == {"apgd_dice", "transfer"}
    assert [(r.epsilon, r.options) for r in ours] == [(r.epsilon, r.options) for r in pgds]
    for wrong in ("square", "ssah", "fgsm", "worst-v2"):
        with pytest.raises(ValueError, match=f"ascend a loss in steps, got {wrong}"):
            dataclasses.replace(FAST, attack=wrong)


# --- the command ---


def test_killed_call_goes_on(models, cases, tmp_path, monkeypatch):
    pair = Pair(models=dict(zip(("model", "reference"), models)), cases=cases)
    kept, calls, measure = tmp_path / "kept", [], masked_gradients.measure_case
    small = dataclasses.replace(FAST, step_sweep=(1,), attack_steps=1, queries=1)

    def killed(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(masked_gradients, "measure_case", killed)
    with pytest.raises(KeyboardInterrupt):
        masked_gradients.measure(pair, small, progress=False, kept=kept)
    with pytest.raises(ValueError, match="other settings"):
        masked_gradients.measure(
            pair, dataclasses.replace(small, seed=1), progress=False, kept=kept
        )
    resumed = masked_gradients.measure(pair, small, progress=False, kept=kept)
    assert len(calls) == 2 + 3  # two models, two cases, one of them done before
    assert resumed == masked_gradients.measure(pair, small, progress=False)


def test_command_writes_figures_and_picture(folders, cases, tmp_path, monkeypatch, capsys):
    for name, value in nnunet_folders(tmp_path, cases).items():
        monkeypatch.setenv(name, value)
    out, picture = tmp_path / "out.json", tmp_path / "out.png"
    options = [
        "-f",
        "0",
        "--max-cases",
        "1",
        "--steps",
        "2",
        "--step-sweep",
        "1",
        "2",
        "--queries",
        "3",
        "--grid",
        "3",
        "--disable_progress_bar",
    ]
    masked_gradients.main(
        [
            "-m",
            str(folders[0]),
            "--reference",
            str(folders[1]),
            *options,
            "-o",
            str(out),
            "--picture",
            str(picture),
        ]
    )
    result = json.loads(out.read_text())
    assert set(result["verdicts"]["model"]) == {
        "transfer",
        "black box",
        "steps",
        "radius",
        "surface",
        "adaptive",
        "designed",
    }
    assert result["protocol"]["epsilon"] == "8/255" and result["command"].startswith(
        "python -m benchmarks.masked_gradients -m "
    )
    assert sorted(p.name for p in tmp_path.glob("out*")) == ["out.json", "out.png"]
    assert len(result["cases"]["model"]) == 1 and result["versions"]["torch"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "| transfer | " in capsys.readouterr().out
