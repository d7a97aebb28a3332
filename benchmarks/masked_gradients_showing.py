"""The tables and the picture of masked_gradients.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.masked_gradients_checks import Protocol, grid
from benchmarks.masked_gradients_verdicts import judge, percent
from benchmarks.saving import write_picture
from evaluation.report.figures import COLOURS
from nnunetv2_lngswr.utils.epsilon import budget_text
from nnunetv2_lngswr.utils.markdown import markdown_table


def tables(
    figures: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str], protocol: Protocol
) -> str:
    """Markdown: foreground Dice in percent with its interval, then the verdicts."""

    def cell(f: Mapping[str, float] | None) -> str:
        if f is None:  # vanilla has no reconstruction to design against
            return ""
        return f"{percent(f['dice'])} [{percent(f['low'])}, {percent(f['high'])}]"

    designs = dict.fromkeys(k for f in figures.values() for k in f["designed"])
    e, n, a = budget_text(protocol.epsilon), protocol.attack_steps, protocol.attack
    lines = [
        ("clean", "clean", None),
        (f"{a}-{n} {e}, white box", "white_box", None),
        (f"PGD-{n} {e}, made on the other model", "transfer", None),
        (f"square {e}, {protocol.queries} queries", "square", None),
        (f"random signs {e}", "noise", None),
        *((f"{a}-{n} {e}, {k}", "designed", k) for k in designs),
        *((f"{a}-{k} {e}", "steps", k) for k in next(iter(figures.values()))["steps"]),
        *((f"{a}-{n} {r}", "radii", r) for r in next(iter(figures.values()))["radii"]),
    ]
    body = [
        [name, *(cell(f[key] if sub is None else f[key].get(sub)) for f in figures.values())]
        for name, key, sub in lines
    ]
    dice = markdown_table(["foreground Dice, % [95%]", *(titles[k] for k in figures)], body)
    verdicts = {name: judge(f) for name, f in figures.items()}
    checks = next(iter(verdicts.values()))
    body = [
        [check, *(f"{v[check]['verdict']} ({v[check]['why']})" for v in verdicts.values())]
        for check in checks
    ]
    return f"{dice}\n\n{markdown_table(['check', *(titles[k] for k in figures)], body)}"


def draw(
    path: Path,
    figures: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    protocol: Protocol,
) -> None:
    """Dice over steps, Dice over the radius, and the loss surface of each model."""
    figure = Figure(figsize=(4.0 * (2 + len(figures)), 3.8), layout="constrained")
    axes = figure.subplots(1, 2 + len(figures))
    _draw_sweeps(axes[:2], figures, titles, protocol)
    surfaces = {titles[name]: np.array(f["surface"]["loss"]) for name, f in figures.items()}
    shown = _draw_surfaces(axes[2:], surfaces, protocol)
    figure.colorbar(shown, ax=list(axes[2:]), label="mean CE")
    write_picture(path, figure)


def _draw_sweeps(
    axes: Sequence[Axes],
    figures: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    protocol: Protocol,
) -> None:
    for (name, f), colour in zip(figures.items(), COLOURS):
        for axis, curve in zip(axes, (f["steps"], f["radii"])):
            at = range(len(curve))
            dice, low, high = (
                [100 * p[k] for p in curve.values()] for k in ("dice", "low", "high")
            )
            axis.plot(at, dice, marker="o", color=colour, label=titles[name])
            axis.fill_between(at, low, high, color=colour, alpha=0.12)
            axis.set_xticks(at, list(curve), fontsize=8)
        axes[0].axhline(100 * f["clean"]["dice"], color=colour, linestyle=":", linewidth=1)
    axes[0].set(
        xlabel=f"steps of {protocol.attack} at {budget_text(protocol.epsilon)}; dotted: clean",
        ylabel="foreground Dice (%)",
        title="Step sweep",
    )
    axes[1].set(xlabel=f"epsilon, {protocol.attack}-{protocol.attack_steps}", title="Radius sweep")
    for axis in axes:
        axis.set_ylim(-2, 102)
        axis.grid(axis="y", color="#E5E5E5")
    axes[0].legend(fontsize=8, frameon=False)


def _draw_surfaces(axes: Sequence[Axes], surfaces: Mapping[str, np.ndarray], protocol: Protocol):
    """One heat map per model, all on one scale; the last of them, for the colour bar."""
    low = min(s.min() for s in surfaces.values())
    high = max(s.max() for s in surfaces.values())
    along, across = grid(protocol)
    for axis, (title, surface) in zip(axes, surfaces.items()):
        shown = axis.pcolormesh(
            across, along, surface, cmap="viridis", shading="nearest", vmin=low, vmax=high
        )
        for (i, j), value in np.ndenumerate(surface):
            axis.text(
                across[j],
                along[i],
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if value < (low + high) / 2 else "black",
            )
        axis.set(
            xlabel="random direction, in epsilon",
            ylabel="direction of the attack, in epsilon",
            title=f"Loss, {title}",
        )
    return shown
