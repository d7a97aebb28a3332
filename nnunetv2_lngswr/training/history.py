"""What a training shows of itself, beside nnU-Net's progress.png in a fold's folder.

Gains and priors: lines of the log, lngswr.json and lngswr.png. The robust curve: nnU-Net's logger
with the values of `LOGGED`, a curve in progress.png, and adversarial.png.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnunetv2_lngswr.utils.files import atomic_path

LOGGED = (
    "robust_fg_dice",
    "ema_robust_fg_dice",
    "fgsm_fg_dice",
    "selection",
    "at_fallback",
    "robust_attack",
)
"""Per epoch: pseudo Dice under the strong attack and its moving average, under FGSM, the criterion
of checkpoint_best, 1 once fallen back, and the name of the strong attack."""
PGD = "PGD"
"""The strong attack of every curve before `robust_attack` was logged."""
CURVES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("mean_fg_dice", "clean", {"color": "C2", "ls": ":"}),
    ("ema_fg_dice", "clean (mov. avg.)", {"color": "C2"}),
    ("fgsm_fg_dice", "FGSM", {"color": "C1", "ls": ":"}),
    ("robust_fg_dice", "{attack}", {"color": "C3", "ls": ":"}),
    ("ema_robust_fg_dice", "{attack} (mov. avg.)", {"color": "C3"}),
    ("selection", "criterion of checkpoint_best", {"color": "0.2", "lw": 1}),
)
"""Of adversarial.png: key in the logger, label with the strong attack's name to come, style."""

# --- gains and priors


def read_history(path: Path, *, before_epoch: int) -> list[dict[str, Any]]:
    """The entries of lngswr.json of the epochs before this one; none where there is no file."""
    if before_epoch == 0 or not path.is_file():
        return []
    return [entry for entry in json.loads(path.read_text()) if entry["epoch"] < before_epoch]


