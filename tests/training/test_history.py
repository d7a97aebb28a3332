"""The pictures of a training: no text is cut off in 2D and 3D, after one epoch and after many."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from nnunetv2_lngswr.method.bands import subbands
from nnunetv2_lngswr.training import history
from nnunetv2_lngswr.training.history import (
    CURVES,
    LOGGED,
    RobustCurveLogger,
    plot_history,
    plot_robust_curve,
)
from tests.drawn_texts import drawn_texts


@pytest.mark.parametrize("axes, stages, epochs", [(2, 7, 1000), (3, 6, 1)])
def test_gains_and_priors(axes, stages, epochs, monkeypatch, tmp_path):
    bands = list(subbands(axes))
    branch = {"bands": bands, "gain": [0.5] * len(bands), "prior": [0.2] * len(bands)}
    names = ["input", *(f"stage {i}" for i in range(stages)), "bottleneck"]
    entries = [{"epoch": e, "branches": dict.fromkeys(names, branch)} for e in range(epochs)]
    with drawn_texts(monkeypatch) as drawn:
        plot_history(entries, tmp_path / "lngswr.png")
    assert drawn and not [text for text in drawn if text.is_cut]


def test_branches_of_fewer_axes_have_panels_of_their_own(monkeypatch, tmp_path):
    def branch(axes, gain):
        bands = list(subbands(axes))
        return {"bands": bands, "gain": [gain] * len(bands), "prior": [gain] * len(bands)}

    shown = {}
    own = history._show_band

    def record(panel, entries, names, key, band):
        image = own(panel, entries, names, key, band)
        shown[key, band] = [row[0] for row in image.get_array().filled(np.nan).tolist()]
        return image

    monkeypatch.setattr(history, "_show_band", record)
    branches = {"input": branch(2, 0.25), "stage 0": branch(3, 0.75)}
    plot_history([{"epoch": 0, "branches": branches}], tmp_path / "lngswr.png")
    for key in ("gain", "prior"):
        for axes, row, gain in ((2, 0, 0.25), (3, 1, 0.75)):
            for band in subbands(axes):
                assert shown[key, band][row] == gain and np.isnan(shown[key, band][1 - row])


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


def late_log(epochs: int, late_from: int) -> RobustCurveLogger:
    logger = RobustCurveLogger(late_from=late_from)
    for key, values in logger.my_fantastic_logging.items():
        values += [{"robust_attack": "apgd_dice", "at_fallback": 0}.get(key, 0.5)] * epochs
        if "robust_fg" in key or key in ("fgsm_fg_dice", "selection"):
            values[:late_from] = [float("nan")] * min(late_from, epochs)
    before, after = list(np.linspace(1, 0, late_from, endpoint=False)), [0.7, 0.3]
    logger.my_fantastic_logging["lrs"] = [*before, *after, *[0.1] * epochs][:epochs]
    return logger


@pytest.mark.parametrize("epochs, shown", [(1, False), (8, False), (9, True), (10, True)])
def test_the_border_between_phases_is_drawn_once_it_is_passed(epochs, shown, monkeypatch, tmp_path):
    logger, borders, labels, rates = late_log(epochs, 8), [], set(), []

    def look(figure, path, **_):
        for panel in figure.axes:
            labels.update(line.get_label() for line in panel.lines)
            named = [x for x in panel.lines if x.get_label() == "adversarial from here"]
            borders.append([list(line.get_xdata()) for line in named])
            rates.extend(x for x in panel.lines if x.get_label() == "learning rate")

    monkeypatch.setattr(Figure, "savefig", look)
    logger.plot_progress_png(str(tmp_path))
    assert len(borders) == 4 and borders == [[[7.5, 7.5]] * shown] * 4
    assert ("robust pseudo dice (apgd_dice)" in labels) == shown
    # the rate is as it was logged, its restart too
    ((at, rate),) = [line.get_data() for line in rates]
    assert [*at] == [*range(epochs)] and [*rate] == logger.my_fantastic_logging["lrs"]
    borders.clear()
    monkeypatch.undo()
    if shown:
        with drawn_texts(monkeypatch) as drawn:
            plot_robust_curve(logger.my_fantastic_logging, tmp_path / "a.png", late_from=8)
        assert any(text.text == "adversarial from here" for text in drawn)
        assert not [text for text in drawn if text.is_cut]


def test_a_training_of_one_phase_has_no_border(monkeypatch, tmp_path):
    labels = []

    def look(figure, path):
        labels.extend(line.get_label() for line in figure.axes[0].lines)

    monkeypatch.setattr(Figure, "savefig", look)
    late_log(3, 0).plot_progress_png(str(tmp_path))
    assert "loss_tr" in labels and "adversarial from here" not in labels
