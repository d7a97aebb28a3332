"""The pictures of a training: no text is cut off in 2D and 3D, after one epoch and after many."""

import numpy as np
import pytest

from nnunetv2_lngswr.method.bands import subbands
from nnunetv2_lngswr.training.history import CURVES, LOGGED, plot_history, plot_robust_curve
from tests.drawn_texts import drawn_texts


@pytest.mark.parametrize("axes, stages, epochs", [(2, 7, 1000), (3, 6, 1)])
def test_gains_and_priors(axes, stages, epochs, monkeypatch, tmp_path):
    bands = list(subbands(axes))
    branch = {"bands": bands, "gain": [0.5] * len(bands), "prior": [0.2] * len(bands)}
    names = ["input", *(f"stage {i}" for i in range(stages)), "bottleneck"]
    history = [{"epoch": e, "branches": dict.fromkeys(names, branch)} for e in range(epochs)]
    with drawn_texts(monkeypatch) as drawn:
        plot_history(history, tmp_path / "lngswr.png")
    assert drawn and not [text for text in drawn if text.is_cut]


@pytest.mark.parametrize("attack", ["apgd_dice", "PGD"])
@pytest.mark.parametrize("epochs", [1, 1000])
def test_robust_curve(epochs, attack, monkeypatch, tmp_path):
    logged = {key: list(np.linspace(0, 1, epochs)) for key, _, _ in CURVES}
    logged |= {key: logged.get(key, [0.0] * epochs) for key in LOGGED}
    logged["robust_attack"] = [attack] * epochs
    logged["at_fallback"] = [0] * (epochs - 1) + [1]
    with drawn_texts(monkeypatch) as drawn:
        plot_robust_curve(logged, tmp_path / "adversarial.png")
    assert any("PGD-2 from here" in text.text for text in drawn)
    assert {attack, f"{attack} (mov. avg.)"} <= {text.text for text in drawn}
    assert not [text for text in drawn if text.is_cut]