def gain_lines(branches: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """For the log: (branch and bands, gains). `branches`: of `LNGSWR.state`."""
    for name, values in branches.items():
        gains = [
            f"{key} {np.round(value, 3).tolist()}"
            for key, value in values.items()
            if key != "bands"
        ]
        yield f"LNG-SWR {name} {values['bands']}:", ", ".join(gains)


def plot_history(history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Gains and prior gains over the epochs: a panel per band, a row of pixels per branch.

    Parameters
    ----------
    history
        ``[{"epoch": e, "branches": {name: {"bands": [...], "gain": [...], "prior": [...]}}},
        ...]``, values averaged over channels; the row of a branch that has no gain, or no
        band of this name, is left blank.
    path
        Of the picture.
    """
    names = list(history[-1]["branches"])
    if not names:
        return
    # stages of anisotropic plans that pool fewer axes have bands of their own
    bands = sorted(
        dict.fromkeys(band for n in names for band in history[-1]["branches"][n]["bands"]), key=len
    )
    with _own_style():
        figure = Figure(
            figsize=(2.6 * len(bands) + 1.5, 1.6 + 0.5 * len(names)), layout="constrained"
        )
        FigureCanvasAgg(figure)
        panels = figure.subplots(2, len(bands), sharex=True, sharey=True, squeeze=False)
        shown = None
        for row, (key, title) in enumerate(
            (("gain", "applied gain"), ("prior", "prior (Wiener) gain"))
        ):
            for panel, band in zip(panels[row], bands):
                shown = _show_band(panel, history, names, key, band)
                panel.set_title(f"{band}: {title}", fontsize=9)
                if row == 1:
                    panel.set_xlabel("epoch", fontsize=8)
        assert shown is not None
        figure.colorbar(
            shown, ax=panels.ravel().tolist(), label="gain (mean over channels)", fraction=0.03
        )
        _save(figure, path)


def _show_band(
    panel: Axes, history: Sequence[Mapping[str, Any]], names: Sequence[str], key: str, band: str
) -> AxesImage:
    image = np.full((len(names), len(history)), np.nan)
    for e, entry in enumerate(history):
        for n, name in enumerate(names):
            values = entry["branches"].get(name, {})
            if key in values and band in values["bands"]:
                image[n, e] = values[key][values["bands"].index(band)]
    first, last = history[0]["epoch"], history[-1]["epoch"]
    extent = (first - 0.5, last + 0.5, len(names) - 0.5, -0.5)
    shown = panel.imshow(image, vmin=0, vmax=1, cmap="viridis", aspect="auto", extent=extent)
    panel.set_facecolor("0.85")
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.tick_params(axis="x", labelsize=8)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return shown


# --- the robust curve


class RobustCurveLogger(LocalLogger):
    """nnU-Net's logger with the values of `LOGGED`; its progress.png shows the robust curve too.

    Parameters
    ----------
    verbose
        As nnU-Net's.
    late_from
        The epoch with which the last of two phases begins; 0: there is one. The robust values of
        the epochs before it are nan.
    """

    def __init__(self, verbose: bool = False, *, late_from: int = 0) -> None:
        super().__init__(verbose)
        self._late_from = late_from
        self.my_fantastic_logging |= {key: [] for key in LOGGED}

    def load_checkpoint(self, checkpoint: dict) -> None:
        # nnU-Net's pictures need all lists to be of one length
        of_pgd = [PGD] * len(checkpoint.get("robust_fg_dice", ()))
        super().load_checkpoint({"robust_attack": of_pgd, **checkpoint})

    def plot_progress_png(self, output_folder: str) -> None:
        # nnU-Net makes, saves and closes the figure in one function
        def draw() -> None:
            figure, logged = plt.gcf(), self.my_fantastic_logging
            for panel in figure.axes:
                _mark_last_phase(panel, self._late_from, len(logged["lrs"]), linewidth=4)
            if len(logged["lrs"]) > self._late_from:
                add_robust_curve(figure, logged)

        with _before_arranging(draw):
            super().plot_progress_png(output_folder)


@contextmanager
def _before_arranging(draw: Callable[[], None]) -> Iterator[None]:
    """Call `draw` when pyplot is asked to arrange a figure, which comes once all is drawn."""
    arrange = plt.tight_layout

    def draw_and_arrange(*args: Any, **kwargs: Any) -> None:
        draw()
        arrange(*args, **kwargs)

    plt.tight_layout = draw_and_arrange
    try:
        yield
    finally:
        plt.tight_layout = arrange


def add_robust_curve(figure: Figure, logged: Mapping[str, list]) -> None:
    """Add pseudo Dice under the strong attack and its moving average to the panel of the clean one.

    Parameters
    ----------
    figure
        nnU-Net's progress.png, whose style is kept.
    logged
        The logger's values, with those of `LOGGED`.
    """
    attack = logged["robust_attack"][-1]
    for panel in figure.axes:
        if panel.get_ylabel() == "pseudo dice":
            for key, label, style, width in (
                ("robust_fg_dice", f"robust pseudo dice ({attack})", "dotted", 3),
                ("ema_robust_fg_dice", f"robust pseudo dice ({attack}, mov. avg.)", "-", 4),
            ):
                panel.plot(logged[key], color="m", ls=style, label=label, linewidth=width)
            panel.legend(loc=(0.2, 1))


def plot_robust_curve(logged: Mapping[str, list], path: str | Path, *, late_from: int = 0) -> None:
    """Pseudo Dice over the epochs: clean, under FGSM and the strong attack, and the criterion.

    Marks the epoch of checkpoint_best, the one from which a run that overfitted went on with PGD-2,
    and where the last of two phases begins.

    Parameters
    ----------
    logged
        The logger's values, with those of `LOGGED`.
    path
        Of the picture.
    late_from
        As `RobustCurveLogger`.
    """
    with _own_style():
        figure = Figure(figsize=(9, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        epochs = range(len(logged["selection"]))
        for key, label, style in CURVES:
            label = label.format(attack=logged["robust_attack"][-1])
            axes.plot(epochs, logged[key][: len(epochs)], label=label, **style)
        if np.isfinite(logged["selection"]).any():
            best = int(np.nanargmax(logged["selection"]))
            axes.plot(best, logged["selection"][best], "k*", label="checkpoint_best")
        if any(logged["at_fallback"]):
            axes.axvline(
                logged["at_fallback"].index(1),
                color="C4",
                label="catastrophic overfitting: PGD-2 from here",
            )
        _mark_last_phase(axes, late_from, len(epochs))
        axes.set(xlabel="epoch", ylabel="pseudo Dice")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
        _save(figure, path)


def _mark_last_phase(panel: Axes, late_from: int, epochs: int, linewidth: float = 1) -> None:
    """A line between the phases of a training, once an epoch of the last one is among `epochs`."""
    if 0 < late_from < epochs:
        style = {"color": "0.4", "ls": "--", "linewidth": linewidth}
        panel.axvline(late_from - 0.5, label="adversarial from here", **style)


def _own_style():
    """Matplotlib's: nnU-Net's progress.png sets seaborn's for all, with letters for a poster."""
    return matplotlib.style.context("default")


def _save(figure: Figure, path: str | Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
