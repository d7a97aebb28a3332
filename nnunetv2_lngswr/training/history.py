"""Pictures of a training at work, beside nnU-Net's progress.png in a fold's folder: `lngswr.png` and `adversarial.png`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnunetv2_lngswr.utils.files import atomic_path


def plot_history(history: list[dict], path: str | Path) -> None:
    """Gains and prior gains over the epochs: one panel per band, one row of pixels per branch.

    `history`: ``[{"epoch": e, "branches": {name: {"bands": [...], "gain": [...], "prior": [...]}}}, ...]``, values
    averaged over channels. Branches without reconstruction have no gain: their row is left blank.
    """
    import matplotlib.style

    # nnU-Net's progress.png sets seaborn's global style, with letters for a poster
    with matplotlib.style.context("default"):
        _plot_history(history, path)


def _plot_history(history: list[dict], path: str | Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = list(history[-1]["branches"])
    if not names:
        return
    bands = max((history[-1]["branches"][n]["bands"] for n in names), key=len)
    figure = Figure(figsize=(2.6 * len(bands) + 1.5, 1.6 + 0.5 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(bands), sharex=True, sharey=True, squeeze=False)
    epochs = [entry["epoch"] for entry in history]
    extent = (epochs[0] - 0.5, epochs[-1] + 0.5, len(names) - 0.5, -0.5)
    for row, (key, title) in enumerate(
        (("gain", "applied gain"), ("prior", "prior (Wiener) gain"))
    ):
        for column, band in enumerate(bands):
            image = np.full((len(names), len(history)), np.nan)
            for e, entry in enumerate(history):
                for n, name in enumerate(names):
                    values = entry["branches"].get(name, {})
                    if key in values and band in values["bands"]:
                        image[n, e] = values[key][values["bands"].index(band)]
            panel = axes[row, column]
            shown = panel.imshow(
                image, vmin=0, vmax=1, cmap="viridis", aspect="auto", extent=extent
            )
            panel.set_facecolor("0.85")
            panel.set_title(f"{band}: {title}", fontsize=9)
            panel.set_yticks(range(len(names)), names, fontsize=8)
            panel.tick_params(axis="x", labelsize=8)
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
            if row == 1:
                panel.set_xlabel("epoch", fontsize=8)
    figure.colorbar(shown, ax=axes, label="gain (mean over channels)", fraction=0.03)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def add_robust_curve(figure, logged: Mapping[str, list]) -> None:
    """Pseudo Dice under PGD and its moving average into the panel of nnU-Net's progress.png that has the clean ones, in its style."""
    for panel in figure.axes:
        if panel.get_ylabel() == "pseudo dice":
            panel.plot(
                logged["robust_fg_dice"],
                color="m",
                ls="dotted",
                label="robust pseudo dice",
                linewidth=3,
            )
            panel.plot(
                logged["ema_robust_fg_dice"],
                color="m",
                ls="-",
                label="robust pseudo dice (mov. avg.)",
                linewidth=4,
            )
            panel.legend(loc=(0.2, 1))


def plot_robust_curve(logged: Mapping[str, list], path: str | Path) -> None:
    """Pseudo Dice over the epochs: clean, under FGSM and under PGD, the criterion of checkpoint_best and its best epoch, and the epoch from
    which a run that overfitted went on with PGD-2. `logged`: nnU-Net's logger, with the keys of `adversarial_training.LOGGED`."""
    import matplotlib.style

    with matplotlib.style.context("default"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        figure = Figure(figsize=(9, 5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        epochs = range(len(logged["selection"]))
        for key, label, style in (
            ("mean_fg_dice", "clean", {"color": "C2", "ls": ":"}),
            ("ema_fg_dice", "clean (mov. avg.)", {"color": "C2"}),
            ("fgsm_fg_dice", "FGSM", {"color": "C1", "ls": ":"}),
            ("robust_fg_dice", "PGD", {"color": "C3", "ls": ":"}),
            ("ema_robust_fg_dice", "PGD (mov. avg.)", {"color": "C3"}),
            ("selection", "criterion of checkpoint_best", {"color": "0.2", "lw": 1}),
        ):
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
        axes.set(xlabel="epoch", ylabel="pseudo Dice")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=110)
